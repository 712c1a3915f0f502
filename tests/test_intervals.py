"""Intervals of one run: against scipy, values worked out by hand, and simulations of the coverage before and after.

`make coverage` has all figures at all sizes; here is one case of each fault that was found.
"""

from __future__ import annotations

from math import exp, isnan, log, nan

import numpy as np
import pytest
from scipy import stats

from qwen_eval import terminal
from qwen_eval.schema import Chosen, Generated, Metric, Sample, Score, Scored
from qwen_eval.stats import clusters, families, intervals, one_run, quantiles, scores, strata
from qwen_eval.tasks import generation

Z = stats.norm.ppf(0.975)


def covered(bounds: tuple, truth: object) -> float:
    low, high = bounds
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("df", [0.3, 1, 1.3, 2.7, 9, 30.5, 1999, 1e5])
def test_students_distribution_equals_scipys(df: float) -> None:
    for level in (0.5, 0.8, 0.95, 0.999, 1 - 1e-6):
        assert quantiles.student(level, df) == pytest.approx(stats.t.ppf((1 + level) / 2, df), rel=1e-8)
    for t in (0.0, 0.3, 1.96, 7.0, 60.0):
        assert quantiles.student_tail(-t, df) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-8)


def test_students_distribution_at_its_ends() -> None:
    assert quantiles.student(0.95, 1e9) == pytest.approx(Z, rel=1e-9)
    assert (
        isnan(quantiles.student(0.95, 0))
        and isnan(quantiles.student_tail(nan, 5))
        and quantiles.student_tail(1e200, 5) == 0
    )


# ------------------------------------------------------------------------------------------------------- macro averages
def macro_before(shares: np.ndarray, n: int) -> tuple:
    """The interval until now: two hits and two misses added to the variance of each subject."""
    padded = (shares * n + 2) / (n + 4)
    half = Z * np.sqrt((padded * (1 - padded) / (n + 4)).sum(1)) / shares.shape[1]
    return np.maximum(shares.mean(1) - half, 0), np.minimum(shares.mean(1) + half, 1)


def macro_after(hits: np.ndarray, n: int) -> tuple:
    return one_run.macro([strata.of_items(hits[:, h], hits[:, h], n) for h in range(hits.shape[1])])


@pytest.mark.parametrize(("n", "before"), [(26, 0.93), (20, 0.92), (5, 0.85)])
def test_a_macro_average_over_52_subjects_is_covered(n: int, before: float) -> None:
    """Subjects around 0.5: the interval was too narrow."""
    rng = np.random.default_rng(n)
    truths, was, is_now = [], [], []
    for _ in range(8):
        p = rng.beta(4.5, 4.5, 52)
        hits = rng.binomial(n, p, (1000, 52))
        truths.append(p.mean())
        was.append(covered(macro_before(hits / n, n), p.mean()))
        is_now.append(covered(macro_after(hits, n), p.mean()))
    assert np.mean(was) == pytest.approx(before, abs=0.015) and np.mean(is_now) > 0.945, (np.mean(was), np.mean(is_now))


def test_a_macro_average_near_its_ceiling_is_no_longer_too_wide() -> None:
    """52 subjects of 5 items at 0.99."""
    rng = np.random.default_rng(1)
    p = rng.beta(0.99 * 9, 0.01 * 9, 52)
    hits = rng.binomial(5, p, (2000, 52))
    before, after = macro_before(hits / 5, 5), macro_after(hits, 5)
    assert covered(after, p.mean()) > 0.94
    assert np.median(after[1] - after[0]) < 0.65 * np.median(before[1] - before[0])


