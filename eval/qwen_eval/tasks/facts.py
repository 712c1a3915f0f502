"""What tables, comparisons and pages need to know of a benchmark, as plain records that a manifest can store.

A benchmark's class is where these facts stand (tasks/benchmark.py). For a benchmark of one's own they go into the manifest
of every run, so that code that a file names is never imported.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qwen_eval.schema import InputError

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")  # a benchmark's name is a file name and a field of the signature
OWN_TABLES = {"base": "own", "chat": "own_chat"}  # where benchmarks of one's own stand, by mode


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, the (metric, group) of ours, the same in published.csv, and its setting there.

    shots, where: what a row of ours must have to be in this protocol (number of shots, "" for any; a part of the signature).
    table: in published.csv, where it is not the benchmark's name. lower: less is better. known: whether enough was published
    to ask the same; else ours are marked as not comparable. field: the CSV column that holds the figure (memory stands beside a
    value). ranked: whether one figure is better than another. note: a sentence that the table must carry. zh, note_zh: head
    and note in Chinese, "" where they are the same. benchmark: filled in by whoever reads the class.
    """

    head: str
    ours: tuple[str, str]
    published: tuple[str, str] = ("", "")
    setting: str = ""
    shots: str = ""
    where: str = ""
    table: str = ""
    digits: int = 1
    lower: bool = False
    known: bool = True
    field: Literal["value", "peak_memory_gb", "weights_gb"] = "value"
    ranked: bool = True
    zh: str = ""
    note: str = ""
    note_zh: str = ""
    benchmark: str = ""


@dataclass(frozen=True)
class Table:
    """A table: its name in the markers, its title, a line a model, and a column a figure; rows of one mode.

    by: what beside the model makes another line, where published.csv gives it as the setting: "context" (extension) or
    "precision"; "model" where nothing does. order: where it stands among the tables; readme: whether it is one of the README's.
    chinese: title, heads and notes in Chinese, by the English ones.
    """

    name: str
    title: str
    columns: tuple[Column, ...] = ()
    mode: str = "base"
    by: Literal["model", "context", "precision"] = "model"
    notes: tuple[str, ...] = ()
    order: int = 100
    readme: bool = False
    chinese: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """A figure that two runs can be compared by: its name, the statistic of the rows, the group its items are in ("" for
    all), what the statistic is divided by (samples of a task), and whether less of it is better.

    kind: "share" (of a statistic in [0, 1]), "bleu" (of the answers as translations of the group's direction) or
    "perplexity" (of measured texts). decides: whether it says if an item was answered right.
    """

    metric: str
    stat: str = ""
    group: str = ""
    per: str = ""
    lower_is_better: bool = False
    kind: Literal["share", "bleu", "perplexity"] = "share"
    decides: bool = True


# the statistics that items are usually right or wrong by
USUAL = (View("acc", "correct"), View("pass@1", "passed", per="texts"), View("score", "score"))


@dataclass(frozen=True)
class Facts:
    """A benchmark as others see it.

    headline: the (metric, group) shown first. order: where it stands among the benchmarks. writes: the modes whose answers
    are generated text. columns: by table. hub: the dataset and the task's id there under which a model's page on the hub
    shows the figure. average: "micro" or "macro" over groups. own: whether it is none of the eight.
    """

    name: str
    title: str = ""
    title_zh: str = ""
    order: int = 1000
    headline: tuple[str, str] = ("acc", "all")
    writes: tuple[str, ...] = ()
    columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    views: tuple[View, ...] = ()
    hub: tuple[str, str] | None = None
    average: str = "micro"
    own: bool = True

    def as_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return dataclasses.asdict(self)


def from_json(content: Any, source: str) -> Facts:
    """The facts that as_json gave. source: the file, for the message. Raises InputError for anything else: a manifest may
    come from anywhere, and what it says goes into tables and names files."""
    try:
        fields = dict(content)
        columns = {
            table: tuple(_record(Column, column) for column in found)
            for table, found in dict(fields.pop("columns", {})).items()
        }
        views = tuple(_record(View, view) for view in fields.pop("views", ()))
        fields.pop("tables", None)  # an own benchmark stands in the tables of own benchmarks
        facts: Facts = _record(Facts, {**fields, "own": True})
        facts = dataclasses.replace(facts, columns=columns, views=views)
        if not NAME.fullmatch(facts.name) or not set(columns) <= set(OWN_TABLES.values()):
            raise ValueError(f"name {facts.name!r} or tables {sorted(columns)}")
        return facts
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{source} does not describe its benchmark as this version does ({error}); run it again, or give --own FILE"
        ) from error


def _record(kind: Any, content: Mapping[str, Any]) -> Any:
    """A record from its JSON. Raises TypeError for a field that it does not have, ValueError for one of another type."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in dict(content).items()}
    for one in dataclasses.fields(kind):
        value = values.get(one.name, one.default)
        wanted = (str, tuple) if one.default is dataclasses.MISSING else type(one.default)
        checked = one.default is dataclasses.MISSING or isinstance(one.default, (str, int, tuple))
        if checked and one.default_factory is dataclasses.MISSING and not isinstance(value, wanted):
            raise ValueError(f"{one.name} is {value!r}")
    return kind(**values)
