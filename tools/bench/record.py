"""Timings kept as they come, so that a bench that was stopped goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonlines

from bench.contest import Timing


class Record:
    """One stage's file of JSON lines: a timing a line, at the end the stage's rows. overwrite: start over."""

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        self._path = path
        self._timings: dict[tuple[str, str, int], Timing] = {}
        self._rows: dict[int, list[dict[str, str]]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite:
            path.unlink(missing_ok=True)
        path.touch()
        with jsonlines.open(path) as reader:
            for found in reader.iter(type=dict, skip_invalid=True):  # a line is cut where the bench was killed
                if "rows" in found:
                    self._rows[found["repeat"]] = found["rows"]
                else:
                    self._timings[found["contest"], found["side"], found["repetition"]] = Timing(**found["timing"])

    def get(self, contest: str, side: str, repetition: int) -> Timing | None:
        """A timing stored before."""
        return self._timings.get((contest, side, repetition))

    def add(self, contest: str, side: str, repetition: int, timing: Timing) -> None:
        self._write({"contest": contest, "side": side, "repetition": repetition, "timing": vars(timing)})

    def rows(self, repeat: int) -> list[dict[str, str]] | None:
        """The stage's rows, where it was finished with so many repetitions."""
        return self._rows.get(repeat)

    def finish(self, repeat: int, rows: Sequence[Mapping[str, str]]) -> None:
        """The stage is done with so many repetitions; it has these rows in the table."""
        self._write({"repeat": repeat, "rows": list(rows)})

    def _write(self, line: Mapping[str, Any]) -> None:
        with jsonlines.open(self._path, "a") as writer:
            writer.write(line)
