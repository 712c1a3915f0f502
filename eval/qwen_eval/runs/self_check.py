"""Does an item's answer depend on the rest of its batch? Before a run, a few real items are asked alone and in a batch.

Wrong padding, wrong positions and inexact kernels show here and nowhere else: a run with them looks like any other. Cost: four
items alone and sixteen together, of generated text eight tokens each; where these differ by more than rounding, 48 more are
compared, since a bug that flips one answer in ten need not show in four.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from qwen_eval.runs.precision import computed_in
from qwen_eval.schema import Choose, Chosen, Engine, Generate, Generated, InputError, Sample

ALONE = 4  # items asked alone
BATCH = 16  # items asked together
MORE = 48  # items compared after a suspicious difference
MIN_ITEMS = 8  # below this there is no batch to speak of
TOKENS = 8  # generated per text
# How much another order of summation changes a log-probability, by precision. bf16 has 8 bits: a logit of 32 is off by 0.125.
ROUNDING = {"fp32": 1e-4, "fp16": 0.05}
COARSE = 0.5

REMEDY = "try --batch-size 1, --attn eager or --dtype float32, and report it with the model's name; --no-self-check runs anyway"


def check(engine: Engine, samples: Sequence[Sample], precision: str) -> list[str]:
    """Notes on differences that rounding may explain or that flipped no answer. precision: the engine's label ("fp32").

    Raises InputError, with the likely cause, where an answer flipped that was no tie within rounding.
    """
    rounding = ROUNDING.get(computed_in(precision), COARSE)
    lines = []
    for kind, compare in ((Choose, _choices), (Generate, _texts)):
        asked = [sample for sample in samples if isinstance(sample.request, kind)]
        if len(asked) >= MIN_ITEMS:
            lines += compare(engine, sorted(asked, key=_length), rounding)
    return lines


def _length(sample: Sample) -> int:
    request: Any = sample.request
    return len(str(request.prompt() if isinstance(request, Choose) else request.text()))


def _spread(items: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` items, evenly spread from the first to the last."""
    last, count = len(items) - 1, min(count, len(items))
    return [items[round(step * last / (count - 1))] for step in range(count)]


def _choose(engine: Engine, requests: Sequence[Choose]) -> list[Chosen]:
    return engine.choose(requests, lambda index, response: None)


def _choices(engine: Engine, asked: Sequence[Sample], rounding: float) -> list[str]:
    batch = _spread(asked, BATCH)
    worst = _difference(engine, batch, _spread(batch, ALONE), rounding)
    if worst > rounding:
        batch = _spread(asked, MORE)
        worst = max(worst, _difference(engine, batch, batch, rounding))
    if worst <= ROUNDING["fp32"]:
        return []
    than = "no more than its precision explains" if worst <= rounding else "more than rounding explains"
    return [
        f"self-check: alone and in a batch of {len(batch)}, log-probabilities differ by up to {worst:.2g}, {than}; no answer "
        "flipped except for ties within rounding"
    ]


def _difference(engine: Engine, batch: Sequence[Sample], alone: Sequence[Sample], rounding: float) -> float:
    """The largest difference between the log-probabilities of the items `alone` and those in the batch. Raises InputError
    where an answer flipped."""
    requests: list[Any] = [sample.request for sample in batch]
    together = dict(zip([sample.id for sample in batch], _choose(engine, requests), strict=True))
    worst = 0.0
    for sample in alone:
        assert isinstance(sample.request, Choose)
        one, many = _choose(engine, [sample.request])[0].logprobs, together[sample.id].logprobs
        if any(map(math.isnan, (*one, *many))):
            raise InputError(
                f"self-check: the log-probabilities of {sample.id} are not numbers; use --dtype bfloat16 or float32"
            )
        worst = max([worst, *(abs(a - b) for a, b in zip(one, many, strict=True) if a != b)])
        first, second = one.index(max(one)), many.index(max(many))
        lead = max(one[first] - one[second], many[second] - many[first])
        if lead > rounding:
            copies = _choose(engine, [sample.request] * len(batch))
            kernel = any(max(abs(a - b) for a, b in zip(one, c.logprobs, strict=True)) > rounding for c in copies)
            chosen = f"option {first + 1} alone and option {second + 1} in a batch of {len(batch)}"
            raise InputError(_message(sample, chosen, f"by up to {lead:.3g} in log-probability", kernel, len(batch)))
    return worst


