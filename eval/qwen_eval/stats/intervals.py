"""Per-sample statistics -> figures, each with its 95% interval. Values of accuracies are in percent, as published.

docs/intervals.md says which interval is whose; one_run.py computes them. Items that come in clusters (Sample.cluster) are not
independent, and their figures have the wider interval that follows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import isnan, nan, sqrt

from qwen_eval.schema import Metric, Scored
from qwen_eval.stats import clusters, one_run, strata
from qwen_eval.stats.families import Bounds

Clusters = Sequence[Hashable] | None  # of every item; None where each is by itself


def share(metric: str, group: str, flags: Sequence[float], by: Clusters = None) -> Metric:
    """The share of flags (0 or 1 per item) in percent. Scores between 0 and 1 have the interval of `mean`.

    by: the cluster of every item, None where all are independent.
    """
    value = 100 * sum(flags) / len(flags) if flags else nan
    return _metric(metric, group, value, _bounds(flags, by), len(flags), 100)


def share_of(metric: str, group: str, hits: float, n: int) -> Metric:
    """`hits` of n independent items in percent."""
    return _metric(metric, group, 100 * hits / n if n else nan, one_run.share(hits, n), n, 100)


def mean(metric: str, group: str, scores: Sequence[float], by: Clusters = None, percent: bool = False) -> Metric:
    """The mean of scores in [0, 1], as a fraction or in percent. by: as in share."""
    unit = 100 if percent else 1
    value = unit * sum(scores) / len(scores) if scores else nan
    return _metric(metric, group, value, _bounds(scores, by, whole=False), len(scores), unit)


def rate(metric: str, group: str, hits: Sequence[float], totals: Sequence[float]) -> Metric:
    """The share of all samples of several tasks, in percent; samples of one task are not independent. n is their number.

    hits, totals: by task, how many of its samples count and how many there are.
    """
    n = int(sum(totals))
    value = 100 * sum(hits) / n if n else nan
    if min(totals) == max(totals):
        each = [hit / total for hit, total in zip(hits, totals, strict=True)]
        bounds = one_run.bounded(each, constant=one_run.rate_constant(len(each)))
    else:
        bounds = one_run.clustered(hits, totals)
    return _metric(metric, group, value, bounds, n, 100)


def stratified_mean(
    metric: str, group: str, parts: Iterable[Sequence[float]], by: Sequence[Clusters] | None = None
) -> Metric:
    """The unweighted mean of the strata's means, in percent (a macro average over subjects). parts: the values in [0, 1] of
    every stratum; empty ones are left out. by: the clusters of every stratum."""
    flags = [list(values) for values in parts]
    found = [(values, ids) for values, ids in zip(flags, by or [None] * len(flags), strict=True) if values]
    if not found:
        return Metric(metric, group, nan, nan, nan, 0)
    value = 100 * (sum(sum(values) / len(values) for values, _ in found) / len(found))
    bounds = one_run.macro([stratum(values, ids) for values, ids in found])
    return _metric(metric, group, value, bounds, sum(len(values) for values, _ in found), 100)


def stratum(values: Sequence[float], by: Clusters) -> strata.Stratum:
    """The values of one stratum's items, for its part in the variance of a mean over strata."""
    squares = [value * value for value in values]
    if by is None or len(set(by)) == len(by):
        return strata.of_items(sum(values), sum(squares), len(values))
    totals, sizes = clusters.gather(values, by)
    return strata.of_clusters(totals, clusters.gather(squares, by)[0], sizes)


def clusters_of(scored: Iterable[Scored]) -> Clusters:
    """The cluster of every item, for `share`; None where each is by itself, or where nothing is known of them."""
    samples = [item.sample for item in scored]
    return clusters.named([sample.cluster for sample in samples], [sample.group for sample in samples])


def of_items(metric: str, group: str, scored: Sequence[Scored], stat: str) -> Metric:
    """The share of items with a statistic (0 or 1, or a score between) in percent, by the clusters that they are in."""
    return share(metric, group, [item.score.stats[stat] for item in scored], clusters_of(scored))


