"""The runs of a results folder, as the page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import store


@dataclass(frozen=True)
class Run:
    """A run as the page shows it: what its manifest says, the first figure of its table, and its samples in order."""

    id: str
    benchmark: str
    manifest: Mapping[str, Any]
    headline: str
    rows: Sequence[Mapping[str, Any]]


def stored_runs(folder: Path, benchmarks: Sequence[str], wanted: Sequence[str] = ()) -> list[Run]:
    """The finished runs of a results folder, the named ones or all, in the order of the benchmarks and of time. Raises
    InputError for one that is not there."""
    names = wanted or sorted(path.stem for path in (folder / "samples").glob("*.json"))
    runs = []
    for name in names:
        manifest, rows = store.read_manifest(folder, name), store.read_run(folder, name)[1]
        benchmark = manifest["signature"].split("|")[0]
        figures = [row for row in store.read_results(folder / f"{benchmark}.csv") if row["run_id"] == name]
        newest = [row for row in figures if row["timestamp"] == figures[-1]["timestamp"]]
        headline = f"{newest[0]['metric']} {float(newest[0]['value']):.2f}" if newest else ""
        runs.append(Run(name, benchmark, manifest, headline, _in_order(rows)))
    return sorted(runs, key=lambda run: (benchmarks.index(run.benchmark), run.manifest["timestamp"]))


def _in_order(rows: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples by set, then by number: they are stored as they were answered."""

    def place(row: Mapping[str, Any]) -> tuple[str, int]:
        name, _, number = row["id"].rpartition("/")
        return name, int(number) if number.isdecimal() else 0

    return sorted(rows.values(), key=place)
