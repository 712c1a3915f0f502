"""Window attention, layer by layer: a query sees the last w keys, itself included. Never an L x L matrix.

The Qwen report (2023) uses shorter windows in lower layers and longer ones in higher layers and gives no sizes; ours are a
documented choice (`default_windows`). Queries are taken in slices; each slice attends to the keys that any of its queries
can see, under a band mask of slice x (slice + window).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SLICE = 512  # queries at a time


def default_windows(layers: int, trained_length: int) -> tuple[int, ...]:
    """Windows that grow geometrically with depth, from half the trained length in the first layer to twice it in the last.

    Lower layers see less context, as the report says; the last ones see past the trained length, so that information can still
    travel over the whole sequence.
    """
    steps = max(layers - 1, 1)
    return tuple(max(1, round(trained_length / 2 * 4 ** (layer / steps))) for layer in range(layers))


def window_attention(query: Tensor, key: Tensor, value: Tensor, window: int, scale: float) -> Tensor:
    """softmax over the last `window` keys of each query, causally.

    query [rows, heads, L, d], key and value [rows, kv heads, S, d] with S >= L: the queries are the last L positions (a
    cache holds the rest). Returns [rows, heads, L, d].
    """
    length, total = query.shape[2], key.shape[2]
    past = total - length
    grouped = query.shape[1] != key.shape[1]
    if window >= total and past == 0:
        return F.scaled_dot_product_attention(query, key, value, is_causal=length > 1, scale=scale, enable_gqa=grouped)
    out = torch.empty(*query.shape[:3], value.shape[-1], dtype=query.dtype, device=query.device)
    for start in range(0, length, SLICE):
        stop = min(start + SLICE, length)
        first = max(0, past + start - window + 1)
        last = past + stop
        positions = torch.arange(past + start, last, device=query.device)[:, None]
        keys = torch.arange(first, last, device=query.device)[None, :]
        seen = (keys <= positions) & (keys > positions - window)
        out[:, :, start:stop] = F.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, first:last],
            value[:, :, first:last],
            attn_mask=seen,
            scale=scale,
            enable_gqa=grouped,
        )
    return out


def parse_windows(text: str, layers: int, trained_length: int) -> tuple[int, ...]:
    """`auto`, one size for all layers, or one size per layer, comma-separated. Raises ValueError that says what is wrong."""
    if text == "auto":
        return default_windows(layers, trained_length)
    sizes: Sequence[str] = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise ValueError(f"{text!r} is not auto, a number of keys, or one number per layer")
    if len(sizes) not in (1, layers):
        raise ValueError(f"{text!r} has {len(sizes)} sizes for {layers} layers; give one, or one per layer")
    return tuple(int(size) for size in sizes) * (layers if len(sizes) == 1 else 1)