def test_a_macro_average_by_hand() -> None:
    """Subjects of 4 and 2 items with 3 and 1 right: P = 5/8; with one pseudo-item s = 29/40 and 13/24, divisors 4 - 8/25 and
    2 - 2/9, Satterthwaite's degrees of freedom; one subject has Wilson's interval."""
    first, second = 29 / 40 * 11 / 40 / (4 - 8 / 25), 13 / 24 * 11 / 24 / (2 - 2 / 9)
    v, df = (first + second) / 4, (first + second) ** 2 / (first**2 / 4 + second**2 / 2)
    n, t = 15 / 64 / v, stats.t.ppf(0.975, df)
    middle, scale = 5 / 8 + t * t / 2 / n, 1 + t * t / n
    half = t * np.sqrt(15 / 64 / n + t * t / 4 / n / n)
    figure = intervals.stratified_mean("acc", "all", [[1, 1, 1, 0], [0, 1], []])
    assert (figure.value, figure.n) == (62.5, 6)
    assert (figure.ci_low, figure.ci_high) == pytest.approx(
        (100 * (middle - half) / scale, 100 * (middle + half) / scale)
    )
    alone, share = intervals.stratified_mean("acc", "x", [[1, 0, 1]]), intervals.share("acc", "x", [1, 0, 1])
    assert (alone.ci_low, alone.ci_high) == pytest.approx((share.ci_low, share.ci_high)) and isnan(
        intervals.stratified_mean("acc", "all", []).ci_low
    )


# ----------------------------------------------------------------------------------------------------------- perplexity
@pytest.mark.parametrize(("count", "before"), [(2, 0.48), (5, 0.79), (20, 0.89)])
def test_perplexity_over_few_documents_is_covered(count: int, before: float) -> None:
    """Documents of unequal length; the percentile bootstrap was used before. Two documents have no interval any more."""
    rng = np.random.default_rng(count)
    tokens = np.round(3000 * np.exp(0.6 * rng.standard_normal((3000, count))))
    loss = tokens * (2.3 + 0.35 * rng.standard_normal((3000, count)))
    counts = rng.multinomial(count, [1 / count] * count, 500).T.astype(float)
    was = covered(tuple(np.quantile((loss @ counts) / (tokens @ counts), [0.025, 0.975], axis=1)), 2.3)
    assert was == pytest.approx(before, abs=0.05)
    figures = scores.perplexity("2048", loss[0].tolist(), tokens[0].tolist(), tokens[0].tolist())
    if count == 2:
        assert all(isnan(figure.ci_low) and isnan(figure.ci_high) and figure.value > 1 for figure in figures)
        return
    assert covered(one_run.rate_of_loss(loss, tokens), 2.3) > 0.94
    low, high = one_run.rate_of_loss(loss[0], tokens[0])
    assert (figures[0].ci_low, figures[0].ci_high) == pytest.approx((exp(low), exp(high)))
    assert (figures[1].ci_low, figures[1].ci_high) == pytest.approx((low / log(2), high / log(2)))


def test_perplexity_of_equal_documents_is_students_interval() -> None:
    rates = np.array([1.1, 1.3, 1.25, 1.5, 0.9])
    figure, _ = scores.perplexity("1024", (100 * rates).tolist(), [100] * 5, [400] * 5)
    expected = stats.t.interval(0.95, 4, rates.mean(), stats.sem(rates))
    assert (figure.ci_low, figure.ci_high) == pytest.approx(np.exp(expected).tolist())


def test_cr2_equals_its_definition_by_matrices() -> None:
    """Bell and McCaffrey's degrees of freedom, the trace of the quadratic form's matrix squared over that of its square."""
    rng = np.random.default_rng(0)
    w = rng.dirichlet(np.ones(7))
    m = np.eye(7) - np.outer(np.ones(7), w)
    g = m.T @ np.diag(w * w / (1 - 2 * w + w @ w)) @ m
    u = rng.normal(size=7)
    variance, df = clusters.cr2(u, w)
    assert df == pytest.approx(np.trace(g) ** 2 / np.trace(g @ g))
    assert variance == pytest.approx(sum(u**2 / (1 - 2 * w + w @ w)))


