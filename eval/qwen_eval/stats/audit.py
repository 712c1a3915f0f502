"""What asking some items of a published run again proves of the others: a sample of the items published as right, and an exact
bound for those that were not asked.

Half of the sample is drawn at random: from it comes the bound. The other half is drawn from the least sure fifth and only
detects, since answers altered near a tie hide from a test of clear ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, exp, lgamma, log

LEVEL = 0.95
UNSURE = 0.2  # of the right items, those with the smallest margins
CLEAR = 0.3  # of the mean margin: above it the arithmetic of 16 bits does not turn an answer
FALSE_ALARM = 0.0035  # the chance that an honest run shows too many
UNSURE_RATE = (
    0.10  # of the least sure fifth of right items: how many another 16-bit computation answers otherwise, at most
)
RATE = 0.05  # the same of right items whose margin is not known (generated texts)


@dataclass(frozen=True)
class Draw:
    """Indices of the items that are asked: at random, and among the least sure."""

    random: Sequence[int]
    unsure: Sequence[int]


def draw(margins: Sequence[float] | None, items: int, draws: Sequence[float]) -> Draw:
    """A sample of the items published as right. margins: how sure each was, None where that is not known: then all are drawn at
    random. draws: a uniform number an item, that decides which."""
    order = sorted(range(len(draws)), key=lambda i: draws[i])
    if margins is None or len(order) <= items:
        return Draw(order[:items], ())
    half = order[: (items + 1) // 2]
    least = sorted(order, key=lambda i: margins[i])[: max(round(UNSURE * len(order)), 1)]
    chosen, wanted = set(half), set(least)
    return Draw(half, [i for i in order if i in wanted and i not in chosen][: items // 2])


def most_differing(count: int, asked: int, differing: int, level: float = LEVEL) -> int:
    """The upper bound on how many of `count` items differ, when `differing` of `asked` drawn at random do: the largest number
    under which so few would be seen with more than the chance 1 - level (hypergeometric, exact)."""
    low, high = differing, count - (asked - differing)
    while low < high:  # the chance falls as the number grows
        middle = (low + high + 1) // 2
        if _at_most(count, asked, middle, differing) > 1 - level:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(count: int, asked: int, marked: int, seen: int) -> float:
    """The chance of at most `seen` marked ones among `asked` of `count`, `marked` of which are."""
    first = max(0, asked - (count - marked))
    whole = _log_comb(count, asked)
    return sum(
        exp(_log_comb(marked, k) + _log_comb(count - marked, asked - k) - whole)
        for k in range(first, min(seen, marked) + 1)
    )


def _log_comb(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def too_many(asked: int, differing: int, rate: float) -> bool:
    """Whether more differ than noise explains. rate: the share that honest runs differ in; 0 where any difference tells."""
    if not differing:
        return False
    if rate == 0:
        return True
    tail = sum(
        exp(log(comb(asked, k)) + k * log(rate) + (asked - k) * log(1 - rate)) for k in range(differing, asked + 1)
    )
    return tail <= FALSE_ALARM
