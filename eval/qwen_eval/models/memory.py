"""Memory: what a model's stored tensors take, to the byte, what the process and the device hold, and what is free."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def stored_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of all stored tensors by their type ("int8", "bfloat16"): weights, buffers, and the state of quantized ones
    (scales, codes), which a model's own footprint leaves out. A tensor under several names counts once."""
    seen: set[tuple[int, int]] = set()
    table: Counter[str] = Counter()
    for tensor in _tensors(model):
        storage = (tensor.data_ptr(), tensor.nbytes)
        if storage not in seen:
            seen.add(storage)
            table[str(tensor.dtype).removeprefix("torch.")] += tensor.nbytes
    return dict(table.most_common())


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.buffers()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            yield parameter.data
            # bitsandbytes: a row's scale (8 bits), a block's scale, the 16 values and, nested, the scales' own (4 bits)
            scale = getattr(parameter, "SCB", None)
            yield from [scale] if isinstance(scale, Tensor) else []
            state = getattr(parameter, "quant_state", None)
            while state is not None:
                parts = (getattr(state, name, None) for name in ("absmax", "code", "offset"))
                yield from (part for part in parts if isinstance(part, Tensor))
                state = getattr(state, "state2", None)


def copy_from_file(model: nn.Module) -> None:
    """Copies the floating-point parameters: as long as one is mapped from the weight file, all of that file stays resident."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()


def touch(model: nn.Module) -> None:
    """Reads a value of every page of the parameters in main memory: pages that are still mapped from the file count as
    resident from then on, as they will at the first forward pass."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.is_contiguous():
            parameter.data.flatten()[:: max(1, 4096 // parameter.element_size())].sum()


def resident(device: str) -> int:
    """Bytes held now: by the allocators of all GPUs, else by the process in main memory (0 where the system does not
    tell). What was freed is given back first."""
    gc.collect()
    if torch.device(device).type == "cuda":
        return sum(torch.cuda.memory_allocated(index) for index in range(torch.cuda.device_count()))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


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


def peak(device: str) -> int:
    """The most bytes held so far: by the allocators of all GPUs, else by the process in main memory."""
    if torch.device(device).type == "cuda":
        return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
