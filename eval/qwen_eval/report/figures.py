"""Figures of the report: models by benchmark, perplexity by length, accuracy by memory. PNG and SVG; the same results give the
same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_eval.report.lines import DEMONSTRATION, Figure, Line
from qwen_eval.runs.files import write_atomically
from qwen_eval.schema import InputError
from qwen_eval.tasks.facts import Table

OURS, OTHERS = "#c2410c", "#475569"  # position, name and marker differ, too
MARKERS = "osD^v<>P"


def draw(lines: Mapping[str, Sequence[Line]], tables: Mapping[str, Table], folder: Path) -> list[Path]:
    """Draws the figures that have results into the folder and returns their files. lines: by table name. tables: by name.

    Raises InputError without matplotlib or when there is nothing to draw.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("figures need matplotlib; run: pip install matplotlib") from error
    matplotlib.use("Agg")
    jobs: dict[str, Callable[[], Any]] = {
        "models": lambda: _models(lines["main"], tables["main"]),
        "long_ppl": lambda: _long_ppl(lines["long_ppl"], tables["long_ppl"]),
        "memory": lambda: _memory(lines["precision"], tables["precision"]),
    }
    needed = {"models": "main", "long_ppl": "long_ppl", "memory": "precision"}
    paths = [path for name, job in jobs.items() if lines[needed[name]] for path in _save(name, job, folder)]
    if not paths:
        raise InputError("there is no figure to draw; run a benchmark first")
    return paths


def _save(name: str, job: Callable[[], Any], folder: Path) -> list[Path]:
    """Writes one figure as PNG and SVG, atomically, without dates and random ids, so that equal figures are equal files."""
    from matplotlib import pyplot, rc_context

    settings: Any = {
        "svg.hashsalt": name, "svg.fonttype": "none", "font.family": "DejaVu Sans", "axes.spines.top": False,
        "axes.spines.right": False, "axes.axisbelow": True,
    }  # fmt: skip
    with rc_context(settings):
        figure = job()
        formats: dict[str, Any] = {
            "png": {"dpi": 150, "metadata": {"Software": None}},
            "svg": {"metadata": {"Date": None}},
        }
        for ending, options in formats.items():
            content = io.BytesIO()
            figure.savefig(content, format=ending, **options)
            write_atomically(folder / f"{name}.{ending}", content.getvalue())
        pyplot.close(figure)
    return [folder / f"{name}.{ending}" for ending in formats]


def _models(lines: Sequence[Line], table: Table) -> Any:
    """One panel per benchmark, one dot per model; ours with their 95% intervals."""
    from matplotlib import pyplot

    columns = [column for column in table.columns if any(column.head in line.figures for line in lines)]
    figure, panels = pyplot.subplots(
        1, len(columns), figsize=(2 + 1.9 * len(columns), 1.2 + 0.27 * len(lines)), sharey=True, layout="constrained",
        squeeze=False,
    )  # fmt: skip
    heights = range(len(lines), 0, -1)
    for panel, column in zip(panels[0], columns, strict=True):
        for height, line in zip(heights, lines, strict=True):
            cell = line.figures.get(column.head)
            if cell:
                _point(panel, cell.value, height, cell, line.source == "ours", along="x")
        panel.set_title(column.head, fontsize="small")
        panel.set_xlim(0, 104)
        panel.grid(alpha=0.3)
    panels[0][0].set_yticks(list(heights), [_name(line) for line in lines], fontsize="small")
    figure.supxlabel("percent; bars: 95% intervals of ours", fontsize="small")
    return figure


def _long_ppl(lines: Sequence[Line], table: Table) -> Any:
    """Perplexity by length on logarithmic axes, one line per row of the table."""
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for index, line in enumerate(lines):
        heads = [column.head for column in table.columns if column.head in line.figures]
        cells = [line.figures[head] for head in heads]
        published = line.source != "ours"
        axes.errorbar(
            [int(head) for head in heads],
            [cell.value for cell in cells],
            yerr=list(zip(*map(_errors, cells), strict=True)),
            label=_name(line) + (" (published)" if published else ""),
            linestyle="--" if published else "-",
            marker=MARKERS[index % len(MARKERS)],
            capsize=3,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("length in tokens")
    axes.set_ylabel("perplexity")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _memory(lines: Sequence[Line], table: Table) -> Any:
    """MMLU by memory, one point per precision."""
    from matplotlib import pyplot

    accuracy, *_, memory = table.columns
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for line in lines:
        if accuracy.head in line.figures and memory.head in line.figures:
            cell, used = line.figures[accuracy.head], line.figures[memory.head].value
            _point(axes, used, cell.value, cell, line.source == "ours", along="y")
            axes.annotate(_name(line), (used, cell.value), (6, 4), textcoords="offset points", fontsize="small")
    axes.set_xlim(left=0)
    axes.margins(x=0.15)
    axes.set_xlabel("memory in GB")
    axes.set_ylabel("MMLU in percent")
    axes.grid(alpha=0.3)
    return figure


def _name(line: Line) -> str:
    """A line's model, with a note if its figures are of demonstration data."""
    marked = any(DEMONSTRATION in figure.marks for figure in line.figures.values())
    return f"{line.model}, demonstration data" if marked else line.model


def _point(axes: Any, x: float, y: float, cell: Figure, ours: bool, along: str) -> None:
    """A dot with its interval along one axis."""
    color, marker = (OURS, "D") if ours else (OTHERS, "o")
    axes.errorbar(x, y, **{f"{along}err": [[side] for side in _errors(cell)]}, color=color, marker=marker, capsize=2)


def _errors(cell: Figure) -> tuple[float, float]:
    """The distances of the interval's bounds below and above the value; zeros without an interval."""
    if cell.low is None or cell.high is None:
        return 0.0, 0.0
    return max(0.0, cell.value - cell.low), max(0.0, cell.high - cell.value)
