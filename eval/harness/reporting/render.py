"""A table as Markdown, in English or Chinese, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from harness.reporting.layout import Table
from harness.reporting.lines import DEMONSTRATION, NOT_COMPARABLE, PARTIAL, Figure, Line, best
from harness.reporting.words import speaker

SYMBOLS = {PARTIAL: "†", DEMONSTRATION: "‡", NOT_COMPARABLE: "§"}
BOLD = "Bold: the best of the lines of equal protocol (the published ones; ours of recipe `qwen2023` count among them)."
LEGEND = {
    PARTIAL: "† partial: only the first items of every subject or set.",
    DEMONSTRATION: "‡ demonstration data: not comparable with the published lines.",
    NOT_COMPARABLE: "§ not comparable with the published lines: too little of their protocol is known.",
}
CSV = ("table", "model", "how", "column", "value", "ci_low", "ci_high", "best", "marks", "source", "signature")


def markdown(table: Table, lines: Sequence[Line], language: str = "en") -> str:
    """The table with numbered footnotes for the signatures of ours, and what bold type and marks mean.

    A mark stands at a figure, or at the model's name where all its figures have it.
    """
    say = speaker(language)
    columns = [column for column in table.columns if any(column.head in line.figures for line in lines)]
    winners = {column.head: best(column, lines) for column in columns}
    heads = [say(column.head) for column in columns]
    out = [f"| {say('Model')} | " + " | ".join(heads) + f" | {say('Source')} |", "|:--|" + "--:|" * len(heads) + ":--|"]
    notes: list[str] = []
    for place, line in enumerate(lines):
        common = _common(line)
        label = " ".join([line.model.replace("|", "\\|"), *(SYMBOLS[mark] for mark in common)])
        signatures = list(dict.fromkeys(figure.signature for figure in line.figures.values() if figure.signature))
        if signatures:
            notes.append(", ".join(line.how) + ": " + "; ".join(f"`{text}`" for text in signatures))
            label += f" [{len(notes)}]"
        cells = []
        for column in columns:
            figure = line.figures.get(column.head)
            text = _text(figure, column.digits, place in winners[column.head], say) if figure else ""
            own = [SYMBOLS[mark] for mark in figure.marks if mark not in common] if figure else []
            cells.append(" ".join([text, *own]))
        out.append(f"| {label} | " + " | ".join(cells) + f" | {say(line.source)} |")
    used = [mark for mark in SYMBOLS if any(mark in figure.marks for line in lines for figure in line.figures.values())]
    words = [*(BOLD for _ in [0] if any(winners.values())), *(LEGEND[mark] for mark in used), *table.notes]
    if words:
        out += ["", (" " if language == "en" else "").join(map(say, words))]
    if notes:
        out += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(out) + "\n"


def tidy_csv(table: Table, lines: Sequence[Line]) -> str:
    """The table as CSV, a row a figure, at full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV)
    for column in table.columns:
        winners = best(column, lines)
        for place, line in enumerate(lines):
            figure = line.figures.get(column.head)
            if figure:
                bounds = ["" if bound is None else bound for bound in (figure.low, figure.high)]
                marks = "; ".join(figure.marks)
                writer.writerow([
                    table.name, line.model, ", ".join(line.how), column.head, figure.value, *bounds,
                    int(place in winners), marks, line.source, figure.signature,
                ])  # fmt: skip
    return file.getvalue()


def _text(figure: Figure, digits: int, bold: bool, say: Callable[[str], str]) -> str:
    """`56.7`, `**56.7**` or, for ours, `56.7 (55.9 to 57.5)`."""
    value = f"{figure.value:.{digits}f}"
    value = f"**{value}**" if bold else value
    if figure.low is None:
        return value
    interval = say("{low} to {high}").format(low=f"{figure.low:.{digits}f}", high=f"{figure.high:.{digits}f}")
    return f"{value} ({interval})"


def _common(line: Line) -> tuple[str, ...]:
    """The marks that all figures of a line have."""
    return tuple(mark for mark in SYMBOLS if all(mark in figure.marks for figure in line.figures.values()))
