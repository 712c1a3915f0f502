"""The interval of every figure of one run. docs/intervals.md has which is for what, and how often each holds the true value.

Values are fractions; both bounds are not-a-number where there are too few units. Units (items, clusters, documents) lie along
the last axis of what is given, so that the simulation (tools/simulate_intervals) computes many draws at once with this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

from qwen_eval.stats import clusters, strata
from qwen_eval.stats.families import TINY, Bounds, effective, wilson
from qwen_eval.stats.quantiles import normal, students
from qwen_eval.stats.strata import Stratum

LEVEL = 0.95
FEWEST_DOCUMENTS = 3  # of a perplexity; with two the interval spans eight times the figure
FEWEST_SEGMENTS = 20  # of a corpus score whose documents are not known
CONSTANT = 2.0  # pseudo-values that keep a mean of nearly equal scores from being taken to be known exactly
NONE: Bounds = (nan, nan)


def share(hits: Any, n: int, level: float = LEVEL) -> Bounds:
    """A share of n independent items: Wilson's interval."""
    return wilson(hits / n, n, normal(level)) if n else NONE


def clustered(totals: Any, sizes: Any, level: float = LEVEL) -> Bounds:
    """A mean over items that come in clusters: Wilson's with the effective n of their CR2 variance, at most the number of
    items, and Student's quantile.

    totals, sizes: by cluster the sum of its items' values in [0, 1], and how many they are.
    """
    import numpy as np

    sizes = np.asarray(sizes, dtype=float)
    if sizes.shape[-1] < clusters.FEWEST:
        return NONE
    mean, variance, df = clusters.ratio(totals, sizes)
    n = effective(mean * (1 - mean), variance, clusters.alike(sizes))
    return wilson(mean, np.minimum(n, sizes.sum(-1)), students(level, df))


def macro(parts: Sequence[Stratum], level: float = LEVEL) -> Bounds:
    """An unweighted mean over fixed strata of values in [0, 1]: Wilson's with the effective n of the strata's variances, and
    Student's quantile with Satterthwaite's degrees of freedom."""
    import numpy as np

    if not parts:
        return NONE
    mean, variance, df, full = strata.mean_of(parts)
    spread = mean * (1 - mean)
    if strata.too_few(parts):
        return NONE
    if len(parts) == 1 and np.all(parts[0].units == parts[0].items):
        return wilson(mean, parts[0].items, normal(level))
    quantile = np.where(spread > TINY, students(level, np.where(df > 0, df, 1.0)), normal(level))
    return wilson(mean, effective(spread, variance, full), quantile)


def bounded(values: Any, level: float = LEVEL, constant: float = CONSTANT) -> Bounds:
    """A mean of independent scores in [0, 1]: Wilson's with an effective n, and Student's quantile.

    constant: pseudo-values of the largest variance that the mean allows, by which the scores' own variance is shrunk; for rates
    of several samples a task `rate_constant`. It has no published source: tools/simulate_intervals is what speaks for it.
    """
    import numpy as np

    values = np.asarray(values, dtype=float)
    n = values.shape[-1]
    if n < 2:
        return NONE
    mean, variance = values.mean(-1), values.var(-1, ddof=1)
    largest = mean * (1 - mean)
    shrunk = ((n - 1) * variance + constant * largest) / (n - 1 + constant)
    return wilson(mean, effective(n * largest, shrunk, n), students(level, np.asarray(n - 1.0)))


def rate_constant(tasks: int) -> float:
    """The pseudo-values of `bounded` for the share of several samples a task that pass: most tasks are all but always, or all
    but never, solved, and the few that are not may not have been drawn."""
    return 2 + tasks / 10


def rate_of_loss(losses: Any, sizes: Any, level: float = LEVEL) -> Bounds:
    """Summed loss per unit of size over sampled documents (negative log-likelihood per token): Student's interval with the CR2
    variance and Satterthwaite's degrees of freedom. Its exponential is that of the perplexity.

    losses, sizes: by document.
    """
    import numpy as np

    sizes = np.asarray(sizes, dtype=float)
    if sizes.shape[-1] < FEWEST_DOCUMENTS:
        return NONE
    rate, variance, df = clusters.ratio(losses, sizes)
    half = students(level, df) * np.sqrt(variance)
    return rate - half, rate + half


def corpus(value: Any, left_out: Any, weights: Any, level: float = LEVEL) -> Bounds:
    """A corpus score from 0 to 100 (BLEU, chrF): the jackknife on the logarithm's scale (Tukey 1958), Student's quantile with
    the degrees of freedom of units of these weights. None where leaving out any unit changes nothing: all wrong or all perfect.

    left_out: the score without each unit (segment or document). weights: the units' shares of the reference.
    """
    import numpy as np

    error, df = jackknife(left_out, weights)
    value = np.asarray(value, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.exp(students(level, df) * error / value)
        known = (value > 0) & (error > TINY)
        return np.where(known, value / factor, nan), np.where(known, np.minimum(value * factor, 100.0), nan)


def jackknife(left_out: Any, weights: Any) -> tuple[Any, Any]:
    """The standard error of a figure from its values without each unit, and its degrees of freedom."""
    import numpy as np

    left_out, weights = np.asarray(left_out, dtype=float), np.asarray(weights, dtype=float)
    count = left_out.shape[-1]
    spread = ((left_out - left_out.mean(-1, keepdims=True)) ** 2).sum(-1)
    weights = np.broadcast_to(weights / weights.sum(-1, keepdims=True), left_out.shape)
    _, df = clusters.cr2(np.zeros_like(weights), weights)
    return np.sqrt((count - 1) / count * spread), df
