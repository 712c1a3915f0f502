"""What texts begin with alike."""

from __future__ import annotations

from collections.abc import Sequence


def common_length(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))


def common_prefix(texts: Sequence[str]) -> str:
    """What all texts begin with; "" of none."""
    if not texts:
        return ""
    low, high = min(texts), max(texts)  # what these two share is shared by all between them
    return low[: common_length(low, high)]
