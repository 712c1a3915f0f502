"""The sequential test against the recipe written out item by item, its error by simulation, and the audit's exact bound."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, log

import numpy as np
import pytest

from qwen_eval.stats import audit, sequential

Arrays = tuple[list[float], list[float], list[float]]


def made_up(seed: int, count: int, lost: int, won: int) -> tuple[list[float], list[float], list[float], list[float]]:
    """Scores of a baseline, its margins, draws, and differences of a candidate that loses and wins so many items."""
    rng = np.random.default_rng(seed)
    margins = rng.exponential(size=count)
    right = (rng.random(count) < 0.6).astype(float)
    d = np.zeros(count)
    d[rng.permutation(np.flatnonzero(right == 1))[:lost]] = -1
    d[rng.permutation(np.flatnonzero(right == 0))[:won]] = 1
    return right.tolist(), margins.tolist(), rng.random(count).tolist(), d.tolist()


def by_hand(
    right: list[float], margins: list[float], draws: list[float], d: list[float], loss: Fraction, batch: int
) -> tuple[str, int, list[float]]:
    """The published recipe, one item at a time with plain numbers: verdict, items asked, logs of the greatest capitals."""
    count = len(right)
    mean = sum(margins) / count
    weight = [max(0.25, exp(-m / mean / 0.6)) for m in margins]
    order = sorted(range(count), key=lambda i: -log(draws[i]) / weight[i])
    rank = {i: place for place, i in enumerate(sorted(range(count), key=lambda i: margins[i]))}
    cell = [2 * sum(rank[i] >= cut * count for cut in sequential.CUTS) + int(right[i]) for i in range(count)]
    fail_edge = -((loss * count).numerator // (loss * count).denominator)  # ceil(-D N)
    pass_edge = fail_edge - 1
    bets = [sequential.LARGEST_BET ** (j / 7) * min(0.95, (10 / count) ** 0.5) ** (1 - j / 7) for j in range(8)]
    fails, passes, most = [1 / 8] * 8, [1 / 8] * 8, [0.0, 0.0]
    seen: dict[int, list[float]] = {}
    total = 0.0
    for first in range(0, count, batch):
        g = {c: sum(seen.get(c, [])) / (len(seen.get(c, [])) + 10) for c in range(16)}
        part = order[first : first + batch]
        for place, i in enumerate(part):
            left = order[first + place :]
            r, w_left = len(left), sum(weight[j] for j in left)
            expected = sum(g[cell[j]] for j in left)
            z = (d[i] - g[cell[i]]) * w_left / (weight[i] * r)
            low, high = (fail_edge - total - expected) / r, (pass_edge - total - expected) / r
            bound = w_left / (min(weight) * r)
            fails = [
                x * (1 + min(c, 0.98 / max(bound - low, 1e-6)) * (low - z)) for x, c in zip(fails, bets, strict=True)
            ]
            passes = [
                x * (1 + min(c, 0.98 / max(bound + high, 1e-6)) * (z - high)) for x, c in zip(passes, bets, strict=True)
            ]
            most = [max(most[0], sum(fails)), max(most[1], sum(passes))]
            total += d[i]
        for i in part:
            seen.setdefault(cell[i], []).append(d[i])
        left = order[first + len(part) :]
        asked = first + len(part)
        gain, fall = sum(right[j] == 0 for j in left), sum(right[j] == 1 for j in left)
        if total + gain < fail_edge or most[0] >= 20:
            return "worse", asked, most
        if total - fall > pass_edge or most[1] >= 20:
            return "not worse", asked, most
    return "", count, most


@pytest.mark.parametrize(("lost", "won"), [(6, 6), (40, 4), (20, 8)])
def test_the_steps_are_those_of_the_recipe(lost: int, won: int) -> None:
    right, margins, draws, d = made_up(lost, 400, lost, won)
    loss = Fraction(5, 100)
    made = sequential.plan(right, margins, draws)
    test = sequential.Test(made, loss)
    while not test.verdict:
        test.add([d[i] for i in made.order[test.asked : test.asked + 16]])
    verdict, asked, most = by_hand(right, margins, draws, d, loss, 16)
    assert (test.verdict, test.asked) == (verdict, asked)
    assert test.evidence == pytest.approx([max(log(x), 0.0) if x > 0 else 0.0 for x in most], abs=1e-6)


def run(seed: int, count: int, lost: int, won: int, loss: Fraction, batch: int = 32) -> sequential.Test:
    right, margins, draws, d = made_up(seed, count, lost, won)
    made = sequential.plan(right, margins if seed % 2 else None, draws)
    test = sequential.Test(made, loss)
    while not test.verdict:
        test.add([d[i] for i in made.order[test.asked : test.asked + batch]])
    return test


def test_at_the_edge_a_wrong_verdict_is_rare_whichever_side() -> None:
    """300 items, 5 points: a loss of 15 items is allowed, one of 16 is not. 5% of 400 are 20, with a standard error of 4.4."""
    wrong = sum(run(seed, 300, 27, 12, Fraction(1, 20)).verdict == "worse" for seed in range(400))
    assert wrong <= 30
    wrong = sum(run(seed, 300, 28, 12, Fraction(1, 20)).verdict == "not worse" for seed in range(400))
    assert wrong <= 30


def test_all_asked_is_exact_and_equal_to_the_sum() -> None:
    for lost, verdict in ((15, "not worse"), (16, "worse")):
        test = run(1, 300, lost, 0, Fraction(1, 20), batch=300)
        assert (test.verdict, test.exact, test.difference) == (verdict, True, -lost / 300)
        assert test.bounds() == (-lost / 300, -lost / 300)


def test_bounds_hold_whenever_they_are_looked_at() -> None:
    held = 0
    for seed in range(60):
        right, margins, draws, d = made_up(seed, 400, 20, 12)
        made = sequential.plan(right, margins, draws)
        test = sequential.Test(made, Fraction(1, 10))
        ok = True
        while test.asked < 320:
            test.add([d[i] for i in made.order[test.asked : test.asked + 80]])
            low, high = test.bounds()
            ok &= low <= -8 / 400 <= high
            assert low <= test.difference <= high
        held += ok
    assert held >= 52  # 90% of 60 are 54; two bounds of 5% each


def test_a_verdict_agrees_with_its_bound() -> None:
    test = run(3, 2000, 240, 20, Fraction(2, 100))
    assert test.verdict == "worse" and test.asked < 2000 and test.bounds()[1] <= -0.02 + 1e-4


def test_a_cleared_loss_is_not_within_its_bounds() -> None:
    """50 items, 10 points: "not worse" says that at most 5 are lost, and so does the bound."""
    for seed in range(20):
        test = run(seed, 50, 0, 0, Fraction(1, 10), batch=16)
        low, high = test.bounds()
        assert test.verdict == "not worse" and low >= -0.1 and high >= 0
        assert all(abs(50 * bound - round(50 * bound)) < 1e-9 for bound in (low, high))


def test_macro_weights_make_the_macro_difference() -> None:
    """Two subjects, of 10 and 90 items; a loss of 5 in the small one is 25 points of the macro average, 5 of the micro."""
    right, d = [1.0] * 100, [-1.0] * 5 + [0.0] * 95
    scale = [5.0] * 10 + [100 / 180] * 90
    rng = np.random.default_rng(0)
    made = sequential.plan(right, None, rng.random(100).tolist(), scale)
    test = sequential.Test(made, Fraction(24, 100))
    test.add([d[i] for i in made.order])
    assert test.difference == pytest.approx(-0.25) and test.verdict == "worse"


def test_partial_scores_are_bounded_too() -> None:
    """Items that the baseline had half right can move either way; the verdict of all is the mean's."""
    rng = np.random.default_rng(5)
    right = rng.choice([0.0, 0.25, 0.5, 1.0], size=200)
    other = np.clip(right + rng.choice([-0.25, 0.0, 0.25], size=200), 0, 1)
    made = sequential.plan(right.tolist(), None, rng.random(200).tolist())
    test = sequential.Test(made, Fraction(3, 100))
    while not test.verdict:
        test.add([float(other[i] - right[i]) for i in made.order[test.asked : test.asked + 10]])
    assert (test.verdict == "not worse") == ((other - right).mean() >= -0.03)


