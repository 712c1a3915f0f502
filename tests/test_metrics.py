"""Figures and intervals against scipy, hand-computed values and simulation."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from scipy.stats import binomtest

from qwen_eval.schema import Chosen, Sample, Score, Scored
from qwen_eval.stats import intervals, one_run
from qwen_eval.tasks.choice import best_option, double_softmax


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (1, 27), (660, 1319), (8000, 14042)])
def test_wilson_equals_scipy(hits: int, n: int) -> None:
    theirs = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert one_run.share(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_of_nothing_is_not_a_number() -> None:
    assert all(map(isnan, one_run.share(0, 0)))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("n", [27, 100, 1319])
def test_wilson_covers_the_truth(n: int, p: float) -> None:
    """Exact coverage under binomial sampling, summed over all outcomes."""
    from scipy.stats import binom

    hits = np.arange(n + 1)
    covered = [low <= p <= high for low, high in (one_run.share(int(hit), n) for hit in hits)]
    assert binom.pmf(hits, n, p)[covered].sum() >= 0.93


def test_stratified_interval_covers_the_truth() -> None:
    """57 subjects of 100 to 200 items with true shares between 0.2 and 0.9, resampled 2,000 times."""
    rng = np.random.default_rng(0)
    sizes, shares = rng.integers(100, 200, 57), rng.uniform(0.2, 0.9, 57)
    covered = 0
    for _ in range(2000):
        strata = [(rng.random(size) < share).astype(float) for size, share in zip(sizes, shares, strict=True)]
        figure = intervals.stratified_mean("acc", "all", strata)
        covered += figure.ci_low <= 100 * shares.mean() <= figure.ci_high
    assert 0.93 <= covered / 2000 <= 0.975


def test_a_stratum_without_errors_still_has_variance() -> None:
    figure = intervals.stratified_mean("acc", "all", [[1.0] * 5, [1.0] * 5])
    assert figure.value == 100 and figure.ci_low < 90 and figure.ci_high == 100


def scored(group: str, correct: int) -> Scored:
    sample = Sample(f"{group}/0", None, "A", group)  # type: ignore[arg-type]
    return Scored(sample, Chosen((0.0,), 5, 10), Score({"correct": correct}, "A"))


def test_accuracy_by_hand() -> None:
    """x: 1 of 1, y: 1 of 3. Micro 2/4, macro (1 + 1/3) / 2; category one holds both, two holds y alone."""
    items = [scored("x", 1), scored("y", 1), scored("y", 0), scored("y", 0)]
    table = intervals.accuracy_table(items, {"one": ["x", "y"], "two": ["y"], "absent": ["z"]}, "macro")
    figures = {(metric.group, metric.metric): metric.value for metric in table}
    assert figures["all", "acc"] == figures["all", "acc_macro"] == pytest.approx(200 / 3)
    assert figures["all", "acc_micro"] == pytest.approx(50)
    assert [figures["two", "acc"], figures["y", "acc"]] == pytest.approx([100 / 3, 100 / 3])
    assert figures["x", "acc"] == 100 and not any(group == "absent" for group, _ in figures)
    micro = {(metric.group, metric.metric): metric for metric in intervals.accuracy_table(items, {}, "micro")}
    assert micro["all", "acc"].value == 50 and micro["all", "acc"].n == 4


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((-1.0, -2.0, -3.0, -4.0), (0, False)),
        ((-2.0, -1.0, -1.0, -4.0), (1, True)),
        ((-2.0, -1.000001, -1.0, -4.0), (2, True)),
        ((-2.0, -1.00002, -1.0, -4.0), (2, False)),
        ((float("-inf"),) * 4, (0, True)),
        ((float("-inf"), -3.0), (1, False)),
    ],
)
def test_the_earliest_of_equals_wins_and_ties_are_flagged(
    scores: tuple[float, ...], expected: tuple[int, bool]
) -> None:
    assert best_option(scores) == expected


def test_double_softmax_by_hand() -> None:
    """Probabilities 0.5 and 0.25 become exp(0.25) / (1 + exp(0.25))."""
    first, second = double_softmax([np.log(0.5), np.log(0.25)])
    assert first == pytest.approx(np.exp(0.25) / (1 + np.exp(0.25)), abs=1e-7)
    assert first + second == pytest.approx(1, abs=1e-6)
    assert double_softmax([-40.0, -50.0]) == [0.5, 0.5]  # float32 can no longer tell them apart
