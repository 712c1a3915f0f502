"""The interval of every paired difference of two runs on the same items, the first less the second.

As in one_run.py values are fractions, units lie along the last axis, and both bounds are not-a-number where there are too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_eval.stats import clusters, one_run, strata
from qwen_eval.stats.families import Bounds, bonett_price, effective
from qwen_eval.stats.one_run import CONSTANT, LEVEL, NONE
from qwen_eval.stats.quantiles import normal
from qwen_eval.stats.strata import Stratum


def items(lost: Any, won: Any, n: int, level: float = LEVEL) -> Bounds:
    """Of n independent items that are right or wrong: Bonett and Price's interval. lost, won: how many flipped each way."""
    return bonett_price((lost + won) / n, (lost - won) / n, n, normal(level)) if n else NONE


def clustered(totals: Any, absolutes: Any, sizes: Any, level: float = LEVEL) -> Bounds:
    """Of items that come in clusters: Bonett and Price's with the effective n of their CR2 variance, at most the number of
    items. With Student's quantile it would cover more than its level at every number of clusters.

    totals, absolutes, sizes: by cluster the sum of its items' differences, the sum of their absolute values, and how many
    they are.
    """
    import numpy as np

    sizes = np.asarray(sizes, dtype=float)
    if sizes.shape[-1] < clusters.FEWEST:
        return NONE
    difference, variance, _ = clusters.ratio(totals, sizes)
    spread = np.asarray(absolutes, dtype=float).sum(-1) / sizes.sum(-1)
    n = effective(spread - difference * difference, variance, clusters.alike(sizes))
    return bonett_price(spread, difference, np.minimum(n, sizes.sum(-1)), normal(level))


def macro(parts: Sequence[Stratum], spread: Any, level: float = LEVEL) -> Bounds:
    """Of an unweighted mean over fixed strata: Bonett and Price's with the effective n of the strata's variances.

    parts: of the differences. spread: the unweighted mean over strata of their mean absolute values.
    """
    if not parts or strata.too_few(parts):
        return NONE
    difference, variance, _, full = strata.mean_of(parts, paired=True)
    n = effective(spread - difference * difference, variance, full)
    return bonett_price(spread, difference, n, normal(level))


def bounded(differences: Any, level: float = LEVEL, constant: float = CONSTANT) -> Bounds:
    """Of independent scores in [0, 1]: Bonett and Price's with an effective n, the variance shrunk as in one_run.bounded."""
    import numpy as np

    differences = np.asarray(differences, dtype=float)
    n = differences.shape[-1]
    if n < 2:
        return NONE
    mean, variance, spread = differences.mean(-1), differences.var(-1, ddof=1), np.abs(differences).mean(-1)
    largest = spread - mean * mean
    shrunk = ((n - 1) * variance + constant * largest) / (n - 1 + constant)
    return bonett_price(spread, mean, effective(n * largest, shrunk, n), normal(level))


def rate_of_loss(
    first: Any, first_sizes: Any, second: Any, second_sizes: Any, relative: bool = False
) -> tuple[Any, Any, Any]:
    """The second run's loss per unit of size less the first's, over the same documents: its value, standard error (CR2) and
    degrees of freedom. Not-a-number with too few documents. first, second: losses by document; sizes: tokens or bytes.
    relative: the logarithm of the rates' ratio in place of their difference."""
    import numpy as np

    parts = [np.asarray(values, dtype=float) for values in (first, first_sizes, second, second_sizes)]
    sums = [values.sum(-1, keepdims=True) for values in parts]
    rates = sums[0] / sums[1], sums[2] / sums[3]
    influence = [
        (parts[2 * run] - rates[run] * parts[2 * run + 1]) / sums[2 * run + 1] / (rates[run] if relative else 1)
        for run in (0, 1)
    ]
    difference = (np.log(rates[1] / rates[0]) if relative else rates[1] - rates[0])[..., 0]
    if parts[0].shape[-1] < one_run.FEWEST_DOCUMENTS:
        return difference, difference * np.nan, difference * np.nan
    variance, df = clusters.cr2(influence[1] - influence[0], (parts[1] / sums[1] + parts[3] / sums[3]) / 2)
    return difference, np.sqrt(variance), df