def test_holm_over_several_gates() -> None:
    assert [sequential.worse_level(4, worse) for worse in range(4)] == pytest.approx([0.0125, 0.05 / 3, 0.025, 0.05])


# ----------------------------------------------------------------------------------------------------------- audit
@pytest.mark.parametrize(
    ("count", "asked", "seen"), [(164, 60, 0), (164, 60, 2), (40, 10, 1), (1319, 120, 0), (30, 30, 3)]
)
def test_the_bound_is_the_hypergeometric_one(count: int, asked: int, seen: int) -> None:
    """By brute force with whole numbers."""

    def at_most(marked: int) -> Fraction:
        ways = sum(
            comb(marked, k) * comb(count - marked, asked - k) for k in range(seen + 1) if asked - k <= count - marked
        )
        return Fraction(ways, comb(count, asked))

    expected = max(marked for marked in range(seen, count - (asked - seen) + 1) if at_most(marked) > Fraction(1, 20))
    assert audit.most_differing(count, asked, seen) == expected


def test_sixty_of_sixty_is_at_most_five_percent() -> None:
    assert 100 * audit.most_differing(14_042, 60, 0) / 14_042 == pytest.approx(4.9, abs=0.05)


def test_half_of_a_sample_is_random_half_among_the_least_sure() -> None:
    margins = [float(i) for i in range(1000)]
    rng = np.random.default_rng(0)
    drawn = audit.draw(margins, 120, rng.random(1000).tolist())
    assert len(drawn.random) == len(drawn.unsure) == 60 and not set(drawn.random) & set(drawn.unsure)
    assert max(drawn.unsure) < 200 < max(drawn.random)
    assert audit.draw(None, 120, rng.random(1000).tolist()).unsure == ()


def test_what_rounding_does_not_explain() -> None:
    assert not audit.too_many(60, 13, 0.10) and audit.too_many(60, 14, 0.10)
    assert audit.too_many(60, 1, 0.0) and not audit.too_many(60, 0, 0.0)
