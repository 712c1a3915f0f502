"""Memory: what is free on a device, and what a forward pass over a long text takes beyond the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> float:
    """Bytes that can still be allocated on a device; infinity where the system does not tell. On a CPU what the kernel
    calls available, or what the container's limit leaves where that is less."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    try:
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        free = float(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return float("inf")
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else min(free, float(limit) - float(used))
    except (OSError, ValueError):
        return free


def token_bytes(config: Any, size: int) -> int:
    """Bytes a token of a forward pass takes at its peak, about. config: of the text model. size: bytes of a number.

    A layer holds at most the residual stream, its normalised copy, queries, keys and values before and after rotation and
    the attention's output, or the three wide rows of a gated layer.
    """
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return size * (9 * config.hidden_size + 3 * inner)


def cache_bytes(config: Any, size: int) -> int:
    """Bytes of one token's keys and values in all layers."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * size


def piece_that_fits(config: Any, size: int, length: int, room: float) -> int:
    """How many of `length` tokens one forward pass may take in `room` bytes: all, or a part, behind a cache of the rest
    and under a mask of part x length. 0 or less where even the cache does not fit."""
    if length * token_bytes(config, size) <= room:
        return length
    # appending to the cache copies one layer of it
    cache = length * cache_bytes(config, size) * (1 + 1 / config.num_hidden_layers)
    mask = length * (1 + size)  # the mask as booleans, and as the numbers that a CPU's kernel makes of it
    return int((room - cache) // (token_bytes(config, size) + mask))
