"""Accuracy: of items, of passages' questions, and macro averages over subjects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qwen_eval.stats import one_run, strata
from simulate_intervals.methods import cut, peer, wald
from simulate_intervals.setting import Cell, Z, stack


def items(rng: np.random.Generator, draws: int, n: int) -> Iterator[Cell]:
    for p in np.arange(0.01, 1, 0.02):
        hits = rng.binomial(n, p, draws)
        yield Cell(
            f"p {p:.2f}", p, one_run.share(hits, n), wald(hits / n, n), peer("wilson_ci", hits, np.full(draws, n))
        )


DESIGNS = {
    "3 x 5": np.full(3, 5),
    "11 x 5": np.full(11, 5),
    "52 x 1": np.full(52, 1),
    "52 x 5": np.full(52, 5),
    "52 x 20": np.full(52, 20),
    "C-Eval 52 x 12-55": np.clip(np.round(np.random.default_rng(0).gamma(6, 26 / 6, 52)), 12, 55).astype(int),
    "CMMLU 67 x 80-400": np.clip(np.round(np.random.default_rng(0).normal(170, 60, 67)), 80, 400).astype(int),
    "MMLU 57 x 100-1534": np.round(np.exp(np.linspace(np.log(100), np.log(1534), 57))).astype(int),
}


def of_design(name: str) -> int:
    return int(DESIGNS[name].sum())


def macro(rng: np.random.Generator, draws: int, name: str) -> Iterator[Cell]:
    n = DESIGNS[name]
    worlds, each = 10, max(1, draws // 10)
    for mean in (0.25, 0.5, 0.8, 0.95, 0.99):
        for icc in (0.1, 0.4):
            truths, ours, plain, pooled = [], [], [], []
            for _ in range(worlds):
                p = rng.beta(mean * (1 / icc - 1), (1 - mean) * (1 / icc - 1), len(n))
                x = rng.binomial(n, p, (each, len(n)))
                truths.append(np.full(each, p.mean()))
                ours.append(one_run.macro([strata.of_items(x[:, h], x[:, h], size) for h, size in enumerate(n)]))
                share = x / n
                v = (share * (1 - share) / np.maximum(n - 1, 1)).sum(1) / len(n) ** 2
                plain.append(cut(share.mean(1), Z * np.sqrt(v)))
                pooled.append(x.sum(1))
            hits = np.concatenate(pooled)
            yield Cell(f"mean {mean}, icc {icc}", np.concatenate(truths), stack(ours), stack(plain),
                       peer("wilson_ci", hits, np.full(len(hits), n.sum())))  # fmt: skip


SIZES = ("1 to 15", "geometric", "5 each", "1 or 15")


def sizes_of(kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    if kind == "1 to 15":
        return rng.integers(1, 16, shape)
    if kind == "geometric":
        return np.minimum(rng.geometric(0.25, shape), 15)
    return np.full(shape, 5) if kind == "5 each" else np.where(rng.random(shape) < 0.85, 1, 15)


def betas(rng: np.random.Generator, mean: Any, icc: float, shape: tuple[int, ...]) -> np.ndarray:
    if not icc:
        return np.broadcast_to(np.asarray(mean, dtype=float), shape)
    return rng.beta(mean * (1 / icc - 1), (1 - mean) * (1 / icc - 1), shape)


def passages(rng: np.random.Generator, draws: int, count: int) -> Iterator[Cell]:
    for kind in SIZES:
        for mean in (0.3, 0.7, 0.95):
            for icc in (0, 0.1, 0.3, 0.6):
                m = sizes_of(kind, rng, (draws, count))
                x = rng.binomial(m, betas(rng, mean, icc, m.shape))
                n, hits = m.sum(1), x.sum(1)
                yield Cell(f"{kind}, mean {mean}, icc {icc}", mean, one_run.clustered(x, m), wald(hits / n, n),
                           peer("wilson_ci", hits, n))  # fmt: skip


MIXED = {  # subjects: the sizes of their passages
    "3 x 2 passages of 5": [np.full(2, 5)] * 3,
    "8 x 1 passage of 5": [np.full(1, 5)] * 8,
    "20 x 6 passages of 1-6": [np.arange(1, 7)] * 20,
    "5 x 20 passages of 1-6": [np.tile(np.arange(1, 6), 4)] * 5,
    "23 subjects, 3 in passages": [np.ones(200, dtype=int)] * 20 + [np.tile(np.arange(1, 6), 12)] * 3,
}


def of_mixed(name: str) -> int:
    return int(sum(sizes.sum() for sizes in MIXED[name]))


def drawn_stratum(x: np.ndarray, squares: np.ndarray, m: np.ndarray) -> strata.Stratum:
    if m.max() == 1:
        return strata.of_items(x.sum(1), squares.sum(1), m.sum())
    return strata.of_clusters(x, squares, np.broadcast_to(m, x.shape))


def macro_passages(rng: np.random.Generator, draws: int, name: str) -> Iterator[Cell]:
    design = MIXED[name]
    for mean in (0.3, 0.8, 0.95):
        for icc in (0, 0.1, 0.3):
            p = np.clip(rng.beta(mean * 4, (1 - mean) * 4, len(design)), 0.02, 0.98)
            xs = [
                rng.binomial(m, betas(rng, ph, icc if m.max() > 1 else 0, (draws, len(m))))
                for ph, m in zip(p, design, strict=True)
            ]
            parts = [drawn_stratum(x, x, m) for x, m in zip(xs, design, strict=True)]
            share = np.stack([x.sum(1) / m.sum() for x, m in zip(xs, design, strict=True)], 1)
            n = np.array([m.sum() for m in design])
            half = Z * np.sqrt((share * (1 - share) / (n - 1)).sum(1)) / len(design)
            yield Cell(f"mean {mean}, icc {icc}", p.mean(), one_run.macro(parts), cut(share.mean(1), half))
