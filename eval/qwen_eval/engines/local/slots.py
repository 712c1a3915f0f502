"""Keys and values of sequences that are being generated: one slot each, allocated once, live ones first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.local.kernels import attend_to_all, merge


class Slots:
    """Room for `count` sequences of at most `capacity` own tokens (what follows the shared prefix).

    The first pass through a layer allocates its keys and values, [count, kv heads, capacity, d].
    """

    def __init__(self, count: int, capacity: int) -> None:
        self.count, self.capacity = count, capacity
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, layer: int, like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The storage of a layer; like: keys and values [rows, kv heads, tokens, d] that tell shape, type and device."""
        if layer not in self._layers:
            key, value = (
                tensor.new_zeros(self.count, tensor.shape[1], self.capacity, tensor.shape[3]) for tensor in like
            )
            self._layers[layer] = key, value
        return self._layers[layer]

    def write_packed(self, first: int, lengths: Sequence[int], layer: int, key: Tensor, value: Tensor) -> None:
        """Stores sequences packed in one row, [1, kv heads, N, d], into the slots from `first`."""
        start = 0
        for slot, length in enumerate(lengths, first):
            for store, new in zip(self.layer(layer, (key, value)), (key, value), strict=True):
                store[slot, :, :length] = new[0, :, start : start + length]
            start += length

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of one slot to another."""
        for store in self._layers.values():
            for tensor in store:
                tensor[target, :, :length] = tensor[source, :, :length]


@dataclass
class Step:
    """A pass over one new token of each live sequence (slots 0 to rows - 1).

    lengths: own tokens each slot holds before this pass.
    prefix: keys and values of the prompt they share, by layer, [1, kv heads, P, d]; empty for none.
    """

    slots: Slots
    lengths: Sequence[int]
    prefix: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    scale_query: Callable[[Tensor], Tensor] | None = None
    only: tuple[int, np.ndarray] | None = None  # every row's output is wanted
    calls: int = 0
    tokens: int = 1

    def __post_init__(self) -> None:
        self.rows = len(self.lengths)
        past = next(iter(self.prefix.values()))[0].shape[2] if self.prefix else 0
        self.sees = past + max(self.lengths) + 1
        self._ends = torch.tensor(self.lengths)
        self._hidden: Tensor | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """query [rows, heads, 1, d], key and value [rows, kv heads, 1, d] -> [rows, heads, 1, d]."""
        rows, heads, _, size = query.shape
        keys, values = self.slots.layer(layer, (key, value))
        longest = max(self.lengths) + 1
        if self._hidden is None or self._hidden.device != query.device:
            self._ends = self._ends.to(query.device)
            self._hidden = torch.arange(longest, device=query.device)[None, :] > self._ends[:, None]
        index = torch.arange(rows, device=query.device)
        keys[index, :, self._ends] = key[:, :, 0]
        values[index, :, self._ends] = value[:, :, 0]
        kv_heads = key.shape[1]
        # heads that share keys become queries of one product
        grouped = query.reshape(rows, kv_heads, heads // kv_heads, size)
        scores = (grouped @ keys[:rows, :, :longest].transpose(-1, -2)).float() * scale
        scores = scores.masked_fill(self._hidden[:, None, None, :], float("-inf"))
        own = scores.softmax(-1).to(values.dtype) @ values[:rows, :, :longest]
        own = own.reshape(rows, heads, 1, -1)
        if not self.prefix:
            return own
        lse = scores.logsumexp(-1).reshape(rows, heads, 1)
        # all rows' queries to the prefix in one product: the rows are taken as tokens
        shared, shared_lse = attend_to_all(query.permute(2, 1, 0, 3), *self.prefix[layer], scale)
        return merge(own, lse, shared.permute(2, 1, 0, 3), shared_lse.permute(2, 1, 0))[0]
