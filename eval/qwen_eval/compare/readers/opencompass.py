"""OpenCompass: `predictions/<model>/<data set>.json`. Only the format is known here; nothing of the program is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_eval.compare.readers.common import Item, Samples
from qwen_eval.schema import InputError


def recognizes(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether this is a file of predictions. content: all of it."""
    first = content.get("0")
    return path.suffix == ".json" and isinstance(first, dict) and "prediction" in first


def read(path: Path, content: Mapping[str, Any], metric: str | None) -> Samples:
    """The samples of a file: by number origin_prompt, prediction, gold and, where options were compared by perplexity,
    `label: X` with the whole text and its PPL (mean negative log-likelihood per token; the smallest wins).

    Scores are not in the file, so there is no `metric` to choose. By perplexity an item is right where prediction and gold are
    equal; a reply is scored by their own rule where that is known (GSM8K), and else refused: another rule's score would
    not be theirs. OpenCompass averages over data sets (macro).
    """
    items = []
    for index, row in content.items():
        prompt = row.get("origin_prompt", "")
        if isinstance(prompt, list):
            prompt = "\n".join(str(turn.get("prompt", "")) for turn in prompt)
        labels = [key.removeprefix("label: ") for key in row if key.startswith("label: ")]
        prediction, gold = str(row["prediction"]), str(row.get("gold", ""))
        answer = prediction
        if not labels:
            if "#### " not in gold:
                raise InputError(
                    f"{path}: the scores of its replies are not known: the file has none, and their rule for this data set is "
                    "not known here; compare a run by perplexity, GSM8K, or another harness's samples"
                )
            gold = gold.rpartition("#### ")[2].replace(",", "").strip()
            answer = _last_number(prediction)
        logprobs = tuple(-float(row[f"label: {label}"]["PPL"]) for label in labels)
        items.append(Item(path.stem, index, prompt, (), gold, float(_equal(answer, gold)), answer, tuple(labels), logprobs,
                          None if labels else prediction))  # fmt: skip
    notes = ["OpenCompass's predictions hold no scores: prediction compared with gold as OpenCompass 0.5 does"]
    per_token = any(item.logprobs for item in items)
    if per_token:
        notes.append("their options are compared by mean log-likelihood over the whole text")
    return Samples("OpenCompass", (path,), "accuracy", tuple(items), "macro", per_token=per_token, notes=notes)


def _last_number(reply: str) -> str:
    """How OpenCompass reads a reply of GSM8K: the last number before a further question; "NULL" without one."""
    numbers: list[str] = re.findall(r"-?\d+\.\d+|-?\d+", reply.split("Question:")[0])
    return numbers[-1] if numbers else "NULL"


def _equal(answer: str, gold: str) -> bool:
    """Whether an answer is the gold one: the same text, or the same number within 1e-6."""
    try:
        return answer == gold or abs(float(answer) - int(gold)) < 1e-6
    except ValueError:
        return False
