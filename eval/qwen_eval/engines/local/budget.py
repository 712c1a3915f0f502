"""What a forward pass over a long text takes beyond the weights, estimated from the config."""

from __future__ import annotations

from typing import Any


def token_bytes(config: Any, size: int) -> int:
    """Bytes per token of a forward pass at its peak, about. config: of the text model. size: bytes per number.

    A layer holds at most the residual stream, its normalised copy, queries, keys and values before and after rotation and
    the attention's output, or the three wide rows of a gated layer.
    """
    inner: int = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    hidden: int = config.hidden_size
    return size * (9 * hidden + 3 * inner)


def cache_bytes(config: Any, size: int) -> int:
    """Bytes of one token's keys and values in all layers."""
    layers: int = config.num_hidden_layers
    heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * layers * heads * width * size


def piece_that_fits(config: Any, size: int, length: int, room: float) -> int:
    """How many of `length` tokens one forward pass may take in `room` bytes: all, or a piece, with a cache of the tokens
    before it and a mask of piece x length. 0 or less where even the cache does not fit."""
    if length * token_bytes(config, size) <= room:
        return length
    # appending to the cache copies one layer of it
    cache = length * cache_bytes(config, size) * (1 + 1 / config.num_hidden_layers)
    mask = length * (1 + size)  # the mask as booleans, and as the numbers that a CPU's kernel makes of it
    return int((room - cache) // (token_bytes(config, size) + mask))
