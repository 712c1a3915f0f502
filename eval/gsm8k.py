"""GSM8K: 1,319 grade-school word problems (Cobbe et al. 2021).

python eval/gsm8k.py -c Qwen/Qwen-7B                    8-shot, from the hub
python eval/gsm8k.py -c Qwen/Qwen-7B-Chat --chat        0-shot; --shots 4 puts four examples in the turn
python eval/gsm8k.py -c Qwen/Qwen-7B -d DIR             DIR holds train.jsonl and test.jsonl
python eval/gsm8k.py -c demo                            the embedded demonstration, in seconds
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from qwen_eval.data.official import official
from qwen_eval.data.problems import Gsm8k as Problems
from qwen_eval.data.problems import MathProblem, gsm8k
from qwen_eval.main import main
from qwen_eval.schema import Generated, InputError, Metric, Sample, Score, Scored
from qwen_eval.stats import intervals
from qwen_eval.tasks import generation
from qwen_eval.tasks.extract import numbers
from qwen_eval.tasks.facts import Column

# Rows of train.jsonl that serve as shots, in this order.
BASE_SHOTS = (4997, 4280, 3996, 1344, 6011, 328, 3809, 2053)
CHAT_SHOTS = (7364, 1708, 669, 6724)
STEPS = "Let's think step by step"


class Gsm8k(generation.Text):
    name, version, title, order = "gsm8k", 1, "GSM8K", 4
    versions = {("default", "base"): 2, ("default", "chat"): 2}
    shots = {"base": 8, "chat": 0}
    recipes = ("default", "qwen2023")
    released = True
    stop = ("\n\n", "Question:")
    sums = official("gsm8k")
    hub = ("openai/gsm8k", "gsm8k")
    suite = {"base": ((),), "chat": (("--chat",), ("--chat", "--shots", "4"))}
    columns = {
        "main": (Column("GSM8K", ("acc", "all"), ("acc", ""), "8-shot", "8"),),
        "chat": (
            Column("GSM8K (0-shot)", ("acc", "all"), ("acc", ""), "0-shot chat", "0", zh="GSM8K（0-shot）"),
            Column("GSM8K (4-shot)", ("acc", "all"), ("acc", ""), "4-shot chat", "4", zh="GSM8K（4-shot）"),
        ),
    }
    data: Problems

    def read(self) -> Problems:
        return gsm8k(self.source)

    def rows(self) -> Sequence[MathProblem]:
        return self.data.test

    def parts(self) -> dict[str, Sequence[MathProblem]]:
        return {"train.jsonl": self.data.train, "test.jsonl": self.data.test}

    def examples(self) -> list[MathProblem]:
        """The first of the protocol's shots. A data set too small to have those rows (the demonstration) gives its first
        ones. Raises InputError for more shots than the protocol has."""
        rows: Sequence[int] = CHAT_SHOTS if self.mode == "chat" else BASE_SHOTS
        if self.shot_count > len(rows):
            raise InputError(
                f"--shots {self.shot_count} is more than the {len(rows)} examples of this protocol; ask for fewer"
            )
        if max(rows) >= len(self.data.train):
            rows = range(min(len(rows), len(self.data.train)))
        return [self.data.train[row] for row in list(rows)[: self.shot_count]]

    def prompt(self, row: MathProblem) -> str:
        return f"Question: {row.question}\n{STEPS}\n"

    def shot(self, row: MathProblem) -> str:
        return f"{worked(row)}\n"

    def turn(self, row: MathProblem) -> str:
        """The bare question, or worked problems before it."""
        if not self.shot_count:
            return row.question
        examples = [worked(example).removesuffix("\n") for example in self.examples()]
        return "\n\n".join([*examples, f"Question: {row.question}\n{STEPS}"])

    def target(self, row: MathProblem) -> str:
        return row.answer

    def overflow(self) -> Literal["drop_shots", "none"]:
        return "none" if self.recipe == "qwen2023" else "drop_shots"

    def score(self, sample: Sample, reply: Generated) -> Score:
        """Reads the number of a reply. `default`: the last number, or the one that a mark names; `strict`: the one that is
        named as the answer."""
        text, target = reply.texts[0], sample.target
        cut = reply.end_reasons[0] == "length"
        gold = numbers.gold(target)
        if self.recipe == "qwen2023" and self.mode == "base":
            answer: object = numbers.gsm8k_2023(text)
            correct = numbers.gsm8k_2023_correct(text, target)
        elif self.recipe == "qwen2023":
            answer = numbers.gsm8k_chat_2023(text)
            correct = numbers.gsm8k_chat_2023_correct(text, target)
        else:
            answer = numbers.number(text, cut, self.rows()[int(sample.id)].question)
            correct = answer == gold
        stats = {
            "correct": float(correct),
            "strict": float(numbers.strict_number(text, cut) == gold),
            "invalid": float(answer is None),
            **generation.endings(reply),
        }
        return Score(stats, None if answer is None else str(answer))

    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """Accuracy, strict accuracy, and the shares of replies without a number and of replies cut by their length."""
        names = {"acc": "correct", "acc_strict": "strict", "invalid": "invalid"}
        table = [intervals.of_items(name, "all", scored, stat) for name, stat in names.items()]
        return [*table, generation.cut_share(scored)]


def worked(problem: MathProblem) -> str:
    """A shot: the question and its solution, without the calculator's marks, ending in "The answer is N"."""
    solution = re.sub(r"<<.*?>>", "", problem.answer)
    solution = re.sub(r"\n#### *(.*)$", r"\nThe answer is \1", solution.rstrip())
    return f"Question: {problem.question}\n{STEPS}\n{solution}\n"


if __name__ == "__main__":
    main(Gsm8k)
