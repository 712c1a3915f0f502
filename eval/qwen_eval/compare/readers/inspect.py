"""Inspect: logs in JSON. Only the format is known here; nothing of the program is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_eval.compare.readers.common import Item, Samples

VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}  # correct, incorrect, partially correct, no answer


def recognizes(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether this is a log. content: all of it."""
    return path.suffix == ".json" and {"samples", "eval"} <= content.keys()


def read(path: Path, content: Mapping[str, Any], metric: str | None) -> Samples:
    """The samples of a log: eval.task and, per sample, id, epoch, input (text or messages), choices, target,
    output.completion and, per scorer, scores with value (a letter of VALUES or a number) and answer.

    The first scorer is used, whatever `metric` is, and of several epochs the first.
    """
    task = str(content["eval"]["task"]).rpartition("/")[2]
    items, scorer = [], ""
    for sample in content["samples"]:
        if sample.get("epoch", 1) != 1 or not sample.get("scores"):
            continue
        scorer, given = next(iter(sample["scores"].items()))
        asked = sample["input"]
        text = asked if isinstance(asked, str) else "\n".join(_content(turn) for turn in asked)
        value = given["value"]
        target = sample["target"] if isinstance(sample["target"], str) else ", ".join(sample["target"])
        turns = [_content(turn) for turn in sample.get("messages", []) if turn.get("role") == "user"]
        items.append(Item(
            task, str(sample["id"]), turns[-1] if turns else text, (text, *map(str, sample.get("choices") or ())), target,
            float(VALUES.get(value, value)), str(given.get("answer") or ""), reply=sample["output"]["completion"],
        ))  # fmt: skip
    skipped = len(content["samples"]) - len(items)
    notes = [f"{skipped} samples without a score or of later epochs were left out"] if skipped else []
    return Samples("Inspect", (path,), scorer, tuple(items), "micro", notes=notes)


def _content(turn: Mapping[str, Any]) -> str:
    """A message's text, which is a string or a list of parts."""
    content = turn["content"]
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)
