"""How often the interval of every figure that a table shows holds the true value: `make coverage`.

python tools/simulate_intervals.py                     all figures, into docs/intervals.md (minutes)
python tools/simulate_intervals.py --only macro ppl    some of them
python tools/simulate_intervals.py --draws 4000        more draws a setting (default 1,000)

Every figure is drawn many times from a model with a known true value, in several settings, at the sizes that tables have. Ours
is the code of eval/qwen_eval/stats itself. Beside it stand a textbook's method and the one that evalstats 0.3.3 chooses
(`pip install -e '.[coverage]'`; on the first draws of a setting, since it takes one at a time). Exit status 1 where a figure's
mean coverage at 50 units or more is below 0.945 by more than two standard errors.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import comb, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as distributions

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "eval"))

from qwen_eval.stats import intervals, one_run, strata, two_runs  # noqa: E402
from qwen_eval.stats.quantiles import students  # noqa: E402

PAGE = ROOT / "docs" / "intervals.md"
BEGIN, END = "<!-- make coverage: begin -->", "<!-- make coverage: end -->"
WANTED, FROM = 0.945, 50
Z = distributions.norm.ppf(0.975)
OTHERS = 100  # draws of a setting on which evalstats is tried
RESAMPLES = 300
CORPORA_DRAWS = 600  # of BLEU and chrF at most, whose segments take long to draw
VERSION = "0.3.3"

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


# ------------------------------------------------------------------------------------------------------------- methods
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


# -------------------------------------------------------------------------------------------------------------- figures
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


def stack(parts: Sequence[Interval]) -> Interval:
    lows, highs = zip(*parts, strict=True)
    return np.concatenate(lows), np.concatenate(highs)


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


# ------------------------------------------------------------------------------------------------------- corpus scores
def bleu_score(counts: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        logs = np.log(np.maximum(counts[..., 2:6], 0.5) / np.maximum(counts[..., 6:10], 1)).mean(-1)
        return 100 * np.exp(logs + np.minimum(0, 1 - counts[..., 1] / counts[..., 0]))


def chrf_score(counts: np.ndarray) -> np.ndarray:
    hyp, ref, match = counts[..., 0:6], counts[..., 6:12], counts[..., 12:18]
    precision, recall = (match / np.maximum(hyp, 1)).mean(-1), (match / np.maximum(ref, 1)).mean(-1)
    return 100 * 5 * precision * recall / np.maximum(4 * precision + recall, 1e-16)


@dataclass(frozen=True)
class Corpus:
    """Two systems' translations as counts of n-grams by segment. share: of the quality's variance, the document's."""

    metric: str = "bleu"
    level: str = "middle"
    share: float = 0.0

    def score(self, counts: np.ndarray) -> np.ndarray:
        return bleu_score(counts) if self.metric == "bleu" else chrf_score(counts)

    def draw(self, rng: np.random.Generator, draws: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both systems' counts (draws, segments, columns), and the number of every segment's document."""
        shape = (draws, n)
        ids = np.cumsum(rng.random(shape) < 0.1, 1)  # documents of geometric length, 10 on average
        ids -= ids[:, :1]

        def quality(share: float) -> np.ndarray:
            by_document = np.take_along_axis(rng.standard_normal((draws, n + 1)), ids, 1)
            return sqrt(share) * by_document + sqrt(1 - share) * rng.standard_normal(shape)

        base = {"low": -0.6, "middle": 0.5, "high": 1.8}[self.level] + 0.8 * quality(self.share)
        ref = np.maximum(np.round(np.exp(3.1 + 0.6 * rng.standard_normal(shape))), 4)
        found = []
        for logit in (base, base - 0.15 + 0.5 * quality(0.7 * self.share)):
            q = 1 / (1 + np.exp(-logit))
            hyp = np.maximum(np.round(ref * np.exp(-0.02 + 0.12 * rng.standard_normal(shape))), 4)
            if self.metric == "bleu":
                total = np.stack([hyp - k for k in range(4)], -1)
                right = rng.binomial(total.astype(int), np.stack([q ** (1 + 0.9 * k) for k in range(4)], -1))
                found.append(np.concatenate([hyp[..., None], ref[..., None], right, total], -1))
            else:
                h, r = (np.stack([5 * length - k for k in range(6)], -1) for length in (hyp, ref))
                right = rng.binomial(
                    np.minimum(h, r).astype(int), np.stack([(0.35 + 0.65 * q) ** (1 + 0.6 * k) for k in range(6)], -1)
                )
                found.append(np.concatenate([h, r, right], -1))
        return found[0], found[1], ids

    def truth(self) -> tuple[float, float]:
        """The true score of the first system, and how much lower the second's is."""
        if self not in CORPORA:
            rng = np.random.default_rng(7)
            sums = [0.0, 0.0]
            for _ in range(8):
                first, second, _ = self.draw(rng, 100, 2000)
                sums = [sums[0] + first.sum((0, 1)), sums[1] + second.sum((0, 1))]
            a, b = (float(self.score(part)) for part in sums)
            CORPORA[self] = a, a - b
        return CORPORA[self]


CORPORA: dict[Corpus, tuple[float, float]] = {}
OPEN = [Corpus(), Corpus(level="low"), Corpus(level="high"), Corpus("chrf")]
IN_DOCUMENTS = [Corpus(share=share) for share in (0.0, 0.05, 0.1, 0.3)] + [Corpus("chrf", share=0.1)]


def summed(counts: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Counts by unit, of one draw."""
    return np.stack([np.bincount(ids, counts[:, column]) for column in range(counts.shape[1])], 1)


def corpus_cells(
    corpora: Sequence[Corpus], by_document: bool, two: bool
) -> Callable[[np.random.Generator, int, int], Iterator[Cell]]:
    def cells(rng: np.random.Generator, draws: int, n: int) -> Iterator[Cell]:
        few = min(draws, CORPORA_DRAWS)
        counts = resamples(n, np.random.default_rng(12345)).T
        for corpus in corpora:
            ours: list[Interval] = []
            plain: list[Interval] = []
            for start in range(0, few, 25):
                a, b, ids = corpus.draw(rng, min(25, few - start), n)
                for index in range(len(a)):
                    sides = [a[index], b[index]] if two else [a[index]]
                    units = ids[index] if by_document else np.arange(n)
                    parts = [summed(side, units) if by_document else side for side in sides]
                    reference = parts[0][:, 1] if corpus.metric == "bleu" else parts[0][:, 6]
                    values = [corpus.score(part.sum(0)) for part in parts]
                    left = [corpus.score(part.sum(0) - part) for part in parts]
                    if two:
                        error, df = one_run.jackknife(left[0] - left[1], reference)
                        half = students(0.95, df) * error
                        ours.append((values[0] - values[1] - half, values[0] - values[1] + half))
                    else:
                        ours.append(one_run.corpus(values[0], left[0], reference))
                    drawn = [corpus.score(counts @ side) for side in sides]
                    plain.append(tuple(np.quantile(drawn[0] - drawn[1] if two else drawn[0], [0.025, 0.975])))
            name = f"{corpus.metric}, {corpus.level}" + (f", document {corpus.share}" if by_document else "")
            yield Cell(name, corpus.truth()[int(two)], stack_one(ours), stack_one(plain))

    return cells


def stack_one(parts: Sequence[Interval]) -> Interval:
    lows, highs = zip(*parts, strict=True)
    return np.array(lows, dtype=float), np.array(highs, dtype=float)


def directions(rng: np.random.Generator, draws: int, n: int) -> Iterator[Cell]:
    """The mean of two directions' BLEU."""
    from qwen_eval.schema import Metric

    few = min(draws, CORPORA_DRAWS)
    for first, second in ((Corpus(), Corpus(level="low")), (Corpus(level="high"), Corpus())):
        found = []
        for _ in range(few):
            parts = []
            for corpus in (first, second):
                (a,), _, _ = corpus.draw(rng, 1, n)
                value = float(corpus.score(a.sum(0)))
                low, high = map(float, one_run.corpus(value, corpus.score(a.sum(0) - a), a[:, 1]))
                parts.append(Metric("bleu", corpus.level, value, low, high, n))
            mean = intervals.mean_of("all", parts)
            found.append((mean.ci_low, mean.ci_high))
        yield Cell(f"{first.level}, {second.level}", (first.truth()[0] + second.truth()[0]) / 2, stack_one(found))


# -------------------------------------------------------------------------------------------------------------- paired
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
        return PEER.bonett_price_paired_ci_from_diffs(differences, 0.05)  # type: ignore[no-any-return]

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
        return PEER.clustered_score_paired_ci(first, second, 0.05)  # type: ignore[no-any-return]

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


CLUSTERS = (5, 10, 20, 50, 100, 300)
TASKS = (5, 17, 50, 164, 500)
SCORED = (5, 10, 20, 50, 164, 500)
PAIRED_DESIGNS = ("3 x 5", "11 x 5", "52 x 1", "52 x 5", "C-Eval 52 x 12-55", "MMLU 57 x 100-1534")

FIGURES = {
    "items": Figure("accuracy, a share of items", "Wald", "Wilson", "items", (5, 10, 26, 50, 164, 1319, 14042), items),
    "macro": Figure(
        "macro accuracy", "stratified normal", "Wilson, all items", "subjects x items", list(DESIGNS), macro, of_design
    ),
    "passages": Figure(
        "accuracy, questions of passages", "Wald, all items", "Wilson, all items", "passages", CLUSTERS, passages
    ),
    "macro-passages": Figure(
        "macro accuracy with passages",
        "stratified normal",
        "none",
        "subjects x passages",
        list(MIXED),
        macro_passages,
        of_mixed,
    ),
    "pass1": Figure(
        "pass@1, several samples a task", "normal", "Wilson, tasks", "tasks", TASKS, means(PASS_1, pass_1, "wilson")
    ),
    "passk": Figure("pass@k, k > 1", "normal", "logit-t", "tasks", TASKS, means(PASS_K, pass_k, "logit")),
    "rouge": Figure("Rouge-L", "normal", "logit-t", "items", SCORED, means(ROUGE, one_run.bounded, "logit")),
    "agent": Figure("agent scores", "normal", "logit-t", "items", SCORED, means(AGENT, one_run.bounded, "logit")),
    "agent-problems": Figure(
        "agent scores, several instructions a problem",
        "normal, all items",
        "none",
        "problems",
        (5, 11, 20, 50, 100),
        clustered_scores,
    ),
    "ppl": Figure(
        "perplexity", "percentile bootstrap", "t, unweighted", "documents", (3, 5, 8, 10, 20, 50, 100), perplexity
    ),
    "bleu": Figure(
        "BLEU, chrF over segments",
        "percentile bootstrap",
        "none",
        "segments",
        (20, 80, 200, 1000, 2037),
        corpus_cells(OPEN, False, False),
        scale=1.0,
    ),
    "bleu-documents": Figure(
        "BLEU, chrF over documents",
        "percentile bootstrap over segments",
        "none",
        "segments",
        (80, 200, 1000, 2037),
        corpus_cells(IN_DOCUMENTS, True, False),
        scale=1.0,
    ),
    "bleu-mean": Figure(
        "mean of two directions' BLEU", "none", "none", "segments each", (200, 2037), directions, scale=1.0
    ),
    "paired-items": Figure(
        "paired: accuracy", "Wald", "Bonett-Price", "items", (5, 20, 50, 164, 1319, 14042), paired_items
    ),
    "paired-macro": Figure(
        "paired: macro accuracy",
        "stratified normal",
        "Bonett-Price, all items",
        "subjects x items",
        PAIRED_DESIGNS,
        paired_macro,
        of_design,
    ),
    "paired-passages": Figure(
        "paired: questions of passages",
        "Wald, all items",
        "clustered score (5 each)",
        "passages",
        CLUSTERS,
        paired_passages,
    ),
    "paired-macro-passages": Figure(
        "paired: macro accuracy with passages",
        "stratified normal",
        "none",
        "subjects x passages",
        list(MIXED),
        paired_macro_passages,
        of_mixed,
    ),
    "paired-scores": Figure(
        "paired: pass@1, Rouge-L, agent scores", "normal", "logit-t", "items", SCORED, paired_scores
    ),
    "paired-ppl": Figure(
        "paired: perplexity",
        "percentile bootstrap",
        "t, unweighted",
        "documents",
        (3, 5, 10, 20, 50, 100),
        perplexity_ratio,
    ),
    "paired-bleu": Figure(
        "paired: BLEU over segments",
        "percentile bootstrap",
        "none",
        "segments",
        (20, 80, 200, 1000, 2037),
        corpus_cells(OPEN[:3], False, True),
        scale=1.0,
    ),
    "paired-bleu-documents": Figure(
        "paired: BLEU over documents",
        "percentile bootstrap over segments",
        "none",
        "segments",
        (80, 200, 1000, 2037),
        corpus_cells(IN_DOCUMENTS[:4], True, True),
        scale=1.0,
    ),
}


# --------------------------------------------------------------------------------------------------------------- table
@dataclass
class Row:
    """One figure at one size. Each of coverage: mean and worst over settings; width: mean of medians."""

    size: str
    large: bool
    ours: tuple[float, float, float]
    error: float
    textbook: tuple[float, float, float] | None
    other: tuple[float, float, float] | None
    worst: str

    @property
    def short(self) -> bool:
        """Whether the mean coverage is surely below what is wanted of it."""
        return self.large and self.ours[0] < WANTED - 2 * self.error


def covered(interval: Interval, truth: Any) -> tuple[float, float]:
    """Coverage and median width; a draw without an interval is not covered."""
    low, high = (np.asarray(bound, dtype=float) for bound in interval)
    inside = (low <= truth + 1e-12) & (truth <= high + 1e-12)
    known = np.isfinite(low) & np.isfinite(high)
    return float(inside.mean()), float(np.median((high - low)[known])) if known.any() else float("nan")


def summary(found: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    if not found:
        return None
    values = np.array(found)
    return float(values[:, 0].mean()), float(values[:, 0].min()), float(values[:, 1].mean())


def rows_of(figure: Figure, seed: int, draws: int) -> Iterator[Row]:
    for number, size in enumerate(figure.sizes):
        rng = np.random.default_rng([seed, number])
        ours, plain, others, error, names = [], [], [], 0.0, []
        for cell in figure.cells(rng, draws, size):
            ours.append(covered(cell.ours, cell.truth))
            names.append(cell.setting)
            count = len(np.atleast_1d(cell.ours[0]))
            error += max(ours[-1][0] * (1 - ours[-1][0]), 1e-4) / count
            if cell.textbook:
                plain.append(covered(cell.textbook, cell.truth))
            if cell.other and PEER:
                few = min(OTHERS, count)
                truth = np.broadcast_to(cell.truth, (count,))[:few]
                with np.errstate(all="ignore"):
                    others.append(covered(stack_one([cell.other(index) for index in range(few)]), truth))
        mean = summary(ours)
        assert mean
        label = size if isinstance(size, str) else f"{size:,}"
        lowest = names[int(np.argmin([coverage for coverage, _ in ours]))]
        yield Row(label, (figure.count(size) if isinstance(size, str) else size) >= FROM, mean, sqrt(error) / len(ours),
                  summary(plain), summary(others), lowest)  # fmt: skip


def part(found: tuple[float, float, float] | None, scale: float) -> str:
    if found is None:
        return "-"
    mean, worst, width = found
    return f"{mean:.3f} / {worst:.3f}; {scale * width:.3g}"


def lines_of(figure: Figure, rows: Sequence[Row]) -> list[str]:
    """The table of one figure in Markdown."""
    other = (
        figure.other
        if PEER or figure.other == "none"
        else f"{figure.other} (not run: evalstats {VERSION} is not installed)"
    )
    head = f"| {figure.unit} | ours | textbook: {figure.textbook} | evalstats: {other} | our worst setting |"
    lines = [f"### {figure.name[0].upper()}{figure.name[1:]}", "", head, "|:--|:--|:--|:--|:--|"]
    for row in rows:
        ours = part(row.ours, figure.scale) + (" (below)" if row.short else "")
        cells = [row.size, ours, part(row.textbook, figure.scale), part(row.other, figure.scale), row.worst]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def write(tables: dict[str, str], draws: int) -> None:
    """Replaces the tables of these figures on the page; others stay."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    told = {part.partition("\n")[0]: f"### {part.rstrip()}\n" for part in old.split("### ")[1:]}
    named = {name: f"{figure.name[0].upper()}{figure.name[1:]}" for name, figure in FIGURES.items()}
    found = [tables.get(name, told.get(title, "")) for name, title in named.items()]
    said = f"{draws:,} draws a setting (of BLEU and chrF {CORPORA_DRAWS}), {OTHERS} of them for evalstats {VERSION}."
    text = "\n".join([said, "", *(table for table in found if table)])
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="draws a setting (default 1,000)")
    parser.add_argument("--only", nargs="+", choices=tuple(FIGURES), metavar="NAME", help=", ".join(FIGURES))
    args = parser.parse_args()
    if args.draws < 10:
        parser.error("--draws takes 10 or more")
    if not PEER:
        print(
            f"evalstats {VERSION} is not installed (pip install -e '.[coverage]'): its columns stay empty",
            file=sys.stderr,
        )
    started, short = time.process_time(), []
    tables: dict[str, str] = {}
    for seed, (name, figure) in enumerate(FIGURES.items()):
        if args.only and name not in args.only:
            continue
        rows = list(rows_of(figure, seed, args.draws))
        short += [f"{figure.name} at {row.size}: {row.ours[0]:.4f}" for row in rows if row.short]
        tables[name] = "\n".join(lines_of(figure, rows))
        print(tables[name], flush=True)
    print(f"{time.process_time() - started:.0f} s of CPU time", file=sys.stderr)
    for line in short:
        print(f"below {WANTED}: {line}", file=sys.stderr)
    if PEER:
        write(tables, args.draws)
        print(f"written to {PAGE.relative_to(ROOT)}", file=sys.stderr)
    else:
        print(f"not written to {PAGE.relative_to(ROOT)}, whose columns of evalstats would be lost", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
