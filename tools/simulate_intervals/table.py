"""Coverage and width of a figure, and the tables of docs/intervals.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from simulate_intervals import methods
from simulate_intervals.corpora import CORPORA_DRAWS
from simulate_intervals.figures import FIGURES
from simulate_intervals.methods import VERSION
from simulate_intervals.setting import Figure, Interval, stack_one

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "intervals.md"
BEGIN, END = "<!-- make coverage: begin -->", "<!-- make coverage: end -->"
WANTED, FROM = 0.945, 50
OTHERS = 100  # draws of a setting on which evalstats is tried


@dataclass
class Row:
    """One figure at one size. Each of coverage: mean and worst over settings; width: mean of medians."""

    size: str
    large: bool
    ours: tuple[float, float, float]
    error: float
    textbook: tuple[float, float, float] | None
    other: tuple[float, float, float] | None
    worst: str

    @property
    def short(self) -> bool:
        """Whether the mean coverage is surely below what is wanted of it."""
        return self.large and self.ours[0] < WANTED - 2 * self.error


def covered(interval: Interval, truth: Any) -> tuple[float, float]:
    """Coverage and median width; a draw without an interval is not covered."""
    low, high = (np.asarray(bound, dtype=float) for bound in interval)
    inside = (low <= truth + 1e-12) & (truth <= high + 1e-12)
    known = np.isfinite(low) & np.isfinite(high)
    return float(inside.mean()), float(np.median((high - low)[known])) if known.any() else float("nan")


def summary(found: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    if not found:
        return None
    values = np.array(found)
    return float(values[:, 0].mean()), float(values[:, 0].min()), float(values[:, 1].mean())


def rows_of(figure: Figure, seed: int, draws: int) -> Iterator[Row]:
    for number, size in enumerate(figure.sizes):
        rng = np.random.default_rng([seed, number])
        ours, plain, others, error, names = [], [], [], 0.0, []
        for cell in figure.cells(rng, draws, size):
            ours.append(covered(cell.ours, cell.truth))
            names.append(cell.setting)
            count = len(np.atleast_1d(cell.ours[0]))
            error += max(ours[-1][0] * (1 - ours[-1][0]), 1e-4) / count
            if cell.textbook:
                plain.append(covered(cell.textbook, cell.truth))
            if cell.other and methods.PEER:
                few = min(OTHERS, count)
                truth = np.broadcast_to(cell.truth, (count,))[:few]
                with np.errstate(all="ignore"):
                    others.append(covered(stack_one([cell.other(index) for index in range(few)]), truth))
        mean = summary(ours)
        assert mean
        label = size if isinstance(size, str) else f"{size:,}"
        lowest = names[int(np.argmin([coverage for coverage, _ in ours]))]
        yield Row(label, (figure.count(size) if isinstance(size, str) else size) >= FROM, mean, sqrt(error) / len(ours),
                  summary(plain), summary(others), lowest)  # fmt: skip


def part(found: tuple[float, float, float] | None, scale: float) -> str:
    if found is None:
        return "-"
    mean, worst, width = found
    return f"{mean:.3f} / {worst:.3f}; {scale * width:.3g}"


def lines_of(figure: Figure, rows: Sequence[Row]) -> list[str]:
    """The table of one figure in Markdown."""
    other = (
        figure.other
        if methods.PEER or figure.other == "none"
        else f"{figure.other} (not run: evalstats {VERSION} is not installed)"
    )
    head = f"| {figure.unit} | ours | textbook: {figure.textbook} | evalstats: {other} | our worst setting |"
    lines = [f"### {figure.name[0].upper()}{figure.name[1:]}", "", head, "|:--|:--|:--|:--|:--|"]
    for row in rows:
        ours = part(row.ours, figure.scale) + (" (below)" if row.short else "")
        cells = [row.size, ours, part(row.textbook, figure.scale), part(row.other, figure.scale), row.worst]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def write(tables: dict[str, str], draws: int) -> None:
    """Replaces the tables of these figures on the page; others stay."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    told = {part.partition("\n")[0]: f"### {part.rstrip()}\n" for part in old.split("### ")[1:]}
    named = {name: f"{figure.name[0].upper()}{figure.name[1:]}" for name, figure in FIGURES.items()}
    found = [tables.get(name, told.get(title, "")) for name, title in named.items()]
    said = f"{draws:,} draws a setting (of BLEU and chrF {CORPORA_DRAWS}), {OTHERS} of them for evalstats {VERSION}."
    text = "\n".join([said, "", *(table for table in found if table)])
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")
