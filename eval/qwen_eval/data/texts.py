"""Common prefixes of texts."""

from __future__ import annotations

from collections.abc import Sequence


def common_length(one: str, other: str) -> int:
    """The length of the common prefix of two texts, in characters."""
    return next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))


def common_prefix(texts: Sequence[str]) -> str:
    """The common prefix of all texts; "" without texts."""
    if not texts:
        return ""
    low, high = min(texts), max(texts)  # their common prefix is that of all texts sorted between them
    return low[: common_length(low, high)]
