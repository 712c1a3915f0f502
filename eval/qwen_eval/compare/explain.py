"""Our run compared with another harness's samples, as lines of text: the stages at which items differ, and the gap step by
step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from qwen_eval.compare import matching, waterfall
from qwen_eval.compare.pairs import clusters_of
from qwen_eval.compare.readers.common import LETTERS, Item, Samples
from qwen_eval.compare.text import difference, first_few, outcome, shortened
from qwen_eval.compare.waterfall import Stage
from qwen_eval.runs.find import Run
from qwen_eval.schema import Choose, Engine, Generate, InputError, Sample
from qwen_eval.stats import paired
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.choice import best_option


@dataclass(frozen=True)
class JoinedSamples:
    """Our run and their samples. matched: their items by our ids. unmatched: their items that are none of ours."""

    ours: Run
    samples: Samples
    matched: Mapping[str, Item]
    unmatched: Sequence[Item]

    @property
    def stat(self) -> str:
        """The statistic of ours that theirs is compared with: where they compare options by length, so do we."""
        normed = self.samples.by_length and all("correct_norm" in row["stats"] for row in self.ours.rows.values())
        return "correct_norm" if normed else "correct"

    @property
    def scores(self) -> dict[str, float]:
        """Our scores by id."""
        return {name: _score(self.ours, name, self.stat) for name in self.ours.rows}

    @property
    def groups(self) -> dict[str, str]:
        """Our groups by id."""
        return {name: row["group"] for name, row in self.ours.rows.items()}

    @property
    def average(self) -> str:
        """How our run averages over groups, "micro" or "macro"."""
        return self.ours.fields.get("avg", "micro")

    def outer_stages(self) -> tuple[list[Stage], list[Stage]]:
        """The first and the last stages of the waterfall, which need no model."""
        return waterfall.outer_stages(
            self.scores, self.groups, self.average, self.samples, self.matched, self.unmatched
        )


def join(ours: Run, samples: Samples) -> JoinedSamples:
    """Matches their items with ours. Raises InputError when no item is in both."""
    matched, unmatched = matching.match(samples, ours.rows)
    if not matched:
        raise InputError(f"{samples.paths[0]} and {ours.name} have no question in common; compare the same benchmark")
    in_our_order = {name: matched[name] for name in ours.rows if name in matched}
    return JoinedSamples(ours, samples, in_our_order, unmatched)


def _score(ours: Run, name: str, stat: str) -> float:
    stats = ours.rows[name]["stats"]
    if stat in stats:
        return float(stats[stat])
    if "passed" in stats:
        return float(stats["passed"] / stats["texts"])
    raise InputError(
        f"{ours.name}: items of {ours.benchmark} are not right or wrong, so another harness's samples cannot be joined"
    )


def summary(joined: JoinedSamples) -> list[str]:
    """Both figures, how many items were joined, and their paired difference on those."""
    ours, samples, matched = joined.ours, joined.samples, joined.matched
    first, last = joined.outer_stages()
    names = ", ".join(path.name for path in samples.paths[:1]) + (" ..." if len(samples.paths) > 1 else "")
    lines = [
        f"ours    {float(first[0].value):8.3f}  {ours.name} ({len(ours.rows)} items, {joined.average})",
        f"theirs  {float(last[-1].value):8.3f}  {samples.harness} {samples.metric}, {names} "
        f"({len(samples.items)} items, {samples.average})",
        f"{len(matched)} items joined; {len(ours.rows) - len(matched)} only ours, {len(joined.unmatched)} only theirs",
    ]
    scores, groups = joined.scores, joined.groups
    our_scores, their_scores = [scores[name] for name in matched], [item.score for item in matched.values()]
    # with theirs as the reference the loss is theirs - ours
    units, told = clusters_of([(ours.rows[name], ours.rows[name]) for name in matched])
    result = paired.shares(their_scores, our_scores, [groups[name] for name in matched], clusters=units)
    low, high = result.bounds(paired.LEVEL)
    interval = "no interval" if isnan(low) else f"{low:.2f} to {high:.2f}"
    lines.append(
        f"theirs - ours on the joined items: {result.loss:+.2f} points ({interval}; {result.method}{told}, "
        f"p {result.p:.4f}); {result.worse} right only there, {result.better} only here"
    )
    return lines + samples.notes


def differences_by_stage(joined: JoinedSamples) -> list[str]:
    """How many joined items differ in prompt, gold answer, answer and score, with the first of each."""
    matched, rows = joined.matched, joined.ours.rows
    values: dict[str, Callable[[str], tuple[Any, Any]]] = {
        "prompt": lambda name: (rows[name]["prompt"], matched[name].prompt),
        "gold": lambda name: (_option(rows[name], matched[name], rows[name]["target"]), matched[name].target),
        "answer": lambda name: (_answer(rows[name], matched[name], joined.stat), matched[name].answer),
        "score": lambda name: (_score(joined.ours, name, joined.stat), matched[name].score),
    }
    lines = ["stages at which items differ (A ours, B theirs):"]
    for stage, both in values.items():
        names = [name for name in matched if _differ(stage, *both(name))]
        if not names:
            lines.append(f"  {stage}: none")
            continue
        first = matched[names[0]]
        lines.append(
            f"  {stage}: {len(names)} of {len(matched)} items, first {names[0]} (theirs: {first.task} {first.index})"
        )
        one, other = both(names[0])
        if stage == "prompt" and isinstance(one, str):
            lines += [f"    {line}" for line in difference(one, other)]
        elif stage == "prompt":
            lines += [f"    A {shortened(one)}", f"    B {shortened(other)}"]
        else:
            lines.append(f"    {shortened(one)} in ours, {shortened(other)} in theirs")
    return lines


def _option(row: Mapping[str, Any], item: Item, label: Any) -> Any:
    """What a label of ours stands for: where the texts of options are scored, theirs has the text."""
    labels = row.get("labels") or LETTERS
    if "totals" not in row["response"] or label not in labels[: len(item.continuations)]:
        return label
    return item.continuations[labels.index(label)].strip()


def _answer(row: Mapping[str, Any], item: Item, stat: str) -> Any:
    """Our answer, by length where theirs is."""
    totals = row["response"].get("totals")
    if stat == "correct_norm" and totals and len(totals) == len(item.continuations):
        texts = [text.strip() for text in item.continuations]
        return texts[best_option([total / len(text) for total, text in zip(totals, texts, strict=True)])[0]]
    return _option(row, item, row["answer"])


def _differ(stage: str, ours: Any, theirs: Any) -> bool:
    """Whether the values of a stage differ. A gold answer or an answer that their file leaves empty does not; nor does one
    that is equal but for what a harness keeps around a final number (`#### 5`)."""
    if stage in ("prompt", "score"):
        return bool(ours != theirs)
    if not theirs:
        return False
    if not isinstance(ours, str):
        return bool(ours != theirs)
    pairs = (ours, theirs), (ours.rpartition("####")[2], theirs.rpartition("####")[2])
    return all(one.strip() != other.strip() for one, other in pairs)


def waterfall_lines(joined: JoinedSamples, benchmark: Benchmark, engine: Engine | None, show: int) -> list[str]:
    """The waterfall from our figure to theirs, and the first `show` items that score differently in the two runs, each with
    the steps at which its score changed.

    benchmark: ours, as its script built it. engine: the model that both runs asked, or None.
    """
    first, last = joined.outer_stages()
    inner, remarks = inner_stages(joined, benchmark, engine, first[-1])
    chain = [*first, *inner, *last]
    total = chain[-1].value - chain[0].value
    steps = waterfall.steps(chain)
    assert sum(step.change for step in steps) == total  # exactly: fractions
    width = max(len(step.name) for step in steps)
    lines = [f"{'ours':{width}}  {float(chain[0].value):8.3f}"]
    for step in steps:
        changed = f"{len(step.lost)} lost, {len(step.won)} won" if step.lost or step.won else ""
        lines.append(f"{step.name:{width}}  {float(step.change):+8.3f}  {changed:18}  {step.note}".rstrip())
    lines += [
        f"{'theirs':{width}}  {float(chain[-1].value):8.3f}  gap {float(total):+.3f}, the sum of the steps",
        *remarks,
    ]
    changes = waterfall.changes_by_item(chain, list(joined.matched))
    lines += ["", f"{len(changes)} joined items score differently in the two runs; the steps at which each changed:"]
    for name, names in list(changes.items())[:show]:
        item, mine = joined.matched[name], outcome(joined.ours.rows[name], joined.stat)
        lines.append(
            f"  {name}: ours {mine}, theirs {shortened(item.answer)} scored {item.score:g}: " + ", ".join(names)
        )
    if len(changes) > show:
        lines.append(f"  ... and {len(changes) - show} more (--show N)")
    return lines


def inner_stages(
    joined: JoinedSamples, benchmark: Benchmark, engine: Engine | None, before: Stage
) -> tuple[list[Stage], list[str]]:
    """The stages between our stored answers and their scores, with remarks. before: our scores on the joined items."""
    samples = {sample.id: sample for sample in benchmark.asked if sample.id in joined.matched}
    if benchmark.together or len(samples) < len(joined.matched):
        return [], ["items of this benchmark are not scored one by one: only the outer steps are told apart"]

    def score(sample: Sample, response: Any) -> float:
        return float(benchmark.score(sample, response).stats[joined.stat])

    remarks = []
    info = None if engine is None else engine.describe()
    if info is not None and joined.ours.fingerprint not in (info.fingerprint, info.sampled):
        remarks.append("the weights are not those of our run: what they change is part of the first steps")
    first_request = next(iter(samples.values())).request
    items = list(joined.matched.values())
    if isinstance(first_request, Choose) and all(item.logprobs for item in items):
        ask = None if engine is None else lambda asked: engine.choose(asked, _ignore)
        stages, agreement = waterfall.choice_stages(samples, score, before, joined.samples, joined.matched, ask)
        if agreement and not joined.samples.per_token:
            remarks.append(
                f"their log-probabilities, recomputed from their prompts: within {agreement.largest:.1g} on "
                f"{agreement.items} items"
            )
        if engine is not None:
            remarks.append(_token_remark(samples, joined.matched, engine))
        return stages, remarks
    if isinstance(first_request, Generate) and all(item.reply is not None for item in items):
        ask_texts = None if engine is None else lambda asked: engine.generate(asked, _ignore)
        stages, repeated = waterfall.text_stages(samples, score, before, joined.matched, ask_texts)
        if repeated is not None:
            remarks.append(
                f"their replies, generated again from their prompts: {repeated} of {len(items)} are the same"
            )
        return stages, remarks
    return [], [
        *remarks,
        "one run compares the likelihood of options and the other reads texts: only the outer steps are told apart",
    ]


def _ignore(index: int, response: Any) -> None:
    """A callback that stores nothing."""


def _token_remark(samples: Mapping[str, Sample], matched: Mapping[str, Item], engine: Engine) -> str:
    """How many tokens the two prompts of the first item have in common at their end."""
    name, item = next(iter(matched.items()))
    request = samples[name].request
    assert isinstance(request, Choose)
    texts = [request.prompt() + request.options[0], item.prompt + item.continuations[0]]
    ours, theirs = engine.token_texts(texts)
    end = next((i for i, (x, y) in enumerate(zip(ours[::-1], theirs[::-1], strict=False)) if x != y), None)
    last = (
        "one is the end of the other" if end is None else f"the last {end} are the same" if end else "the last differ"
    )
    return (
        f"tokens of {name} with its first option: {len(ours)} in ours, {len(theirs)} in theirs; {last}; "
        f"ours end in {first_few(map(repr, ours[-3:]))}, theirs in {first_few(map(repr, theirs[-3:]))}"
    )