def _message(sample: Sample, what: str, how_far: str, kernel: bool, size: int) -> str:
    """The error for a sample whose answer flipped. kernel: whether copies of it in a batch differ, too."""
    if kernel:
        cause = f"the kernel: a batch of {size} copies of the item differs from the item alone"
    else:
        cause = (
            "padding or positions: in a batch of its copies the item is answered as alone, with longer items it is not"
        )
    return f"self-check: {sample.id} gets {what}, {how_far}, more than rounding explains (likely {cause}); {REMEDY}"


def _write(engine: Engine, requests: Sequence[Any], tokens: int) -> list[tuple[str, str]]:
    """The first `tokens` tokens of every greedy reply: reasoning and text."""
    short = [
        dataclasses.replace(request, max_tokens=min(tokens, request.max_tokens), samples=1, temperature=0.0)
        for request in requests
    ]
    replies: list[Generated] = engine.generate(short, lambda index, response: None)
    return [(reply.reasoning[0], reply.texts[0]) for reply in replies]


def _texts(engine: Engine, asked: Sequence[Sample], rounding: float) -> list[str]:
    batch = _spread(asked, BATCH)
    alone = _spread(batch, ALONE)
    requests: list[Any] = [sample.request for sample in batch]
    together = dict(zip([sample.id for sample in batch], _write(engine, requests, TOKENS), strict=True))
    differ = [sample for sample in alone if _write(engine, [sample.request], TOKENS)[0] != together[sample.id]]
    leads = [_lead(engine, sample, batch) for sample in differ]
    # Conversations have no log-probabilities. In float32 one text of four may have met a tie, but hardly two.
    unknown = leads.count(None)
    for sample, lead in zip(differ, leads, strict=True):
        if (lead or 0) > rounding or (lead is None and unknown > 1 and rounding == ROUNDING["fp32"]):
            one = _write(engine, [sample.request], TOKENS)[0]
            kernel = any(copy != one for copy in _write(engine, [sample.request] * len(batch), TOKENS))
            far = (
                f"where they diverge by {lead:.3g} in log-probability"
                if lead
                else f"and so do {unknown} of {len(alone)}"
            )
            what = f"one text alone and another in a batch of {len(batch)}"
            raise InputError(_message(sample, what, far, kernel, len(batch)))
    if not differ:
        return []
    return [
        f"self-check: {len(differ)} of {len(alone)} texts begin differently in a batch of {len(batch)} and alone; where "
        "they diverge, both continuations are equally likely within this precision, as far as can be checked"
    ]


def _lead(engine: Engine, sample: Sample, batch: Sequence[Sample]) -> float | None:
    """The difference in log-probability of the two tokens at which the text alone and the text in the batch diverge; None where
    it cannot be asked (a conversation, an empty text)."""
    request: Any = sample.request
    prompt = request.text()
    if not isinstance(prompt, str):
        return None
    index = [other.id for other in batch].index(sample.id)
    for tokens in range(1, TOKENS + 1):
        one = _write(engine, [request], tokens)[0][1]
        many = _write(engine, [other.request for other in batch], tokens)[index][1]
        if one != many:
            if not one or not many:
                return None
            scores = _choose(engine, [Choose("", (), prompt, (one, many), "keep_last")])[0].logprobs
            return abs(scores[0] - scores[1])
    return 0.0  # the same this time
