"""C-Eval: 52 subjects of multiple-choice questions in Chinese (Huang et al. 2023).

python eval/ceval.py -c Qwen/Qwen-7B                 scores the validation questions, from the hub
python eval/ceval.py -c Qwen/Qwen-7B -d DIR          DIR holds dev/, val/ and test/ with <subject>_<split>.csv
python eval/ceval.py -c Qwen/Qwen-7B --split test    writes the submission file of the C-Eval site, no score
python eval/ceval.py -c Qwen/Qwen-7B-Chat --chat     0-shot, the letter is read from the reply
python eval/ceval.py -c demo                         the embedded demonstration, in seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwen_eval import data, main, options, schema
from qwen_eval.runs import store
from qwen_eval.tasks import choice, generation, prompts
from qwen_eval.tasks.extract import letters_2023

if TYPE_CHECKING:
    from qwen_eval.data import ChoiceRow


def turn(row: ChoiceRow) -> str:
    """The user's turn of the chat protocol."""
    return f"{row.question}\n\n{prompts.option_lines(row.options)}"


def build(args: argparse.Namespace) -> schema.Benchmark:
    chosen = data.choose_subjects("ceval", options.subjects(args, "ceval"))
    sets = data.ceval(options.source(args, "ceval"), chosen, args.split)
    common = {
        "name": "ceval",
        "version": 1,
        "recipe": args.recipe,
        "shots": args.shots,
        "origin": choice.origin(sets),
        "changed": data.changed_choices("ceval", sets),
        "partial": args.subjects is not None,
    }
    label = {"split": args.split, "avg": "macro", "data": choice.data_label(sets)}
    chat = options.mode(args) == "chat"
    measure = (choice.chat_accuracy if chat else choice.accuracy)("ceval", headline="macro")
    if args.split == "test":  # its answers are not published: they are the site's to score
        measure = no_figures
    if chat:
        return schema.Benchmark(
            **common,
            mode="chat",
            samples=choice.chat_samples(args, "ceval", sets, turn),
            score=choice.chat_score(sets, args.recipe, letters_2023.ceval_2023),
            metrics=measure,
            signature={**generation.signature(args), **label},
            remarks=generation.remarks,
        )
    return schema.Benchmark(
        **common,
        mode="base",
        samples=choice.samples(sets, args.shots, choice.ask_in_chinese(args.recipe)),
        score=choice.score(args.recipe),
        metrics=measure,
        signature={"select": "logprob", **label},
        remarks=choice.remarks,
    )


def no_figures(scored: Sequence[schema.Scored]) -> list[schema.Metric]:
    """Nothing can be said of questions whose answers are secret."""
    return []


def submission(args: argparse.Namespace, run_id: str, scored: Sequence[schema.Scored]) -> list[str]:
    """With --split test, writes {subject: {id: letter}} as the C-Eval site takes it; says where."""
    if args.split != "test":
        return []
    answers: dict[str, dict[str, str]] = {}
    for item in scored:
        answers.setdefault(item.sample.group, {})[item.sample.file_id] = item.score.answer
    path = args.output_dir / "submissions" / f"{run_id}.json"
    store.write_json(path, answers)
    return [f"submission file {path}"]


def parser() -> options.Parser:
    """The command line."""
    made = options.parser(__doc__, {"base": 5, "chat": 0}, generates=("chat",), subjects=True)
    made.add_argument("--split", choices=("val", "test"), default="val", help="val is scored, test is submitted")
    return made


SCRIPT = main.Script(parser, build, finish=submission)

if __name__ == "__main__":
    main.main(SCRIPT)
