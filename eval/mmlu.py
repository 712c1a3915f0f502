"""MMLU: 57 subjects, 14,042 multiple-choice questions in English (Hendrycks et al. 2021).

python eval/mmlu.py -c Qwen/Qwen-7B            from the hub
python eval/mmlu.py -c Qwen/Qwen-7B -d DIR     DIR holds dev/<subject>_dev.csv and test/<subject>_test.csv
python eval/mmlu.py -c demo                    the embedded demonstration, in seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness import arguments, data, multiple_choice, prompts, runner
from harness.data import ChoiceRow
from harness.schema import Benchmark, Choose

HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"
OPTIONS = (" A", " B", " C", " D")
CUT = 2047  # tokens of the prompt that the 2023 script kept


def question(row: ChoiceRow) -> str:
    """A question up to where the model continues."""
    return f"Question: {row.question}\n{prompts.option_lines(row.options)}Answer:"


def ask(recipe: str) -> multiple_choice.Ask:
    """The request of a recipe: which tokens stand for the options, and what happens to a prompt that is too long."""
    if recipe == "qwen2023":
        rule = {"overflow": "keep_last", "limit": CUT, "scoring": "isolated"}
    else:
        rule = {"overflow": "drop_shots", "scoring": "context"}

    def request(row: ChoiceRow, examples: Sequence[ChoiceRow]) -> Choose:
        header = HEADER.format(subject=row.subject.replace("_", " "))
        shots = tuple(f"{question(example)} {example.answer}\n\n" for example in examples)
        return Choose(header, shots, question(row), OPTIONS, **rule)

    return request


def build(args: argparse.Namespace) -> Benchmark:
    chosen = data.choose_subjects("mmlu", arguments.subjects(args, "mmlu"))
    sets = data.mmlu(arguments.source(args, "mmlu"), chosen)
    return Benchmark(
        name="mmlu",
        version=1,
        recipe=args.recipe,
        mode="base",
        shots=args.shots,
        samples=multiple_choice.samples(sets, args.shots, ask(args.recipe)),
        score=multiple_choice.score(args.recipe),
        metrics=multiple_choice.accuracy("mmlu", headline="micro"),
        signature={"select": "logprob", "avg": "micro", "data": multiple_choice.data_label(sets)},
        partial=args.subjects is not None,
        remarks=multiple_choice.remarks,
    )


if __name__ == "__main__":
    runner.main(arguments.parser(__doc__, {"base": 5}, subjects=True), build)
