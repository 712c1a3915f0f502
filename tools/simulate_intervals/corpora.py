"""BLEU and chrF of a corpus, by segment and by document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from qwen_eval.stats import intervals, one_run
from qwen_eval.stats.quantiles import students
from simulate_intervals.methods import resamples
from simulate_intervals.setting import Cell, Interval, stack_one

CORPORA_DRAWS = 600  # of BLEU and chrF at most, whose segments take long to draw


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
