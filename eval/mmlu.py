"""MMLU: 57 subjects, 14,042 multiple-choice questions in English (Hendrycks et al. 2021).

python eval/mmlu.py -c Qwen/Qwen-7B            from the hub
python eval/mmlu.py -c Qwen/Qwen-7B -d DIR     DIR holds dev/<subject>_dev.csv and test/<subject>_test.csv
python eval/mmlu.py -c Qwen/Qwen-7B-Chat --chat     0-shot, the letter is read from the reply
python eval/mmlu.py -c demo                    the embedded demonstration, in seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwen_eval import data, main, options, schema
from qwen_eval.tasks import choice, generation, prompts
from qwen_eval.tasks.extract import letters_2023

if TYPE_CHECKING:
    from qwen_eval.data import ChoiceRow

HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"
CHAT_HEADER = (
    "The following is a multiple-choice question. Please choose the most suitable one among A, B, C and D as the answer "
    "to this question.\n\n"
)
OPTIONS = (" A", " B", " C", " D")
CUT = 2047  # tokens of the prompt that the 2023 script kept


def question(row: ChoiceRow) -> str:
    """A question up to where the model continues."""
    return f"Question: {row.question}\n{prompts.option_lines(row.options)}Answer:"


def ask(recipe: str) -> choice.Ask:
    """The request of a recipe: which tokens stand for the options, and what happens to a prompt that is too long."""

    def request(row: ChoiceRow, examples: Sequence[ChoiceRow]) -> schema.Choose:
        header = HEADER.format(subject=row.subject.replace("_", " "))
        shots = tuple(f"{question(example)} {example.answer}\n\n" for example in examples)
        if recipe == "qwen2023":
            return schema.Choose(header, shots, question(row), OPTIONS, "keep_last", limit=CUT, scoring="isolated")
        return schema.Choose(header, shots, question(row), OPTIONS, "drop_shots")

    return request


def turn(row: ChoiceRow) -> str:
    """The user's turn of the chat protocol."""
    return f"{CHAT_HEADER}{row.question}\n{prompts.option_lines(row.options)}"


def build(args: argparse.Namespace) -> schema.Benchmark:
    chosen = data.choose_subjects("mmlu", options.subjects(args, "mmlu"))
    sets = data.mmlu(options.source(args, "mmlu"), chosen)
    common = {
        "name": "mmlu",
        "version": 1,
        "recipe": args.recipe,
        "shots": args.shots,
        "origin": choice.origin(sets),
        "changed": data.changed_choices("mmlu", sets),
        "partial": args.subjects is not None,
    }
    label = {"avg": "micro", "data": choice.data_label(sets)}
    if options.mode(args) == "chat":
        return schema.Benchmark(
            **common,
            mode="chat",
            samples=choice.chat_samples(args, "mmlu", sets, turn),
            score=choice.chat_score(sets, args.recipe, letters_2023.mmlu_2023),
            metrics=choice.chat_accuracy("mmlu", headline="micro"),
            signature={**generation.signature(args), **label},
            remarks=generation.remarks,
        )
    return schema.Benchmark(
        **common,
        mode="base",
        samples=choice.samples(sets, args.shots, ask(args.recipe)),
        score=choice.score(args.recipe),
        metrics=choice.accuracy("mmlu", headline="micro"),
        signature={"select": "logprob", **label},
        remarks=choice.remarks,
    )


def parser() -> options.Parser:
    """The command line."""
    return options.parser(__doc__, {"base": 5, "chat": 0}, generates=("chat",), subjects=True)


SCRIPT = main.Script(parser, build)

if __name__ == "__main__":
    main.main(SCRIPT)
