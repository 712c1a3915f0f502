"""What a forward pass over a long text takes beyond the weights, estimated from the config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def number(config: Any, name: str) -> int:
    """An integer of a config: the largest where it gives one a layer, 0 where it gives none."""
    try:
        value = getattr(config, name, None)
    except Exception:  # transformers refuses an attribute that differs by layer, each version with an error of its own
        return 0
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return max((item for item in values if isinstance(item, int)), default=0)


def token_bytes(config: Any, size: int, in_pieces: bool = False) -> int:
    """Bytes per token of a forward pass at its peak, about. config: of the text model. size: bytes per number. in_pieces: of a
    pass that attends to pieces before it.

    A layer holds at most the residual stream, its normalised copy, queries, keys and values before and after rotation and
    the attention's output, or the three wide rows of a gated layer. In pieces the output comes in two parts that are merged,
    and the queries may be scaled.
    """
    hidden = number(config, "hidden_size")
    inner = number(config, "intermediate_size") or 4 * hidden
    return size * ((12 if in_pieces else 9) * hidden + 3 * inner)


def piece_that_fits(token: int, token_in_pieces: int, cache: int, length: int, room: float) -> int:
    """How many of `length` tokens one forward pass may take in `room` bytes: all, or a piece, beside the keys and values of the
    tokens before it. 0 or less where even those do not fit. token, token_in_pieces, cache: bytes of one token, in a pass over
    all, in one over a piece, and as keys and values."""
    if length * token <= room:
        return length
    return int((room - length * cache) // token_in_pieces)
