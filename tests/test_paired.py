"""Paired statistics against scipy, statsmodels, sacrebleu's command line, enumeration and simulation."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from math import isnan, sqrt
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from scipy.stats import binom, binomtest, norm, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from qwen_eval.stats import paired, two_runs
from qwen_eval.stats.quantiles import students

FLIPS = [(0, 0), (1, 0), (0, 6), (5, 5), (12, 3), (400, 350), (5000, 5130)]


@pytest.mark.parametrize(("worse", "better"), FLIPS)
def test_mcnemar_equals_scipy_and_statsmodels(worse: int, better: int) -> None:
    ours = paired.mcnemar(worse, better)
    theirs = binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert ours == pytest.approx(min(1.0, mcnemar([[7, worse], [better, 9]], exact=True).pvalue), abs=1e-9)


def answers(both: int, lost: int, won: int, neither: int) -> tuple[list[float], list[float]]:
    """Scores of A and B from the four counts."""
    a = [1.0] * (both + lost) + [0.0] * (won + neither)
    b = [1.0] * both + [0.0] * lost + [1.0] * won + [0.0] * neither
    return a, b


@pytest.mark.parametrize("counts", [(20, 4, 1, 5), (50, 0, 0, 50), (0, 10, 0, 0), (700, 60, 30, 529)])
def test_the_interval_of_independent_items_is_bonett_and_prices(counts: tuple[int, int, int, int]) -> None:
    """From the table with one added to either discordant cell, as in their paper; so is a macro average of one subject."""
    a, b = answers(*counts)
    result = paired.shares(a, b, [""] * len(a))
    n = sum(counts) + 2
    lost, won = (counts[1] + 1) / n, (counts[2] + 1) / n
    half = norm.ppf(0.975) * sqrt((lost + won - (lost - won) ** 2) / n)
    expected = 100 * max(-1, lost - won - half), 100 * min(1, lost - won + half)
    assert result.bounds(0.95) == pytest.approx(expected, abs=1e-9)
    assert paired.shares(a, b, ["x"] * len(a), "macro").bounds(0.95) == pytest.approx(expected, abs=1e-9)
    assert (result.worse, result.better) == counts[1:3] and result.p == pytest.approx(paired.mcnemar(*counts[1:3]))
    assert result.loss == pytest.approx(100 * (np.mean(a) - np.mean(b)))


@pytest.mark.parametrize(("n", "share", "once"), [(5, 0.3, 0.832), (20, 0.1, 0.876), (50, 0.05, 0.922)])
def test_flips_all_one_way_are_covered(n: int, share: float, once: float) -> None:
    """Exactly, over all outcomes: some of the items flip, all of them lost. Agresti and Min's interval was used before."""
    lost = np.arange(n + 1)
    chance = binom.pmf(lost, n, share)
    centre = lost / (n + 2)
    half = norm.ppf(0.975) * np.sqrt(((lost + 1) / (n + 2) - centre**2) / (n + 2))
    before = chance[(centre - half <= share) & (share <= centre + half)].sum()
    low, high = two_runs.items(lost, 0 * lost, n)
    after = chance[(low <= share) & (share <= high)].sum()
    assert before == pytest.approx(once, abs=1e-3) and after >= 0.95, (before, after)


def test_the_interval_over_subjects_by_hand() -> None:
    """Subjects of 8, 30 and 120 items; the variance with a pseudo-item in each spelled out as rows of data."""
    rng = np.random.default_rng(3)
    sizes = {"x": 8, "y": 30, "z": 120}
    strata = [name for name, size in sizes.items() for _ in range(size)]
    a, b = (rng.integers(2, size=len(strata)).astype(float).tolist() for _ in range(2))
    result = paired.shares(a, b, strata, "macro")
    own = {name: np.array([x - y for x, y, s in zip(a, b, strata, strict=True) if s == name]) for name in sizes}
    d, q = np.mean([v.mean() for v in own.values()]), np.mean([abs(v).mean() for v in own.values()])
    variance = 0.0
    for values in own.values():
        n = len(values)
        # one pseudo-item of mean d and mean square q beside the n items; the divisor of the docs
        mean, square = (values.sum() + d) / (n + 1), ((values**2).sum() + q) / (n + 1)
        variance += (square - mean**2) / (n - 2 / 3 * (n / (n + 1)) ** 2) / 9
    count = (q - d * d) / variance
    centre = count * d / (count + 2)
    half = norm.ppf(0.975) * sqrt(((count * q + 2) / (count + 2) - centre**2) / (count + 2))
    assert result.loss == pytest.approx(100 * d, abs=1e-9)
    assert result.bounds(0.95) == pytest.approx([100 * (centre - half), 100 * (centre + half)], abs=1e-9)
    assert result.detectable == pytest.approx(100 * half * (1 + norm.ppf(0.8) / norm.ppf(0.975)), abs=1e-9)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("n", [27, 100, 1319])
