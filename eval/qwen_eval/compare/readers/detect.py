"""Finds the reader that recognizes a file, or the files of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval.compare.readers import inspect, lm_eval, opencompass
from qwen_eval.compare.readers.common import Reader, Samples
from qwen_eval.data import json_text
from qwen_eval.schema import InputError

READERS: tuple[Reader, ...] = (lm_eval, inspect, opencompass)


def read(path: Path, metric: str | None = None) -> Samples | None:
    """The samples of a file, or of all files of a folder; None where no reader recognizes them.

    metric: which score to use where rows have several (None: the reader's choice). Raises InputError for a file that a
    reader recognizes and cannot read, and for a folder whose files are of several harnesses or metrics.
    """
    if path.is_dir():
        found = sorted(path.rglob("samples_*.jsonl")) or sorted(path.glob("*.json"))
        parts = [part for file in found if (part := _read_file(file, metric)) is not None]
        newest = {(part.harness, lm_eval.task_name(part.paths[0])): part for part in parts}  # names end in the date
        return _merged(list(newest.values()))
    return _read_file(path, metric)


def _merged(parts: Sequence[Samples]) -> Samples | None:
    if not parts:
        return None
    first = parts[0]
    for part in parts[1:]:
        if (part.harness, part.metric) != (first.harness, first.metric):
            kinds = f"{first.paths[0]} is {first.harness} {first.metric}, {part.paths[0]} {part.harness} {part.metric}"
            raise InputError(f"{kinds}; name one file, or a metric that all have with --metric")
    items = tuple(item for part in parts for item in part.items)
    paths = tuple(path for part in parts for path in part.paths)
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    return replace(first, paths=paths, items=items, notes=notes)


def _read_file(path: Path, metric: str | None) -> Samples | None:
    if path.suffix == ".eval":
        raise InputError(f"{path} is a packed log; write it as JSON first: inspect log convert --to json")
    content = _content(path)
    reader = next((reader for reader in READERS if reader.recognizes(path, content)), None)
    try:
        return reader.read(path, content, metric) if reader else None
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} begins like a sample file and is none ({type(error).__name__}: {error})") from error


def _content(path: Path) -> Mapping[str, Any]:
    """By what a file is recognized: the first row of JSON lines, the whole of JSON; empty for everything else."""
    try:
        if path.suffix == ".jsonl":
            with jsonlines.open(path, loads=json_text.loads) as rows:
                first: Mapping[str, Any] = rows.read(type=dict)
            return first
        if path.suffix == ".json":
            content = json_text.loads(path.read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else {}
    except (OSError, ValueError, EOFError, RecursionError):
        pass
    return {}
