"""The lines of a table: published figures and ours, each with the protocol that decides what it may be compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_eval.data import demo
from qwen_eval.runs.results import read_table
from qwen_eval.schema import InputError
from qwen_eval.tasks.facts import Column, Table

PUBLISHED = ("table", "model", "metric", "group", "setting", "value", "source")
QUANTIZED = ("int8", "nf4")
PRECISIONS = {"bf16": "BF16", "fp16": "FP16", "fp32": "FP32", "int8": "Int8", "nf4": "NF4"}
# fields of a signature that describe the model and how it was loaded, not the protocol
OF_THE_MODEL = ("template", "date", "served", "ctx", "ext", "trained", "window", "dtype", "adapter", "trust")
PARTIAL, DEMONSTRATION, NOT_COMPARABLE, UNVERIFIED = "partial", "demonstration", "not comparable", "unverified"


@dataclass(frozen=True)
class Figure:
    """A figure of one line. value, low, high: in the table's unit, with the 95% interval of ours. protocol: figures of a
    column may be compared where it is equal. marks: what a reader must know about it. signature: of ours."""

    value: float
    low: float | None = None
    high: float | None = None
    protocol: str = "published"
    marks: tuple[str, ...] = ()
    signature: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a table. source: of the figures, "ours" for those of the results folder. figures: by column. how: recipe,
    precision and context extension of ours."""

    model: str
    source: str
    figures: Mapping[str, Figure]
    how: tuple[str, ...] = ()


def read_published(path: Path) -> list[dict[str, str]]:
    """The published figures. Raises InputError for a missing file, other columns or a value that is not a number."""
    if not path.exists():
        raise InputError(f"{path} is missing; restore it")
    rows = read_table(path, [PUBLISHED], f"{','.join(PUBLISHED)}; restore the file")
    for number, row in enumerate(rows, 2):
        try:
            float(row["value"])
        except (TypeError, ValueError):
            raise InputError(f"{path}:{number} has no number in column value; correct it") from None
    return rows


def published_lines(table: Table, rows: Sequence[Mapping[str, str]]) -> list[Line]:
    """One line per model with a figure in the table, in the order of published.csv, as there with the worst average first.

    Where two sources have the same figure (Qwen-7B's MMLU), the line names both.
    """
    models: dict[str, dict[str, Figure]] = {}
    sources: dict[str, list[str]] = {}
    for row in rows:
        for column in table.columns:
            wanted = (column.table or column.benchmark, *column.published)
            if (row["table"], row["metric"], row["group"]) != wanted:
                continue
            if table.by != "model" or row["setting"] == column.setting:
                line = labelled(row["model"], table.by, row["setting"])
                models.setdefault(line, {}).setdefault(column.head, Figure(float(row["value"])))
                cited = sources.setdefault(line, [])
                if row["source"] not in cited:
                    cited.append(row["source"])
    return [Line(model, " and ".join(sources[model]), figures) for model, figures in models.items()]


def our_lines(table: Table, results: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Line]:
    """One line per model and setting (recipe, precision, context extension).

    Of several runs of a benchmark in a setting the newest counts, a partial one only if none was complete. Runs in 8 or 4
    bits, and those that repeat a subset of a line in another precision, are in the precision table only, unless the model
    has no other run. results: our rows by benchmark.
    """
    settings: dict[tuple[str, ...], dict[str, Mapping[str, str]]] = {}
    for column in table.columns:
        for row in results.get(column.benchmark, ()):
            if _is_of(column, row) and row["mode"] == table.mode:
                key = tuple(row[name] for name in ("model", "recipe", "precision", "context"))
                cells = settings.setdefault(key, {})
                if column.head not in cells or int(row["partial"]) <= int(cells[column.head]["partial"]):
                    cells[column.head] = row  # the file is in chronological order: the newest is kept
    if table.by != "precision":
        whole = {(model, recipe) for model, recipe, precision, _ in settings if not _quantized(precision)}
        settings = {key: cells for key, cells in settings.items() if not _quantized(key[2]) or key[:2] not in whole}
        settings = {key: cells for key, cells in settings.items() if not _is_subset(key, cells, settings)}
    columns = {column.head: column for column in table.columns}
    lines = []
    for (model, recipe, precision, context), cells in sorted(settings.items(), key=_sort_key):
        figures = {head: _figure(columns[head], row) for head, row in cells.items()}
        how = [f"recipe {recipe}"] if recipe != "default" else []
        how += [precision] + ([context] if context != "none" else [])
        label = labelled(model, table.by, context if table.by == "context" else _precision(precision))
        lines.append(Line(label, "ours", figures, tuple(how)))
    return lines


