"""Why another harness's figure differs from ours: the gap, step by step and item by item.

Between our run and theirs lies a chain of runs, each of which differs from the one before in one thing. Every run of the chain
scores the same items; a step is the difference between two neighbours, so the steps add up to the gap exactly. The outer runs
are stored; the inner ones are computed by the model (multiple choice: with their prompts and tokens; text: with their
prompts). Without a model the inner runs are left out, and their steps become one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from qwen_eval.compare.readers.common import Item, Samples
from qwen_eval.schema import Choose, Chosen, Generate, Generated, Sample

Scores = Mapping[str, float]
AskChoices = Callable[[Sequence[Choose]], Sequence[Chosen]]
AskTexts = Callable[[Sequence[Generate]], Sequence[Generated]]
ScoreOne = Callable[[Sample, Any], float]


@dataclass(frozen=True)
class Stage:
    """One run of the chain. name: what it takes from theirs that the one before does not. scores: by item. groups: by item
    the group that a macro average is over; None for an average over items."""

    name: str
    scores: Scores
    groups: Mapping[str, str] | None = None
    note: str = ""

    @property
    def value(self) -> Fraction:
        """The run's figure in points, without rounding."""
        if self.groups is None:
            return 100 * sum(map(Fraction, self.scores.values()), Fraction()) / len(self.scores)
        parts: dict[str, list[Fraction]] = {}
        for name, score in self.scores.items():
            parts.setdefault(self.groups[name], []).append(Fraction(score))
        return 100 * sum((sum(part, Fraction()) / len(part) for part in parts.values()), Fraction()) / len(parts)


@dataclass(frozen=True)
class Step:
    """From one stage to the next. change: in points. lost, won: items whose score fell and rose."""

    name: str
    change: Fraction
    lost: list[str]
    won: list[str]
    note: str = ""


def steps(stages: Sequence[Stage]) -> list[Step]:
    """The differences between neighbours; their changes add up to last - first exactly."""
    made = []
    for before, after in pairwise(stages):
        both = [name for name in before.scores if name in after.scores]
        lost = [name for name in both if after.scores[name] < before.scores[name]]
        won = [name for name in both if after.scores[name] > before.scores[name]]
        made.append(Step(after.name, after.value - before.value, lost, won, after.note))
    return made


def changes_by_item(stages: Sequence[Stage], joined: Sequence[str]) -> dict[str, list[str]]:
    """For every joined item that the first and the last stage score differently: the steps at which its score changes."""
    changes = {}
    for name in joined:
        if stages[0].scores[name] != stages[-1].scores[name]:
            changes[name] = [
                after.name for before, after in pairwise(stages) if before.scores[name] != after.scores[name]
            ]
    return changes


def outer_stages(
    ours: Scores,
    groups: Mapping[str, str],
    average: str,
    samples: Samples,
    matched: Mapping[str, Item],
    unmatched: Sequence[Item],
) -> tuple[list[Stage], list[Stage]]:
    """The first and the last stages, which need no model: ours, ours on the joined items; their scores, their average, all
    their items.

    ours, groups: our scores and groups by id. average: ours, "micro" or "macro". matched: their items by our ids.
    unmatched: their items that are none of ours.
    """
    over = groups if average == "macro" else None
    first = [Stage("ours", ours, over), Stage("items only we have", {name: ours[name] for name in matched}, over)]
    theirs = {name: item.score for name, item in matched.items()}
    tasks = {name: item.task for name, item in matched.items()} if samples.average == "macro" else None
    last = [
        Stage("extraction", theirs, over, note=f"their {samples.metric}"),
        Stage("averaging", theirs, tasks, note=f"{average} to {samples.average}"),
    ]
    if unmatched:
        more = {f"{item.task} {item.index}": item for item in unmatched}
        keys = None if tasks is None else {**tasks, **{name: item.task for name, item in more.items()}}
        scores = {**theirs, **{name: item.score for name, item in more.items()}}
        last.append(Stage("items only they have", scores, keys))
    return first, last


