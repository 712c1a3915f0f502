"""results/bench.csv, and the table in BENCHMARKS.md."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = (
    "timestamp", "git_commit", "stage", "baseline", "model", "items", "repetitions", "ours_cpu_s", "baseline_cpu_s",
    "ratio_cpu", "ours_wall_s", "baseline_wall_s", "ratio_wall", "tokens_computed", "tokens_in_prompts",
    "tokens_distinct", "matrix_share", "ours_peak_gib", "baseline_peak_gib", "furthest", "machine", "load",
)  # fmt: skip
TABLE = re.compile(r"(<!-- table:bench -->\n)(.*?)(<!-- /table:bench -->)", re.DOTALL)
HEAD = (
    "Stage", "Against", "Model", "Items", "Ours, CPU s", "Baseline, CPU s", "Times faster, CPU", "wall", "Runs",
    "Tokens computed", "Matrix products", "Peak GiB above the weights",
)  # fmt: skip


def append(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Adds rows to the file; one with older columns gets the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = _read(path) if path.exists() else []
    fresh = path.with_suffix(".csv.tmp")
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*before, *rows])
    fresh.replace(path)


def newest(path: Path) -> list[dict[str, str]]:
    """The newest row of every stage, baseline and model."""
    found = {(row["stage"], row["baseline"], row["model"]): row for row in _read(path)}
    return list(found.values())


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: row.get(name) or "" for name in COLUMNS} for row in csv.DictReader(file)]


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The table, and when and on what its rows were measured."""
    lines = [f"| {' | '.join(HEAD)} |", "|:--|:--|:--|" + "--:|" * (len(HEAD) - 3)]
    for row in rows:
        names = ("stage", "baseline", "model", "items", "ours_cpu_s", "baseline_cpu_s", "ratio_cpu", "ratio_wall")
        cells = [row[name] for name in (*names, "repetitions")]
        lines.append("| " + " | ".join([*cells, _tokens(row), row["matrix_share"], _peaks(row)]) + " |")
    about = {
        f"{row['stage'].split(',')[0]}: measured {row['timestamp']} at commit {row['git_commit']} on {row['machine']}; "
        f"load average {row['load']} when it began."
        for row in rows
    }
    return "\n".join([*lines, "", *sorted(about), ""])


def _tokens(row: Mapping[str, str]) -> str:
    """How many were computed, of those in the prompts and of those that are distinct."""
    if not row["tokens_computed"]:
        return ""
    text = f"{row['tokens_computed']} of {row['tokens_in_prompts']}"
    if row["tokens_distinct"]:
        text += f", {int(row['tokens_computed']) / int(row['tokens_distinct']):.3f} x the distinct"
    return text


def _peaks(row: Mapping[str, str]) -> str:
    if not row["ours_peak_gib"]:
        return ""
    return row["ours_peak_gib"] + (f" against {row['baseline_peak_gib']}" if row["baseline_peak_gib"] else "")


def rewrite(path: Path, table: str) -> None:
    """Puts the table between the markers. Raises SystemExit where there are none."""
    text = path.read_text(encoding="utf-8")
    if not TABLE.search(text):
        raise SystemExit(f"bench: {path} has no <!-- table:bench --> and <!-- /table:bench --> to write between")
    path.write_text(TABLE.sub(lambda found: found[1] + table + found[3], text), encoding="utf-8")
