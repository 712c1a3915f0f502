"""ARC-Challenge: grade-school science questions with three to five options (Clark et al. 2018).

qwen-eval run arc.py -c Qwen/Qwen-7B               25-shot, the options' texts are scored, from the hub
qwen-eval run arc.py -c Qwen/Qwen-7B --select letters    the options stand in the prompt, their letters are scored
qwen-eval run arc.py -c Qwen/Qwen-7B -d DIR        DIR holds train.jsonl and test.jsonl
qwen-eval run arc.py -c demo                       questions of our own, in seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_eval import options
from qwen_eval.data.tables import Dataset
from qwen_eval.main import main
from qwen_eval.tasks.choice import MultipleChoice, Question


class Arc(MultipleChoice):
    name, version, title = "arc_challenge", 1, "ARC-Challenge"
    shots = {"base": 25, "chat": 0}
    dataset = Dataset(
        "allenai/ai2_arc",
        "210d026faf9955653af8916fad021475a3f00453",
        {split: f"ARC-Challenge/{split}-00000-of-00001.parquet" for split in ("train", "test")},
    )
    demo_data = Path(__file__).with_name("arc")

    def __init__(self, args: argparse.Namespace) -> None:
        self.select = args.select
        super().__init__(args)

    def item(self, row: Mapping[str, Any]) -> Question:
        choices = row["choices"]
        return Question(row["question"], choices["text"], row["answerKey"], choices["label"], id=row["id"])

    @classmethod
    def add_options(cls, parser: options.Parser) -> None:
        parser.add_argument(
            "--select", choices=("texts", "letters"), default="texts", help="what is scored of an option"
        )


if __name__ == "__main__":
    main(Arc)
