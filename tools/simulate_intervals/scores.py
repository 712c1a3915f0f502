"""pass@k, Rouge-L and agent scores: means of values in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb

import numpy as np

from qwen_eval.stats import one_run
from simulate_intervals.accuracy import betas
from simulate_intervals.methods import normal_mean, peer
from simulate_intervals.setting import Cell, Interval


def pass_family(m: int, k: int, kind: str) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    """Estimates of pass@k by task, of m samples each."""
    mean, icc, never, always = {
        "weak": (0.3, 0.5, 0.4, 0.02), "middle": (0.55, 0.5, 0.1, 0.15), "strong": (0.8, 0.3, 0.03, 0.6),
        "no task is hopeless": (0.75, 0.3, 0.0, 0.6),
    }[kind]  # fmt: skip
    table = np.array([1 - (comb(m - c, k) / comb(m, k) if m - c >= k else 0) for c in range(m + 1)])

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        p, u = betas(rng, mean, icc, shape), rng.random(shape)
        return table[rng.binomial(m, np.where(u < never, 0, np.where(u > 1 - always, 1, p)))]

    return draw


KINDS = ("weak", "middle", "strong", "no task is hopeless")


PASS_1 = {f"{m} samples, {kind}": pass_family(m, 1, kind) for m in (2, 10, 200) for kind in KINDS}


PASS_K = {
    f"pass@{k} of {m}, {kind}": pass_family(m, k, kind) for m, k in ((10, 5), (20, 10), (200, 100)) for kind in KINDS
}


def scores_between(zero: float, one: float, a: float, b: float) -> Callable[..., np.ndarray]:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        u = rng.random(shape)
        return np.where(u < zero, 0.0, np.where(u > 1 - one, 1.0, rng.beta(a, b, shape)))

    return draw


ROUGE = {
    "beta(3, 7)": scores_between(0.02, 0.02, 3, 7),
    "beta(1.2, 6), 10% zero": scores_between(0.1, 0.0, 1.2, 6),
    "short answers": scores_between(0.15, 0.45, 2, 3),
}


AGENT = {
    f"{zero:.0%} 0, {one:.0%} 1": scores_between(zero, one, 2, 2)
    for zero, one in ((0.2, 0.6), (0.05, 0.9), (0.02, 0.97), (0.93, 0.04))
}


def true_mean(draw: Callable[..., np.ndarray]) -> float:
    rng = np.random.default_rng(99)
    return float(np.mean([draw(rng, (250_000,)).mean() for _ in range(8)]))


TRUTHS: dict[int, float] = {}


def truth_of(draw: Callable[..., np.ndarray]) -> float:
    if id(draw) not in TRUTHS:
        TRUTHS[id(draw)] = true_mean(draw)
    return TRUTHS[id(draw)]


def means(
    families: dict[str, Callable[..., np.ndarray]], ours: Callable[[np.ndarray], Interval], choice: str
) -> Callable[[np.random.Generator, int, int], Iterator[Cell]]:
    """Cells of a mean over tasks or items. choice: evalstats' method, "wilson" of the mean on all tasks, or "logit"."""

    def cells(rng: np.random.Generator, draws: int, n: int) -> Iterator[Cell]:
        for name, draw in families.items():
            x = draw(rng, (draws, n))
            other = peer("logit_t_ci_1d", x) if choice == "logit" else peer("wilson_ci", x.sum(1), np.full(draws, n))
            yield Cell(name, truth_of(draw), ours(x), normal_mean(x), other)

    return cells


def pass_1(x: np.ndarray) -> Interval:
    return one_run.bounded(x, constant=one_run.rate_constant(x.shape[-1]))


def pass_k(x: np.ndarray) -> Interval:
    return one_run.share(x.sum(-1), x.shape[-1])
