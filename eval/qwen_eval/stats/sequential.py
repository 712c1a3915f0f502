"""Is B worse than A on these items by more than D? Decided while B is being asked: a test martingale by betting, without
replacement (Waudby-Smith and Ramdas 2020, 2024), with items drawn by weights and a control variate (Shekhar and others 2023).

The target is the difference over this finite set of items. B's answers are known only after asking; A's score and margin of
every item are known before. Both verdicts may be reached after any item; a wrong one has at most the chance `level` (Ville's
inequality: a non-negative supermartingale that begins at 1 ever reaches 1 / level with at most that chance). Weights and
control variate cost or save items; that a verdict is valid does not depend on them. Scores are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, exp, floor, log
from typing import Any

LEVEL = 0.05
BETS = 8  # capitals a side, each with a bet of its own
LARGEST_BET = 0.95
CAUTION = 0.98  # of the largest bet that cannot go bankrupt
FLOOR = 0.25  # the least weight of an item against the greatest
SCALE = 0.6  # in mean margins: how fast weights fall with the margin
CUTS = (
    0.03,
    0.07,
    0.12,
    0.20,
    0.30,
    0.45,
    0.70,
)  # shares of items, by rank of margin, between cells of the control variate
ROUNDING = 1e-7  # of a sum of shares, in items
PRIOR = 10  # pseudo-items of difference 0 in every cell


@dataclass(frozen=True)
class Plan:
    """The order in which items are asked, fixed before. order: their indices. Arrays in that order: right, A's scores; scale,
    what an item counts for against the average item (1 in a micro average); base, its weight in the draw by its margin; cell,
    its cell of the control variate, -1 for none."""

    order: Sequence[int]
    right: Any
    scale: Any
    base: Any
    cell: Any


def plan(
    right: Sequence[float],
    margins: Sequence[float] | None,
    draws: Sequence[float],
    scale: Sequence[float] | None = None,
) -> Plan:
    """Fixes the order. right: A's score of every item, 0 to 1. margins: how sure A was of its answers (any unit), None where
    that is not known. draws: a uniform number in (0, 1) an item, from a seed fixed beforehand. scale: None for 1."""
    import numpy as np

    count = len(right)
    base, group = np.ones(count), np.zeros(count, dtype=int)
    if margins is not None:
        values = np.asarray(margins, dtype=float)
        mean = values.mean() or 1.0
        base = np.maximum(FLOOR, np.exp(-values / mean / SCALE))
        rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        group = np.searchsorted([cut * count for cut in CUTS], rank, side="right")
    sizes = np.ones(count) if scale is None else np.asarray(scale, dtype=float)
    order = np.argsort(-np.log(np.asarray(draws)) / (base * sizes), kind="stable")
    scores = np.asarray(right, dtype=float)
    # an item that A had partly right can go both ways: its control variate stays 0, so that |d - g| is at most 1
    cell = np.where(scores == 1, 2 * group + 1, np.where(scores == 0, 2 * group, -1))
    return Plan(order.tolist(), scores[order], sizes[order], base[order], cell[order])


class Test:
    """The test while answers come in. `verdict` is "worse", "not worse" or "" (not known yet)."""

    __test__ = False  # for pytest

    def __init__(self, made: Plan, max_loss: Fraction, worse_level: float = LEVEL, fine_level: float = LEVEL) -> None:
        """max_loss: D as a fraction of 1. worse_level, fine_level: the chance allowed for a wrong "worse" and a wrong "not
        worse"."""
        import numpy as np

        self.plan, self.max_loss = made, max_loss
        self.count, self.asked, self.verdict, self.exact = len(made.order), 0, "", False
        self._levels = -log(worse_level), -log(fine_level)
        least = -max_loss * self.count
        self._whole = whole = bool((made.scale == 1).all() and np.isin(made.right, (0, 1)).all())
        # "worse" has to refute every sum that is not; of whole numbers the next one is a whole step away
        self._edges = (float(ceil(least)), float(ceil(least) - 1)) if whole else (float(least), float(least))
        self._bets = np.geomspace(min(LARGEST_BET, (10 / self.count) ** 0.5), LARGEST_BET, BETS)
        self._logs = [np.zeros(BETS), np.zeros(BETS)]
        self.evidence = [0.0, 0.0]  # log of the greatest capital so far, for "worse" and for "not worse"
        cells = 2 * (len(CUTS) + 1)
        self._seen, self._sums = np.zeros(cells), np.zeros(cells)
        self._scaled = 0.0  # sum of scale x difference so far
        weights = made.base * made.scale
        self._weight_left = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
        self._gain_left = np.append(np.cumsum((made.scale * (1 - made.right))[::-1])[::-1], 0.0)
        self._loss_left = np.append(np.cumsum((made.scale * made.right)[::-1])[::-1], 0.0)
        self._history: list[tuple[Any, ...]] = []

    def add(self, differences: Sequence[float]) -> str:
        """Takes B's score minus A's of the next items, in the plan's order, and returns the verdict. What was learnt of a cell
        is used from the next call on."""
        import numpy as np

        d = np.asarray(differences, dtype=float)
        first, last = self.asked, self.asked + len(d)
        made = self.plan
        guess = np.where(made.cell < 0, 0.0, (self._sums / (self._seen + PRIOR))[made.cell])
        scale, cell = made.scale[first:last], made.cell[first:last]
        left = self.count - np.arange(first, last)
        weight = self._weight_left[first:last]
        expected = made.scale[first:] * guess[first:]
        rest = np.cumsum(expected[::-1])[::-1][: len(d)]
        before = self._scaled + np.concatenate([[0.0], np.cumsum(scale * d)[:-1]])
        z = (d - guess[first:last]) * weight / (made.base[first:last] * left)
        row = (z, before + rest, left, weight / (made.base.min() * left))
        self._history.append(row)
        for side in (0, 1):
            logs = self._logs[side] + np.cumsum(_growth(side, self._edges[side], row, self._bets), axis=0)
            self._logs[side] = logs[-1]
            self.evidence[side] = max(self.evidence[side], _greatest(logs))
        self._scaled += float((scale * d).sum())
        known = cell >= 0
        np.add.at(self._seen, cell[known], 1)
        np.add.at(self._sums, cell[known], d[known])
        self.asked = last
        self.verdict = self._decide()
        return self.verdict

    def _decide(self) -> str:
        if self.asked == self.count:
            self.exact = True
            return "not worse" if self._scaled >= self._edges[0] - ROUNDING else "worse"
        if self._scaled + self._gain_left[self.asked] < self._edges[0] - ROUNDING:
            self.exact = True
            return "worse"
        if self._scaled - self._loss_left[self.asked] > self._edges[1] + ROUNDING:
            self.exact = True
            return "not worse"
        for side, name in enumerate(("worse", "not worse")):
            if self.evidence[side] >= self._levels[side]:
                return name
        return ""

    @property
    def difference(self) -> float:
        """The exact difference where all is asked; else an estimate from every item's draw, in which unsure items that were
        asked early do not count for more than the others. The later a draw, the less is left to be guessed, and the more it
        counts."""
        if self.asked == self.count:
            return self._scaled / self.count
        low, high = self.bounds()
        z, expected, left, _ = (self._joined(i) for i in range(4))
        weights = 1.0 / left**2
        return min(max(float(weights @ (left * z + expected) / weights.sum() / self.count), low), high)

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        """What the mean difference is at least and at most, each with confidence 1 - level whenever it is asked for; found by
        inverting the test. Exact where all is asked."""
        low = (self._scaled - self._loss_left[self.asked]) / self.count
        high = (self._scaled + self._gain_left[self.asked]) / self.count
        if self.asked == self.count or not self.asked:
            return low, high
        row = tuple(self._joined(i) for i in range(4))
        low, high = self._edge(1, low, high, row, level), self._edge(0, low, high, row, level)
        if self._whole:  # the sum is a whole number, and the bisection ends outside: rounding inward loses none
            return ceil(low * self.count - 1e-3) / self.count, floor(high * self.count + 1e-3) / self.count
        return low, high

    def _joined(self, index: int) -> Any:
        import numpy as np

        return np.concatenate([part[index] for part in self._history])

    def _edge(self, side: int, low: float, high: float, row: tuple[Any, ...], level: float) -> float:
        """By bisection: each side's capital is monotone in the sum that it is held against."""
        import numpy as np

        inside, outside = (low, high) if side == 0 else (high, low)

        def refuted(value: float) -> bool:
            logs = np.cumsum(_growth(side, value * self.count, row, self._bets), axis=0)
            return _greatest(logs) >= -log(level)

        if not refuted(outside):
            return outside
        while abs(outside - inside) > 1e-5:
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
        return outside


