"""Is B worse than A on the same items? Paired tests and intervals. Losses are in points, positive where B is worse.

Accuracy: exact McNemar test (McNemar 1947; the two-sided sign test of the items that flipped, or of clusters of them), and
Bonett and Price's interval (2012). BLEU: jackknife over documents, or over segments where documents are not known.
Perplexity: ratio of sums over documents. Of both the test is the one that belongs to the interval. Several comparisons: Holm
(1979). docs/intervals.md has which interval is for what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb, log, nan
from typing import Any

from qwen_eval.stats import clusters as cluster_sums
from qwen_eval.stats import intervals, one_run, scores, two_runs
from qwen_eval.stats.quantiles import normal, student, student_tail

Bounds = Callable[[float], tuple[float, float]]

LEVEL = one_run.LEVEL
DRAWS = 10_000  # sign flips of clusters
SEED = 12345  # of the sign flips
POWER = 0.8  # of the smallest detectable loss, at a two-sided level of 5%


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

    strata: the subject of each item; for "macro" subjects are fixed, items (or clusters) are what was sampled. average:
    "micro" or "macro". clusters: items of one cluster (a passage) are not independent; None: every item is its own
    cluster. The test ignores weights: it is McNemar's over all items, or by sign flips where differences of clusters exceed
    one.
    """
    losses = [one - other for one, other in zip(a, b, strict=True)]
    if lower_is_better:
        losses = [-loss for loss in losses]
    together = clusters is not None and len(set(clusters)) < len(clusters)
    units = list(clusters) if clusters is not None and together else list(range(len(a)))
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        rows[stratum if average == "macro" else ""].append(index)

    def mean(values: Sequence[float]) -> float:
        return sum(sum(values[index] for index in members) / len(members) for members in rows.values()) / len(rows)

    by_level = _bounds_of_shares(losses, list(rows.values()), units if together else None, mean)

    def bounds(level: float) -> tuple[float, float]:
        low, high = by_level(level)
        return 100 * float(low), 100 * float(high)

    totals, _ = cluster_sums.gather(losses, units)
    p, test = sign_test(totals)
    worse, better = sum(value > 0 for value in losses), sum(value < 0 for value in losses)
    method = f"{test}; Bonett-Price interval" + (f" over {len(rows)} subjects" if len(rows) > 1 else "")
    method += f", {len(totals)} clusters" if together else ""
    low, high = bounds(LEVEL)
    detectable = (high - low) / 2 * (1 + normal(2 * POWER - 1) / normal(LEVEL))
    return Result(
        100 * mean(a), 100 * mean(b), 100 * mean(losses), bounds, p, detectable, len(a), worse, better, method
    )


def _bounds_of_shares(
    losses: Sequence[float],
    rows: Sequence[Sequence[int]],
    units: Sequence[Hashable] | None,
    mean: Callable[[Sequence[float]], float],
) -> Callable[[float], tuple[Any, Any]]:
    """The interval of a mean loss, as fractions by level. rows: the indices of every stratum's items. units: the cluster of
    every item, None where each is its own."""
    sizes = [abs(loss) for loss in losses]
    if len(rows) > 1:
        parts = [
            intervals.stratum([losses[index] for index in members], units and [units[index] for index in members])
            for members in rows
        ]
        return lambda level: two_runs.macro(parts, mean(sizes), level)
    if units is not None:
        totals, counts = cluster_sums.gather(losses, units)
        return lambda level: two_runs.clustered(totals, cluster_sums.gather(sizes, units)[0], counts, level)
    if all(size in (0, 1) for size in sizes):
        lost, won = sum(loss > 0 for loss in losses), sum(loss < 0 for loss in losses)
        return lambda level: two_runs.items(lost, won, len(losses), level)
    return lambda level: two_runs.bounded(losses, level)


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
    (bits per byte, where two tokenizers split the same text differently). Interval and p-value are Student's of the
    logarithm of the figures' ratio, documents being what was sampled; two or fewer have neither.
    """
    change, error, df = map(float, two_runs.rate_of_loss(a, weights_a, b, weights_b, relative=bits))
    first, second = sum(a) / sum(weights_a), sum(b) / sum(weights_b)

    def loss(change: float) -> float:
        """In percent of A's, of the logarithm of the ratio."""
        return 100 * (scores.exponential(change) - 1)

    def bounds(level: float) -> tuple[float, float]:
        half = student(level, df) * error
        return loss(change - half), loss(change + half)

    worse = sum(x / u < y / v for x, y, u, v in zip(a, b, weights_a, weights_b, strict=True))
    better = sum(x / u > y / v for x, y, u, v in zip(a, b, weights_a, weights_b, strict=True))
    figures = (first / log(2), second / log(2)) if bits else (scores.exponential(first), scores.exponential(second))
    return Result(
        *figures, loss(change), bounds, _p(change, error, df), loss(_needed(error, df)), len(a), worse, better,
        f"Student's t over {len(a)} documents",
    )  # fmt: skip


def bleu(
    a: Sequence[str],
    b: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str,
    documents: scores.Documents = None,
) -> Result:
    """Corpus BLEU of two translations of the same segments, in points.

    references: one sequence per reference set. tokenize: as scores.bleu's. documents: of every segment. Interval and
    p-value are the jackknife's with Student's distribution, over documents; over segments where documents are not known, which
    the method says.
    """
    from sacrebleu.metrics.bleu import BLEU

    sets = [list(lines) for lines in references]
    metric = BLEU(tokenize=tokenize)
    first, second = (float(metric.corpus_score(list(texts), sets).score) for texts in (a, b))
    error = df = nan
    units = scores.sampled(sets, documents)
    if units:
        left_out = [scores.without_each(metric, texts, sets, units)[1] for texts in (a, b)]
        error, df = map(float, one_run.jackknife(left_out[0] - left_out[1], scores.weights(sets, units)))
    loss = first - second

    def bounds(level: float) -> tuple[float, float]:
        half = student(level, df) * error
        return loss - half, loss + half

    if documents is None or None in documents:
        method = f"jackknife over {len(a)} segments, taken as independent (their documents are not known)"
    else:
        method = f"jackknife over {len(set(units))} " + ("documents" if any(documents) else "segments")
    return Result(
        first, second, loss, bounds, _p(loss, error, df), _needed(error, df), len(a), None, None, method
    )  # fmt: skip


def _p(difference: float, error: float, df: float) -> float:
    """The two-sided p-value of a difference by Student's distribution; 1 where nothing differs, not-a-number where the error is
    not known."""
    if error == 0:
        return 0.0 if difference else 1.0
    return student_tail(difference / error, df)


def _needed(error: float, df: float) -> float:
    """The smallest difference that would be shown in four cases out of five."""
    return error * (student(LEVEL, df) + student(2 * POWER - 1, df))


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
    flips the interval, which is not exact, may be too narrow. A figure without an interval is never named.
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
