"""The prompts of the trust test: taken from those of the run, so short that the test is cheap and so long that every limit
of attention which the run passes (windows, chunks, trained and original lengths) is passed by the test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen_eval.engines import plan
from qwen_eval.engines.prompting import encode_prompt
from qwen_eval.models.checkpoint import Checkpoint
from qwen_eval.schema import Choose, Generate, Measure, Sample

LONGEST = 768  # tokens, unless a limit of attention lies beyond
PAIR, SHORT, FEW = 192, 64, 5  # tokens of the two that share their beginning, of the shortest, and of a few
TAILS = 40, 56  # tokens of the two behind the shared beginning
BEYOND = 64  # tokens past a limit
SCORED = 8  # positions at the end of a prompt
STEPS = 16  # teacher-forced decoding steps
STRETCH = 256  # tokens of a text whose loss is compared
READ = 4  # of the longest prompts, in bytes, whose tokens are counted

VERBS: dict[type, str] = {Choose: "choose", Generate: "generate", Measure: "measure"}
# keys of configs that say how far a layer sees, beside those that count layers or experts
_WINDOWS = re.compile(
    r"(?=.*(window|chunk|local_attention|index_topk|floor_scale))(?!.*(layers|num_|pattern|type|use_)).*"
)
_ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True, eq=False)
class Probe:
    """One text of the test. item: the sample it is from. ids: int32 [length], what the model reads. scored: how many of its
    last positions are compared. prompt: tokens from which dynamic NTK takes its factor. options: token ids that are compared
    beside the most likely ones."""

    item: str
    ids: np.ndarray
    scored: int
    prompt: int
    options: tuple[int, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What a run asks of one verb. reach: tokens of its longest sequence. longest, other: int32 ids of its longest prompt and
    of the one that shares most with it. shortest: ids. items: their samples, in this order. new: tokens generated."""

    reach: int
    longest: np.ndarray
    other: np.ndarray
    shortest: np.ndarray
    items: tuple[str, str, str]
    options: tuple[int, ...] = ()


def asked(samples: Sequence[Sample], checkpoint: Checkpoint) -> dict[str, Asked]:
    """What a run asks, by verb. Prompts are compared by their bytes, and only a few of them are tokenized."""
    found = {}
    for kind, verb in VERBS.items():
        own = [sample for sample in samples if isinstance(sample.request, kind)]
        if own:
            found[verb] = _asked(own, checkpoint)
    return found


def _asked(samples: Sequence[Sample], checkpoint: Checkpoint) -> Asked:
    texts = [_text(sample.request) for sample in samples]
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    order = sorted(range(len(samples)), key=lambda index: -sizes[index])
    read = {index: _encode(samples[index].request, checkpoint) for index in order[:READ]}
    first = max(read, key=lambda index: len(read[index][0]))
    in_order = sorted(range(len(samples)), key=lambda index: texts[index])
    place = in_order.index(first)
    beside = [index for index in in_order[max(0, place - 1) : place + 2] if index != first]
    second = max(
        beside, key=lambda index: plan.common_prefix(*map(_bytes, (texts[first], texts[index]))), default=first
    )
    last = order[-1]
    for index in (second, last):
        read.setdefault(index, _encode(samples[index].request, checkpoint))
    return Asked(
        max(ids[1] for ids in read.values()),
        read[first][0],
        read[second][0],
        read[last][0],
        (samples[first].id, samples[second].id, samples[last].id),
        read[first][2],
    )


def _text(request: Any) -> str:
    if isinstance(request, Measure):
        return max(request.documents, key=len, default="")[: 32 * request.length]
    return str(request.prompt() if isinstance(request, Choose) else request.text())


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)


def _encode(request: Any, checkpoint: Checkpoint) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """The ids that are read of a request, how many tokens its longest sequence has, and the first tokens of its options."""
    tokenizer, limit = checkpoint.tokenizer, checkpoint.context_limit
    if isinstance(request, Choose):
        (encoded,) = plan.encode_requests([request], tokenizer, limit)
        ids = max((row.ids for row in encoded.rows), key=len)
        return ids, len(ids), tuple(dict.fromkeys(token for row in encoded.rows for token in row.targets[0]))
    if isinstance(request, Generate):
        ids = np.array(encode_prompt(request, tokenizer, limit)[0], dtype=np.int32)
        return ids, len(ids) + request.max_tokens, ()
    ids = np.array(tokenizer.encode_batch([_text(request)])[0][: request.length], dtype=np.int32)
    return ids, request.length, ()


