"""Differences of two runs on the same items."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from qwen_eval.stats import one_run, strata, two_runs
from simulate_intervals import methods
from simulate_intervals.accuracy import DESIGNS, MIXED, SIZES, betas, drawn_stratum, sizes_of
from simulate_intervals.methods import cut, normal_mean, peer_difference
from simulate_intervals.scores import truth_of
from simulate_intervals.setting import Cell, Interval, Z, stack

SPLITS = {"even": 0.5, "3 of 4": 0.75, "all one way": 1.0}


def paired_items(rng: np.random.Generator, draws: int, n: int) -> Iterator[Cell]:
    for share in (0.01, 0.05, 0.1, 0.3, 0.6):
        for name, lost in SPLITS.items():
            counts = rng.multinomial(n, [share * lost, share * (1 - lost), 1 - share], draws)
            worse, better = counts[:, 0], counts[:, 1]
            d, q = (worse - better) / n, (worse + better) / n
            half = Z * np.sqrt((q - d * d) / (n - 1))
            yield Cell(f"{share:.0%} flip, {name}", share * (2 * lost - 1), two_runs.items(worse, better, n),
                       cut(d, half, -1.0), peer_flips(worse, better, n))  # fmt: skip


def peer_flips(worse: np.ndarray, better: np.ndarray, n: int) -> Callable[[int], Interval]:
    def one(index: int) -> Interval:
        differences = np.zeros(n)
        differences[: worse[index]] = 1
        differences[worse[index] : worse[index] + better[index]] = -1
        return methods.PEER.bonett_price_paired_ci_from_diffs(differences, 0.05)  # type: ignore[no-any-return]

    return one


def paired_macro(rng: np.random.Generator, draws: int, name: str) -> Iterator[Cell]:
    n = DESIGNS[name]
    worlds, each = 10, max(1, draws // 10)
    for share in (0.01, 0.05, 0.1, 0.3):
        for split, lost in SPLITS.items():
            truths, ours, plain, flips = [], [], [], []
            for _ in range(worlds):
                d = rng.beta(share * 9, (1 - share) * 9, len(n))
                f = np.full(len(n), lost) if lost == 1 else rng.beta(lost * 9, (1 - lost) * 9, len(n))
                x = rng.multinomial(n, np.stack([d * f, d * (1 - f), 1 - d], 1), (each, len(n)))
                b, c = x[..., 0], x[..., 1]
                truths.append(np.full(each, (d * (2 * f - 1)).mean()))
                parts = [strata.of_items(b[:, h] - c[:, h], b[:, h] + c[:, h], size) for h, size in enumerate(n)]
                ours.append(two_runs.macro(parts, ((b + c) / n).mean(1)))
                q, m = (b + c) / n, (b - c) / n
                plain.append(cut(m.mean(1), Z * np.sqrt(((q - m * m) / np.maximum(n - 1, 1)).sum(1)) / len(n), -1.0))
                flips.append((b.sum(1), c.sum(1)))
            worse, better = (np.concatenate(side) for side in zip(*flips, strict=True))
            yield Cell(f"{share:.0%} flip, {split}", np.concatenate(truths), stack(ours), stack(plain),
                       peer_flips(worse, better, int(n.sum())))  # fmt: skip


def flipped(
    rng: np.random.Generator, m: np.ndarray, share: float, lost: float, icc: float
) -> tuple[np.ndarray, np.ndarray]:
    d, f = betas(rng, share, icc, m.shape), betas(rng, lost, icc, m.shape)
    x = rng.multinomial(m, np.stack([d * f, d * (1 - f), 1 - d], -1))
    return x[..., 0], x[..., 1]


def paired_passages(rng: np.random.Generator, draws: int, count: int) -> Iterator[Cell]:
    for kind in SIZES:
        for share in (0.02, 0.1, 0.3):
            for icc in (0, 0.1, 0.4):
                for lost in (0.5, 0.75):
                    m = sizes_of(kind, rng, (draws, count))
                    b, c = flipped(rng, m, share, lost, icc)
                    n = m.sum(1)
                    d, q = (b - c).sum(1) / n, (b + c).sum(1) / n
                    half = Z * np.sqrt((q - d * d) / (n - 1))
                    yield Cell(f"{kind}, {share:.0%} flip, {lost:.0%} lost, icc {icc}", share * (2 * lost - 1),
                               two_runs.clustered(b - c, b + c, m), cut(d, half, -1.0), peer_clusters(kind, b, c))  # fmt: skip


def peer_clusters(kind: str, b: np.ndarray, c: np.ndarray) -> Callable[[int], Interval] | None:
    """evalstats takes clusters of one size only."""
    if kind != "5 each":
        return None

    def one(index: int) -> Interval:
        first, second = np.zeros((2, b.shape[1], 5))
        for unit in range(b.shape[1]):
            first[unit, : b[index, unit]] = 1
            second[unit, b[index, unit] : b[index, unit] + c[index, unit]] = 1
        return methods.PEER.clustered_score_paired_ci(first, second, 0.05)  # type: ignore[no-any-return]

    return one


def paired_macro_passages(rng: np.random.Generator, draws: int, name: str) -> Iterator[Cell]:
    design = MIXED[name]
    n = np.array([m.sum() for m in design])
    for share in (0.05, 0.2):
        for lost in (0.5, 0.75):
            for icc in (0, 0.1, 0.4):
                found = [
                    flipped(rng, np.broadcast_to(m, (draws, len(m))), share, lost, icc if m.max() > 1 else 0)
                    for m in design
                ]
                parts = [drawn_stratum(b - c, b + c, m) for (b, c), m in zip(found, design, strict=True)]
                q = np.stack([(b + c).sum(1) for b, c in found], 1) / n
                d = np.stack([(b - c).sum(1) for b, c in found], 1) / n
                half = Z * np.sqrt(((q - d * d) / (n - 1)).sum(1)) / len(design)
                yield Cell(f"{share:.0%} flip, {lost:.0%} lost, icc {icc}", share * (2 * lost - 1),
                           two_runs.macro(parts, q.mean(1)), cut(d.mean(1), half, -1.0))  # fmt: skip


def pass_pair(m: int, base: float, never: float, always: float) -> Callable[..., np.ndarray]:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        logit, u = base + 2 * rng.standard_normal(shape), rng.random(shape)
        found = []
        for change in (0.0, 0.4 - 0.5 * rng.standard_normal(shape)):
            p = np.where(u < never, 0, np.where(u > 1 - always, 1, 1 / (1 + np.exp(change - logit))))
            found.append(rng.binomial(m, p) / m)
        return found[0] - found[1]

    return draw


def rouge_pair(equal: float, sd: float, shift: float) -> Callable[..., np.ndarray]:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        a = rng.beta(3, 7, shape)
        b = np.clip(a + sd * rng.standard_normal(shape) - shift, 0, 1)
        return np.where(rng.random(shape) < equal, 0, a - b)

    return draw


def agent_pair(equal: float, shift: float) -> Callable[..., np.ndarray]:
    def one(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        u = rng.random(shape)
        return np.where(u < 0.25, 0.0, np.where(u > 0.4, 1.0, rng.random(shape)))

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        a = one(rng, shape)
        other = np.where(rng.random(shape) < shift, 0, one(rng, shape))
        return a - np.where(rng.random(shape) < equal, a, other)

    return draw


PAIRS = {
    "pass@1 of 10": pass_pair(10, 0.5, 0.1, 0.2),
    "pass@1 of 10, strong": pass_pair(10, 2.0, 0.03, 0.6),
    "pass@1 of 2": pass_pair(2, 0.5, 0.1, 0.2),
    "Rouge-L, all differ": rouge_pair(0.0, 0.12, 0.02),
    "Rouge-L, 70% equal": rouge_pair(0.7, 0.15, 0.03),
    "agent, 60% equal": agent_pair(0.6, 0.1),
    "agent, 95% equal": agent_pair(0.95, 0.3),
}


def paired_scores(rng: np.random.Generator, draws: int, n: int) -> Iterator[Cell]:
    for name, draw in PAIRS.items():
        x = draw(rng, (draws, n))
        yield Cell(name, truth_of(draw), two_runs.bounded(x), normal_mean(x, -1.0), peer_difference(x))


def clustered_scores(rng: np.random.Generator, draws: int, problems: int) -> Iterator[Cell]:
    """Agent scores of 2 or 3 instructions a problem, which share whether it can be solved."""
    m = np.where(np.arange(problems) % 2, 2, 3)
    for p in (0.3, 0.7, 0.9):
        for icc in (0.0, 0.3, 0.6):
            chance = betas(rng, p, icc, (draws, problems))
            right = rng.binomial(m, chance)
            partial = rng.binomial(m - right, 0.5)
            totals = right + 0.3 * partial  # the wrong ones score 0.3 or 0
            n = m.sum()
            mean = totals.sum(1) / n
            square = (right + 0.09 * partial).sum(1) / n
            half = Z * np.sqrt((square - mean * mean) / (n - 1))
            yield Cell(f"{p} solved, icc {icc}", p + 0.15 * (1 - p),
                       one_run.clustered(totals, np.broadcast_to(m, totals.shape)), cut(mean, half))  # fmt: skip
