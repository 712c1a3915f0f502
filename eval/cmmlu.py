"""CMMLU: 67 subjects, 11,582 multiple-choice questions in Chinese (Li et al. 2023).

python eval/cmmlu.py -c Qwen/Qwen-7B           from the hub
python eval/cmmlu.py -c Qwen/Qwen-7B -d DIR    DIR holds dev/<subject>.csv and test/<subject>.csv
python eval/cmmlu.py -c demo                   the embedded demonstration, in seconds
"""

from __future__ import annotations

import argparse

from qwen_eval import data, main, options, schema
from qwen_eval.tasks import choice


def build(args: argparse.Namespace) -> schema.Benchmark:
    chosen = data.choose_subjects("cmmlu", options.subjects(args, "cmmlu"))
    sets = data.cmmlu(options.source(args, "cmmlu"), chosen)
    return schema.Benchmark(
        name="cmmlu",
        version=1,
        recipe=args.recipe,
        origin=choice.origin(sets),
        changed=data.changed_choices("cmmlu", sets),
        mode="base",
        shots=args.shots,
        samples=choice.samples(sets, args.shots, choice.ask_in_chinese(args.recipe)),
        score=choice.score(args.recipe),
        metrics=choice.accuracy("cmmlu", headline="macro"),
        signature={"select": "logprob", "avg": "macro", "data": choice.data_label(sets)},
        partial=args.subjects is not None,
        remarks=choice.remarks,
    )


def parser() -> options.Parser:
    """The command line."""
    return options.parser(__doc__, {"base": 5}, subjects=True)


SCRIPT = main.Script(parser, build)

if __name__ == "__main__":
    main.main(SCRIPT)