def test_the_paired_interval_covers_the_truth(n: int, p: float) -> None:
    """B repeats 80% of A's answers and redraws the others, slightly worse; three subjects of unequal size."""
    rng = np.random.default_rng(n)
    strata = [("x", "y", "z", "z")[index % 4] for index in range(n)]
    worse = 0.9 * p
    truth = 100 * 0.2 * (p - worse)
    covered, runs = 0, 1500 if n < 1000 else 400
    for _ in range(runs):
        a = (rng.random(n) < p).astype(float)
        b = np.where(rng.random(n) < 0.8, a, rng.random(n) < worse).astype(float)
        low, high = paired.shares(a.tolist(), b.tolist(), strata).bounds(0.95)
        covered += low <= truth <= high
    assert covered / runs >= 0.93


def test_max_loss_0_rarely_alarms_on_exchangeable_pairs() -> None:
    """Exactly, over all outcomes: m discordant pairs, each a loss or a win with equal chance."""
    for n in (4, 10, 27, 100, 300):
        for m in range(1, min(n, 50) + 1):
            alarms = 0.0
            for lost in range(m + 1):
                a, b = answers(n - m, lost, m - lost, 0)
                alarms += binom.pmf(lost, m, 0.5) * bool(paired.losses_above({"": paired.shares(a, b, [""] * n)}, 0.0))
            assert alarms <= 0.05, (n, m)


def test_max_loss_0_rarely_alarms_in_strata_and_in_families() -> None:
    """Three benchmarks at a time, macro averages over subjects of 5 to 40 items; any alarm of the three counts."""
    rng = np.random.default_rng(1)
    strata = [subject for subject, size in enumerate((5, 5, 8, 12, 40)) for _ in range(size)]
    alarms, runs = 0, 1000
    for _ in range(runs):
        family = {}
        for name in "abc":
            a = (rng.random(len(strata)) < 0.7).astype(float)
            b = np.where(rng.random(len(strata)) < 0.7, a, 1 - a)
            swap = rng.random(len(strata)) < 0.5
            one, other = np.where(swap, b, a), np.where(swap, a, b)
            family[name] = paired.shares(one.tolist(), other.tolist(), strata, "macro")
        alarms += bool(paired.losses_above(family, 0.0))
    assert alarms / runs <= 0.05


def test_clusters_count_as_one() -> None:
    """p-value against all sign patterns; doubled items have the interval of the items counted once, a little wider."""
    a, b = [1, 1, 1, 0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 0, 1, 0, 0, 1]
    units = ["p", "p", "p", "q", "q", "r", "s", "t", "u"]
    result = paired.shares(a, b, [""] * 9, clusters=units)
    sums = [3, 0, 0, 0, 1, 0]
    totals = [
        abs(sum(s * x for s, x in zip(signs, sums, strict=True))) for signs in itertools.product((-1, 1), repeat=6)
    ]
    assert result.p == pytest.approx(np.mean(np.array(totals) >= 4), abs=1e-12) and "cluster" in result.method
    rng = np.random.default_rng(0)
    one, other = (rng.integers(2, size=400).tolist() for _ in range(2))
    single = paired.shares(one, other, [""] * 400).bounds(0.95)
    double = paired.shares(one * 2, other * 2, [""] * 800, clusters=list(range(400)) * 2).bounds(0.95)
    assert double == pytest.approx(single, abs=0.15)
    alone = paired.shares(one * 2, other * 2, [""] * 800).bounds(0.95)
    assert (double[1] - double[0]) / (alone[1] - alone[0]) == pytest.approx(sqrt(2), abs=0.01)


