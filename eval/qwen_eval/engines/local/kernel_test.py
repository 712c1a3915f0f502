"""Are the attention kernels right on this machine? Each alone, against a softmax in float64, before a model is trusted to them.

A wrong kernel gives plausible answers. Tried are the shapes that the engine asks for: causal and not, under the mask of a
window where the kernel takes masks, one to a few hundred tokens, sequences of unequal length in one row, and keys with a large
common part, as the biases of Qwen's keys give them: scores of 200 whose differences decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from qwen_eval.engines.local import kernels
from qwen_eval.engines.local.kernels import KERNELS, MASKED, SLICES, VARLEN, Packed

LENGTHS = (1, 2, 7, 64, 129)
WINDOW = 5  # keys that a query sees under a mask
# of the output, relative to the largest value, and of the log-sum-exp, relative to its size; 1 at least
OUTPUT = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}
LOG_SUM = 1e-4
SCORE = 200.0

Attention = Callable[..., tuple[Tensor, ...]]  # (query, key, value, causal, scale, mask=None)


def faults(heads: int, kv_heads: int, size: int, dtype: torch.dtype, device: torch.device) -> dict[str, str]:
    """What is wrong with the kernels that would be used, by name, up to the first one that is right: how it differs, or why it
    refuses. heads, kv_heads, size: of the model's attention. Slices, which always compute, are not tried."""
    found = {}
    if wrong := _fault(_sdpa, heads, size, dtype, device, masked=False):
        found["sdpa"] = wrong
    for name in kernels.usable(device.type, dtype):
        if name == SLICES or not (wrong := _fault(KERNELS[name], heads, size, dtype, device, name in MASKED)):
            break
        found[name] = wrong
    narrow = dtype in (torch.float16, torch.bfloat16)
    if device.type == "cuda" and narrow and (wrong := _packed_fault(heads, kv_heads, size, dtype, device)):
        found[VARLEN] = wrong
    return found


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, mask: None = None
) -> tuple[Tensor, ...]:
    return (F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale),)


def exact(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention in float64 on the CPU: output [..., L, d] and log-sum-exp [..., L]. mask: bool [..., L, S], which keys are
    seen."""
    query, key, value = (tensor.detach().cpu().double() for tensor in (query, key, value))
    scores = query @ key.transpose(-1, -2) * scale
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask.cpu(), float("-inf"))
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


def _cases(heads: int, size: int, length: int, dtype: torch.dtype, device: torch.device) -> Iterator[list[Tensor]]:
    """Queries, keys and values [1, heads, length, size], of normal size and with a large common part of the keys."""
    generator = torch.Generator().manual_seed(length)
    query, key, value = (torch.randn(1, heads, length, size, generator=generator) for _ in range(3))
    for bias in (0.0, SCORE / math.sqrt(size)):  # scores of queries of 1s: bias * size / sqrt(size)
        made = (query + (1.0 if bias else 0.0), key + bias, value)
        yield [tensor.to(device=device, dtype=dtype) for tensor in made]


def _band(length: int, device: torch.device) -> Tensor:
    """bool [1, 1, length, length]: the last WINDOW keys of each query, itself included."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device)
    return (seen.tril() & seen.triu(1 - WINDOW))[None, None]


def _fault(attention: Attention, heads: int, size: int, dtype: torch.dtype, device: torch.device, masked: bool) -> str:
    """How a kernel differs from float64, "" where it is right. masked: whether it takes masks."""
    scale = size**-0.5
    for length in LENGTHS:
        ways: list[tuple[str, bool, Tensor | None]] = [(", causal", True, None), ("", False, None)]
        ways += [(", masked", False, _band(length, device))] if masked else []
        for way, causal, mask in ways:
            for query, key, value in _cases(heads, size, length, dtype, device):
                try:
                    out, *lse = attention(query, key, value, causal, scale, mask=mask)
                except (RuntimeError, AttributeError, TypeError) as error:
                    return f"refuses ({str(error).splitlines()[0][:100] if str(error) else type(error).__name__})"
                expected = exact(query, key, value, causal, scale, mask)
                wrong = _difference(out, lse[0][..., :length] if lse else None, expected)
                if wrong:
                    return f"{wrong}, {length} tokens{way}"
    return ""


def _packed_fault(heads: int, kv_heads: int, size: int, dtype: torch.dtype, device: torch.device) -> str:
    """How the variable-length kernel differs from float64 on sequences of unequal length in one row, "" where it is right."""
    scale, ends = size**-0.5, torch.tensor([0, *LENGTHS]).cumsum(0).tolist()
    groups = heads // kv_heads
    for query, key, value in _cases(heads, size, ends[-1], dtype, device):
        key, value = key[:, ::groups].contiguous(), value[:, ::groups].contiguous()
        found = Packed(LENGTHS).variable_length(query, key, value, scale)
        if found is None:
            return "refuses"
        for start, stop in pairwise(ends):
            part = [tensor[:, :, start:stop] for tensor in (query, key, value)]
            part[1:] = [tensor.repeat_interleave(groups, 1) for tensor in part[1:]]
            wrong = _difference(
                found[0][:, :, start:stop], found[1][..., start:stop], exact(part[0], part[1], part[2], True, scale)
            )
            if wrong:
                return f"{wrong}, {stop - start} tokens in a row of {ends[-1]}"
    return ""


def _difference(out: Tensor, lse: Tensor | None, expected: tuple[Tensor, Tensor]) -> str:
    """How an output and its log-sum-exp differ from those expected, "" where they are right."""
    far = float((out.cpu().double() - expected[0]).abs().max() / expected[0].abs().max().clamp(min=1e-9))
    if not far <= OUTPUT[out.dtype]:  # also where it is not a number
        return f"is off by {far:.2g} of the largest value"
    if lse is not None:
        far = float(((lse.cpu().double() - expected[1]).abs() / expected[1].abs().clamp(min=1.0)).max())
        if not far <= LOG_SUM:
            return f"its log-sum-exp is off by {far:.2g}"
    return ""