def _is_subset(
    key: tuple[str, ...], cells: Mapping[str, object], settings: Mapping[tuple[str, ...], Mapping[str, object]]
) -> bool:
    """Whether the columns of a line are a proper subset of those of a line that differs in precision alone."""
    model, recipe, precision, context = key
    return any(
        other[2] != precision and (other[0], other[1], other[3]) == (model, recipe, context) and set(cells) < set(more)
        for other, more in settings.items()
    )


def _quantized(precision: str) -> bool:
    """Whether a precision's label is of weights that were quantized here; a GGUF file's own quantization is the model."""
    return any(part in QUANTIZED for part in precision.split("+"))


def _precision(label: str) -> str:
    """`BF16`, or `NF4+BF16` where the unquantized part was not loaded in the checkpoint's own precision."""
    return "+".join(PRECISIONS.get(part, part) for part in label.split("+"))


def labelled(model: str, by: str, setting: str) -> str:
    """The name of a line: `Qwen-7B + dynamic_ntk + logn` or `Qwen-7B (Int8)`."""
    if by == "context" and setting != "none":
        return " + ".join([model, *setting.split("+")])
    return f"{model} ({setting})" if by == "precision" else model


def best(column: Column, lines: Sequence[Line]) -> set[int]:
    """The indices of the lines with the best figure of a column among lines of equal protocol, where these differ."""
    groups: dict[str, list[tuple[float, int]]] = {}
    for index, line in enumerate(lines if column.ranked else ()):
        if column.head in line.figures:
            figure = line.figures[column.head]
            # rounded as shown, so that equal texts are equally good
            shown = round(figure.value, column.digits) * (-1 if column.lower else 1)
            groups.setdefault(figure.protocol, []).append((shown, index))
    return {
        index
        for group in groups.values()
        if len({value for value, _ in group}) > 1
        for value, index in group
        if value == max(value for value, _ in group)
    }


def _is_of(column: Column, row: Mapping[str, str]) -> bool:
    """Whether a row of results has the column's protocol and figure."""
    return (
        (row["metric"], row["group"]) == column.ours
        and column.shots in ("", row["shots"])
        and column.where in row["signature"]
        and (column.field == "value" or row[column.field] not in ("", "0.000"))  # some engines do not know their memory
    )


def _figure(column: Column, row: Mapping[str, str]) -> Figure:
    """Our figure with its interval, its protocol and its marks. Raises InputError for a row without numbers."""
    signature = row["signature"]
    demonstration = row["model"] == demo.NAME or "|data:demo-" in signature
    known = column.known and "hfagent-own" not in signature
    marks = [PARTIAL] if int(row["partial"]) else []
    marks += [DEMONSTRATION] if demonstration else [] if known else [NOT_COMPARABLE]
    marks += [UNVERIFIED] if "|data:unverified-" in signature else []
    same = row["recipe"] == "qwen2023" and not marks
    fields = [field for field in signature.split("|") if field.split(":")[0] not in OF_THE_MODEL]
    protocol = "published" if same else "|".join(fields)
    try:
        value, low, high = (float(row[name]) for name in (column.field, "ci_low", "ci_high"))
    except ValueError as error:
        raise InputError(
            f"{row['benchmark']}.csv: run {row['run_id']} has no number ({error}); correct the row"
        ) from None
    if column.field != "value" or math.isnan(low):  # a single document, or not a statistic
        return Figure(value, None, None, protocol, tuple(marks), signature)
    return Figure(value, low, high, protocol, tuple(marks), signature)


def _sort_key(item: tuple[tuple[str, ...], object]) -> tuple[str, ...]:
    """By name, settings without a context extension first."""
    *setting, context = item[0]
    return *setting, "" if context == "none" else context
