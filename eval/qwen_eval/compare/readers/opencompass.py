"""OpenCompass: `predictions/<model>/<data set>.json`. Only the format is known here; nothing of the program is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_eval.compare.readers.common import LETTERS, Item, Samples


def recognizes(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether this is a file of predictions. content: all of it."""
    first = content.get("0")
    return path.suffix == ".json" and isinstance(first, dict) and "prediction" in first


def read(path: Path, content: Mapping[str, Any], metric: str | None) -> Samples:
    """The samples of a file: by number origin_prompt, prediction, gold and, where options were compared by perplexity,
    `label: X` with the whole text and its PPL (mean negative log-likelihood per token; the smallest wins).

    Scores are not in the file, so there is no `metric` to choose: an item is right where prediction and gold are equal (a
    reply: where its first letter A to D standing alone is the gold one). OpenCompass averages over data sets (macro).
    """
    items = []
    for index, row in content.items():
        prompt = row.get("origin_prompt", "")
        if isinstance(prompt, list):
            prompt = "\n".join(str(turn.get("prompt", "")) for turn in prompt)
        labels = [key.removeprefix("label: ") for key in row if key.startswith("label: ")]
        prediction, gold = str(row["prediction"]), str(row.get("gold", ""))
        answer = prediction
        if not labels and gold in tuple(LETTERS):
            answer = next(iter(re.findall(r"(?<![A-Za-z])[A-D](?![A-Za-z])", prediction)), "")
        logprobs = tuple(-float(row[f"label: {label}"]["PPL"]) for label in labels)
        items.append(Item(path.stem, index, prompt, (), gold, float(answer == gold), answer, tuple(labels), logprobs,
                          None if labels else prediction))  # fmt: skip
    notes = ["OpenCompass's predictions hold no scores: prediction compared with gold"]
    per_token = any(item.logprobs for item in items)
    if per_token:
        notes.append("their options are compared by mean log-likelihood over the whole text")
    return Samples("OpenCompass", (path,), "accuracy", tuple(items), "macro", per_token=per_token, notes=notes)
