"""ALiBi (Press et al. 2022) as further dimensions of queries and keys, so that every attention kernel computes it.

The bias of a score is slope x (position of the key - position of the query). What all keys of a query have in common does not
matter to a softmax: so a key carries its position, in two parts that 8 bits hold exactly, and a query the slope of its head,
as a sum of numbers that the model's precision has.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PART = 256  # positions are carried as so many times one number, and another one below it, both exact in 8 bits
DIGITS = 3  # numbers of 8 bits that together hold one of float32
MULTIPLE = 8  # kernels take widths that are a multiple of it


def slopes(heads: int) -> Tensor:
    """ALiBi's slopes, float32 [heads]: a geometric sequence for a power of two; else that of the power below, then every second
    one of twice that power."""
    power = 2 ** math.floor(math.log2(heads))
    own = [2.0 ** (-8 * (index + 1) / power) for index in range(power)]
    own += [2.0 ** (-4 * (2 * index + 1) / power) for index in range(heads - power)]
    return torch.tensor(own, dtype=torch.float32)


def digits(values: Tensor, dtype: torch.dtype) -> Tensor:
    """values (float64) as a sum of DIGITS numbers that `dtype` has, in a further dimension."""
    parts = []
    for _ in range(DIGITS):
        parts.append(values.to(dtype))
        values = values - parts[-1].double()
    return torch.stack(parts, -1)


def padded(tensor: Tensor, width: int) -> Tensor:
    """Further dimensions [..., n] of heads of this width, padded with zeros to a width of both that kernels take."""
    whole = -(-(width + tensor.shape[-1]) // MULTIPLE) * MULTIPLE
    return F.pad(tensor, (0, whole - width - tensor.shape[-1]))


def beside(slope: Tensor, positions: Tensor, scale: float, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What queries [1, heads, 1, more] and keys [rows, 1, length, more] have beside their own dimensions, so that scale x query
    key^T has slope x position of the key added. slope: [heads]. positions: [rows, length]. width: of a head."""
    steep = slope.double() / scale
    queries = torch.cat([digits(PART * steep, dtype), digits(steep, dtype)], -1)[None, :, None]
    parts = torch.stack([positions // PART, positions % PART], -1).to(dtype)
    keys = parts.repeat_interleave(DIGITS, -1)[:, None]
    return padded(queries.to(positions.device), width), padded(keys, width)


def appended(query: Tensor, key: Tensor, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """query [rows, heads, length, d] and key [rows, kv heads, length, d] with further dimensions as `beside` gives them."""
    query = torch.cat([query, queries.to(query.device).expand(query.shape[0], -1, query.shape[2], -1)], -1)
    key = torch.cat([key, keys.to(key.device).expand(key.shape[0], key.shape[1], -1, -1)], -1)
    return query, key
