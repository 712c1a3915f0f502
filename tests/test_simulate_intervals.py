"""The simulation of intervals: what it counts, what it says where evalstats is missing, and that the page has every figure."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from shared import REPOSITORY
from simulate_intervals import __main__ as command
from simulate_intervals import methods, table
from simulate_intervals.figures import FIGURES
from simulate_intervals.setting import Cell, Figure


def test_coverage_and_width_by_hand() -> None:
    """Four draws, of which one misses and one has no interval."""
    low, high = np.array([0.1, 0.4, 0.6, np.nan]), np.array([0.5, 0.9, 0.8, np.nan])
    assert table.covered((low, high), 0.45) == (0.5, pytest.approx(0.4))


def figure(coverage: float, sizes: tuple[int, ...] = (20, 200)) -> Figure:
    def cells(rng: np.random.Generator, draws: int, size: int):  # type: ignore[no-untyped-def]
        inside = np.arange(draws) < round(coverage * draws)
        yield Cell("one", 0.5, (np.where(inside, 0.4, 0.6), np.full(draws, 0.8)))

    return Figure("made up", "none", "Wilson", "items", sizes, cells)


def test_a_mean_below_what_is_wanted_is_told_from_50_units_on() -> None:
    assert [row.short for row in table.rows_of(figure(0.90), 0, 1000)] == [False, True]
    assert [row.short for row in table.rows_of(figure(0.94), 0, 1000)] == [
        False,
        False,
    ]  # within two standard errors
    rows = list(table.rows_of(figure(0.90), 0, 1000))
    assert "| 200 | 0.900 / 0.900; 40 (below) | - | - | one |" in table.lines_of(figure(0.90), rows)


def test_a_missing_evalstats_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(methods, "PEER", None)
    monkeypatch.setattr(command, "FIGURES", {"made": figure(0.95)})
    monkeypatch.setattr(sys, "argv", ["simulate_intervals", "--draws", "100"])
    before = table.PAGE.read_bytes()
    assert command.main() == 0
    out, err = capsys.readouterr()
    assert "Wilson (not run: evalstats 0.3.3 is not installed)" in out
    assert "is not installed" in err and "not written" in err and table.PAGE.read_bytes() == before


def test_tables_of_some_figures_replace_theirs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\n{table.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(table, "PAGE", page)
    table.write({"items": "### Accuracy, a share of items\n\none\n", "rouge": "### Rouge-L\n\ntwo\n"}, 500)
    table.write({"rouge": "### Rouge-L\n\nthree\n"}, 1000)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "1,000 draws" in text
    assert text.index("one") < text.index("three") and "two" not in text


# the corpora of BLEU take seconds each to draw
NAMES = [pytest.param(name, marks=pytest.mark.slow) if "bleu" in name else name for name in FIGURES]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_and_on_the_page(name: str) -> None:
    """Few draws at its smallest size: intervals of the harness's own code, with the truth inside more often than not."""
    one = FIGURES[name]
    one = Figure(one.name, one.textbook, "none", one.unit, one.sizes[:1], one.cells, one.count, one.scale)
    (row,) = table.rows_of(one, 0, 20)
    assert row.ours[0] > 0.85
    page = (REPOSITORY / "docs" / "intervals.md").read_text(encoding="utf-8")
    assert f"### {one.name[0].upper()}{one.name[1:]}\n" in page