def _growth(side: int, edge: float, row: tuple[Any, ...], bets: Any) -> Any:
    """The logs of the factors by which each bet's capital changes with each item. side: 0 bets that the sum is below `edge`, 1
    that it is above."""
    import numpy as np

    z, expected, left, bound = row
    mean = (edge - expected) / left
    sign = 1.0 if side == 0 else -1.0
    most = CAUTION / np.maximum(bound - sign * mean, 1e-6)
    return np.log1p(np.minimum(bets[None, :], most[:, None]) * (sign * (mean - z))[:, None])


def _greatest(logs: Any) -> float:
    """The log of the greatest mean of the capitals. logs: an item a row, a bet a column."""
    import numpy as np

    return float(log(np.exp(np.minimum(logs, 700.0)).mean(axis=1).max()))


def worse_level(gates: int, worse: int) -> float:
    """The level of the next of several gates at which "worse" is said (Holm 1979): a wrong "worse" among all of them has at
    most the chance LEVEL. worse: how many were found worse before."""
    return LEVEL / (gates - worse)


def hardly_saves(count: int, max_loss: Fraction) -> bool:
    """Whether equal models will take half of the items or more: with seven items in a hundred discordant, the items needed are
    about 6% of 14,042 at 2 points and vary inversely with the loss allowed."""
    return exp(log(280.0) + log(2.0) - log(max(float(100 * max_loss), 0.1))) > 0.25 * count
