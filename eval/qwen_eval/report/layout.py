"""Which figures are in which table: the tables that benchmarks share, and those that benchmarks define."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.facts import OWN_TABLES, Column, Facts, Table

SHARED = (
    Table("main", "Benchmarks", order=1, readme=True, chinese={"Benchmarks": "基准"}),
    Table("precision", "Precision", by="precision", order=2, readme=True, chinese={"Precision": "精度"}),
    Table("chat", "Chat", mode="chat", order=6, chinese={"Chat": "对话"}),
    Table(OWN_TABLES["base"], "Benchmarks of your own", order=90, chinese={"Benchmarks of your own": "自定义基准"}),
    Table(OWN_TABLES["chat"], "Benchmarks of your own, chat", mode="chat", order=91,
          chinese={"Benchmarks of your own, chat": "自定义基准（对话）"}),
)  # fmt: skip

Rows = Sequence[Mapping[str, str]]


def tables(
    kinds: Mapping[str, type[Benchmark]],
    own: Iterable[Facts],
    results: Mapping[str, Rows],
    published: Rows,
) -> dict[str, Table]:
    """Every table by name, in order, with its columns in the order of the benchmarks.

    kinds: the known benchmark classes. own: facts of the others, from manifests. results: our rows by benchmark. published:
    the published rows.
    """
    found = {table.name: table for table in SHARED}
    columns: dict[str, list[Column]] = {}
    described = [(kind.facts(), kind.columns_for(results.get(name, ()), published)) for name, kind in kinds.items()]
    for facts, measured in [*described, *((facts, facts.columns) for facts in own)]:
        found |= {table.name: table for table in facts.tables}
        for name, mine in {**facts.columns, **measured}.items():
            taken = columns.setdefault(name, [])
            for column in mine:
                head = column.head
                if any(head == other.head for other in taken):
                    head = f"{head} ({facts.name})"
                taken.append(dataclasses.replace(column, head=head, benchmark=facts.name))
    return {
        table.name: _complete(table, columns.get(table.name, ()))
        for table in sorted(found.values(), key=lambda table: table.order)
    }


def _complete(table: Table, columns: Sequence[Column]) -> Table:
    """The table with its columns, their notes, and the Chinese texts of both."""
    notes = [*table.notes, *(column.note for column in columns if column.note)]
    chinese = {column.head: column.zh for column in columns if column.zh}
    chinese |= {column.note: column.note_zh for column in columns if column.note_zh}
    return dataclasses.replace(
        table, columns=tuple(columns), notes=tuple(dict.fromkeys(notes)), chinese={**chinese, **table.chinese}
    )
