"""The runs of a results folder, as the page shows them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_eval.report.page.samples import prompt_text
from qwen_eval.runs import results
from qwen_eval.runs.manifest import read_manifest, read_rows
from qwen_eval.runs.samples import stored_path
from qwen_eval.schema import InputError
from qwen_eval.tasks.facts import Facts, View

OF_THE_MODEL = ("model", "revision", "precision", "context", "engine", "device")
OF_THE_RUN = ("timestamp", "seconds", "signature", "git_commit")


@dataclass(frozen=True)
class Run:
    """A run as the page shows it. about: its id, benchmark, headline figure, first prompt and fields of its manifest. rows: its
    samples in order. views: those that tell whether an item was answered right."""

    about: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    views: Sequence[View] = ()


def stored_runs(folder: Path, benchmarks: Mapping[str, Facts], wanted: Sequence[str] = ()) -> list[Run]:
    """The finished runs of a results folder, ordered by benchmark and time. wanted: their ids; all if empty. Raises InputError
    for a run that does not exist or cannot be read."""
    stored = sorted(
        path.stem for path in (folder / "samples").glob("*.json") if stored_path(folder, path.stem).exists()
    )
    figures = functools.cache(lambda benchmark: results.read_results(folder / f"{benchmark}.csv"))
    runs = [_run(folder, name, benchmarks, figures) for name in wanted or stored]
    names = list(benchmarks)

    def order(run: Run) -> tuple[int, str]:
        benchmark = run.about["benchmark"]
        return names.index(benchmark) if benchmark in names else len(names), run.about["timestamp"]

    return sorted(runs, key=order)


def _run(
    folder: Path, name: str, benchmarks: Mapping[str, Facts], figures: Callable[[str], list[dict[str, str]]]
) -> Run:
    """A run. figures: the rows of results by benchmark."""
    manifest, rows = read_manifest(folder, name), read_rows(folder, name)
    try:
        about = {field: str(manifest["model"][field]) for field in OF_THE_MODEL}
        about |= {field: str(manifest[field]) for field in OF_THE_RUN}
    except (KeyError, TypeError) as error:
        raise InputError(f"run {name}: its manifest has no {error}; run its command again") from None
    benchmark = about["signature"].split("|")[0]
    own = [row for row in figures(benchmark) if row["run_id"] == name]
    newest = [row for row in own if row["timestamp"] == own[-1]["timestamp"]]
    headline = f"{newest[0]['metric']} {float(newest[0]['value']):.2f}" if newest else ""
    facts = benchmarks.get(benchmark) or Facts(benchmark)
    about |= {
        "run": name,
        "benchmark": benchmark,
        "headline": headline,
        "prompt": prompt_text(manifest.get("prompt") or ""),
    }
    return Run(about, _in_order(rows), facts.views)


def _in_order(rows: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples by set and number; they are stored in the order in which they were answered."""

    def order(row: Mapping[str, Any]) -> tuple[str, int]:
        name, _, number = row["id"].rpartition("/")
        return name, int(number) if number.isdecimal() else 0

    return sorted(rows.values(), key=order)
