"""The C library's heap, told to keep what a forward pass frees for the next one.

glibc gives blocks of some megabytes back to the kernel when they are freed; a pass over thousands of tokens frees one after
every operation, and the kernel clears each page anew: a tenth of a pass's time on a CPU (BENCHMARKS.md).
"""

from __future__ import annotations

import ctypes

TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
OWN_MAPPING = 32 << 20  # bytes from which a block gets a mapping of its own, which ends with it: the most glibc takes
KEPT = 128 << 20  # bytes that stay, at most, at the end of the heap
USUAL = 128 << 10  # bytes, glibc's own value of both


def keep_freed_pages() -> bool:
    """For passes. Returns whether this process's C library took it: others have no such limits."""
    return _limits(OWN_MAPPING, KEPT)


def return_freed_pages() -> bool:
    """For loading weights: what is made and freed on the way leaves no holes between them."""
    return _limits(USUAL, USUAL)


def _limits(own_mapping: int, kept: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP, own_mapping) and mallopt(TRIM, kept))
