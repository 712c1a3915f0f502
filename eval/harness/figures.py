"""Figures of the report: perplexity against length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.report_tables import labelled
from harness.schema import InputError


def long_ppl(published: Sequence[Mapping[str, str]], ours: Sequence[Mapping[str, str]], folder: Path) -> list[Path]:
    """Perplexity against length, one line a row of the table, both axes logarithmic; ours with 95% intervals as bars.

    Writes long_ppl.png and long_ppl.svg into the folder and returns their paths. Raises InputError without matplotlib or
    without a figure to draw.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("figures need matplotlib; run: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    lines = _lines(published, ours)
    if not lines:
        raise InputError("there is no perplexity to draw; run eval/long_ppl.py first")
    # the same bytes for the same figures: no date, no random names
    with matplotlib.rc_context({"svg.hashsalt": "long_ppl", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        for index, (label, cells) in enumerate(lines.items()):
            lengths = sorted(cells)
            values = [cells[length][0] for length in lengths]
            bars: Any = [[cells[n][0] - cells[n][1] for n in lengths], [cells[n][2] - cells[n][0] for n in lengths]]
            style = "--" if label.endswith("(published)") else "-"
            marker = "osD^v<>P"[index % 8]
            axes.errorbar(lengths, values, yerr=bars, label=label, linestyle=style, marker=marker, capsize=3)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("length in tokens")
        axes.set_ylabel("perplexity")
        axes.grid(which="major", alpha=0.3)
        axes.legend(fontsize="small")
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "long_ppl.png", folder / "long_ppl.svg"]
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
        pyplot.close(figure)
    return paths


def _lines(
    published: Sequence[Mapping[str, str]], ours: Sequence[Mapping[str, str]]
) -> dict[str, dict[int, tuple[float, float, float]]]:
    """Label -> length -> (value, low, high); the newest of our figures, no partial ones."""
    lines: dict[str, dict[int, tuple[float, float, float]]] = {}
    for row in published:
        if row["table"] == "long_ppl":
            value = float(row["value"])
            label = f"{labelled(row['model'], row['setting'])} (published)"
            lines.setdefault(label, {})[int(row["group"])] = (value, value, value)
    for row in ours:
        if row["metric"] == "perplexity" and not int(row["partial"]):
            value, low, high = (float(row[name]) for name in ("value", "ci_low", "ci_high"))
            if low != low:  # a single document has no interval
                low = high = value
            lines.setdefault(labelled(row["model"], row["context"]), {})[int(row["group"])] = (value, low, high)
    return lines
