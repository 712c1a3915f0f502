"""Is B worse than A on the same items? Paired tests and intervals. Losses are in points, positive where B is worse.

Accuracy: exact McNemar test (McNemar 1947; the two-sided sign test of the items that flipped), and the interval of Agresti
and Min (2005, "Simple improved confidence intervals for comparing matched proportions") extended to fixed strata
(subjects). BLEU: paired bootstrap over segments (Koehn 2004) as sacrebleu does it. Perplexity: paired bootstrap over
documents, which are what was sampled. Several comparisons: Holm (1979).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb, nan, sqrt
from statistics import NormalDist
from typing import Any

from qwen_eval.stats.intervals import BOOTSTRAP, SEED
from qwen_eval.stats.scores import resampled

Bounds = Callable[[float], tuple[float, float]]

DRAWS = 10_000  # resamples of documents, sign flips of clusters
POWER = 0.8  # of the smallest detectable loss, at a two-sided level of 5%
LEVEL = 0.95
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Result:
    """One figure of two runs on the same items.

    a, b: the figure of each. loss: how much worse B is, in points (perplexity: in percent of A's). bounds: confidence
    level -> interval of the loss. p: two-sided. detectable: the smallest loss that this many items, varying as these do,
    would show in four cases out of five. worse, better: items that B lost and won (None: not counted by item). method: test and
    interval by name.
    """

    a: float
    b: float
    loss: float
    bounds: Bounds
    p: float
    detectable: float
    n: int
    worse: int | None
    better: int | None
    method: str


def shares(
    a: Sequence[float],
    b: Sequence[float],
    strata: Sequence[Hashable],
    average: str = "micro",
    clusters: Sequence[Hashable] | None = None,
    lower_is_better: bool = False,
) -> Result:
    """Two runs' scores in [0, 1] of the same items (0 or 1: accuracy), as the mean over items or over strata, in percent.

    strata: the subject of each item; subjects are fixed, items (or clusters) are what was sampled. average: "micro" or
    "macro". clusters: items of one cluster (a passage) are not independent; None: every item is its own cluster.

    The interval: in stratum h, of weight W (n_h / n, or 1 / strata), 2 W pseudo-items are spread evenly over the four
    outcomes; with m = n_h + 2 W and mean difference d = (sum of differences) / m its variance is the squared deviations
    from d, summed by cluster, over m squared. One stratum without clusters is Agresti and Min's interval. The test
    ignores weights: it is McNemar's over all items, or by sign flips where differences of clusters exceed one.
    """
    units = list(clusters) if clusters is not None else list(range(len(a)))
    losses = [one - other for one, other in zip(a, b, strict=True)]
    if lower_is_better:
        losses = [-loss for loss in losses]
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        rows[stratum].append(index)
    first = second = loss = variance = smoothed = 0.0
    for members in rows.values():
        weight = len(members) / len(a) if average == "micro" else 1 / len(rows)
        own = [losses[index] for index in members]
        padded = len(own) + 2 * weight
        centre = sum(own) / padded
        sums: dict[Hashable, float] = defaultdict(float)
        for index in members:
            sums[units[index]] += losses[index] - centre
        # the pseudo-items: W/2 of +1, W/2 of -1, W of 0
        squares = sum(value * value for value in sums.values()) + weight + 2 * weight * centre * centre
        variance += (weight / padded) ** 2 * squares
        smoothed += weight * centre
        first += weight * sum(a[index] for index in members) / len(members)
        second += weight * sum(b[index] for index in members) / len(members)
        loss += weight * sum(own) / len(own)
    error = sqrt(variance)

    def bounds(level: float) -> tuple[float, float]:
        half = _NORMAL.inv_cdf((1 + level) / 2) * error
        return 100 * max(-1.0, smoothed - half), 100 * min(1.0, smoothed + half)

    totals: dict[Hashable, float] = defaultdict(float)
    for unit, value in zip(units, losses, strict=True):
        totals[unit] += value
    p, test = sign_test(list(totals.values()))
    worse, better = sum(value > 0 for value in losses), sum(value < 0 for value in losses)
    method = f"{test}; Agresti-Min interval" + (f" over {len(rows)} subjects" if len(rows) > 1 else "")
    return Result(100 * first, 100 * second, 100 * loss, bounds, p, 100 * _needed(error), len(a), worse, better, method)


def _needed(error: float) -> float:
    return error * (_NORMAL.inv_cdf((1 + LEVEL) / 2) + _NORMAL.inv_cdf(POWER))


def sign_test(differences: Sequence[float]) -> tuple[float, str]:
    """The two-sided p-value of paired differences under exchange of the pair, and the test's name.

    Differences of equal size: McNemar's exact test. Other whole numbers: exact, by convolution over all sign patterns. Else
    10,000 random sign patterns.
    """
    nonzero = [value for value in differences if value]
    if len({abs(value) for value in nonzero}) <= 1:
        return mcnemar(sum(value > 0 for value in nonzero), sum(value < 0 for value in nonzero)), "exact McNemar"
    import numpy as np

    sizes = np.abs(np.array(nonzero))
    observed = abs(sum(nonzero))
    if all(float(value).is_integer() for value in nonzero):
        probabilities = np.ones(1)  # of every total from -(sum of sizes) to +(sum of sizes)
        for size in sizes.astype(int):
            step = np.zeros(2 * size + 1)
            step[[0, -1]] = 0.5
            probabilities = np.convolve(probabilities, step)
        totals = np.arange(len(probabilities)) - len(probabilities) // 2
        return min(1.0, float(probabilities[np.abs(totals) >= observed].sum())), "exact sign test by cluster"
    signs = np.random.default_rng(SEED).choice((-1.0, 1.0), size=(DRAWS, len(nonzero)))
    hits = int((np.abs(signs @ sizes) >= observed - 1e-9).sum())
    return (hits + 1) / (DRAWS + 1), "sign-flip test"


def mcnemar(worse: int, better: int) -> float:
    """The exact two-sided McNemar test: twice the smaller tail of Binomial(worse + better, 1/2), at most 1."""
    flips, fewer = worse + better, min(worse, better)
    term = total = 1
    for k in range(fewer):  # term: comb(flips, k + 1), made from the one before
        term = term * (flips - k) // (k + 1)
        total += term
    assert term == comb(flips, fewer)
    return float(min(Fraction(1), Fraction(2 * total, 2**flips)))


def perplexity(
    a: Sequence[float], b: Sequence[float], weights_a: Sequence[int], weights_b: Sequence[int], bits: bool = False
) -> Result:
    """exp of summed negative log-likelihood per token over the same documents; the loss is in percent of A's.

    a, b: negative log-likelihoods (natural log) by document. weights: scored tokens by document, or bytes with `bits`
    (bits per byte, where two tokenizers split the same text differently). The interval and the p-value are the percentile
    bootstrap over documents, drawn for both runs at once; a single document has neither.
    """
    import numpy as np

    table = np.array([a, weights_a, b, weights_b], dtype=np.float64)
    shape: Any = (lambda rate: rate / np.log(2)) if bits else np.exp

    def figures(sums: Any) -> tuple[Any, Any]:
        return shape(sums[0] / sums[1]), shape(sums[2] / sums[3])

    first, second = (float(value) for value in figures(table.sum(1)))
    count = len(a)
    loss = 100 * (second / first - 1)
    worse = sum(x / u < y / v for x, y, u, v in zip(a, b, weights_a, weights_b, strict=True))
    better = sum(x / u > y / v for x, y, u, v in zip(a, b, weights_a, weights_b, strict=True))
    method = "paired bootstrap over documents"
    if count < 2:
        return Result(first, second, loss, lambda level: (nan, nan), nan, nan, count, worse, better, method)
    rng, even = np.random.default_rng(SEED), np.full(count, 1 / count)
    # how often each document is drawn, in blocks that bound the memory
    sums = np.concatenate([rng.multinomial(count, even, size=DRAWS // 20) @ table.T for _ in range(20)])
    ones, others = figures(sums.T)
    losses = 100 * (others / ones - 1)
    detectable = _needed(float(losses.std(ddof=1)))
    return Result(
        first, second, loss, _quantiles(losses), _shifted(losses, loss), detectable, count, worse, better, method
    )


def bleu(a: Sequence[str], b: Sequence[str], references: Sequence[Sequence[str]], tokenize: str) -> Result:
    """Corpus BLEU of two translations of the same segments: p-value by sacrebleu's paired bootstrap test, interval of the
    difference from the same resamples (1,000, same seed).

    references: one sequence per reference set. tokenize: as metrics.bleu's.
    """
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.significance import PairedTest

    sets = [list(lines) for lines in references]
    metric = BLEU(tokenize=tokenize)
    changed = any(one != other for one, other in zip(a, b, strict=True))
    test = PairedTest([("A", list(a)), ("B", list(b))], {"BLEU": metric}, sets, "bs", BOOTSTRAP)
    tested: Any = test()[1]["BLEU"][1]
    p = tested.p_value if changed else 1.0  # for equal texts sacrebleu would report a small p
    whole = np.arange(len(a))
    resamples = np.random.default_rng(SEED).choice(len(a), size=(BOOTSTRAP, len(a)), replace=True)
    first, second = (resampled(metric, list(texts), sets, [whole, *resamples]) for texts in (a, b))
    losses = first[1:] - second[1:]
    figures = (float(first[0]), float(second[0]), float(first[0] - second[0]))
    return Result(
        *figures, _quantiles(losses), float(p), _needed(float(losses.std(ddof=1))), len(a), None, None,
        "paired bootstrap over segments (sacrebleu)",
    )  # fmt: skip


def _quantiles(draws: Any) -> Bounds:
    import numpy as np

    def bounds(level: float) -> tuple[float, float]:
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    return bounds


def _shifted(draws: Any, observed: float) -> float:
    """The two-sided bootstrap p-value: how often draws, shifted to mean 0, are at least as extreme as what was observed."""
    import numpy as np

    far = np.abs(draws - draws.mean()) >= abs(observed) - 1e-12
    return float((far.sum() + 1) / (len(draws) + 1))


def holm(p_values: Mapping[Hashable, float]) -> dict[Hashable, float]:
    """Holm's adjusted p-values of several tests (1979), by the same keys. Not-a-number stays and is not counted as a test."""
    known = sorted((p, key) for key, p in p_values.items() if p == p)
    adjusted: dict[Hashable, float] = dict.fromkeys(p_values, nan)
    highest = 0.0
    for rank, (p, key) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[key] = highest
    return adjusted


def losses_above(results: Mapping[str, Result], limit: float) -> list[str]:
    """The figures whose loss is above the limit, with at most 5% chance that any of them is named in error (2.5%, since the
    intervals are two-sided).

    Holm's procedure on intervals: of k figures left, one is named when its interval at level 1 - 0.05 / k lies above the
    limit; with a single figure, when the lower 95% bound does. The test has to agree (p at most 0.05 / k): with few
    flips the interval, which is not exact, is too narrow (4 of 4 lost among 10 items: 6% by chance).
    """
    left = dict(results)
    named: list[str] = []
    while left:
        risk = (1 - LEVEL) / len(left)
        above = [name for name, result in left.items() if result.bounds(1 - risk)[0] > limit and result.p <= risk]
        if not above:
            break
        named += above
        for name in above:
            del left[name]
    return named
