"""Perplexity, and the ratio of two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any

import numpy as np
from scipy import stats as distributions

from qwen_eval.stats import one_run, two_runs
from qwen_eval.stats.quantiles import students
from simulate_intervals.methods import peer, percentiles, resamples
from simulate_intervals.setting import Cell, Interval


def documents(rng: np.random.Generator, shape: tuple[int, ...], kind: str, sigma: float, rho: float) -> Interval:
    """Losses and tokens by document."""
    z = rng.standard_normal(shape)
    tokens = np.maximum(np.round(3000 * np.exp(sigma * z)), 20)
    u = rho * z + sqrt(1 - rho * rho) * rng.standard_normal(shape)
    # skewed: a few documents (code, tables) cost far more
    skewed = distributions.gamma.ppf(distributions.norm.cdf(u), 1.5) if kind == "skewed" else u
    mean = skewed * 0.35 + (1.7 if kind == "skewed" else 2.3)
    loss = np.maximum(mean + 4 / np.sqrt(tokens) * rng.standard_normal(shape), 0.05)
    return loss * tokens, tokens


TEXTS = [
    (kind, sigma, rho)
    for kind in ("normal", "skewed")
    for sigma, rho in ((0, 0), (0.6, 0), (0.6, -0.5), (1.2, 0), (1.2, -0.5))
]


RATES: dict[Any, float] = {}


def perplexity(rng: np.random.Generator, draws: int, count: int) -> Iterator[Cell]:
    for text in TEXTS:
        if text not in RATES:
            parts = [documents(np.random.default_rng(seed), (200_000,), *text) for seed in range(5)]
            RATES[text] = float(sum(loss.sum() for loss, _ in parts) / sum(tokens.sum() for _, tokens in parts))
        loss, tokens = documents(rng, (draws, count), *text)
        truth = np.exp(RATES[text])
        counts = resamples(count, np.random.default_rng(12345))
        low, high = one_run.rate_of_loss(loss, tokens)
        yield Cell(f"{text[0]}, sigma {text[1]}, rho {text[2]}", 1.0, (np.exp(low) / truth, np.exp(high) / truth),
                   tuple(np.exp(bound) / truth for bound in percentiles((loss @ counts) / (tokens @ counts))),
                   exponential_of(peer("t_interval_ci_1d", loss / tokens), truth))  # fmt: skip


def exponential_of(interval: Callable[[int], Interval], truth: float) -> Callable[[int], Interval]:
    return lambda index: tuple(np.exp(bound) / truth for bound in interval(index))  # type: ignore[return-value]


def perplexity_ratio(rng: np.random.Generator, draws: int, count: int) -> Iterator[Cell]:
    def both(rng: np.random.Generator, shape: tuple[int, ...], sigma: float, rho: float, kind: str, other: bool) -> Any:
        z = rng.standard_normal(shape)
        tokens = np.maximum(np.round(3000 * np.exp(sigma * z)), 20)
        u = rho * z + sqrt(1 - rho * rho) * rng.standard_normal(shape)
        first = 2.3 + 0.35 * u
        noise = rng.standard_normal(shape) if kind == "normal" else rng.exponential(1, shape) - 1
        second = first + 0.02 + 0.03 * noise + 0.02 * u + rng.standard_normal(shape) / np.sqrt(tokens)
        more = tokens * 1.1 * np.exp(0.05 * rng.standard_normal(shape)) if other else tokens
        return first * tokens, tokens, second * more, more

    for sigma, rho in ((0, 0), (0.6, 0), (0.6, -0.5), (1.2, 0), (1.2, -0.5)):
        for kind in ("normal", "skewed"):
            for other in (False, True):
                key = ("ratio", sigma, rho, kind, other)
                if key not in RATES:
                    drawn = [
                        both(np.random.default_rng(seed), (200_000,), sigma, rho, kind, other) for seed in range(5)
                    ]
                    sums = np.sum([[part.sum() for part in parts] for parts in drawn], 0)
                    RATES[key] = float(sums[2] / sums[3] - sums[0] / sums[1])
                a, ta, b, tb = both(rng, (draws, count), sigma, rho, kind, other)
                change, error, df = two_runs.rate_of_loss(a, ta, b, tb)
                half = students(0.95, df) * error
                counts = resamples(count, np.random.default_rng(12345))
                plain = percentiles((b @ counts) / (tb @ counts) - (a @ counts) / (ta @ counts))
                yield Cell(f"{kind}, sigma {sigma}, rho {rho}, {'other' if other else 'same'} tokens", RATES[key],
                           (change - half, change + half), plain, peer("t_interval_ci_1d", b / tb - a / ta))  # fmt: skip
