"""What a run took over all its starts: seconds, and the memory of the start that needed most.

A start that is cut off cannot say how long it ran: it ran from when it began to ask, which results/samples/<run_id>.asking
holds, to when its last answer was stored, which the sample file's time of change tells.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_eval.data import json_text
from qwen_eval.runs import files, manifest
from qwen_eval.runs.samples import answered, stored_path
from qwen_eval.schema import InputError

MEMORY = ("peak_memory_gb", "weights_gb", "resident_gb")


def path(output: Path, run: str) -> Path:
    """Where an unfinished run keeps when its asking began."""
    return output / "samples" / f"{run}.asking"


def begin(output: Path, run: str) -> None:
    """Notes that a start begins to ask, and what the starts before it took."""
    before: Mapping[str, str] = {}
    if answered(output, run):
        before = {**_finished(output, run), **_noted(output, run), "seconds": f"{seconds(output, run):.3f}"}
    files.write_json(path(output, run), {**before, "began": f"{time.time():.3f}"})


def end(output: Path, run: str) -> None:
    """Removes what `begin` noted, when the manifest holds it."""
    place = path(output, run)
    with files.writing(place):
        place.unlink(missing_ok=True)


def seconds(output: Path, run: str) -> float:
    """What the starts of a run took until its last answer was stored; 0 where nothing is known of them."""
    noted = _noted(output, run)
    if not noted:
        return float(_finished(output, run).get("seconds") or 0)
    try:
        last = stored_path(output, run).stat().st_mtime
    except OSError:  # nothing was answered
        last = 0.0
    return float(noted.get("seconds") or 0) + max(last - float(noted["began"]), 0.0)


def memory(output: Path, run: str, now: Mapping[str, str]) -> Mapping[str, str]:
    """The memory columns of a run. now: those of this start, which count only where it asked anything or no other did."""
    noted = _noted(output, run)
    before = noted or _finished(output, run)
    if not before.get(MEMORY[0]):
        return now
    stored = {name: before.get(name, "") for name in MEMORY}
    return max(stored, now, key=lambda columns: float(columns[MEMORY[0]] or 0)) if noted else stored


def _noted(output: Path, run: str) -> Mapping[str, str]:
    """What `begin` noted; empty for a finished run and one of an earlier version."""
    try:
        noted = dict(json_text.loads(path(output, run).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    return _numbers(noted, "seconds", "began", *MEMORY) if "began" in noted else {}


def _finished(output: Path, run: str) -> Mapping[str, str]:
    """The same of a finished run's manifest; empty for another."""
    try:
        return _numbers(manifest.read_manifest(output, run), "seconds", *MEMORY)
    except InputError:
        return {}


def _numbers(content: Mapping[str, Any], *names: str) -> dict[str, str]:
    """What of the content are numbers, as text."""
    found = {}
    for name in names:
        try:
            float(content[name] or 0)
        except (KeyError, TypeError, ValueError):
            continue
        found[name] = str(content[name])
    return found
