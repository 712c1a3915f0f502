"""The official rows: their number and SHA-256 by part, independent of the file or hub they come from.

The checksums are over rows, not bytes, so that line ends, a byte-order mark or the hub's parquet change nothing, and an edit of
a single letter does. They were computed from the released files (the bytes of GSM8K's and HumanEval's have the SHA-256 that
many public projects record; C-Eval's from the files of its hub dataset); those of the ReAct files are not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_eval.data.files import content_hash

FOLDER = Path(__file__).with_name("official")


def official(name: str) -> dict[str, list[Any]]:
    """The checksums of a benchmark, by part ("test/anatomy"): number of rows and content hash."""
    found: dict[str, list[Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def changed(sums: Mapping[str, Sequence[Any]], parts: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """The parts ("test/anatomy") whose rows differ from the official ones, as "test/anatomy (6 rows, 135 in the official
    file)". Parts without a known checksum are not compared."""
    found = []
    for name, rows in parts.items():
        if name in sums and list(sums[name]) != [len(rows), content_hash(rows)]:
            number = sums[name][0]
            said = f"{len(rows)} rows, {number} in the official file" if len(rows) != number else "edited"
            found.append(f"{name} ({said})")
    return tuple(found)