@dataclass(frozen=True)
class Limits:
    """Lengths at which a model's attention changes. windows: of keys that a query sees. lengths: at which its rotation, or
    LogN, changes."""

    windows: tuple[int, ...]
    lengths: tuple[int, ...]

    def within(self, reach: int) -> Limits:
        """Those that a sequence of `reach` tokens passes."""
        return Limits(*(tuple(item for item in kind if item < reach) for kind in (self.windows, self.lengths)))


def limits(checkpoint: Checkpoint) -> Limits:
    """The limits that a checkpoint's config and its context extension name."""
    config, context = checkpoint.config.get_text_config(), checkpoint.context
    values: dict[str, Any] = config.to_dict()
    windows = [value for key, value in values.items() if _WINDOWS.fullmatch(key)] + list(context.windows)
    ropes = values.get("rope_parameters") or {}
    parts = [ropes, *(part for part in ropes.values() if isinstance(part, dict))]
    lengths: list[Any] = [values.get(_ORIGINAL), *(part.get(_ORIGINAL) for part in parts)]
    if any(part.get("rope_type") == "dynamic" for part in parts):
        lengths.append(values.get("max_position_embeddings"))
    if context.dynamic_ntk or context.logn:
        lengths.append(context.trained_length)
    return Limits(_lengths(windows), _lengths(lengths))


def _lengths(values: Sequence[Any]) -> tuple[int, ...]:
    """Those that are numbers of tokens, in order."""
    return tuple(
        sorted({int(item) for item in values if isinstance(item, int) and not isinstance(item, bool) and item > 1})
    )


def tokens_needed(reach: int, found: Limits) -> int:
    """Tokens of the longest prompt of a test for a run that reaches so many."""
    passed = found.within(reach)
    return max(min(reach, LONGEST), *(min(reach, limit + BEYOND) for limit in (*passed.windows, *passed.lengths)), 1)


def probes(verb: str, run: Asked, found: Limits) -> list[Probe]:
    """The texts of the test for one verb, unequal in length."""
    length, passed = tokens_needed(run.reach, found), found.within(run.reach)
    room = max(1, run.reach - (STEPS - 1 if verb == "generate" else 0))  # positions may end there
    prompts = [(item, ids[:room]) for item, ids in _prompts(run, length, room, passed)]
    if verb == "measure":
        whole = _extended(run, length)
        return [Probe(run.items[0], whole, min(STRETCH, len(whole) - 1), len(whole))] if len(whole) > 1 else []
    if verb == "choose":
        return [Probe(item, ids, min(SCORED, len(ids)), len(ids), run.options) for item, ids in prompts]
    forced = _extended(run, 2 * STEPS * (len(prompts) + 1))[::-1]  # tokens of the run in an order that no prompt has
    return [
        Probe(item, np.concatenate([ids, forced[start : start + STEPS - 1]]), STEPS, len(ids))
        for start, (item, ids) in enumerate(prompts)
    ]


def _prompts(run: Asked, length: int, room: int, passed: Limits) -> Iterator[tuple[str, np.ndarray]]:
    """(sample, ids) of the test's prompts. length: of the longest. room: tokens that any may have.

    The pair passes the windows too: a window then reaches over the end of what both share.
    """
    first, second, last = run.items
    yield first, _extended(run, length) if length > LONGEST or passed.windows else run.longest[:length]
    shared = plan.common_prefix(run.longest, run.other)
    head = max([PAIR - max(TAILS), *(window + BEYOND // 8 for window in passed.windows)])
    head = max(FEW, min(head, room - max(TAILS)))
    begin = run.longest[: min(head, shared)] if shared >= 2 * FEW and not passed.windows else _extended(run, head)
    tails = [run.longest[shared:][: TAILS[0]], run.other[shared:][: TAILS[1]]]
    if not all(map(len, tails)):  # one prompt is the beginning of the other, or there is only one
        tails = [run.longest[-TAILS[0] :], run.longest[: TAILS[1]][::-1]]
    if len(tails[0]) == len(tails[1]) > 1:
        tails[0] = tails[0][:-1]
    for item, tail in zip((first, second), tails, strict=True):
        yield item, np.concatenate([begin, tail])
    yield last, run.shortest[:SHORT]
    yield first, run.longest[:FEW]
    for window in passed.windows[:1]:  # passed while tokens are generated
        if STEPS < window <= LONGEST:
            yield first, _extended(run, window - STEPS // 2)


def _extended(run: Asked, length: int) -> np.ndarray:
    """`length` tokens: the longest prompt, then the others, repeated where the run has no more."""
    pool = np.concatenate([run.longest, run.other, run.shortest])
    return np.resize(pool, length)
