"""Attention that also gives its log-sum-exp, so that parts of it can be merged; over a batch and over packed sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def merge(one: Tensor, one_lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """The attention over two sets of keys from the attention over each: output [..., d] and log-sum-exp [...]."""
    weight = torch.sigmoid(other_lse - one_lse).unsqueeze(-1)
    out = (
        torch.lerp(one, other, weight) if one.dtype == weight.dtype else torch.lerp(one.float(), other.float(), weight)
    )
    return out.to(one.dtype), torch.logaddexp(one_lse, other_lse)


def attend_to_all(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Every query to every key of an ancestor. With grouped queries, the heads that share keys are taken as further queries, so
    that keys are not repeated. Returns the output [1, heads, N, d] and its log-sum-exp [1, heads, N] in float32."""
    heads, kv_heads, tokens, size = query.shape[1], key.shape[1], query.shape[2], query.shape[3]
    grouped = query.reshape(1, kv_heads, heads // kv_heads * tokens, size)
    out, lse = attend(grouped, key, value, causal=False, scale=scale)
    return out.reshape(1, heads, tokens, -1), lse.reshape(1, heads, tokens)


# Kernels that were found wrong here, or that the trust test (trust.py) sets aside: the next one is taken.
DROPPED: set[str] = set()
VARLEN, SLICES = "varlen", "slices"


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float, with_lse: bool = True
) -> tuple[Tensor, Tensor]:
    """softmax(scale * query key^T) value, and the log-sum-exp of the scores (natural log, float32).

    query [B, H, L, d], key and value [B, H, S, d]; causal needs L == S. Returns [B, H, L, d] and [B, H, L]. The kernels
    that give a log-sum-exp are private operations of torch; where one is not supported, the next is taken.
    """
    if not with_lse and "sdpa" not in DROPPED:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale), query.new_empty(0)
    for name in usable(query.device.type, query.dtype):
        try:
            out, lse = KERNELS[name](query, key, value, causal, scale)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            if name == SLICES or "memory" in str(error):
                raise
            continue
        return out, lse[..., : query.shape[2]].float()
    raise AssertionError("slices are never dropped")


def usable(device: str, dtype: torch.dtype) -> list[str]:
    """The kernels of `attend` for tensors of this type on this kind of device, the first choice first."""
    wide = dtype not in (torch.float16, torch.bfloat16)
    names = {"cpu": ["flash-cpu"], "cuda": ["efficient"] if wide else ["flash", "efficient"]}.get(device, [])
    return [*(name for name in names if name not in DROPPED), SLICES]


def _flash_cpu(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, scale=scale
    )
    return found


def _flash(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, ...]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    found: tuple[Tensor, ...] = kernel(query, key, value, 0.0, causal, False, scale=scale)[:2]
    return found


def _efficient(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, ...]:
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    found: tuple[Tensor, ...] = kernel(query, key, value, None, True, 0.0, causal, scale=scale)[:2]
    return found


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


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, bool, float], tuple[Tensor, ...]]] = {
    "flash-cpu": _flash_cpu,
    "flash": _flash,
    "efficient": _efficient,
    SLICES: _attend_in_slices,
}


CHEAP_CALLS = {"cpu"}  # devices where launching a kernel costs less than copying its input


