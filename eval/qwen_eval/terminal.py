"""Text for a terminal: the table that a script prints, and control characters escaped."""

from __future__ import annotations

import io
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import TextIO

from qwen_eval.schema import Metric

HEADS = {"acc_micro": "micro", "acc_macro": "macro"}
COUNTS = ("documents", "tokens", "chunks")


def table(headline: str, metrics: Sequence[Metric], title: str, signature: str, notes: Sequence[str]) -> str:
    """One line per group: the headline metric with its interval, and a column for every other metric that several groups
    have. Figures of a single group, the notes and the signature follow below."""
    figures = {(metric.group, metric.metric): metric for metric in metrics}
    groups = list(dict.fromkeys(metric.group for metric in metrics if metric.metric == headline))
    groups.sort(key=lambda group: ((group, "acc_micro") in figures, group == "all"))  # subjects, categories, all
    spread = Counter(metric.metric for metric in metrics if metric.group in groups)
    columns = [name for name, count in spread.items() if name != headline and count > 1]
    lines = [["", "n", headline, "95% interval", *(HEADS.get(name, name) for name in columns)]]
    for group in groups:
        metric = figures[group, headline]
        cells = [group, str(metric.n), number(metric), interval(metric)]
        lines.append(cells + [number(figures[group, name]) if (group, name) in figures else "" for name in columns])
    others = [metric for metric in metrics if metric.metric not in (headline, *columns)]
    parts = [title, "", *(aligned(lines) if len(lines) > 1 else [])]
    if others:
        parts += ["", *aligned([[f"{m.metric} {m.group}".removesuffix(" all"), number(m)] for m in others])]
    return "\n".join([*parts, "", *notes, f"signature {signature}"])


class EscapingStream(io.TextIOBase):
    """A stream that escapes control characters and passes the text on to another stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(escape_controls(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def escape_controls(text: str) -> str:
    """The text with control characters (except line feeds) and invisible ones escaped as in JSON, \\u001b: names, prompts and
    messages from untrusted files may hold escape sequences that a terminal executes. A line of JSON stays the same JSON."""
    return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else _escape(c) for c in text)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def number(metric: Metric) -> str:
    """A figure with two decimals; a count with none."""
    return f"{metric.value:.0f}" if metric.metric in COUNTS else f"{metric.value:.2f}"


def interval(metric: Metric) -> str:
    """The 95% interval; "none" where there are too few independent items for one."""
    return "none" if isnan(metric.ci_low) else f"{metric.ci_low:.2f} to {metric.ci_high:.2f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with the first column aligned left and the others right, two spaces apart."""
    import tabulate

    tabulate.WIDE_CHARS_MODE = False  # the text is the same with and without the package wcwidth
    align = ["left", *["right"] * (len(rows[0]) - 1)]
    table = tabulate.tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=align)
    return [line.rstrip() for line in table.split("\n")]
