"""C-Eval: 52 subjects of multiple-choice questions in Chinese (Huang et al. 2023).

python eval/ceval.py -c Qwen/Qwen-7B                 scores the validation questions, from the hub
python eval/ceval.py -c Qwen/Qwen-7B -d DIR          DIR holds dev/, val/ and test/ with <subject>_<split>.csv
python eval/ceval.py -c Qwen/Qwen-7B --split test    writes the submission file of the C-Eval site, no score
python eval/ceval.py -c demo                         the embedded demonstration, in seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness import arguments, data, multiple_choice, runner, store
from harness.schema import Benchmark, Scored


def build(args: argparse.Namespace) -> Benchmark:
    chosen = data.choose_subjects("ceval", arguments.subjects(args, "ceval"))
    sets = data.ceval(arguments.source(args, "ceval"), chosen, args.split)
    scored = args.split == "val"  # the answers of test are not published: they are the site's to score
    return Benchmark(
        name="ceval",
        version=1,
        recipe=args.recipe,
        mode="base",
        shots=args.shots,
        samples=multiple_choice.samples(sets, args.shots, multiple_choice.ask_in_chinese(args.recipe)),
        score=multiple_choice.score(args.recipe),
        metrics=multiple_choice.accuracy("ceval", headline="macro") if scored else lambda _: [],
        signature={
            "split": args.split,
            "select": "logprob",
            "avg": "macro",
            "data": multiple_choice.data_label(sets),
        },
        partial=args.subjects is not None,
        remarks=multiple_choice.remarks,
    )


def submission(args: argparse.Namespace, run_id: str, scored: Sequence[Scored]) -> list[str]:
    """With --split test, writes {subject: {id: letter}} as the C-Eval site takes it; says where."""
    if args.split != "test":
        return []
    answers: dict[str, dict[str, str]] = {}
    for item in scored:
        answers.setdefault(item.sample.group, {})[item.sample.file_id] = item.score.answer
    path = args.output_dir / "submissions" / f"{run_id}.json"
    store.write_json(path, answers)
    return [f"submission file {path}"]


if __name__ == "__main__":
    parser = arguments.parser(__doc__, {"base": 5}, subjects=True)
    parser.add_argument("--split", choices=("val", "test"), default="val", help="val is scored, test is submitted")
    runner.main(parser, build, submission)