# -------------------------------------------------------------------------------------------------- multiple choice
@dataclass(frozen=True)
class Agreement:
    """How well the chain's last computed run reproduces their log-probabilities: the largest absolute difference, and over how
    many items."""

    largest: float
    items: int


def choice_stages(
    ours: Mapping[str, Sample],
    score: ScoreOne,
    before: Stage,
    samples: Samples,
    matched: Mapping[str, Item],
    ask: AskChoices | None,
) -> tuple[list[Stage], Agreement | None]:
    """The stages between our stored choices and their scores, and how well the model reproduces their log-probabilities
    (None without a model).

    ours: our samples by id. score: our scorer. before: our scores on the joined items. ask: the model, or None.
    """
    names = list(matched)
    stages: list[Stage] = []
    recomputed = None

    def scored(answers: Mapping[str, Chosen]) -> dict[str, float]:
        return {name: score(ours[name], answers[name]) for name in names}

    if ask is not None:
        scores: Scores = before.scores
        wanted = {name: _choose(ours[name]) for name in names}
        for title, change, note in _changes(samples, matched):
            following = {name: change(name, request) for name, request in wanted.items()}
            if following != wanted:
                answers = dict(zip(names, ask([following[name] for name in names]), strict=True))
                scores = scored(answers)
                wanted = following
            stages.append(Stage(title, scores, before.groups, note))
        answers = dict(zip(names, ask([wanted[name] for name in names]), strict=True))
        recomputed = _agreement(answers, matched)
    # theirs are of whole options
    stored = {
        name: Chosen(
            item.logprobs, len(_choose(ours[name]).shots), 0, totals=item.logprobs if _choose(ours[name]).totals else ()
        )
        for name, item in matched.items()
    }
    title = "arithmetic" if ask else "prompt, tokens and arithmetic"
    note = "their log-probabilities, our choice of the best option" if ask else "not told apart without the model (-c)"
    stages.append(Stage(title, scored(stored), before.groups, note))
    return stages, recomputed


def _choose(sample: Sample) -> Choose:
    assert isinstance(sample.request, Choose)
    return sample.request


def _changes(samples: Samples, matched: Mapping[str, Item]) -> list[tuple[str, Callable[[str, Choose], Choose], str]]:
    """What turns our requests into theirs, one thing at a time: title, change of a request, note."""
    limit = samples.max_length

    def truncation(name: str, request: Choose) -> Choose:
        return dataclasses.replace(request, overflow="keep_last", limit=limit)

    def shots(name: str, request: Choose) -> Choose:
        context, _, number = split_prompt(matched[name].prompt, request.question, _asked(matched[name]))
        if same_examples(request.shots[:number], context) and number <= len(request.shots):
            return dataclasses.replace(request, shots=request.shots[:number])
        return dataclasses.replace(request, header=context, shots=())

    def text(name: str, request: Choose) -> Choose:
        return dataclasses.replace(request, header="", shots=(), question=matched[name].prompt)

    def bos(name: str, request: Choose) -> Choose:
        return dataclasses.replace(request, bos=samples.bos is not False)

    def tokens(name: str, request: Choose) -> Choose:
        kept = request.question.rstrip()
        moved = request.question[len(kept) :]
        options = tuple(moved + option for option in matched[name].continuations)
        return dataclasses.replace(request, question=kept, options=options, scoring="split")

    length = f"the last {limit} tokens are kept" if limit else "their limit is not known: the model's own"
    numbers = {split_prompt(item.prompt, "", _asked(item))[2] for item in matched.values()}
    count = " or ".join(map(str, sorted(numbers)))
    start = {
        None: "the tokenizer's own on both sides",
        True: "the tokenizer's own on both sides",
        False: "theirs leaves it out",
    }
    return [
        ("truncation", truncation, length),
        ("shots", shots, f"they show {count}"),
        ("prompt text", text, "their wording"),
        ("BOS", bos, start[samples.bos]),
        ("option tokens", tokens, "the tokens that each option adds to the prompt's, as theirs counts them"),
    ]


_ANSWERED = re.compile(r"^(?:Answer|answer|A|答案)\s*[:：]\s*\S.*$", re.MULTILINE)


