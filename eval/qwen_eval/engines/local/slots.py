"""Keys and values of sequences that are being generated: one slot each, allocated once, live ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.local.cascade import PLAIN, Attention, Layer, visible
from qwen_eval.engines.local.kernels import attend, attend_to_all, merge
from qwen_eval.engines.local.rules import Span


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
    attention: Attention = PLAIN
    only: tuple[int, np.ndarray] | None = None  # every row's output is wanted
    tokens: int = 1
    masks: int = 0
    position_ids: Tensor | None = None
    _seen: dict[Span, _Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = len(self.lengths)
        self._past = next(iter(self.prefix.values()))[0].shape[2] if self.prefix else 0
        self._ends = torch.tensor(self.lengths)

    def attend(self, layer: Layer) -> Tensor:
        """[rows, heads, 1, e]: every row to the prefix, to what its slot holds, and to itself."""
        rule = self.attention.rule(layer)
        query, key, value = layer.query, layer.key, layer.value
        if self.attention.scale_query is not None:
            query = self.attention.scale_query(query)
        rows, heads, _, size = query.shape
        keys, values = self.slots.layer(layer.number, (key, value))
        self._ends = self._ends.to(query.device)
        index = torch.arange(rows, device=query.device)
        keys[index, :, self._ends] = key[:, :, 0]
        values[index, :, self._ends] = value[:, :, 0]
        seen = self._what_is_seen(rule.span, query.device)
        kv_heads = key.shape[1]
        # heads that share keys become queries of one product
        grouped = query.reshape(rows, kv_heads, heads // kv_heads, size)
        own, lse = attend(
            grouped, keys[:rows, :, seen.own], values[:rows, :, seen.own],
            causal=False, scale=rule.scale, softcap=rule.softcap, mask=seen.own_mask,
        )  # fmt: skip
        own, lse = own.reshape(rows, heads, 1, -1), lse.reshape(rows, heads, 1)
        if seen.prefix is None:
            return rule.drain(own, lse)
        # all rows' queries to the prefix in one product: the rows are taken as tokens
        who, part, mask = seen.prefix
        key, value = (tensor[:, :, part] for tensor in self.prefix[layer.number])
        shared, shared_lse = attend_to_all(query[who].permute(2, 1, 0, 3), key, value, rule.scale, rule.softcap, mask)
        own[who], lse[who] = merge(own[who], lse[who], shared.permute(2, 1, 0, 3), shared_lse.permute(2, 1, 0))
        return rule.drain(own, lse)

    def _what_is_seen(self, span: Span, device: torch.device) -> _Seen:
        if span not in self._seen:
            ends = np.array(self.lengths)
            first = span.first(self._past + ends)
            lowest = int(np.maximum(first - self._past, 0).min())
            own = np.arange(lowest, int(ends.max()) + 1)[None, :]
            mask = (own <= ends[:, None]) & (own >= first[:, None] - self._past)
            own_mask = None if mask.all() else torch.from_numpy(mask)[:, None, None, :].to(device)
            found = visible(first, 0, self._past) if self.prefix else None
            prefix = None
            if found is not None:
                who, keys, hidden = found
                rows = slice(None) if len(who) == self.rows else torch.from_numpy(who).to(device)
                prefix = rows, keys, None if hidden is None else torch.from_numpy(hidden).to(device)
            self._seen[span] = _Seen(slice(lowest, int(ends.max()) + 1), own_mask, prefix)
        return self._seen[span]


class _Seen(NamedTuple):
    """own: the tokens of the slots that any row sees; own_mask: bool [rows, 1, 1, tokens], which, None
    for all. prefix: rows that see of the
    prefix, which of its tokens, and a mask bool [rows, tokens] where not all see the same; None for none."""

    own: slice
    own_mask: Tensor | None
    prefix: tuple[slice | Tensor, slice, Tensor | None] | None
