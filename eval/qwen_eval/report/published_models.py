"""The models of published tables: where their checkpoints are, how large they are, and which of their figures can be compared.

results/models.csv has a line a model: its checkpoint on the hub, its parameters in billions, options that it needs,
why there is none to run (closed), and what else a reader must know. The names on the hub are from memory and are not looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_eval.runs.results import read_table
from qwen_eval.schema import InputError
from qwen_eval.tasks.facts import Table

COLUMNS = ("model", "checkpoint", "billions", "options", "closed", "note")


@dataclass(frozen=True)
class Model:
    """A published model.

    checkpoint: on the hub. weights: GB in 16 bits. options: that the command needs for it. closed: why it cannot be run, ""
    where it can. figures: what is published, by column. benchmarks: of these columns. unknown: notes on columns whose protocol
    is not known, so that figures of ours cannot be compared with them.
    """

    name: str
    checkpoint: str
    weights: float
    options: Sequence[str]
    closed: str
    note: str
    figures: Mapping[str, str]
    benchmarks: Sequence[str]
    unknown: Mapping[str, str]


def models(table: Table, published: Sequence[Mapping[str, str]], path: Path) -> list[Model]:
    """Every model with a published figure in a table, in the order of published.csv. path: of models.csv. Raises InputError
    for a table without published figures, and a model that models.csv does not have."""
    known = {row["model"]: row for row in read_table(path, [COLUMNS], f"{','.join(COLUMNS)}; restore the file")}
    found: dict[str, tuple[dict[str, str], list[str], dict[str, str]]] = {}
    for row in published:
        for column in table.columns:
            wanted = (column.table or column.benchmark, *column.published)
            setting = table.by != "model" or row["setting"] == column.setting
            if (row["table"], row["metric"], row["group"]) != wanted or not setting:
                continue
            figures, benchmarks, unknown = found.setdefault(row["model"], ({}, [], {}))
            head = column.head if table.by == "model" else f"{column.head}, {row['setting']}"
            figures.setdefault(head, row["value"])
            if column.benchmark not in benchmarks:
                benchmarks.append(column.benchmark)
            if not column.known:
                unknown[column.head] = column.note
    if not found:
        raise InputError(f"no figures are published for the table {table.name}")
    made = []
    for name, (figures, benchmarks, unknown) in found.items():
        if name not in known:
            raise InputError(f"{path} has no line for {name}, which published.csv has; add it")
        row = known[name]
        made.append(
            Model(
                name=name,
                checkpoint=row["checkpoint"],
                weights=2 * float(row["billions"] or 0),
                options=row["options"].split(),
                closed=row["closed"],
                note=row["note"],
                figures=figures,
                benchmarks=benchmarks,
                unknown=unknown,
            )
        )
    return made
