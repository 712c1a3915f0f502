"""Which rows are the official ones: their number and SHA-256 by benchmark and part, whatever file or hub they came from.

Sums are over rows, not bytes, so that line ends, a byte-order mark or the hub's parquet change nothing and an edit of a single
letter does. They were computed from the released files (GSM8K's and HumanEval's bytes have the SHA-256 that many public
projects record); C-Eval's and the ReAct files are not among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from qwen_eval.data.choice import ChoiceSet
from qwen_eval.data.files import content_hash

_SUMS = Path(__file__).with_name("official.json")


def changed(benchmark: str, parts: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Of the parts ("test/anatomy": its rows), those that are known and have other rows: "test/anatomy (6 rows, 135 in the
    official file)"."""
    known = _sums().get(benchmark, {})
    found = []
    for name, rows in parts.items():
        if name in known and known[name] != [len(rows), content_hash(rows)]:
            number = known[name][0]
            said = f"{len(rows)} rows, {number} in the official file" if len(rows) != number else "edited"
            found.append(f"{name} ({said})")
    return tuple(found)


def changed_choices(benchmark: str, sets: Mapping[str, ChoiceSet]) -> tuple[str, ...]:
    """`changed` for the subjects of a multiple-choice benchmark."""
    dev: dict[str, Sequence[Any]] = {f"dev/{subject}": rows.dev for subject, rows in sets.items()}
    return changed(benchmark, dev | {f"test/{subject}": rows.test for subject, rows in sets.items()})


@lru_cache(maxsize=1)
def _sums() -> dict[str, dict[str, list[Any]]]:
    return json.loads(_SUMS.read_text(encoding="utf-8"))
