"""The variance of a ratio of sums over sampled units that differ in size: passages with their questions, documents with their
tokens.

CR2, which is unbiased where the items of a unit are independent (Bell and McCaffrey 2002), with Satterthwaite's degrees of
freedom (Pustejovsky and Tipton 2018).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

FEWEST = 5  # clusters below which there is no interval: their variance is not known


def cr2(influence: Any, weight: Any) -> tuple[Any, Any]:
    """The variance of an estimate, and its degrees of freedom, from units along the last axis.

    influence: of every unit on the estimate; they sum to 0. weight: its share in the estimate; they sum to 1. Equal weights
    give the usual variance of a mean and K - 1 degrees of freedom. At least two units.
    """
    import numpy as np

    squares = (weight * weight).sum(-1)
    total = squares[..., None]
    lever = np.maximum(1 - 2 * weight + total, 1e-12)
    share = weight * weight / lever
    a, b, c = share.sum(-1), (share * weight).sum(-1), (share * weight * weight).sum(-1)
    trace = squares * squares * a * a + 2 * a * c + 2 * b * b - 4 * squares * a * b
    trace = trace + (share * share * (lever * lever - (total - 2 * weight) ** 2)).sum(-1)
    return (influence * influence / lever).sum(-1), squares * squares / np.maximum(trace, 1e-300)


def ratio(totals: Any, sizes: Any) -> tuple[Any, Any, Any]:
    """Sum of totals over sum of sizes, its variance and degrees of freedom; units along the last axis."""
    totals, sizes = _floats(totals), _floats(sizes)
    whole = sizes.sum(-1, keepdims=True)
    rate = totals.sum(-1, keepdims=True) / whole
    return rate[..., 0], *cr2((totals - rate * sizes) / whole, sizes / whole)


def alike(sizes: Any) -> Any:
    """The number of equal units that weigh as these do: 1 / sum of squared weights (Kish 1965)."""
    sizes = _floats(sizes)
    weight = sizes / sizes.sum(-1, keepdims=True)
    return 1 / (weight * weight).sum(-1)


def gather(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[list[float], list[float]]:
    """Sums of values and numbers of items by cluster, clusters in order of first appearance."""
    totals: dict[Hashable, float] = {}
    sizes: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        totals[cluster] = totals.get(cluster, 0.0) + value
        sizes[cluster] = sizes.get(cluster, 0.0) + 1
    return list(totals.values()), list(sizes.values())


def named(names: Sequence[str | None], groups: Sequence[str]) -> list[Hashable] | None:
    """The cluster of every item, from the names that items of a group share; an item without one is a cluster of its own.
    None where all are."""
    found: list[Hashable] = [
        (group, name) if name else index for index, (name, group) in enumerate(zip(names, groups, strict=True))
    ]
    return found if len(set(found)) < len(found) else None


def _floats(values: Any) -> Any:
    import numpy as np

    return np.asarray(values, dtype=float)
