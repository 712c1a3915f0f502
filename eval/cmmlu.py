"""CMMLU: 67 subjects, 11,582 multiple-choice questions in Chinese (Li et al. 2023).

python eval/cmmlu.py -c Qwen/Qwen-7B           from the hub
python eval/cmmlu.py -c Qwen/Qwen-7B -d DIR    DIR holds dev/<subject>.csv and test/<subject>.csv
python eval/cmmlu.py -c demo                   the embedded demonstration, in seconds
"""

from __future__ import annotations

import argparse

from harness import arguments, entry
from harness.later import data, multiple_choice, schema


def build(args: argparse.Namespace) -> schema.Benchmark:
    chosen = data.choose_subjects("cmmlu", arguments.subjects(args, "cmmlu"))
    sets = data.cmmlu(arguments.source(args, "cmmlu"), chosen)
    return schema.Benchmark(
        name="cmmlu",
        version=1,
        recipe=args.recipe,
        origin=multiple_choice.origin(sets),
        changed=data.changed_choices("cmmlu", sets),
        mode="base",
        shots=args.shots,
        samples=multiple_choice.samples(sets, args.shots, multiple_choice.ask_in_chinese(args.recipe)),
        score=multiple_choice.score(args.recipe),
        metrics=multiple_choice.accuracy("cmmlu", headline="macro"),
        signature={"select": "logprob", "avg": "macro", "data": multiple_choice.data_label(sets)},
        partial=args.subjects is not None,
        remarks=multiple_choice.remarks,
    )


def parser() -> arguments.Parser:
    """The command line."""
    return arguments.parser(__doc__, {"base": 5}, subjects=True)


SCRIPT = entry.Script(parser, build)

if __name__ == "__main__":
    entry.main(SCRIPT)
