"""The variance of an unweighted mean over fixed strata (subjects), whose items, or clusters of items, are what was sampled.

Every stratum is given one pseudo-item that looks like the average stratum, so that a subject that happens to be all right is
not taken to be known exactly; the divisor takes back what this adds where strata are alike. The shrinkage has no published
source: tools/simulate_intervals is what speaks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qwen_eval.stats import clusters


@dataclass(frozen=True)
class Stratum:
    """One stratum; numbers or arrays (one element a draw).

    mean: of its items' values. square: of their squares. items: how many. units: how many equal clusters weigh as its own
    do (the number of items where each is by itself). variance, df: of its mean (0 and 0 where it has one cluster only).
    """

    mean: Any
    square: Any
    items: Any
    units: Any
    variance: Any
    df: Any

    @property
    def spread(self) -> Any:
        """The variance of its mean if items were independent."""
        import numpy as np

        return (self.square - self.mean * self.mean) / np.maximum(self.items - 1, 1)


def of_items(total: Any, squares: Any, items: Any) -> Stratum:
    """A stratum of independent items. total, squares: the sums of their values and of their squares."""
    import numpy as np

    mean, square = np.asarray(total) / items, np.asarray(squares) / items
    return Stratum(mean, square, items, items, (square - mean * mean) / np.maximum(items - 1, 1), items - 1)


def of_clusters(totals: Any, squares: Any, sizes: Any) -> Stratum:
    """A stratum of clusters, along the last axis. totals, squares: sums over the items of each; sizes: how many items."""
    import numpy as np

    totals, squares, sizes = (np.asarray(values, dtype=float) for values in (totals, squares, sizes))
    items = sizes.sum(-1)
    mean, variance, df = clusters.ratio(totals, sizes)
    if sizes.shape[-1] < 2:
        variance, df = 0 * mean, 0 * mean
    return Stratum(mean, squares.sum(-1) / items, items, clusters.alike(sizes), variance, df)


def too_few(parts: Sequence[Stratum]) -> bool:
    """Whether items come in clusters, and all strata together have too few of them for an interval."""
    import numpy as np

    units = sum(np.max(one.units) for one in parts)
    return bool(units < clusters.FEWEST and any(np.any(one.units < one.items - 1e-9) for one in parts))


def mean_of(strata: Sequence[Stratum], paired: bool = False) -> tuple[Any, Any, Any, Any]:
    """The mean over strata, its variance and degrees of freedom, and the number of independent items of equal strata that
    weigh as these do.

    paired: values are differences in [-1, 1]; else they lie in [0, 1].
    """
    import numpy as np

    share = 1 / len(strata)
    mean = sum(one.mean for one in strata) * share
    # of a value in [0, 1] the largest variance that its mean allows: of 0/1 items the variance
    largest = sum(one.square for one in strata) * share - mean * mean if paired else mean * (1 - mean)
    clustered = [one for one in strata if np.any(one.units < one.items - 1e-9)]
    alone = sum(one.spread for one in clustered)
    found = sum(one.variance for one in clustered)
    effect = np.where(alone > 0, found / np.where(alone > 0, alone, 1.0), 1.0) if clustered else 1.0
    parts, floors = [], []
    for one in strata:
        size = one.items / one.units
        parts.append(_shrunk(one, mean, largest * np.clip(effect, 1.0, size) / size, one.units, one.variance, share))
        floors.append(_shrunk(one, mean, largest, one.items, one.spread, share) if clustered else parts[-1])
    total, floor = sum(parts), sum(floors)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = total * total / sum(part * part / (one.df + 1) for part, one in zip(parts, strata, strict=True))
    full = 1 / sum(share * share / one.units for one in strata)
    return mean, share * share * np.maximum(total, floor), df, full


def _shrunk(one: Stratum, mean: Any, pseudo: Any, units: Any, variance: Any, share: float) -> Any:
    """The variance of a stratum's mean with one pseudo-item. pseudo: the variance of that item around the mean."""
    ratio = units / (units + 1)
    spread = units * (units - 1) * variance + pseudo + ratio * (one.mean - mean) ** 2
    return spread / ((units + 1) * (units - (1 - share) * ratio * ratio))