def test_scores_between_0_and_1() -> None:
    """Pass rates: the sign-flip p-value against all 2^10 patterns."""
    a, b = np.linspace(0.2, 0.9, 10), np.linspace(0.15, 0.7, 10)
    result = paired.shares(a.tolist(), b.tolist(), [""] * 10)
    d = np.abs(a - b)
    exact = np.mean([abs(d @ signs) >= (a - b).sum() - 1e-9 for signs in itertools.product((-1, 1), repeat=10)])
    assert result.p == pytest.approx(exact, abs=4 * sqrt(exact / paired.DRAWS) + 1 / paired.DRAWS)


def test_lower_is_better_flips_the_sign_of_the_loss() -> None:
    a, b = answers(3, 1, 4, 2)
    up, down = (paired.shares(a, b, [""] * 10, lower_is_better=flag) for flag in (False, True))
    assert down.loss == -up.loss and (down.worse, down.better) == (up.better, up.worse) and down.a == up.a


def test_perplexity_by_hand() -> None:
    """Documents of one length: the t-test of the documents' losses. Two documents have neither interval nor p-value."""
    rng = np.random.default_rng(5)
    tokens = [1000] * 12
    a = 1000 * rng.normal(1.2, 0.1, 12)
    b = a * rng.normal(1.004, 0.01, 12)
    result = paired.perplexity(a.tolist(), b.tolist(), tokens, tokens)
    theirs = ttest_rel(b / 1000, a / 1000)
    interval = theirs.confidence_interval(0.95)
    assert result.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert result.loss == pytest.approx(100 * (np.exp(np.mean(b - a) / 1000) - 1), abs=1e-9)
    assert result.bounds(0.95) == pytest.approx(
        [100 * (np.exp(bound) - 1) for bound in (interval.low, interval.high)], abs=1e-9
    )
    for level in (1 - theirs.pvalue - 1e-6, 1 - theirs.pvalue + 1e-6):  # p-value and interval say the same
        low, high = result.bounds(level)
        assert (low > 0 or high < 0) == (level < 1 - theirs.pvalue)
    bits = paired.perplexity(a.tolist(), b.tolist(), tokens, tokens, bits=True)
    assert bits.loss == pytest.approx(100 * (b.sum() / a.sum() - 1), abs=1e-9) and bits.a == pytest.approx(
        a.sum() / 12000 / np.log(2)
    )
    assert bits.bounds(0.95)[0] < bits.loss < bits.bounds(0.95)[1]
    for count in (1, 2):
        few = paired.perplexity(a[:count].tolist(), b[:count].tolist(), tokens[:count], tokens[:count])
        assert isnan(few.p) and all(map(isnan, few.bounds(0.95)))
    same = paired.perplexity(a.tolist(), a.tolist(), tokens, tokens)
    assert (same.p, same.bounds(0.95)) == (1.0, (0.0, 0.0))


def test_paired_perplexity_covers_the_truth_with_few_documents() -> None:
    """Five documents of unlike lengths, 2,000 draws; the percentile bootstrap, used before, covers 0.8."""
    rng = np.random.default_rng(7)
    tokens = np.round(3000 * np.exp(0.6 * rng.standard_normal((2000, 5))))
    a = tokens * (2.3 + 0.35 * rng.standard_normal((2000, 5)))
    b = a + tokens * (0.02 + 0.03 * rng.standard_normal((2000, 5)))
    change, error, df = two_runs.rate_of_loss(a, tokens, b, tokens)
    half = students(0.95, df) * error
    counts = rng.multinomial(5, [0.2] * 5, 500).T.astype(float)
    low, high = np.quantile(((b - a) @ counts) / (tokens @ counts), [0.025, 0.975], axis=1)
    before, after = (np.mean((x <= 0.02) & (y >= 0.02)) for x, y in ((low, high), (change - half, change + half)))
    assert before < 0.84 and after > 0.94, (before, after)


