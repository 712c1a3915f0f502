"""What a run computed, counted without the engine: distinct tokens of a trie over prompts, time in matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_linear")


def distinct_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Nodes of the trie over token sequences, its root not counted: what has to be computed when every token is computed
    once. In sorted order a sequence adds what it does not share with the one before it."""
    rows = sorted(tuple(ids) for ids in prompts)
    shared = 0
    for one, other in pairwise(rows):
        for left, right in zip(one, other, strict=False):
            if left != right:
                break
            shared += 1
    return sum(map(len, rows)) - shared


def matrix_share(call: Callable[[], Any]) -> float:
    """The share of a call's wall time that the calling thread spends in matrix products themselves (attention kernels are
    not among them). The profiler's own work makes it a little too small."""
    start = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
        wall = time.perf_counter() - start
    spent = sum(event.self_cpu_time_total for event in profile.key_averages() if event.key in MATRIX_PRODUCTS)
    return spent / 1e6 / wall
