"""The table a script ends with, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from harness.schema import Benchmark, Metric

MAIN = ("acc", "acc_micro", "acc_macro")
HEADS = {"acc": "acc", "acc_micro": "micro", "acc_macro": "macro"}


def terminal(benchmark: Benchmark, metrics: Sequence[Metric], title: str, signature: str, notes: Sequence[str]) -> str:
    """Groups as lines, the headline metric with its interval and the averages as columns; the other figures, the notes
    and the signature below."""
    headline = benchmark.headline[0]
    figures = {(metric.group, metric.metric): metric for metric in metrics}
    groups = list(dict.fromkeys(metric.group for metric in metrics if metric.metric == headline))
    groups.sort(key=lambda group: ((group, "acc_micro") in figures, group == "all"))  # subjects, categories, all
    columns = [name for name in MAIN if name != headline and any(key[1] == name for key in figures)]
    lines = [["", "n", HEADS.get(headline, headline), "95% interval", *(HEADS[name] for name in columns)]]
    for group in groups:
        metric = figures[group, headline]
        cells = [group, str(metric.n), f"{metric.value:.2f}", f"{metric.ci_low:.2f} to {metric.ci_high:.2f}"]
        cells += [f"{figures[group, name].value:.2f}" if (group, name) in figures else "" for name in columns]
        lines.append(cells)
    others = [metric for metric in metrics if metric.metric not in (headline, *columns)]
    parts = [title, "", *(aligned(lines) if len(lines) > 1 else [])]
    if others:
        parts += ["", *aligned([[f"{m.metric} {m.group}".removesuffix(" all"), f"{m.value:.2f}"] for m in others])]
    return "\n".join([*parts, "", *notes, f"signature {signature}"])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and the others to the right, two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
