"""Attention of many packed runs of tokens to the runs they share, without padding and without copying keys.

The nodes of a trie of prompts (trie.py) are packed one after another in a single row of tokens. Each attends to itself
causally, and to the keys and values of each of its ancestors, in one product per ancestor for all its descendants;
the softmaxes are merged exactly through their log-sum-exps:

    out = out_ancestor * w + out_own * (1 - w),  w = sigmoid(lse_ancestor - lse_own)

(the merge of partial softmaxes as in FlashAttention, Dao et al. 2022, and cascade inference, Ye et al. 2024).

The function is registered with transformers as an attention implementation; the state of a call travels as a keyword
argument of the model's forward, so there are no globals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.local.kernels import Packed, attend_to_all, merge
from qwen_eval.models.caches import refuse_unread

NAME = "harness_cascade"  # no mask function is registered under it, so models pass no mask


class Unsupported(Exception):
    """This model's attention cannot be computed here (sliding window, soft cap, sinks); use plain batches."""


class State(Protocol):
    """What a forward pass passes to its layers: how they attend, and a counter of those that did.

    sees: the longest span of positions any query of this pass can see. scale_query: applied to the queries (LogN). only:
    (layer, indices): where in the packed row that layer's output is wanted, None for everywhere.
    """

    calls: int
    rows: int
    tokens: int
    sees: int
    scale_query: Callable[[Tensor], Tensor] | None
    only: tuple[int, np.ndarray] | None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor: ...


def register() -> None:
    """Makes the implementation known to transformers. Safe to repeat."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cascade: State | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function. query [rows, heads, tokens, d], key and value [rows, kv heads, tokens, d] as the
    layer made them; returns ([rows, tokens, heads, d], None). Raises Unsupported where the layer needs something that is
    not computed here."""
    layer = getattr(module, "layer_idx", None)
    if cascade is None or attention_mask is not None or layer is None:
        raise Unsupported("the layer does not tell its index, or has a mask")
    if query.shape[0] != cascade.rows or key.shape[2] != cascade.tokens:
        raise Unsupported("the layer changed the number of keys")
    refuse_unread(kwargs)
    wanted = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if kwargs.get(name) is not None]
    window = kwargs.get("sliding_window")
    if wanted or (window is not None and cascade.sees > window):
        raise Unsupported(f"the layer needs {', '.join(wanted) or 'a sliding window'}")
    cascade.calls += 1
    if cascade.scale_query is not None:
        query = cascade.scale_query(query)
    out = cascade.attend(layer, query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return out.transpose(1, 2).contiguous(), None


@dataclass(frozen=True, eq=False)
class Ancestor:
    """What its descendants attend to. layers: (keys, values) by layer, [1, kv heads, P, d] each. first, last: the
    span in the packed row of the tokens that do."""

    layers: Mapping[int, tuple[Tensor, Tensor]]
    first: int
    last: int

    @property
    def length(self) -> int:
        """P, its tokens."""
        return next(iter(self.layers.values()))[0].shape[2]


@dataclass
class Cascade:
    """A pass over nodes packed one after another in one row.

    lengths: tokens of each node, in order. ancestors: what they attend to beside themselves. keep: called with layer, keys
    and values [1, kv heads, N, d] (to store them). only: (layer, indices ascending): in that layer the output is wanted at
    these indices of the row only, and is 0 elsewhere.
    """

    lengths: Sequence[int]
    ancestors: Sequence[Ancestor] = ()
    keep: Callable[[int, Tensor, Tensor], None] | None = None
    only: tuple[int, np.ndarray] | None = None
    scale_query: Callable[[Tensor], Tensor] | None = None
    calls: int = 0
    rows: int = 1

    def __post_init__(self) -> None:
        self.tokens = sum(self.lengths)
        self._own = Packed(self.lengths)
        self.sees = max(
            end - start + sum(above.length for above in self.ancestors if above.first <= start < above.last)
            for start, end in self._own.spans
        )

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """[1, heads, N, d]: every node to its ancestors and to itself."""
        if self.keep is not None:
            self.keep(layer, key, value)
        out, lse = self._own.attend(query, key, value, scale, with_lse=bool(self.ancestors))
        if self.only is None or self.only[0] != layer:
            spans = [(above.first, above.last) for above in self.ancestors]
            return self._merged(layer, query, out, lse, scale, spans)
        wanted = self.only[1]
        indices = torch.from_numpy(wanted).to(query.device)
        spans = [tuple(np.searchsorted(wanted, [above.first, above.last]).tolist()) for above in self.ancestors]
        pruned = torch.zeros_like(out)
        lse = lse[:, :, indices] if self.ancestors else lse
        pruned[:, :, indices] = self._merged(layer, query[:, :, indices], out[:, :, indices], lse, scale, spans)
        return pruned

    def _merged(
        self, layer: int, query: Tensor, out: Tensor, lse: Tensor, scale: float, spans: Sequence[tuple[int, int]]
    ) -> Tensor:
        """out and lse, the attention of the queries to their own nodes, merged with that to the ancestors. spans: the
        queries that attend to each ancestor."""
        for above, (first, last) in zip(self.ancestors, spans, strict=True):
            if first == last:
                continue
            part = slice(first, last)
            other = attend_to_all(query[:, :, part], *above.layers[layer], scale)
            both = merge(out[:, :, part], lse[:, :, part], *other)
            if (first, last) == (0, query.shape[2]):
                out, lse = both
            else:
                out[:, :, part], lse[:, :, part] = both
        return out
