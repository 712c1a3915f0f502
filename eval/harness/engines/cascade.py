"""Attention of many questions to one shared prefix, without padding and without copying the prefix.

A group's prefix is run once and its keys and values are kept, layer by layer. Questions are then packed one after another
in a single row of tokens. Their queries attend to the prefix in one product; each question attends to itself causally;
the two softmaxes are merged exactly through their log-sum-exps:

    out = out_prefix * w + out_own * (1 - w),  w = sigmoid(lse_prefix - lse_own)

(the merge of partial softmaxes as in FlashAttention, Dao et al. 2022, and cascade inference, Ye et al. 2024).

The function is registered with transformers as an attention implementation; the state of a call travels as a keyword
argument of the model's forward, so there are no globals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

NAME = "harness_cascade"  # no mask function is registered under it, so models pass no mask


class Unsupported(Exception):
    """This model's attention cannot be computed here (sliding window, soft cap, sinks); use plain batches."""


class State(Protocol):
    """What a forward pass brings to its layers: how they attend, and a count of those that did.

    sees: the longest span of positions any query of this pass can see. scale_query: applied to the queries (LogN).
    """

    calls: int
    rows: int
    tokens: int
    sees: int
    scale_query: Callable[[Tensor], Tensor] | None

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
    layer made them; returns ([rows, tokens, heads, d], None). Raises Unsupported where the layer wants something that is
    not computed here."""
    layer = getattr(module, "layer_idx", None)
    if cascade is None or attention_mask is not None or layer is None:
        raise Unsupported("the layer hides what it is or brings a mask")
    if query.shape[0] != cascade.rows or key.shape[2] != cascade.tokens:
        raise Unsupported("the layer changed the number of keys")
    wanted = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if kwargs.get(name) is not None]
    window = kwargs.get("sliding_window")
    if wanted or (window is not None and cascade.sees > window):
        raise Unsupported(f"the layer wants {', '.join(wanted) or 'a sliding window'}")
    cascade.calls += 1
    if cascade.scale_query is not None:
        query = cascade.scale_query(query)
    out = cascade.attend(layer, query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return out.transpose(1, 2).contiguous(), None


@dataclass
class Cascade:
    """A pass over questions packed one after another in one row, each behind the same prefix.

    lengths: own tokens of each question, in order. prefix: (keys, values) a layer, [1, kv heads, P, d] each, empty for
    none. capture: keep this pass's keys and values in `prefix` (the pass over the prefix itself). keep: called with layer,
    keys and values [1, kv heads, N, d] (a generation stores them).
    """

    lengths: Sequence[int]
    prefix: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    capture: bool = False
    keep: Callable[[int, Tensor, Tensor], None] | None = None
    scale_query: Callable[[Tensor], Tensor] | None = None
    calls: int = 0
    rows: int = 1

    def __post_init__(self) -> None:
        self.tokens = sum(self.lengths)
        past = next(iter(self.prefix.values()))[0].shape[2] if self.prefix else 0
        self.sees = past + max(self.lengths)
        # where each packed token stands in the padded [questions x longest] grid
        longest = max(self.lengths)
        places = [torch.arange(length) + index * longest for index, length in enumerate(self.lengths)]
        self._slots = torch.cat(places)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """[1, heads, N, d]: every question to the prefix and to its own past."""
        if self.keep is not None:
            self.keep(layer, key, value)
        if self.capture:
            self.prefix[layer] = key, value
        past = bool(self.prefix) and not self.capture
        own, own_lse = self._own_attention(query, key, value, scale, with_lse=past)
        if not past:
            return own
        return merge(own, own_lse, *prefix_attention(query, *self.prefix[layer], scale))

    def _own_attention(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, with_lse: bool
    ) -> tuple[Tensor, Tensor]:
        """Each packed question to itself, causally: the output [1, heads, N, d] and its log-sum-exp [1, heads, N]."""
        heads = query.shape[1]
        if heads != key.shape[1]:
            key = key.repeat_interleave(heads // key.shape[1], dim=1)
            value = value.repeat_interleave(heads // value.shape[1], dim=1)
        if len(self.lengths) == 1:
            return attend(query, key, value, causal=True, scale=scale, with_lse=with_lse)
        count, longest = len(self.lengths), max(self.lengths)
        slots = self._slots = self._slots.to(query.device)

        def grid(packed: Tensor) -> Tensor:
            padded = packed.new_zeros(heads, count * longest, packed.shape[-1])
            padded.index_copy_(1, slots, packed[0])
            return padded.view(heads, count, longest, packed.shape[-1]).transpose(0, 1)

        out, lse = attend(grid(query), grid(key), grid(value), causal=True, scale=scale, with_lse=with_lse)
        out = out.transpose(0, 1).reshape(heads, count * longest, -1)[:, slots].unsqueeze(0)
        if with_lse:
            lse = lse.transpose(0, 1).reshape(heads, count * longest)[:, slots].unsqueeze(0)
        return out, lse


def merge(one: Tensor, one_lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """The attention over two sets of keys from the attention over each. Outputs [..., d], log-sum-exps [...]."""
    weight = torch.sigmoid(other_lse - one_lse).unsqueeze(-1)
    return torch.lerp(one.float(), other.float(), weight).to(one.dtype)


def prefix_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Every query to every prefix key. With grouped queries the heads that share keys become more queries, so that
    keys are not repeated. Returns the output [1, heads, N, d] and its log-sum-exp [1, heads, N] in float32."""
    heads, kv_heads, tokens, size = query.shape[1], key.shape[1], query.shape[2], query.shape[3]
    grouped = query.reshape(1, kv_heads, heads // kv_heads * tokens, size)
    out, lse = attend(grouped, key, value, causal=False, scale=scale)
    return out.reshape(1, heads, tokens, -1), lse.reshape(1, heads, tokens)


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float, with_lse: bool = True
) -> tuple[Tensor, Tensor]:
    """softmax(scale * query key^T) value, and the log-sum-exp of the scores (natural log, float32).

    query [B, H, L, d], key and value [B, H, S, d]; causal needs L == S. Returns [B, H, L, d] and [B, H, L]. The kernels
    that give a log-sum-exp are private operations of torch; where one refuses, the same is computed in slices.
    """
    if not with_lse:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale), query.new_empty(0)
    ops = torch.ops.aten
    length = query.shape[2]
    try:
        if query.device.type == "cpu":
            out, lse = ops._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)
        elif query.device.type == "cuda" and query.dtype in (torch.float16, torch.bfloat16):
            out, lse = ops._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, False, scale=scale)[:2]
        elif query.device.type == "cuda":
            out, lse = ops._scaled_dot_product_efficient_attention(
                query, key, value, None, True, 0.0, causal, scale=scale
            )[:2]
        else:
            return _attend_in_slices(query, key, value, causal, scale)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        if "memory" in str(error):
            raise
        return _attend_in_slices(query, key, value, causal, scale)
    return out, lse[..., :length].float()


def _attend_in_slices(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, size: int = 256
) -> tuple[Tensor, Tensor]:
    outs, lses = [], []
    for start in range(0, query.shape[2], size):
        part = query[:, :, start : start + size]
        scores = (part @ key.transpose(-1, -2)).float() * scale
        if causal:
            rows = torch.arange(start, start + part.shape[2], device=query.device)
            future = torch.arange(key.shape[2], device=query.device)[None, :] > rows[:, None]
            scores = scores.masked_fill(future, float("-inf"))
        lse = scores.logsumexp(-1)
        outs.append((scores - lse.unsqueeze(-1)).exp().to(value.dtype) @ value)
        lses.append(lse)
    return torch.cat(outs, 2), torch.cat(lses, 2)
