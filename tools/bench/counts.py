"""What a run computed, counted without the engine: distinct tokens of a trie over prompts, time in matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise")


def distinct_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Nodes of the trie over token sequences, its root not counted: what has to be computed when every token is computed
    once. In sorted order a sequence adds what it does not share with the one before it."""
    return sum(stop - start for start, stop in _new_parts(prompts))


def distinct_pairs(prompts: Sequence[Sequence[int]]) -> int:
    """Pairs of a token of the trie and a token that it sees, itself included."""
    return sum((stop * (stop + 1) - start * (start + 1)) // 2 for start, stop in _new_parts(prompts))


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with together."""
    return common(min(map(tuple, prompts)), max(map(tuple, prompts)))


def _new_parts(prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """For each sequence, in sorted order, where it leaves the one before it, and its length."""
    rows = sorted(tuple(ids) for ids in prompts)
    yield 0, len(rows[0])
    for one, other in pairwise(rows):
        yield common(one, other), len(other)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    return next(
        (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )


def matrix_share(call: Callable[[], Any]) -> float:
    """The share of a call's wall time that the calling thread spends in matrix products themselves (attention kernels are
    not among them). The profiler's own work makes it a little too small."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        start = time.perf_counter()
        call()
        wall = time.perf_counter() - start
    spent = sum(event.self_cpu_time_total for event in profile.key_averages() if event.key in MATRIX_PRODUCTS)
    return spent / 1e6 / wall
