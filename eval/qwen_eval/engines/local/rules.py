"""How a layer attends: what the engine puts in the place of a model's attention, feature by feature.

A layer's attention is replaced only where all that defines it is known here. What a layer asks for comes by two ways: keywords
of transformers' attention function (`asked`) and the function that its mask is made from (`recognise`). Anything else, under
whatever name, is Unsupported: the model then keeps its own attention, and shares nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen_eval.models.caches import refuse_unread


class Unsupported(Exception):
    """This model's attention cannot be computed by the engine, for the reason given; its own is used."""


@dataclass(frozen=True)
class Span:
    """Which keys a query sees beside the condition that none comes after it. window: the last so many, itself included.
    chunk: those of its own stretch of so many positions, counted from 0. None for no such limit."""

    window: int | None = None
    chunk: int | None = None

    def first(self, positions: np.ndarray) -> np.ndarray:
        """The first position that a query at each of these sees."""
        first = np.zeros_like(positions)
        if self.window is not None:
            first = np.maximum(first, positions - self.window + 1)
        if self.chunk is not None:
            first = np.maximum(first, positions // self.chunk * self.chunk)
        return first

    def within(self, window: int | None) -> Span:
        """The same with a window of at most so many."""
        return self if window is None else Span(min(window, self.window or window), self.chunk)

    def __str__(self) -> str:
        parts = [f"{name} {size}" for name, size in (("window", self.window), ("chunk", self.chunk)) if size]
        return ", ".join(parts) or "full"


EVERYTHING = Span()


@dataclass(frozen=True, eq=False)
class Rule:
    """The attention of one layer in one pass. scale: of the scores. softcap: they become softcap * tanh(score / softcap).
    sinks: [heads], a score per head that takes its share of the softmax and adds nothing."""

    scale: float
    span: Span = EVERYTHING
    softcap: float | None = None
    sinks: Tensor | None = None

    def drain(self, out: Tensor, lse: Tensor) -> Tensor:
        """out [rows, heads, tokens, d] with the sinks' share taken off; lse [rows, heads, tokens] is without them."""
        if self.sinks is None:
            return out
        share = torch.sigmoid(lse - self.sinks.float()[None, :, None]).unsqueeze(-1)
        return (out * share).to(out.dtype)


# Keywords of transformers' attention functions that say nothing about how a query attends to a key. None, False and 0.0 are
# no request whatever their name; anything else under another name is unknown.
SILENT = {"position_ids", "cache_position", "position_embeddings", "use_cache", "return_dict", "logits_to_keep"}
READ = {"sliding_window", "softcap", "s_aux"}


@dataclass(frozen=True, eq=False)
class Asked:
    """The keywords of an attention function that are computed here."""

    sliding_window: int | None = None
    softcap: float | None = None
    s_aux: Tensor | None = None


def asked(keywords: Mapping[str, Any]) -> Asked:
    """What a layer asks for by keywords. Raises Unsupported for what is not known here, CheckpointError for a cache."""
    refuse_unread(keywords)
    unknown = [name for name, value in keywords.items() if name not in READ | SILENT and not _silent(name, value)]
    if unknown:
        raise Unsupported(f"its layers attend with {', '.join(sorted(unknown))}, which the engine does not know")
    found = Asked(**{name: keywords.get(name) for name in READ})
    if found.s_aux is not None and found.s_aux.dim() != 1:
        raise Unsupported("its attention sinks are not one score a head")
    return found


def _silent(name: str, value: Any) -> bool:
    """Whether a keyword asks for nothing. is_causal=False asks for attention to what follows."""
    if name == "is_causal":
        return value is None or value is True
    return value is None or (isinstance(value, (bool, int, float)) and not value)


FAR = 2**19  # positions up to which a mask is looked at
LARGEST = 2**18  # the largest window or chunk that is recognised: a wider one is none


def recognise(mask: Callable[..., Any], device: Any = "cpu") -> Span | None:
    """The span that a mask function of transformers (batch, head, query, key: whether it is seen) stands for, None for
    another function: it is asked for one far query and one far key, and then compared at many other places."""

    def seen(queries: Any, keys: np.ndarray) -> np.ndarray:
        """bool [n]: whether the queries see the keys."""
        key = torch.from_numpy(keys.astype(np.int64)).to(device)
        query = torch.from_numpy(np.broadcast_to(queries, keys.shape).astype(np.int64)).to(device)
        zero = torch.zeros_like(key)
        answer: np.ndarray = torch.as_tensor(mask(zero, zero, query, key)).expand(len(keys)).cpu().numpy().astype(bool)
        return answer

    def agrees(span: Span, queries: np.ndarray, keys: np.ndarray) -> bool:
        return bool((seen(queries, keys) == ((keys <= queries) & (keys >= span.first(queries)))).all())

    try:
        row = seen(FAR, FAR - np.arange(LARGEST))
        at = seen(FAR + np.arange(0, LARGEST), np.full(LARGEST, FAR))
        for span in _candidates(int(row.sum()), int(at.sum())):
            if all(agrees(span, queries, keys) for queries, keys in _places(span)):
                return span
    except (
        IndexError,
        TypeError,
        RuntimeError,
        ValueError,
        AttributeError,
    ):  # it reads tensors of this pass, or cannot be asked
        return None
    return None


def _candidates(before: int, after: int) -> list[Span]:
    """before: how many keys up to a far query it sees. after: how many queries from there on see its key."""
    if before == LARGEST:
        return [EVERYTHING]
    # a window is seen from both sides alike; a chunk's two sides make it up, its middle one counted twice
    return [Span(window=before), Span(chunk=before + after - 1)]


def _places(span: Span) -> list[tuple[np.ndarray, np.ndarray]]:
    """Queries and keys where a mask is compared with a span: all of the first 64 positions, and the edges."""
    few = np.arange(64)
    size = span.window or span.chunk or 1000
    random = np.random.default_rng(0)
    queries = np.concatenate([size * np.arange(1, 9) + edge for edge in range(-2, 3)] + [random.integers(0, FAR, 500)])
    queries = queries[(queries >= 0) & (queries < FAR)]
    steps = np.concatenate([np.arange(-3, 4), size + np.arange(-3, 4), random.integers(0, 2 * size, 8)])
    pairs = np.repeat(queries, len(steps)), np.concatenate([query - steps for query in queries])
    inside = (pairs[1] >= 0) & (pairs[1] < FAR)
    return [(np.repeat(few, 64), np.tile(few, 64)), (pairs[0][inside], pairs[1][inside])]
