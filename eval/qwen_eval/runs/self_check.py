"""Does an item's answer depend on what is computed beside it? A few real items are asked alone and in a batch, before a run.

Wrong padding, wrong positions and kernels that are not exact show here and nowhere else: a whole run made with them looks
like any other. Cost: four items alone and sixteen together, of generated text eight tokens each; where these differ by
more than rounding, 48 more are looked at, for a bug that turns one answer in ten need not show in four.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from qwen_eval.schema import Choose, Chosen, Engine, Generate, Generated, InputError, Sample

ALONE = 4
BATCH = 16
SUSPECT = 48
LEAST = 8  # items, below which there is no batch worth the name
TOKENS = 8
# What another order of summation does to a log-probability, by precision. bf16 has 8 bits: a logit of 32 is off by 0.125.
ROUNDING = {"fp32": 1e-4, "fp16": 0.05}
COARSE = 0.5

REMEDY = (
    "try --batch-size 1, --attn eager or --dtype float32, and report it with the model's name; --no-self-check goes on all "
    "the same"
)


def check(engine: Engine, samples: Sequence[Sample], precision: str) -> list[str]:
    """Sentences about differences that rounding may explain, or that turned no answer round. precision: the engine's
    own label ("fp32").

    Raises InputError where an answer turned round that was no tie within rounding, with what is likely to be the cause.
    """
    rounding = ROUNDING.get(precision, COARSE)
    lines = []
    for kind, compare in ((Choose, _choices), (Generate, _texts)):
        asked = [sample for sample in samples if isinstance(sample.request, kind)]
        if len(asked) >= LEAST:
            lines += compare(engine, sorted(asked, key=_length), rounding)
    return lines


def _length(sample: Sample) -> int:
    request: Any = sample.request
    return len(str(request.prompt() if isinstance(request, Choose) else request.text()))


def _spread(items: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` items from the first to the last, evenly."""
    last, count = len(items) - 1, min(count, len(items))
    return [items[round(place * last / (count - 1))] for place in range(count)]


def _choose(engine: Engine, requests: Sequence[Choose]) -> list[Chosen]:
    return engine.choose(requests, lambda index, response: None)


def _choices(engine: Engine, asked: Sequence[Sample], rounding: float) -> list[str]:
    batch = _spread(asked, BATCH)
    worst = _difference(engine, batch, _spread(batch, ALONE), rounding)
    if worst > rounding:
        batch = _spread(asked, SUSPECT)
        worst = max(worst, _difference(engine, batch, batch, rounding))
    if worst <= ROUNDING["fp32"]:
        return []
    than = "no more than its precision explains" if worst <= rounding else "more than rounding explains"
    return [
        f"self-check: alone and in a batch of {len(batch)}, log-probabilities differ by up to {worst:.2g}, {than}; no answer "
        "turned round but for ties within rounding"
    ]


def _difference(engine: Engine, batch: Sequence[Sample], alone: Sequence[Sample], rounding: float) -> float:
    """By how much the log-probabilities of the items `alone` differ from those in the batch. Raises InputError."""
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
            raise InputError(_stop(sample, chosen, f"by up to {lead:.3g} in log-probability", kernel, len(batch)))
    return worst


def _stop(sample: Sample, what: str, how_far: str, kernel: bool, size: int) -> str:
    if kernel:
        cause = f"the kernel: {size} copies of the item side by side differ from the item alone"
    else:
        cause = (
            "padding or positions: beside copies of itself the item is answered as alone, beside longer ones it is not"
        )
    return f"self-check: {sample.id} gets {what}, {how_far}, which is no rounding (likely {cause}); {REMEDY}"


def _write(engine: Engine, requests: Sequence[Any], tokens: int) -> list[tuple[str, str]]:
    """The greedy beginning of every reply: reasoning and text."""
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
    # Of a conversation no log-probabilities are to be had. In float32 one text of four may have met a tie, two have not.
    unknown = leads.count(None)
    for sample, lead in zip(differ, leads, strict=True):
        if (lead or 0) > rounding or (lead is None and unknown > 1 and rounding == ROUNDING["fp32"]):
            one = _write(engine, [sample.request], TOKENS)[0]
            kernel = any(copy != one for copy in _write(engine, [sample.request] * len(batch), TOKENS))
            far = (
                f"where they part by {lead:.3g} in log-probability" if lead else f"and so do {unknown} of {len(alone)}"
            )
            what = f"one text alone and another in a batch of {len(batch)}"
            raise InputError(_stop(sample, what, far, kernel, len(batch)))
    if not differ:
        return []
    return [
        f"self-check: {len(differ)} of {len(alone)} texts begin otherwise in a batch of {len(batch)} than alone; where "
        "they part both are as likely, within this precision, as far as that can be seen"
    ]


def _lead(engine: Engine, sample: Sample, batch: Sequence[Sample]) -> float | None:
    """How far apart, in log-probability, the two tokens are at which the text alone and the text in the batch part; None
    where that cannot be asked (a conversation, an empty text)."""
    request: Any = sample.request
    prompt = request.text()
    if not isinstance(prompt, str):
        return None
    place = [other.id for other in batch].index(sample.id)
    for tokens in range(1, TOKENS + 1):
        one = _write(engine, [request], tokens)[0][1]
        many = _write(engine, [other.request for other in batch], tokens)[place][1]
        if one != many:
            if not one or not many:
                return None
            scores = _choose(engine, [Choose("", (), prompt, (one, many), "keep_last")])[0].logprobs
            return abs(scores[0] - scores[1])
    return 0.0  # the same this time
