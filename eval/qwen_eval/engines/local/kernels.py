"""Attention that also gives its log-sum-exp, so that parts of it can be merged; over a batch and over packed sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


def attend_to_all(
    query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Every query to every key of an ancestor, or to those of `mask` (bool [N, S], at least one a query). With grouped queries,
    the heads that share keys are taken as further queries, so that keys are not repeated. Returns the output [1, heads, N, d]
    and its log-sum-exp [1, heads, N] in float32."""
    heads, kv_heads, tokens, size = query.shape[1], key.shape[1], query.shape[2], query.shape[3]
    grouped = query.reshape(1, kv_heads, heads // kv_heads * tokens, size)
    if mask is not None:
        mask = mask.repeat(heads // kv_heads, 1)[None, None]
    out, lse = attend(grouped, key, value, causal=False, scale=scale, softcap=softcap, mask=mask)
    return out.reshape(1, heads, tokens, -1), lse.reshape(1, heads, tokens)


# Kernels that were found wrong here, or that the trust test (trust.py) sets aside: the next one is taken.
DROPPED: set[str] = set()
# (name, device, dtype) that torch refused to run, which are not tried again
REFUSED: set[tuple[str, str, torch.dtype]] = set()
SDPA, VARLEN, FLASH_CPU, FLASH, EFFICIENT, SLICES = "sdpa", "varlen", "flash-cpu", "flash", "efficient", "slices"


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    scale: float,
    with_lse: bool = True,
    softcap: float | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(scale * query key^T) value, and the log-sum-exp of the scores (natural log, float32).

    query [B, H, L, d], key [B, H, S, d], value [B, H, S, e]; causal needs L == S. mask: bool, spread to [B, H, L, S], which
    keys are seen, at least one a query. softcap: scores become softcap * tanh(score / softcap). Returns [B, H, L, e] and [B, H,
    L]. The kernels that give a log-sum-exp are private operations of torch; where one is not supported, the next is taken, at
    last slices. In every kernel products are summed, and scores kept, in float32.
    """
    width, size = value.shape[-1], query.shape[-1]
    if width < size:  # the kernels take one width
        value = F.pad(value, (0, size - width))
    elif width > size:
        query, key = F.pad(query, (0, width - size)), F.pad(key, (0, width - size))
    if not with_lse and softcap is None and mask is None and SDPA not in DROPPED:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale)
        return out[..., :width], query.new_empty(0)
    for name in usable(query.device.type, query.dtype):
        if name == SLICES or softcap is not None:
            break
        if mask is not None and name not in MASKED:
            continue
        try:
            out, lse = KERNELS[name](query, key, value, causal, scale, mask=mask)
        except (RuntimeError, AttributeError) as error:
            if "memory" in str(error):
                raise
            REFUSED.add((name, query.device.type, query.dtype))
            continue
        return out[..., :width], lse[..., : query.shape[2]].float()
    return _attend_in_slices(query, key, value[..., :width], causal, scale, softcap=softcap, mask=mask)


def usable(device: str, dtype: torch.dtype) -> list[str]:
    """The kernels of `attend` for tensors of this type on this kind of device, the first choice first; slices are never
    dropped."""
    wide = dtype not in (torch.float16, torch.bfloat16)
    names = {"cpu": [FLASH_CPU], "cuda": [EFFICIENT] if wide else [FLASH, EFFICIENT]}.get(device, [])
    return [*(name for name in names if name not in DROPPED and (name, device, dtype) not in REFUSED), SLICES]


def _flash_cpu(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, mask: Tensor | None = None
) -> tuple[Tensor, ...]:
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=torch.float32).masked_fill_(~mask, float("-inf"))
    found: tuple[Tensor, ...] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=None if mask is None else bias, scale=scale
    )
    return found


def _flash(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, mask: None = None
) -> tuple[Tensor, ...]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    found: tuple[Tensor, ...] = kernel(query, key, value, 0.0, causal, False, scale=scale)[:2]
    return found


def _efficient(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, mask: None = None
) -> tuple[Tensor, ...]:
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    found: tuple[Tensor, ...] = kernel(query, key, value, None, True, 0.0, causal, scale=scale)[:2]
    return found


def _attend_in_slices(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool,
    scale: float,
    softcap: float | None = None,
    mask: Tensor | None = None,
    size: int = 256,
) -> tuple[Tensor, Tensor]:
    outs, lses = [], []
    keys = key.transpose(-1, -2)
    if mask is not None:
        mask = mask.expand(*mask.shape[:2], query.shape[2], key.shape[2])
    for start in range(0, query.shape[2], size):
        scores = product(query[:, :, start : start + size], keys).mul_(scale)
        if softcap is not None:
            scores = scores.div_(softcap).tanh_().mul_(softcap)
        if causal:
            rows = torch.arange(start, start + scores.shape[2], device=query.device)
            future = torch.arange(key.shape[2], device=query.device)[None, :] > rows[:, None]
            scores.masked_fill_(future, float("-inf"))
        if mask is not None:
            scores.masked_fill_(~mask[:, :, start : start + size], float("-inf"))
        lse = scores.logsumexp(-1)
        outs.append((scores - lse.unsqueeze(-1)).exp_().to(value.dtype) @ value)
        lses.append(lse)
    return torch.cat(outs, 2), torch.cat(lses, 2)


KERNELS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    FLASH_CPU: _flash_cpu,
    FLASH: _flash,
    EFFICIENT: _efficient,
    SLICES: _attend_in_slices,
}
MASKED = (FLASH_CPU,)  # those that take a mask


def product(one: Tensor, other: Tensor) -> Tensor:
    """one @ other in float32: scores that are rounded to 16 bits before the softmax are off by more than all other rounding
    where keys have a large common part (the biases of Qwen), and overflow in float16."""
    if one.dtype == torch.float32:
        return one @ other
    if one.device.type == "cuda" and one.dim() == other.dim() == 4 and one.shape[:2] == other.shape[:2]:
        try:
            flat: Tensor = torch.bmm(one.flatten(0, 1), other.flatten(0, 1), out_dtype=torch.float32)
            return flat.view(*one.shape[:2], *flat.shape[1:])
        except (TypeError, RuntimeError) as error:  # an older torch
            if "memory" in str(error):
                raise
    return one.float() @ other.float()


BLOCK = 256  # queries of a windowed sequence at a time
CHEAP_CALLS = {"cpu"}  # devices where launching a kernel costs less than copying its input


class Packed:
    """Sequences packed in a row of `sum(lengths)` tokens, each attending to itself causally, at most to the last `window` keys.

    On a GPU with flash attention that is one variable-length kernel. On a CPU every sequence is a call of its own, which copies
    nothing; elsewhere, where launches are expensive, sequences of similar length are padded to each other, at most a quarter.
    A sequence longer than the window is computed a block of queries at a time, under a band mask.
    """

    def __init__(self, lengths: Sequence[int], window: int | None = None) -> None:
        ends = np.cumsum([0, *lengths]).tolist()
        self.spans: list[tuple[int, int]] = list(pairwise(ends))
        self._ends, self._longest = torch.tensor(ends, dtype=torch.int32), max(lengths)
        self._window = window if window is not None and window < self._longest else None
        self._grids: list[_Grid] = []

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, with_lse: bool, softcap: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """query, key [1, heads or kv heads, N, d], value [1, kv heads, N, e] -> the output [1, heads, N, e] and its log-sum-exp
        [1, heads, N] (of any content without with_lse)."""
        narrow = query.dtype in (torch.float16, torch.bfloat16)
        if softcap is None and query.device.type == "cuda" and narrow and VARLEN not in DROPPED:
            found = self.variable_length(query, key, value, scale)
            if found is not None:
                return found
        heads = query.shape[1]
        if heads != key.shape[1]:
            key = key.repeat_interleave(heads // key.shape[1], dim=1)
            value = value.repeat_interleave(heads // value.shape[1], dim=1)
        if len(self.spans) == 1 and self._window is None:
            return attend(query, key, value, causal=True, scale=scale, with_lse=with_lse, softcap=softcap)
        long = [span for span in self.spans if self._window is not None and span[1] - span[0] > self._window]
        if not self._grids:
            short = [span for span in self.spans if span not in long]
            cheap = query.device.type in CHEAP_CALLS
            self._grids = [_Grid(spans) for spans in ([[span] for span in short] if cheap else _alike(short))]
        out = query.new_empty(*query.shape[:3], value.shape[3])
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        for grid in self._grids:
            own, own_lse = attend(
                grid.take(query), grid.take(key), grid.take(value),
                causal=True, scale=scale, with_lse=with_lse, softcap=softcap,
            )  # fmt: skip
            grid.put(out, own)
            if with_lse:
                grid.put(lse.unsqueeze(-1), own_lse.unsqueeze(-1))
        for span in long:
            for queries, keys, mask in self._blocks(span, query.device):
                out[:, :, queries], lse[:, :, queries] = attend(
                    query[:, :, queries], key[:, :, keys], value[:, :, keys],
                    causal=False, scale=scale, softcap=softcap, mask=mask,
                )  # fmt: skip
        return out, lse

    def _blocks(self, span: tuple[int, int], device: torch.device) -> Iterator[tuple[slice, slice, Tensor]]:
        """The queries of one sequence a block at a time, with the keys that any of them sees, and which (bool [1, 1, queries,
        keys])."""
        assert self._window is not None
        for start in range(*span, BLOCK):
            stop = min(start + BLOCK, span[1])
            first = max(span[0], start - self._window + 1)
            queries = torch.arange(start, stop, device=device)[:, None]
            keys = torch.arange(first, stop, device=device)[None, :]
            mask = (keys <= queries) & (keys > queries - self._window)
            yield slice(start, stop), slice(first, stop), mask[None, None]

    def variable_length(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor] | None:
        """The same by torch's variable-length flash attention (torch 2.12 and later), None if torch has none for it."""
        if (VARLEN, query.device.type, query.dtype) in REFUSED or value.shape[-1] != query.shape[-1]:
            return None
        try:
            from torch.nn.attention.varlen import AuxRequest, varlen_attn

            ends = self._ends = self._ends.to(query.device)
            packed = [tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)]
            before = -1 if self._window is None else self._window - 1
            out, lse = varlen_attn(
                packed[0], packed[1], packed[2], ends, ends, self._longest, self._longest,
                return_aux=AuxRequest(lse=True), scale=scale, window_size=(before, 0), enable_gqa=True,
            )  # fmt: skip
        except (ImportError, TypeError, RuntimeError) as error:
            if "memory" in str(error):
                raise
            REFUSED.add((VARLEN, query.device.type, query.dtype))
            return None
        if lse.shape != query.shape[1:3]:
            REFUSED.add((VARLEN, query.device.type, query.dtype))
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