# --------------------------------------------------------------------------------------------- rates and scores in [0, 1]
def test_rates_of_several_samples_have_no_zero_width_at_their_ends() -> None:
    """17 tasks of 10 samples, none or all passed: before, 0 to 0 and 100 to 100."""
    none, every = scores.pass_at_k(1, [10] * 17, [0] * 17), scores.pass_at_k(1, [10] * 17, [10] * 17)
    assert none.ci_low == 0 and 15 < none.ci_high < 25 and every.ci_high == 100 and 75 < every.ci_low < 85
    ten = scores.pass_at_k(10, [20] * 17, [20] * 17)
    assert (ten.ci_low, ten.ci_high) == pytest.approx([100 * bound for bound in one_run.share(17, 17)])
    assert isnan(scores.pass_at_k(1, [10], [4]).ci_low)  # a single task
    assert scores.pass_at_k(1, [1] * 5, [1, 0, 0, 1, 1]).ci_low == pytest.approx(100 * one_run.share(3, 5)[0])


def test_pass_at_k_near_its_ceiling_is_covered() -> None:
    """pass@10 of 20 samples: nearly every task is solved, a few never. The normal interval was used before."""
    rng = np.random.default_rng(4)
    estimates = np.where(rng.random((4000, 50)) < 0.02, 0.0, 1.0)
    half = Z * estimates.std(1, ddof=1) / np.sqrt(50)
    before = covered((estimates.mean(1) - half, np.minimum(estimates.mean(1) + half, 1)), 0.98)
    after = covered(one_run.share(estimates.sum(1), 50), 0.98)
    assert before < 0.65 and after > 0.9, (before, after)


def test_the_interval_of_rouge_l_is_as_wide_as_it_has_to_be() -> None:
    """50 items: Wilson's of so many right-or-wrong items, used before, is 23.5 points wide on average, now 13.8."""
    rng = np.random.default_rng(3)
    families = [(0.02, 0.02, 3, 7), (0.1, 0.0, 1.2, 6), (0.15, 0.45, 2, 3)]
    widths = {"before": [], "after": []}
    for zero, one, a, b in families:
        u = rng.random((4000, 50))
        x = np.where(u < zero, 0.0, np.where(u > 1 - one, 1.0, rng.beta(a, b, u.shape)))
        truth = one + (1 - zero - one) * a / (a + b)
        after = one_run.bounded(x)
        assert covered(after, truth) > 0.95
        for name, (low, high) in (("before", one_run.share(x.sum(1), 50)), ("after", after)):
            widths[name].append(100 * np.median(high - low))
    assert np.mean(widths["before"]) == pytest.approx(23.5, abs=0.4)
    assert np.mean(widths["after"]) == pytest.approx(13.8, abs=0.4)


def test_the_interval_of_scores_by_hand() -> None:
    """Of 0.2, 0.4, 0.9: variance 0.13, shrunk by two pseudo-values of variance p(1 - p) = 0.25."""
    n = 3 * 0.25 / ((2 * 0.13 + 2 * 0.25) / 4)
    t = stats.t.ppf(0.975, 2)
    half = t * np.sqrt(0.25 / n + t * t / 4 / n / n) / (1 + t * t / n)
    figure = intervals.mean("rouge_l", "all", [0.2, 0.4, 0.9])
    assert (figure.value, figure.ci_low, figure.ci_high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    percent = intervals.mean("code", "all", [0.2, 0.4, 0.9], percent=True)
    assert (percent.value, percent.ci_low) == pytest.approx((50, 100 * figure.ci_low))
    assert isnan(intervals.mean("rouge_l", "all", [0.2]).ci_low)


def test_shares_of_texts_count_tasks_and_not_texts() -> None:
    """Ten texts a task: all texts of half of the tasks cut. As independent texts the interval would be 10 points wide."""
    made = [
        Scored(Sample(str(i), None, None), Generated(("",) * 10, ("",) * 10, ("eos",) * 10), Score({"texts": 10.0, "cut": 10.0 * (i % 2)}, ""))  # type: ignore[arg-type]  # noqa: E501
        for i in range(40)
    ]  # fmt: skip
    figure = generation.cut_share(made)
    assert (figure.value, figure.n) == (50, 400) and figure.ci_high - figure.ci_low > 25


# ------------------------------------------------------------------------------------------------------------- clusters
def test_questions_of_passages_are_covered() -> None:
    """50 passages of 1 to 15 questions, correlation 0.15; before, questions were taken as independent."""
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 16, (3000, 50))
    hits = rng.binomial(sizes, rng.beta(0.7 * 17 / 3, 0.3 * 17 / 3, sizes.shape))
    before = covered(families.wilson(hits.sum(1) / sizes.sum(1), sizes.sum(1), Z), 0.7)
    after = covered(one_run.clustered(hits, sizes), 0.7)
    assert before == pytest.approx(0.79, abs=0.03) and after > 0.94, (before, after)


