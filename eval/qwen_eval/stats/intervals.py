"""Per-sample statistics -> figures, each with its 95% interval. Values of accuracies are in percent, as published.

Intervals: a share of n items has the Wilson score interval (Wilson 1927; centre and width as in Brown, Cai and DasGupta
2001, "Interval Estimation for a Binomial Proportion"); a mean over subjects has the normal interval of a stratified
mean, with the subjects fixed and the items of each a sample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import nan, sqrt

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
    # at 0 and n one bound is the share itself; rounding must not move it to the wrong side
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def share(metric: str, group: str, flags: Sequence[float]) -> Metric:
    """The share of flags (0 or 1 per item) in percent, with its Wilson interval."""
    return share_of(metric, group, sum(flags), len(flags))


def share_of(metric: str, group: str, hits: float, n: int) -> Metric:
    """`hits` of n items in percent, with its Wilson interval."""
    low, high = wilson(hits, n)
    return Metric(metric, group, 100 * hits / n if n else nan, 100 * low, 100 * high, n)


def mean(metric: str, group: str, scores: Sequence[float]) -> Metric:
    """The mean of scores in [0, 1], as a fraction, with the Wilson interval of a share: no variable in [0, 1] with that
    mean has a larger variance."""
    figure = share(metric, group, scores)
    return Metric(metric, group, figure.value / 100, figure.ci_low / 100, figure.ci_high / 100, figure.n)


def stratified_mean(metric: str, group: str, strata: Iterable[Sequence[float]]) -> Metric:
    """The unweighted mean of the strata's shares, in percent (a macro average over subjects).

    The interval is mean +- z * sqrt(sum of the strata's variances) / strata; each stratum's variance is that of a share
    with two successes and two failures added (Agresti and Coull 1998), so that a stratum with all answers right or all
    wrong is not taken to be known exactly. It is clipped to [0, 100].
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
    """One statistic of every item, by the item's group (subject), groups in order of first appearance."""
    groups: dict[str, list[float]] = defaultdict(list)
    for item in scored:
        groups[item.sample.group].append(item.score.stats[stat])
    return dict(groups)


def accuracy_table(
    scored: Sequence[Scored], categories: Mapping[str, Sequence[str]], headline: str, stat: str = "correct"
) -> list[Metric]:
    """Accuracy over all items, by category and by subject.

    categories: category -> its subjects (they may overlap). headline: "micro" (over questions) or "macro" (mean over
    subjects): which of the two the metric "acc" is, for "all" and for the categories. Both are also given as "acc_micro"
    and "acc_macro". Subjects that were not asked are left out.
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
        metrics += [replace(chosen, metric="acc"), micro, macro]
    metrics += [share("acc", subject, flags) for subject, flags in subjects.items()]
    return metrics


def mean_of(group: str, parts: Sequence[Metric]) -> Metric:
    """The mean of independent figures of one metric; the half widths of their intervals are combined as root sum of squares."""
    value = sum(part.value for part in parts) / len(parts)
    below = sqrt(sum((part.value - part.ci_low) ** 2 for part in parts)) / len(parts)
    above = sqrt(sum((part.ci_high - part.value) ** 2 for part in parts)) / len(parts)
    return Metric(parts[0].metric, group, value, value - below, value + above, sum(part.n for part in parts))
