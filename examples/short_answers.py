"""Short answers: a few words that are right when they match one of the answers that a question accepts.

qwen-eval run short_answers.py -c Qwen/Qwen-7B -d DIR    4-shot; DIR holds train.jsonl and test.jsonl
qwen-eval run short_answers.py -c Qwen/Qwen-7B-Chat -d DIR --chat
qwen-eval run short_answers.py -c demo                   questions of our own, in seconds
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_eval.data.tables import Dataset
from qwen_eval.main import main
from qwen_eval.schema import Generated, Metric, Sample, Score, Scored
from qwen_eval.stats import intervals
from qwen_eval.tasks.facts import View
from qwen_eval.tasks.generation import Text, endings

ANSWER = re.compile(r"answer(?: is|:)", re.IGNORECASE)  # what follows its last match is the answer


class ShortAnswers(Text):
    name, version, title = "short_answers", 1, "Short answers"
    shots = {"base": 4, "chat": 0}
    stop = ("\n",)
    max_new_tokens = 32
    views = (View("acc", "correct"), View("f1", "f1", decides=False))
    dataset = Dataset("", "", {"train": "", "test": ""})  # on no hub: a folder, or demo_data
    demo_data = Path(__file__).with_name("short_answers")

    def prompt(self, row: Mapping[str, Any]) -> str:
        return f"Question: {row['question']}\nAnswer:"

    def answer(self, row: Mapping[str, Any]) -> str:
        return f" {row['answers'][0]}"

    def turn(self, row: Mapping[str, Any]) -> str:
        return f"Answer in a few words.\n\n{row['question']}"

    def target(self, row: Mapping[str, Any]) -> list[str]:
        return [str(text) for text in row["answers"]]

    def group(self, row: Mapping[str, Any]) -> str:
        return str(row["topic"])

    def score(self, sample: Sample, reply: Generated) -> Score:
        said = words(ANSWER.split(reply.texts[0])[-1])
        golds = [words(text) for text in sample.target]
        best = max(f1(said, gold) for gold in golds)
        stats = {"correct": float(said in golds), "f1": best, "invalid": float(not said), **endings(reply)}
        return Score(stats, " ".join(said) or None)

    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        own = [intervals.mean("f1", "all", [item.score.stats["f1"] for item in scored])]
        for topic, flags in intervals.by_group(scored, "correct").items():
            own.append(intervals.share("acc", topic, flags))
        return [*super().metrics(scored), *own]


def words(text: str) -> list[str]:
    """The words in small letters, without articles."""
    return [word for word in re.findall(r"\w+", text.lower()) if word not in ("a", "an", "the")]


def f1(said: Sequence[str], gold: Sequence[str]) -> float:
    """The F1 of two bags of words."""
    return 2 * sum((Counter(said) & Counter(gold)).values()) / max(1, len(said) + len(gold))


if __name__ == "__main__":
    main(ShortAnswers)
