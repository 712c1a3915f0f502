"""A table as Markdown, in English or Chinese, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen_eval.report.lines import DEMONSTRATION, NOT_COMPARABLE, PARTIAL, UNVERIFIED, Figure, Line, best
from qwen_eval.report.words import translator
from qwen_eval.runs.results import escape_formula
from qwen_eval.tasks.facts import Table

SYMBOLS = {PARTIAL: "†", DEMONSTRATION: "‡", NOT_COMPARABLE: "§", UNVERIFIED: "¶"}
BOLD = "Bold: the best of the lines of equal protocol (the published ones; ours of recipe `qwen2023` count among them)."
LEGEND = {
    PARTIAL: "† partial: only the first items of every subject or set.",
    DEMONSTRATION: "‡ demonstration data: not comparable with the published lines.",
    UNVERIFIED: "¶ no official checksums of the data are known: its rows were taken as they are.",
    NOT_COMPARABLE: "§ not comparable with the published lines: too little of their protocol is known.",
}
CSV = ("table", "model", "how", "column", "value", "ci_low", "ci_high", "best", "marks", "source", "signature")


@dataclass(frozen=True)
class Cell:
    """A cell of a table. bold: whether its text is. after: what follows the text (interval, marks, number of the footnote)."""

    text: str
    bold: bool = False
    after: str = ""


@dataclass(frozen=True)
class Shown:
    """A table in one language. rows: cells, the first of a row names the line. legend: sentences on bold type, marks and the
    data. notes: the numbered footnotes, how ours were computed with their signatures."""

    heads: list[str]
    rows: list[list[Cell]]
    legend: str
    notes: list[tuple[str, list[str]]]


def shown(table: Table, lines: Sequence[Line], language: str = "en") -> Shown:
    """The table in a language. A mark is put at a figure, or at the model's name if all its figures have it."""
    say = translator(language, table.chinese)
    columns = [column for column in table.columns if any(column.head in line.figures for line in lines)]
    winners = {column.head: best(column, lines) for column in columns}
    rows: list[list[Cell]] = []
    notes: list[tuple[str, list[str]]] = []
    for index, line in enumerate(lines):
        common = _common(line)
        after = [SYMBOLS[mark] for mark in common]
        signatures = list(dict.fromkeys(figure.signature for figure in line.figures.values() if figure.signature))
        if signatures:
            notes.append((", ".join(line.how), signatures))
            after.append(f"[{len(notes)}]")
        row = [Cell(line.model, after=" ".join(after))]
        for column in columns:
            figure = line.figures.get(column.head)
            row.append(_cell(figure, column.digits, index in winners[column.head], common, say) if figure else Cell(""))
        rows.append([*row, Cell(say(line.source))])
    used = [mark for mark in SYMBOLS if any(mark in figure.marks for line in lines for figure in line.figures.values())]
    words = [*(BOLD for _ in [0] if any(winners.values())), *(LEGEND[mark] for mark in used), *table.notes]
    heads = [say(head) for head in ("Model", *(column.head for column in columns), "Source")]
    return Shown(heads, rows, (" " if language == "en" else "").join(map(say, words)), notes)


def markdown(table: Table, lines: Sequence[Line], language: str = "en", folded: bool = False) -> str:
    """The table in Markdown. folded: the footnotes with the signatures behind a line to be clicked, as GitHub shows it."""
    made = shown(table, lines, language)
    out = ["| " + " | ".join(made.heads) + " |", "|:--|" + "--:|" * (len(made.heads) - 2) + ":--|"]
    for row in made.rows:
        cells = (f"{f'**{cell.text}**' if cell.bold else cell.text} {cell.after}".rstrip() for cell in row)
        out.append("| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |")
    if made.legend:
        out += ["", made.legend]
    if made.notes:
        notes = ((how, "; ".join(f"`{text}`" for text in signatures)) for how, signatures in made.notes)
        numbered = [f"{number}. {how}: {texts}" for number, (how, texts) in enumerate(notes, 1)]
        if folded:
            summary = translator(language, table.chinese)("Signatures")
            numbered = [f"<details><summary>{summary}</summary>", "", *numbered, "", "</details>"]
        out += ["", *numbered]
    return "\n".join(out) + "\n"


def tidy_csv(table: Table, lines: Sequence[Line]) -> str:
    """The table as CSV, one row per figure, at full precision; no text is a formula to a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV)
    for column in table.columns:
        winners = best(column, lines)
        for index, line in enumerate(lines):
            figure = line.figures.get(column.head)
            if figure:
                bounds = ["" if bound is None else bound for bound in (figure.low, figure.high)]
                marks = "; ".join(figure.marks)
                head = map(escape_formula, (table.name, line.model, ", ".join(line.how), column.head))
                tail = map(escape_formula, (marks, line.source, figure.signature))
                writer.writerow([*head, figure.value, *bounds, int(index in winners), *tail])
    return file.getvalue()


def _cell(figure: Figure, digits: int, bold: bool, common: Sequence[str], say: Callable[[str], str]) -> Cell:
    """`56.7`, or, for ours, `56.7 (55.9 to 57.5)` with the marks that are not common to the line."""
    after = [SYMBOLS[mark] for mark in figure.marks if mark not in common]
    if figure.low is not None:
        interval = say("{low} to {high}").format(low=f"{figure.low:.{digits}f}", high=f"{figure.high:.{digits}f}")
        after.insert(0, f"({interval})")
    return Cell(f"{figure.value:.{digits}f}", bold, " ".join(after))


def _common(line: Line) -> tuple[str, ...]:
    """The marks that all figures of a line have."""
    return tuple(mark for mark in SYMBOLS if all(mark in figure.marks for figure in line.figures.values()))
