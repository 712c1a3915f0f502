"""A figure, its settings, and the intervals of many draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats as distributions

Z = distributions.norm.ppf(0.975)


Interval = tuple[Any, Any]


@dataclass
class Cell:
    """One setting of a figure at one size. other: evalstats' interval of the draw with an index, if it has one for the
    figure."""

    setting: str
    truth: Any
    ours: Interval
    textbook: Interval | None = None
    other: Callable[[int], Interval] | None = None


@dataclass
class Figure:
    """A figure: its row in the table, what the textbook's method is, what evalstats chooses, and its cells by size."""

    name: str
    textbook: str
    other: str
    unit: str
    sizes: Sequence[Any]
    cells: Callable[[np.random.Generator, int, Any], Iterator[Cell]]
    count: Callable[[Any], int] = field(default=lambda size: int(size))
    scale: float = 100.0


def stack(parts: Sequence[Interval]) -> Interval:
    lows, highs = zip(*parts, strict=True)
    return np.concatenate(lows), np.concatenate(highs)


def stack_one(parts: Sequence[Interval]) -> Interval:
    lows, highs = zip(*parts, strict=True)
    return np.array(lows, dtype=float), np.array(highs, dtype=float)