def test_a_macro_average_of_passages_is_covered() -> None:
    """20 subjects of 6 passages of 1 to 6 questions, correlation 0.3."""
    rng = np.random.default_rng(8)
    p, sizes = rng.uniform(0.3, 0.9, 20), np.broadcast_to(np.arange(1, 7), (1500, 6))
    hits = [rng.binomial(sizes, rng.beta(x * 7 / 3, (1 - x) * 7 / 3, sizes.shape)) for x in p]
    as_items = one_run.macro([strata.of_items(one.sum(1), one.sum(1), 21) for one in hits])
    after = one_run.macro([strata.of_clusters(one, one, sizes) for one in hits])
    assert covered(as_items, p.mean()) < 0.88 and covered(after, p.mean()) > 0.94


def item(number: int, correct: float, cluster: str | None, group: str = "x") -> Scored:
    sample = Sample(f"{group}/{number}", None, "A", group, cluster=cluster)  # type: ignore[arg-type]
    return Scored(sample, Chosen((0.0,), 5, 10), Score({"correct": correct}, "A"))


def test_clusters_of_items_widen_every_figure_of_the_table() -> None:
    """Eight passages of five questions, each all right or all wrong, beside items by themselves."""
    made = [item(i, float(i // 5 % 2), f"p{i // 5}") for i in range(40)]
    apart = [item(i, float(i // 5 % 2), "") for i in range(40)]
    for one, other in zip(
        intervals.accuracy_table(made, {}, "macro"), intervals.accuracy_table(apart, {}, "macro"), strict=True
    ):
        assert (one.value, one.n) == (other.value, other.n)
        assert one.ci_high - one.ci_low > 1.9 * (other.ci_high - other.ci_low)
    # the same name in two subjects is not the same passage; a name that only one item has is an item by itself
    names = intervals.clusters_of([item(0, 1, "p"), item(0, 1, "p", "y"), item(1, 1, "p", "y"), item(2, 1, "q", "y")])
    assert names is not None and len(set(names)) == 3 and names[1] == names[2]
    assert intervals.clusters_of([item(0, 1, "p"), item(1, 1, "q"), item(2, 0, None)]) is None
    few = intervals.of_items("acc", "all", [item(i, 1.0, f"p{i % 4}") for i in range(40)], "correct")
    assert few.value == 100 and isnan(few.ci_low)


def test_figures_without_an_interval_are_told() -> None:
    figures = [
        Metric("acc", "all", 50, nan, nan, 9),
        Metric("acc", "x", 50, 1, 99, 9),
        Metric("acc", "y", nan, nan, nan, 0),
    ]
    (line,) = intervals.without(figures)
    assert line == "too few independent items, passages or documents for an interval: acc"
    assert " none\n" in terminal.table("acc", figures[:2], "t", "s", []) and not intervals.without(figures[1:2])
