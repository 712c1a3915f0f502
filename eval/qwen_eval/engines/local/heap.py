"""The C library's heap, set to keep the memory that a forward pass frees for the next one.

glibc returns blocks of some megabytes to the kernel when they are freed; a pass over thousands of tokens frees one after
every operation, and the kernel zeroes each page again: a tenth of a pass's time on a CPU (BENCHMARKS.md).
"""

from __future__ import annotations

import ctypes

TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
OWN_MAPPING = 32 << 20  # bytes from which a block is mapped by itself, and unmapped when freed: the most glibc takes
KEPT = 128 << 20  # bytes that are kept at most at the top of the heap
USUAL = 128 << 10  # bytes, glibc's default for both


def keep_freed_pages() -> bool:
    """For forward passes. Returns whether the C library took it: others than glibc have no such limits."""
    return _limits(OWN_MAPPING, KEPT)


def return_freed_pages() -> bool:
    """For loading weights: temporary blocks leave no holes between them."""
    return _limits(USUAL, USUAL)


def _limits(own_mapping: int, kept: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP, own_mapping) and mallopt(TRIM, kept))