def test_bleu_agrees_with_sacrebleu_and_the_bootstrap(tmp_path: Path) -> None:
    """Scores as sacrebleu's command line prints them; p-value and interval near those of the paired bootstrap. The p-value that
    sacrebleu itself prints is smaller: it takes the mean of the absolute differences, which is not 0, from each of them."""
    rng = np.random.default_rng(2)
    vocabulary = [f"word{index}" for index in range(50)]
    references = [" ".join(rng.choice(vocabulary, 12)) for _ in range(120)]

    def worsened(share: float) -> list[str]:
        return [
            " ".join(str(rng.choice(vocabulary)) if rng.random() < share else word for word in line.split())
            for line in references
        ]

    a, b = worsened(0.2), worsened(0.23)
    for name, lines in (("ref", references), ("a", a), ("b", b)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "ref", "-i", "a", "b", "-m", "bleu", "--paired-bs", "-f", "json", "-w", "4"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    one, other = (row["BLEU"] for row in json.loads(done.stdout)[:2])
    result = paired.bleu(a, b, [references], "13a")
    assert (result.a, result.b) == pytest.approx((one["score"], other["score"]), abs=1e-4)
    lines = [np.array(BLEU(tokenize="13a")._extract_corpus_statistics(texts, [references])) for texts in (a, b)]
    drawn = np.array([
        np.subtract(*(BLEU()._compute_score_from_stats(side[index].sum(0).tolist()).score for side in lines))
        for index in rng.integers(120, size=(1000, 120))
    ])  # fmt: skip
    two_sided = np.mean(np.abs(drawn - drawn.mean()) >= abs(result.loss))
    assert result.p == pytest.approx(two_sided, abs=0.06) and other["p_value"] < two_sided - 0.1
    assert "are not known" in result.method
    low, high = result.bounds(0.95)
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=0.1 * (high - low))
    assert low < result.loss < high
    longer = paired.bleu(a * 4, b * 4, [references * 4], "13a").bounds(0.95)
    assert (longer[1] - longer[0]) / (high - low) == pytest.approx(0.5, abs=0.08)
    assert paired.bleu(a, a, [references], "13a").p == 1.0
    # twice the same segments are no more than they, where it is known that they belong together
    names = [str(index) for index in range(120)]
    twice = paired.bleu(a * 2, b * 2, [references * 2], "13a", names * 2)
    assert twice.bounds(0.95) == pytest.approx((low, high), abs=0.02) and twice.p == pytest.approx(result.p, abs=1e-3)
    assert "120 documents" in twice.method
    few = paired.bleu(a, b, [references], "13a", [str(index % 4) for index in range(120)])
    assert isnan(few.p) and isnan(few.bounds(0.95)[0]) and not paired.losses_above({"": few}, 0.0)


def test_holm_equals_statsmodels() -> None:
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": 0.9}
    theirs = multipletests(list(p.values()), method="holm")[1]
    assert list(paired.holm(p).values()) == pytest.approx(theirs.tolist(), abs=1e-12)
    assert isnan(paired.holm({**p, "f": float("nan")})["f"]) and paired.holm({"a": 0.2, "f": float("nan")})["a"] == 0.2


def test_losses_above_is_holms_procedure() -> None:
    """Against statsmodels, on the larger of the p-values of the normal intervals and of the exact tests."""
    rng = np.random.default_rng(8)
    z = norm.ppf(0.975)
    named = 0
    for _ in range(60):
        results, p = {}, {}
        for name in "abcde":
            lost, won = rng.integers(0, 40), rng.integers(0, 25)
            results[name] = paired.shares(*answers(100, lost, won, 20), [""] * (120 + lost + won))
            low, high = results[name].bounds(0.95)
            p[name] = max(2 * norm.sf((low + high) / 2 / ((high - low) / 2 / z)), results[name].p)
        reject = multipletests(np.minimum(1.0, list(p.values())), alpha=0.05, method="holm")[0]
        above = set(paired.losses_above(results, 0.0))
        assert above == {name for name, flag in zip(p, reject, strict=True) if flag}
        named += len(above)
    assert named > 30
