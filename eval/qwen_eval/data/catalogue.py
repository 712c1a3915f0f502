"""The subjects of MMLU, C-Eval and CMMLU: their official order, categories and names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from qwen_eval.schema import InputError

_FACTS = Path(__file__).with_name("subjects.json")


@dataclass(frozen=True)
class SubjectInfo:
    """A subject: its name in file names, its categories ("China specific" overlaps the other categories of CMMLU),
    whether it is in C-Eval's Hard subset, and its title (the Chinese name in C-Eval, elsewhere the name with spaces)."""

    name: str
    categories: tuple[str, ...]
    hard: bool
    title: str


def subjects(benchmark: str) -> dict[str, SubjectInfo]:
    """The subjects of "mmlu", "ceval" or "cmmlu" by name, in the official order.

    The order is alphabetical for MMLU and CMMLU, whose own scripts sort the file names, and for C-Eval that of its
    subject table. Raises KeyError for another benchmark, which has no subjects.
    """
    return dict(_catalogue()[benchmark])


def choose_subjects(benchmark: str, names: Sequence[str] | None) -> list[str]:
    """The named subjects, each once, in the official order; every subject for None.

    Raises InputError for an unknown name (with the closest known ones) and for no name at all.
    """
    known = _catalogue()[benchmark]
    if names is None:
        return list(known)
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=3, cutoff=0.5)
            remedy = f"did you mean {' or '.join(close)}?" if close else f"the subjects are {', '.join(known)}"
            raise InputError(f"unknown {benchmark} subject {name!r}: {remedy}")
    if not names:
        raise InputError(f"no {benchmark} subject is named; leave --subjects out for all {len(known)}")
    return [name for name in known if name in names]


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, dict[str, SubjectInfo]]:
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))
    return {benchmark: {entry["name"]: _info(entry) for entry in entries} for benchmark, entries in facts.items()}


def _info(entry: Mapping[str, Any]) -> SubjectInfo:
    name = entry["name"]
    title = entry.get("title", name.replace("_", " "))
    return SubjectInfo(name, tuple(entry["categories"]), entry.get("hard", False), title)
