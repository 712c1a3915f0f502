"""The methods that ours are compared with: a textbook's, and what evalstats chooses."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from simulate_intervals.setting import Interval, Z

RESAMPLES = 300
VERSION = "0.3.3"


def cut(middle: Any, half: Any, low: float = 0.0, high: float = 1.0) -> Interval:
    return np.maximum(middle - half, low), np.minimum(middle + half, high)


def wald(p: Any, n: Any) -> Interval:
    return cut(p, Z * np.sqrt(p * (1 - p) / n))


def normal_mean(x: np.ndarray, low: float = 0.0) -> Interval:
    return cut(x.mean(-1), Z * x.std(-1, ddof=1) / sqrt(x.shape[-1]), low)


def resamples(units: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multinomial(units, np.full(units, 1 / units), RESAMPLES).T.astype(float)


def percentiles(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975], axis=1)
    return low, high


def evalstats() -> Any:
    """evalstats' functions, None where it is not installed in the version that is compared."""
    try:
        from importlib.metadata import version

        return importlib.import_module("evalstats.core.resampling") if version("evalstats") == VERSION else None
    except ImportError:
        return None


PEER = evalstats()


def peer(name: str, *arrays: Any) -> Callable[[int], Interval]:
    """evalstats' function of this name on one draw of each array."""

    def one(index: int) -> Interval:
        found: Interval = getattr(PEER, name)(*(array[index] for array in arrays), 0.05)
        return found

    return one


def peer_difference(differences: np.ndarray) -> Callable[[int], Interval]:
    """Its choice for paired scores in [0, 1]: logit-t of (d + 1) / 2."""

    def one(index: int) -> Interval:
        low, high = PEER.logit_t_ci_1d((differences[index] + 1) / 2, 0.05)
        return 2 * low - 1, 2 * high - 1

    return one
