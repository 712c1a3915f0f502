"""The form into which every reader brings another harness's samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Protocol

LETTERS = ascii_uppercase[:10]  # labels of options


@dataclass(frozen=True)
class Item:
    """One item of another harness's run.

    task, index: its position in theirs (file, number from 0 or id). prompt: what the model read. texts: strings of the
    question by which it is recognized (question, then choices). continuations, logprobs: of a choice by likelihood, in the
    order of the options, natural logs. reply: generated text. answer, target: letters, or texts. score: the one they gave.
    stop, max_tokens: of generated text.
    """

    task: str
    index: str
    prompt: str
    texts: tuple[str, ...]
    target: str
    score: float
    answer: str = ""
    continuations: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    reply: str | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 0


@dataclass(frozen=True)
class Samples:
    """Another harness's run.

    harness: whose format. metric: which of their scores was taken. average: how they average over tasks, "micro" or
    "macro". bos: whether the BOS that their tokenizer adds was kept (None: not recorded). max_length: context limit of
    their model in tokens (None: not recorded). by_length: whether options were compared by their log-probability by character
    of their text. per_token: whether the items' log-probabilities are means over the tokens of the whole text, prompt included.
    """

    harness: str
    paths: tuple[Path, ...]
    metric: str
    items: tuple[Item, ...]
    average: str
    bos: bool | None = None
    max_length: int | None = None
    by_length: bool = False
    per_token: bool = False
    notes: list[str] = field(default_factory=list)

    def with_average(self, average: str) -> Samples:
        """The same samples, averaged over tasks as "micro" or "macro"."""
        return replace(self, average=average)


class Reader(Protocol):
    """A module that reads the files of one harness.

    content: of JSON lines the first row, of JSON all of it; empty where that is no object. `read` may raise any error of a
    file that is not as expected; whoever calls it says which file it was.
    """

    def recognizes(self, path: Path, content: Mapping[str, Any]) -> bool: ...

    def read(self, path: Path, content: Mapping[str, Any], metric: str | None) -> Samples: ...