def split_prompt(prompt: str, question: str, asked: str = "") -> tuple[str, str, int]:
    """Splits a prompt into what precedes the question (instruction and examples) and the question; third the number of
    examples.

    An example ends in an answered line ("Answer: B", "答案：B"); the question follows the last of them. question: ours, whose
    last line is the one that examples answer; "" for the usual ones. asked: the text of theirs, if known; lines from its last
    place on, as "A: ..." of a dialogue, are no examples.
    """
    asked = asked.strip()
    end = prompt.rfind(asked) if asked else -1
    end = len(prompt) if end < 0 else end
    pattern = _ANSWERED
    last = question.rpartition("\n")[2].strip()
    if last:
        pattern = re.compile(rf"^{re.escape(last)}\s*\S.*$", re.MULTILINE)
    answered = list(pattern.finditer(prompt, 0, end)) or list(_ANSWERED.finditer(prompt, 0, end))
    if not answered:
        return "", prompt, 0
    rest = prompt[answered[-1].end() :]
    blank = len(rest) - len(rest.lstrip("\n"))
    cut = answered[-1].end() + blank
    return prompt[:cut], prompt[cut:], len(answered)


def _asked(item: Item) -> str:
    return item.texts[0] if item.texts else ""


def same_examples(shots: Sequence[str], context: str) -> bool:
    """Whether all lines of our examples occur in their context in order; the first line of each without its label
    ("Question:")."""
    position = 0
    for shot in shots:
        first, *rest = [line.strip() for line in shot.strip().splitlines()]
        for line in [re.sub(r"^\w+\s*[:：]\s*", "", first), *rest]:
            position = context.find(line, position)
            if position < 0:
                return False
            position += len(line)
    return True


def _agreement(answers: Mapping[str, Chosen], matched: Mapping[str, Item]) -> Agreement:
    largest = max(
        (
            abs(x - y)
            for name, item in matched.items()
            for x, y in zip(answers[name].logprobs, item.logprobs, strict=True)
        ),
        default=0.0,
    )
    return Agreement(largest, len(matched))


# ------------------------------------------------------------------------------------------------------------- texts
def text_stages(
    ours: Mapping[str, Sample],
    score: ScoreOne,
    before: Stage,
    matched: Mapping[str, Item],
    ask: AskTexts | None,
) -> tuple[list[Stage], int | None]:
    """The stages between our stored replies and their scores, and how many of their replies the model reproduced (None where
    it was not asked). Parameters as of choice_stages."""
    names = list(matched)
    stages = []
    repeated = None
    if ask is not None:
        wanted = {name: _generate(ours[name]) for name in names}
        scores: Scores = before.scores
        replies: dict[str, Generated] = {}

        def text(name: str, request: Generate) -> Generate:
            return dataclasses.replace(request, header="", shots=(), prompt=matched[name].prompt, overflow="keep_last")

        def stops(name: str, request: Generate) -> Generate:
            item = matched[name]
            stop, length = item.stop or request.stop, item.max_tokens or request.max_tokens
            return dataclasses.replace(request, stop=stop, max_tokens=length)

        for title, change in (("prompt", text), ("stops and length", stops)):
            following = {name: change(name, request) for name, request in wanted.items()}
            if following != wanted:
                replies = dict(zip(names, ask([following[name] for name in names]), strict=True))
                scores = {name: score(ours[name], replies[name]) for name in names}
                wanted = following
            stages.append(Stage(title, scores, before.groups))
        repeated = sum(replies[name].texts[0] == matched[name].reply for name in names) if replies else None
    given = {
        name: score(ours[name], Generated((item.reply or "",), ("",), ("stop",))) for name, item in matched.items()
    }
    title = "arithmetic" if ask else "prompt and reply"
    note = "their replies, our extraction" if ask else "not told apart without the model (-c); our extraction"
    stages.append(Stage(title, given, before.groups, note))
    return stages, repeated


def _generate(sample: Sample) -> Generate:
    assert isinstance(sample.request, Generate)
    return sample.request