class Packed:
    """Sequences packed in a row of `sum(lengths)` tokens, each attending to itself causally.

    On a GPU with flash attention that is one variable-length kernel. On a CPU every sequence is a call of its own, which copies
    nothing; elsewhere, where launches are expensive, sequences of similar length are padded to each other, at most a quarter.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        ends = np.cumsum([0, *lengths]).tolist()
        self.spans: list[tuple[int, int]] = list(pairwise(ends))
        self._ends, self._longest = torch.tensor(ends, dtype=torch.int32), max(lengths)
        self._grids: list[_Grid] = []

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, with_lse: bool) -> tuple[Tensor, Tensor]:
        """query [1, heads, N, d], key and value [1, kv heads, N, d] -> the output [1, heads, N, d] and its log-sum-exp
        [1, heads, N] (of any content without with_lse)."""
        narrow = query.dtype in (torch.float16, torch.bfloat16)
        if query.device.type == "cuda" and narrow and VARLEN not in DROPPED:
            found = self.variable_length(query, key, value, scale)
            if found is not None:
                return found
        heads = query.shape[1]
        if heads != key.shape[1]:
            key = key.repeat_interleave(heads // key.shape[1], dim=1)
            value = value.repeat_interleave(heads // value.shape[1], dim=1)
        if len(self.spans) == 1:
            return attend(query, key, value, causal=True, scale=scale, with_lse=with_lse)
        if not self._grids:
            alone = [[span] for span in self.spans]
            self._grids = [
                _Grid(spans) for spans in (alone if query.device.type in CHEAP_CALLS else _alike(self.spans))
            ]
        out = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        for grid in self._grids:
            own, own_lse = attend(
                grid.take(query), grid.take(key), grid.take(value), causal=True, scale=scale, with_lse=with_lse
            )
            grid.put(out, own)
            if with_lse:
                grid.put(lse.unsqueeze(-1), own_lse.unsqueeze(-1))
        return out, lse

    def variable_length(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor] | None:
        """The same by torch's variable-length flash attention (torch 2.12 and later), None if torch has none."""
        try:
            from torch.nn.attention.varlen import AuxRequest, varlen_attn

            ends = self._ends = self._ends.to(query.device)
            packed = [tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)]
            out, lse = varlen_attn(
                packed[0], packed[1], packed[2], ends, ends, self._longest, self._longest,
                return_aux=AuxRequest(lse=True), scale=scale, window_size=(-1, 0), enable_gqa=True,
            )  # fmt: skip
        except (ImportError, TypeError, RuntimeError) as error:
            if "memory" in str(error):
                raise
            return None
        if lse.shape != query.shape[1:3]:
            return None
        return out.transpose(0, 1).unsqueeze(0), lse.unsqueeze(0).float()


def _alike(spans: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Spans that may be padded to each other together, longest first: at most a quarter is padding."""
    groups: list[list[tuple[int, int]]] = []
    for span in sorted(spans, key=lambda span: span[0] - span[1]):
        if groups and span[1] - span[0] >= 0.75 * (groups[-1][0][1] - groups[-1][0][0]):
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


class _Grid:
    """Spans of the packed row as a padded batch [spans, heads, longest, d]. spans: (start, end) of each, longest first."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._count, self._longest = len(spans), spans[0][1] - spans[0][0]
        self._span = slice(*spans[0]) if len(spans) == 1 else None
        packed = [torch.arange(*span) for span in spans]
        self._packed = torch.cat(packed)  # indices in the packed row
        self._padded = torch.cat([row * self._longest + index - index[0] for row, index in enumerate(packed)])

    def take(self, packed: Tensor) -> Tensor:
        """[1, heads, N, d] -> [spans, heads, longest, d]; padding is 0 (causal attention never sees it)."""
        if self._span is not None:
            return packed[:, :, self._span]
        self._packed, self._padded = self._packed.to(packed.device), self._padded.to(packed.device)
        heads, size = packed.shape[1], packed.shape[3]
        padded = packed.new_zeros(heads, self._count * self._longest, size)
        padded[:, self._padded] = packed[0][:, self._packed]
        return padded.view(heads, self._count, self._longest, size).transpose(0, 1)

    def put(self, packed: Tensor, padded: Tensor) -> None:
        """The reverse of `take`, into packed."""
        if self._span is not None:
            packed[:, :, self._span] = padded
            return
        flat = padded.transpose(0, 1).reshape(padded.shape[1], self._count * self._longest, padded.shape[3])
        packed[0][:, self._packed] = flat[:, self._padded]