def share_of_texts(metric: str, group: str, scored: Sequence[Scored], stat: str) -> Metric:
    """The share of all texts that a statistic counts, in percent, where the statistic "texts" says how many an item has."""
    hits = [item.score.stats[stat] for item in scored]
    totals = [item.score.stats["texts"] for item in scored]
    if max(totals, default=0) <= 1:
        return of_items(metric, group, scored, stat)
    return rate(metric, group, hits, totals)


def by_group(scored: Iterable[Scored], stat: str) -> dict[str, list[float]]:
    """One statistic of every item, by the item's group (subject), groups in order of first appearance."""
    return {group: [item.score.stats[stat] for item in items] for group, items in groups_of(scored).items()}


def groups_of(scored: Iterable[Scored]) -> dict[str, list[Scored]]:
    """The items by their group (subject), groups in order of first appearance."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for item in scored:
        groups[item.sample.group].append(item)
    return dict(groups)


def accuracy_table(
    scored: Sequence[Scored], categories: Mapping[str, Sequence[str]], headline: str, stat: str = "correct"
) -> list[Metric]:
    """Accuracy over all items, by category and by subject.

    categories: category -> its subjects (they may overlap). headline: "micro" (over questions) or "macro" (mean over
    subjects): which of the two the metric "acc" is, for "all" and for the categories. Both are also given as "acc_micro"
    and "acc_macro". Subjects that were not asked are left out.
    """
    subjects = groups_of(scored)
    groups: dict[str, list[list[Scored]]] = {"all": list(subjects.values())}
    for category, names in categories.items():
        groups[category] = [subjects[name] for name in names if name in subjects]
    metrics = []
    for group, parts in groups.items():
        if not parts:
            continue
        micro = of_items("acc_micro", group, [item for items in parts for item in items], stat)
        flags = [[item.score.stats[stat] for item in items] for items in parts]
        macro = stratified_mean("acc_macro", group, flags, [clusters_of(items) for items in parts])
        chosen = {"micro": micro, "macro": macro}[headline]
        metrics += [replace(chosen, metric="acc"), micro, macro]
    metrics += [of_items("acc", subject, items, stat) for subject, items in subjects.items()]
    return metrics


def mean_of(group: str, parts: Sequence[Metric]) -> Metric:
    """The mean of independent figures of one metric; the half widths of their intervals are combined as root sum of squares
    (Zou and Donner 2008). No interval where one of them has none."""
    value = sum(part.value for part in parts) / len(parts)
    below = sqrt(sum((part.value - part.ci_low) ** 2 for part in parts)) / len(parts)
    above = sqrt(sum((part.ci_high - part.value) ** 2 for part in parts)) / len(parts)
    return Metric(parts[0].metric, group, value, value - below, value + above, sum(part.n for part in parts))


def without(metrics: Sequence[Metric]) -> list[str]:
    """A sentence on the figures that have too few independent units (items, passages, documents) for an interval; none where
    all have one."""
    names = [
        f"{one.metric} {one.group}".removesuffix(" all")
        for one in metrics
        if isnan(one.ci_low) and not isnan(one.value)
    ]
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"too few independent items, passages or documents for an interval: {', '.join(names[:3])}{more}"]


def _bounds(values: Sequence[float], by: Clusters, whole: bool = True) -> Bounds:
    """The interval of a mean. whole: whether values that are all 0 or 1 are a share of items that can be nothing else."""
    if not values:
        return one_run.NONE
    if by is not None and len(set(by)) < len(by):
        return one_run.clustered(*clusters.gather(values, by))
    if whole and all(value in (0, 1) for value in values):
        return one_run.share(sum(values), len(values))
    return one_run.bounded(values)


def _metric(metric: str, group: str, value: float, bounds: Bounds, n: int, unit: float) -> Metric:
    """A figure in its unit; of its interval, which is a fraction, rounding leaves no bound on the wrong side of the value."""
    low, high = (unit * float(bound) for bound in bounds)
    return Metric(
        metric, group, value, low if isnan(low) else min(low, value), max(high, value) if high == high else nan, n
    )
