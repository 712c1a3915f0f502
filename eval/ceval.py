"""C-Eval: 52 subjects of multiple-choice questions in Chinese (Huang et al. 2023).

python eval/ceval.py -c Qwen/Qwen-7B                 scores the validation questions, from the hub
python eval/ceval.py -c Qwen/Qwen-7B -d DIR          DIR holds dev/, val/ and test/ with <subject>_<split>.csv
python eval/ceval.py -c Qwen/Qwen-7B --split test    writes the submission file of the C-Eval site, no score
python eval/ceval.py -c Qwen/Qwen-7B-Chat --chat     0-shot, the letter is read from the reply
python eval/ceval.py -c demo                         the embedded demonstration, in seconds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_eval import options
from qwen_eval.data.catalogue import subjects
from qwen_eval.data.choice import ChoiceRow, ChoiceSet, ceval
from qwen_eval.data.official import official
from qwen_eval.main import main
from qwen_eval.runs.files import write_json
from qwen_eval.schema import Metric, Scored
from qwen_eval.tasks.choice import ChineseExam, five_shot, option_lines
from qwen_eval.tasks.extract.letters_2023 import ceval_2023
from qwen_eval.tasks.facts import Column, Table


class Ceval(ChineseExam):
    name, version, title, order = "ceval", 1, "C-Eval", 2
    versions = {("default", "chat"): 2}
    recipes = ("default", "qwen2023")
    released = True
    has_subjects = True
    sums = official("ceval")
    hub = ("ceval/ceval-exam", "val")
    suite = {"base": ((),), "chat": (("--chat",),)}
    columns = {
        "main": five_shot({"C-Eval": ("acc", "all")}),
        "chat": (
            Column("C-Eval val (0-shot)", ("acc", "all"), ("acc", ""), "0-shot chat, val", "0",
                   zh="C-Eval 验证集（0-shot）"),
        ),
        "ceval": five_shot(
            {
                "Average": ("acc", "all"),
                **{group: ("acc", group) for group in ("STEM", "Social Science", "Humanities", "Other", "Hard")},
                "Micro": ("acc_micro", "all"),
            }
        ),
    }  # fmt: skip
    tables = (Table("ceval", "C-Eval by category", order=9, chinese={"C-Eval by category": "C-Eval 各类别"}),)

    def read(self) -> Mapping[str, ChoiceSet[Any]]:
        self.split_asked = self.args.split  # type: ignore[misc]  # this run's, not the class's
        return ceval(self.source, self.subjects(), self.args.split)

    def turn(self, row: Any) -> str:
        return f"{row.question}\n\n{option_lines(row)}"

    def letter_2023(self, text: str, row: ChoiceRow) -> str:
        return ceval_2023(text, row.question, row.options)

    def more_fields(self) -> dict[str, str]:
        return {"split": self.args.split}

    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """Nothing can be said of test, whose answers are not published: they are the site's to score."""
        return [] if self.args.split == "test" else super().metrics(scored)

    def finish(self, run_id: str, scored: Sequence[Scored]) -> list[str]:
        """With --split test, writes {subject: {id: letter}} as the C-Eval site takes it; says where. A question without an
        answer is left out: the format has letters only. A file of a part of the questions says so in its name."""
        if self.args.split != "test":
            return []
        answers: dict[str, dict[str, str]] = {}
        for item in scored:
            letters = answers.setdefault(item.sample.group, {})
            if item.score.answer is not None:
                letters[item.sample.file_id] = item.score.answer
        partial = self.partial or len(answers) < len(subjects(self.name))  # the demonstration has four subjects
        path = self.args.output_dir / "submissions" / f"{run_id}{'.partial' * partial}.json"
        write_json(path, answers)
        lines = [f"submission file {path}"]
        if partial:
            lines.append("the submission holds a part of the questions only: it is not to be submitted")
        if left := len(scored) - sum(map(len, answers.values())):
            lines.append(f"{left} of {len(scored)} questions have no answer and are left out of the submission")
        return lines

    @classmethod
    def add_options(cls, parser: options.Parser) -> None:
        parser.add_argument("--split", choices=("val", "test"), default="val", help="val is scored, test is submitted")


if __name__ == "__main__":
    main(Ceval)
