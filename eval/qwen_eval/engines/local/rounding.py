"""How far the engine may be from its reference: what rounding explains.

It is measured on the model itself, by how far two references of transformers are apart on the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

# The largest difference of a log-probability that is allowed: CALIBRATED times that of two references of transformers, but no
# less than the first number and no more than the second, which is also the limit where a model has one reference only. In 16
# bits three quarters of a text's differences have to be below NARROW times those of the references, or MEAN_SHARE of the first.
BOUNDS = {torch.float32: (1e-3, 1e-2), torch.float16: (2e-2, 0.5), torch.bfloat16: (0.1, 2.0)}
# the same for the mean loss of the tokens of a text
LOSS_BOUNDS = {torch.float32: (1e-4, 1e-3), torch.float16: (1e-3, 1e-2), torch.bfloat16: (5e-3, 5e-2)}
# Of quantized matrices, whose kernels round otherwise for other rows beside them (LLM.int8 takes a column as it is where any
# row has a large value in it), which two references, each of one text alone, do not show.
QUANTIZED, QUANTIZED_LOSS = (0.5, 2.0), (2e-2, 5e-2)
CALIBRATED = 2.5
NARROW = 4.0  # the same in 16 bits, where the engine rounds in more places than the reference
# the same for the root mean square over all compared tokens, which finds what is small and everywhere
MEAN_SHARE = 0.25  # of the first number

Judged: TypeAlias = tuple[float, int | None, str]  # what is allowed, the text that has more, and what to say of it


def beyond(
    differences: Sequence[Tensor], known: Sequence[Tensor], bounds: tuple[float, float], exact: bool, mean: bool
) -> Judged:
    """Whether any difference is larger than rounding explains. exact: whether `known` holds nothing but rounding, in 16 bits.
    mean: or their mean square."""
    apart = max((float(item.max()) for item in known), default=float("inf"))
    # references that contradict each other say nothing about rounding
    contradict = not exact and bounds[1] <= apart < float("inf")
    if exact and known:
        allowed = max(NARROW * apart, bounds[0])
    else:
        allowed = bounds[0] if contradict else min(max(CALIBRATED * apart, bounds[0]), bounds[1])
    worst = max(range(len(differences)), key=lambda index: float(differences[index].max()))
    if float(differences[worst].max()) > allowed:
        return allowed, worst, f"{allowed:.2g}"
    if mean:
        typical = _root(known) if known and not contradict else 0.0
        here, most = _root(differences), max(CALIBRATED * typical, MEAN_SHARE * bounds[0])
        if here > most:
            return allowed, worst, f"{most:.2g} in the mean, {here:.2g} here,"
    return allowed, None, ""


def mostly_beyond(
    differences: Sequence[Tensor], known: Sequence[Tensor], bounds: tuple[float, float], exact: bool
) -> Judged:
    """Whether more than a quarter of any text's differences are larger than rounding explains, in 16 bits or quantized: there a
    few may be, where rounding changes which expert is chosen. exact: whether `known` holds nothing but rounding."""
    apart = max((_quartile(item) for item in known), default=float("inf"))
    allowed = max(NARROW * apart, MEAN_SHARE * bounds[0])
    allowed = allowed if exact and known else min(allowed, bounds[1])
    worst = max(range(len(differences)), key=lambda index: _quartile(differences[index]))
    here = _quartile(differences[worst])
    if here > allowed:
        return allowed, worst, f"{allowed:.2g} for three quarters of such numbers, {here:.2g} here,"
    return allowed, None, ""


def _quartile(differences: Tensor) -> float:
    """What three quarters of these are at most."""
    ordered = differences.flatten().sort().values
    return float(ordered[max(0, 3 * len(ordered) // 4 - 1)])


def _root(differences: Sequence[Tensor]) -> float:
    return float(torch.cat([item.flatten() for item in differences]).square().mean().sqrt())
