"""Our run beside somebody else's samples, as lines of text: where the items part, and the gap step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_eval.compare import external, waterfall
from qwen_eval.compare.external import Item, Samples
from qwen_eval.compare.text import difference, outcome, short, some
from qwen_eval.compare.waterfall import Stage
from qwen_eval.runs.find import Run
from qwen_eval.schema import Choose, Engine, Generate, InputError, Sample
from qwen_eval.stats import paired
from qwen_eval.tasks.benchmark import Benchmark


@dataclass(frozen=True)
class Meeting:
    """Our run, their samples, their items by our ids, and those that are none of ours."""

    ours: Run
    samples: Samples
    found: Mapping[str, Item]
    lost: Sequence[Item]

    @property
    def scores(self) -> dict[str, float]:
        return {name: _score(self.ours, name) for name in self.ours.rows}

    @property
    def groups(self) -> dict[str, str]:
        return {name: row["group"] for name, row in self.ours.rows.items()}

    @property
    def average(self) -> str:
        return self.ours.fields.get("avg", "micro")

    def ends(self) -> tuple[list[Stage], list[Stage]]:
        """The stages of the waterfall that need no model."""
        return waterfall.ends(self.scores, self.groups, self.average, self.samples, self.found, self.lost)


def meet(ours: Run, samples: Samples) -> Meeting:
    """Raises InputError when the run has no right and wrong, or no item is in both."""
    found, lost = external.join(samples, ours.rows)
    if not found:
        raise InputError(f"{samples.paths[0]} and {ours.name} have no question in common; compare the same benchmark")
    # in the order of our run
    return Meeting(ours, samples, {name: found[name] for name in ours.rows if name in found}, lost)


def _score(ours: Run, name: str) -> float:
    stats = ours.rows[name]["stats"]
    if "correct" in stats:
        return float(stats["correct"])
    if "passed" in stats:
        return float(stats["passed"] / stats["texts"])
    raise InputError(f"{ours.name}: items of {ours.benchmark} are not right or wrong; somebody else's cannot be joined")


def summary(meeting: Meeting) -> list[str]:
    """Both figures, how many items joined, and their paired difference on those."""
    ours, samples, found = meeting.ours, meeting.samples, meeting.found
    first, last = meeting.ends()
    names = ", ".join(path.name for path in samples.paths[:1]) + (" ..." if len(samples.paths) > 1 else "")
    lines = [
        f"ours    {float(first[0].value):8.3f}  {ours.name} ({len(ours.rows)} items, {meeting.average})",
        f"theirs  {float(last[-1].value):8.3f}  {samples.harness} {samples.metric}, {names} "
        f"({len(samples.items)} items, {samples.average})",
        f"{len(found)} items joined; {len(ours.rows) - len(found)} only ours, {len(meeting.lost)} only theirs",
    ]
    before, after = [meeting.scores[name] for name in found], [item.score for item in found.values()]
    result = paired.shares(after, before, [meeting.groups[name] for name in found])  # its loss is theirs less ours
    low, high = result.bounds(paired.LEVEL)
    lines.append(
        f"theirs less ours on the joined items: {result.loss:+.2f} points ({low:.2f} to {high:.2f}; {result.method}, "
        f"p {result.p:.4f}); {result.worse} right only there, {result.better} only here"
    )
    return lines + samples.notes


def partings(meeting: Meeting) -> list[str]:
    """At which stage the joined items part, with the first of each: prompt, options, gold, answer, score."""
    found, rows = meeting.found, meeting.ours.rows
    lines = ["where the items part (A ours, B theirs):"]
    stages: dict[str, Callable[[str], bool]] = {
        "prompt": lambda name: rows[name]["prompt"] != found[name].prompt,
        "gold": lambda name: bool(found[name].target) and not _same(rows[name]["target"], found[name].target),
        "answer": lambda name: bool(found[name].answer) and not _same(rows[name]["answer"], found[name].answer),
        "score": lambda name: _score(meeting.ours, name) != found[name].score,
    }
    shown: dict[str, Callable[[str], tuple[Any, Any]]] = {
        "prompt": lambda name: (rows[name]["prompt"], found[name].prompt),
        "gold": lambda name: (rows[name]["target"], found[name].target),
        "answer": lambda name: (rows[name]["answer"], found[name].answer),
        "score": lambda name: (_score(meeting.ours, name), found[name].score),
    }
    for stage, parts in stages.items():
        names = [name for name in found if parts(name)]
        if not names:
            lines.append(f"  {stage}: nowhere")
            continue
        item = found[names[0]]
        lines.append(
            f"  {stage}: {len(names)} of {len(found)} items, first {names[0]} (theirs: {item.task} {item.index})"
        )
        one, other = shown[stage](names[0])
        if stage == "prompt" and isinstance(one, str):
            lines += [f"    {line}" for line in difference(one, other)]
        elif stage == "prompt":
            lines += [f"    A {short(one)}", f"    B {short(other)}"]
        else:
            lines.append(f"    {short(one)} in ours, {short(other)} in theirs")
    return lines


def _same(ours: Any, theirs: str) -> bool:
    """Equal, or equal but for what a harness keeps around a final number (`#### 5`)."""
    if isinstance(ours, str):
        return (
            ours.strip() == theirs.strip() or ours.rpartition("####")[2].strip() == theirs.rpartition("####")[2].strip()
        )
    return bool(ours == theirs)


def explained(meeting: Meeting, benchmark: Benchmark, engine: Engine | None, show: int) -> list[str]:
    """The waterfall from our figure to theirs, and every item that is right in one run only with the steps that made it so.

    benchmark: ours, as its script built it. engine: the model that both runs asked, or None.
    """
    first, last = meeting.ends()
    stages, remarks = between(meeting, benchmark, engine, first[-1])
    chain = [*first, *stages, *last]
    total = chain[-1].value - chain[0].value
    made = waterfall.steps(chain)
    assert sum(step.change for step in made) == total  # exactly: fractions
    width = max(len(step.name) for step in made)
    lines = [f"{'ours':{width}}  {float(chain[0].value):8.3f}"]
    for step in made:
        moved = f"{len(step.lost)} lost, {len(step.won)} won" if step.lost or step.won else ""
        lines.append(f"{step.name:{width}}  {float(step.change):+8.3f}  {moved:18}  {step.note}".rstrip())
    lines += [
        f"{'theirs':{width}}  {float(chain[-1].value):8.3f}  gap {float(total):+.3f}, the sum of the steps",
        *remarks,
    ]
    parted = waterfall.by_item(chain, list(meeting.found))
    lines += ["", f"{len(parted)} joined items are not worth the same in both runs; the steps at which each changed:"]
    for name, names in list(parted.items())[:show]:
        item = meeting.found[name]
        lines.append(
            f"  {name}: ours {outcome(meeting.ours.rows[name])}, theirs {short(item.answer)} worth {item.score:g}: "
            + ", ".join(names)
        )
    if len(parted) > show:
        lines.append(f"  ... and {len(parted) - show} more (--show N)")
    return lines


def between(
    meeting: Meeting, benchmark: Benchmark, engine: Engine | None, before: Stage
) -> tuple[list[Stage], list[str]]:
    """The stages between our stored answers and their scores, with remarks."""
    requests = {sample.id: sample for sample in benchmark.asked if sample.id in meeting.found}
    if benchmark.together or len(requests) < len(meeting.found):
        return [], ["what lies between needs the scores of one item at a time; only the ends are told apart"]

    def score(sample: Sample, response: Any) -> float:
        return float(benchmark.score(sample, response).stats["correct"])

    remarks = []
    if engine is not None and engine.describe().fingerprint != meeting.ours.fingerprint:
        remarks.append("the weights are not those of our run: what they change is in the first steps")
    some_request = next(iter(requests.values())).request
    items = list(meeting.found.values())
    if isinstance(some_request, Choose) and all(item.logprobs for item in items):
        ask = None if engine is None else lambda asked: engine.choose(asked, _ignore)
        stages, agreement = waterfall.choices(requests, score, before, meeting.samples, meeting.found, ask)
        if agreement:
            remarks.append(
                f"their log-probabilities, computed anew from their prompts: within {agreement.largest:.1g} on "
                f"{agreement.items} items"
            )
        if engine is not None:
            remarks += _tokens(requests, meeting.found, engine)
        return stages, remarks
    if isinstance(some_request, Generate) and all(item.reply is not None for item in items):
        ask_texts = None if engine is None else lambda asked: engine.generate(asked, _ignore)
        stages, repeated = waterfall.texts(requests, score, before, meeting.found, ask_texts)
        if repeated is not None:
            remarks.append(f"their replies, asked anew with their prompts: {repeated} of {len(items)} are the same")
        return stages, remarks
    return [], [
        *remarks,
        "ours are chosen by likelihood and theirs are texts, or the other way: only the ends are told apart",
    ]


def _ignore(index: int, response: Any) -> None:
    """Nothing is stored on the way."""


def _tokens(requests: Mapping[str, Sample], found: Mapping[str, Item], engine: Engine) -> list[str]:
    """Where the tokens of the first item part."""
    name, item = next(iter(found.items()))
    request = requests[name].request
    assert isinstance(request, Choose)
    texts = [request.prompt() + request.options[0], item.prompt + item.continuations[0]]
    ours, theirs = engine.token_texts(texts)
    end = next((i for i, (x, y) in enumerate(zip(ours[::-1], theirs[::-1], strict=False)) if x != y), 0)
    last = f"the last {end} are the same" if end else "one ends as the other"
    return [f"tokens of {name} with its first option: {len(ours)} in ours, {len(theirs)} in theirs; {last}; "
            f"ours end in {some(map(repr, ours[-3:]))}, theirs in {some(map(repr, theirs[-3:]))}"]  # fmt: skip
