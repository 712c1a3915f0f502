"""The trust test: before the first item the engine is held against transformers' own forward on some of the run's prompts.

The engine puts its own attention, batches and matrix layout in the model's place. What an architecture has beside plain
attention could be lost there without a word, and a kernel or a release of transformers can be wrong. So the prompts of
probes.py go through the engine, as the run will use it, and each alone through reference.py. An engine that differs by more
than rounding does goes on with its next attention kernel, then without shared prefixes; one that differs even then is an
error.

How much rounding does is measured: two references of transformers are compared with each other on the same prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from qwen_eval.engines.chunks import Chunk
from qwen_eval.engines.local import blocked, generation, kernel_test, kernels, measuring, rounding, scoring, verdicts
from qwen_eval.engines.local.expected import FAILURES, Expected, expect, refuse_what_looks_ahead
from qwen_eval.engines.local.probes import (
    SHORT,
    Asked,
    Limits,
    Probe,
    asked,
    limits,
    probes,
    tokens_needed,
)
from qwen_eval.engines.local.runtime import Runtime, out_of_memory
from qwen_eval.engines.local.sampling import Reply
from qwen_eval.engines.local.verdicts import Tried, Verdict
from qwen_eval.engines.plan import Row
from qwen_eval.schema import CheckpointError, InputError, Sample

MIN_SAVING = 64  # tokens: two of the test's prompts are enough to share a prefix
LOGITS = 2**25  # at a time, of a text whose loss is measured
REMEDY = "try --dtype float32, --attn sdpa or --batch-size 1, and report it with the model's name; --no-self-check runs anyway"

Attempt: TypeAlias = Callable[[Runtime, Sequence[Probe], Sequence[Tensor], bool], list[Tensor]]


@dataclass(frozen=True)
class Found:
    """An engine's difference from the reference: the largest, and what was allowed. fault: what is wrong, "" for nothing."""

    difference: float
    allowed: float
    fault: str = ""


def test(runtime: Runtime, samples: Sequence[Sample], share: bool) -> Verdict:
    """Tests what the samples will ask, unless that was tried before, and says how the engine may answer them. share:
    whether it is to share prefixes. Kernels that failed are dropped from then on in this process. Raises InputError where
    the engine differs whatever is done.
    """
    kernels.DROPPED.clear()
    wanted, found = asked(samples, runtime.checkpoint), limits(runtime.checkpoint)
    needed = {verb: tokens_needed(run.reach, found) for verb, run in wanted.items()}
    key = verdicts.key(runtime, share)
    known = verdicts.recall(key)
    if known is None or not known.covers(needed):
        before = (runtime.tokens_computed, runtime.tokens_in_prompts, len(runtime.notes))
        try:
            verdict = _test(runtime, wanted, found, needed, share)
        finally:
            runtime.tokens_computed, runtime.tokens_in_prompts = before[:2]
            # what the run itself meets it will say; what loading met it will not
            new, told = runtime.notes[before[2] :], runtime.checkpoint.remarks
            runtime.notes[before[2] :] = [note for note in new if note in told]
        known = verdict if known is None else known.with_(verdict)
        verdicts.remember(key, known)
    kernels.DROPPED.update(known.dropped)
    runtime.no_pieces = known.no_pieces
    runtime.notes.extend(note for note in known.notes if note not in runtime.notes)
    return known


def _test(
    runtime: Runtime, wanted: Mapping[str, Asked], found: Limits, needed: Mapping[str, int], share: bool
) -> Verdict:
    expected: dict[str, Expected] = {}

    def refer(model: Any) -> None:
        for verb, run in wanted.items():
            if texts := probes(verb, run, found):
                refuse_what_looks_ahead(model, runtime, min(texts, key=lambda text: abs(len(text.ids) - SHORT)))
                expected[verb] = expect(model, runtime, verb, texts, found.lengths)

    loaded, runtime.before_blocking = runtime.loaded, refer
    try:
        model = runtime.model
    finally:
        runtime.before_blocking = lambda model: None
    if loaded:
        with blocked.plain(model):
            refer(model)
    dropped = _test_kernels(runtime)
    notes = [f"trust test: attention kernel {name} {wrong}; the next one is used" for name, wrong in dropped.items()]
    with _without(dropped):
        results, more, shares = _first_that_passes(runtime, expected, share)
    notes += [f"trust test: without attention kernel {name}, with which {wrong}" for name, wrong in more.items()]
    if share and not shares[0]:
        notes.append(f"trust test: nothing is shared between prompts, as {shares[1]}")
    no_pieces = _pieces(runtime, expected["measure"]) if "measure" in expected else ""
    tried = {verb: Tried(needed[verb], one.difference, one.allowed, expected[verb].by) for verb, one in results.items()}
    tried |= {verb: Tried(needed[verb], 0.0, 0.0, "") for verb in wanted if verb not in tried}
    return Verdict(tried, shares[0], (*dropped, *more), tuple(notes), no_pieces)


def _first_that_passes(
    runtime: Runtime, expected: Mapping[str, Expected], share: bool
) -> tuple[dict[str, Found], dict[str, str], tuple[bool, str]]:
    """The first way to compute with which every verb passes: with the kernels as they are, with ever fewer of them, without
    sharing. Returns the results, what was wrong by dropped kernel, and whether prefixes are shared or why not."""
    results = _all(runtime, expected, share)
    first = next((one.fault for one in results.values() if one.fault), "")
    if not first:
        return results, {}, (share, "")
    if share:
        dropped: dict[str, str] = {}
        for name in _droppable(runtime):
            dropped[name] = first
            with _without(dropped):
                results = _all(runtime, expected, share)
            if not any(one.fault for one in results.values()):
                return results, dropped, (True, "")
        results = _all(runtime, expected, False)
        if not any(one.fault for one in results.values()):
            return results, {}, (False, first)
    last = next(one.fault for one in results.values() if one.fault)
    raise InputError(f"trust test: {last}; {REMEDY}")


def _droppable(runtime: Runtime) -> list[str]:
    """The attention kernels that the engine can do without, the first choice first."""
    kind, dtype = runtime.model.device.type, runtime.model.dtype
    names = [name for name in kernels.usable(kind, dtype) if name != kernels.SLICES]
    narrow = dtype in (torch.float16, torch.bfloat16)
    return [
        name for name in ([kernels.VARLEN] if kind == "cuda" and narrow else []) + names if name not in kernels.DROPPED
    ]


@contextmanager
def _without(names: Mapping[str, str]) -> Iterator[None]:
    """Within it these kernels are not used."""
    before = set(kernels.DROPPED)
    kernels.DROPPED.update(names)
    try:
        yield
    finally:
        kernels.DROPPED.clear()
        kernels.DROPPED.update(before)


def _test_kernels(runtime: Runtime) -> dict[str, str]:
    """The kernels that are wrong or refuse, and why, in the shapes of this model's layers; none where its attention is its
    own."""
    model = runtime.model
    dtype = model.dtype if model.dtype in kernel_test.OUTPUT else torch.float32
    layers = runtime.features.layers.values()
    found: dict[str, str] = {}
    # the kernels take one width: the narrower of keys and values is padded
    for shape in sorted({(layer.heads, layer.kv_heads, max(layer.key_width, layer.value_width)) for layer in layers}):
        with _without(found):
            found = {**kernel_test.faults(*shape, dtype, model.device), **found}
    return found


# ---------------------------------------------------------------------------------------------------------- the engine
def _all(runtime: Runtime, expected: Mapping[str, Expected], share: bool) -> dict[str, Found]:
    """What every verb came to. Stops at the first fault."""
    results = {}
    for verb, known in expected.items():
        results[verb] = _verb(runtime, verb, known, share)
        if results[verb].fault:
            break
    return results


def _verb(runtime: Runtime, verb: str, expected: Expected, share: bool) -> Found:
    texts = expected.probes
    try:
        with torch.inference_mode():
            found = _ATTEMPTS[verb](runtime, texts, expected.targets, share)
    except FAILURES as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        text = str(error).splitlines()[0][:150] if str(error) else ""
        return Found(float("inf"), 0.0, f"the engine fails on {texts[0].item} ({type(error).__name__}: {text})")
    return _compared(runtime, verb, expected, found)


def _compared(runtime: Runtime, verb: str, expected: Expected, found: Sequence[Tensor]) -> Found:
    """The largest difference, and what is wrong if differences are larger than is allowed."""
    table, quantized = (
        (rounding.LOSS_BOUNDS, rounding.QUANTIZED_LOSS) if verb == "measure" else (rounding.BOUNDS, rounding.QUANTIZED)
    )
    rounded = runtime.checkpoint.spec.quantize != "none"
    bounds = quantized if rounded else table.get(runtime.model.dtype, table[torch.bfloat16])
    differences = [
        (one - other).abs().nan_to_num(float("inf")) for one, other in zip(found, expected.values, strict=True)
    ]
    known = [item.flatten() for item in expected.apart if item is not None and not item.isnan().any()]
    largest = max(float(item.max()) for item in differences)
    if verb == "measure" or (runtime.model.dtype == torch.float32 and not rounded):
        allowed, wrong, more = rounding.beyond(differences, known, bounds, expected.exact, mean=verb != "measure")
    else:
        allowed, wrong, more = rounding.mostly_beyond(differences, known, bounds, expected.exact)
    if wrong is None:
        return Found(largest, allowed)
    place = int(differences[wrong].argmax())
    ours, theirs = (float(item[wrong].flatten()[place]) for item in (found, expected.values))
    text, what = expected.probes[wrong], "the mean loss of a token"
    if verb != "measure":
        token = runtime.checkpoint.tokenizer.decode([int(expected.targets[wrong].flatten()[place])])
        what = f"the log-probability of {token!r} after {len(text.ids)} tokens"
    return Found(
        largest,
        allowed,
        f"in {text.item} {what} is {ours:.6g} in the engine and {theirs:.6g} in transformers' own forward ({expected.by}), "
        f"where rounding explains {more}",
    )


def _choose(runtime: Runtime, texts: Sequence[Probe], targets: Sequence[Tensor], share: bool) -> list[Tensor]:
    rows = [
        Row(text.ids, tuple(map(tuple, wanted.tolist())), index, ())
        for index, (text, wanted) in enumerate(zip(texts, targets, strict=True))
    ]
    found = dict(scoring.row_scores(runtime, rows, [True] * len(rows), share))
    return [torch.from_numpy(found[row]).float() for row in rows]


def _generate(runtime: Runtime, texts: Sequence[Probe], targets: Sequence[Tensor], share: bool) -> list[Tensor]:
    """Teacher-forced: the given tokens are taken whatever is likely."""
    found: list[dict[int, Tensor]] = [{} for _ in texts]

    def take(logits: Tensor, replies: Sequence[Reply]) -> list[int]:
        precise = logits.float().log_softmax(-1).cpu()
        tokens = []
        for row, reply in enumerate(replies):
            if not reply.tokens:
                found[reply.request].clear()  # it begins, perhaps once more
            text, step = texts[reply.request], min(len(reply.tokens), texts[reply.request].scored - 1)
            found[reply.request].setdefault(step, precise[row, targets[reply.request][step]])
            tokens.append(int(text.ids[min(text.prompt + step, len(text.ids) - 1)]))
        return tokens

    replies = [
        Reply(index, 0, text.ids[: text.prompt], text.scored, (), frozenset()) for index, text in enumerate(texts)
    ]
    for _ in generation.run_replies(runtime, replies, share, take, MIN_SAVING):
        pass
    return [torch.stack([steps[step] for step in range(text.scored)]) for steps, text in zip(found, texts, strict=True)]


def _measure(
    runtime: Runtime, texts: Sequence[Probe], targets: Sequence[Tensor], share: bool, piece: int | None = None
) -> list[Tensor]:
    chunks = [Chunk(text.ids, text.scored, 0) for text in texts]
    if piece:
        losses = [measuring._in_pieces(runtime, chunk, LOGITS, piece) / chunk.scored for chunk in chunks]
    else:
        losses = [measuring._losses(runtime, [chunk], LOGITS)[0] / chunk.scored for chunk in chunks]
    return [torch.tensor([loss]) for loss in losses]


def _pieces(runtime: Runtime, expected: Expected) -> str:
    """Why texts cannot be read in pieces, "" where they can: three pieces against the reference."""
    text = expected.probes[0]
    if len(text.ids) < 3 or not runtime.features.replaced:  # those are refused where it matters
        return ""
    try:
        with torch.inference_mode():
            found = _measure(runtime, expected.probes, expected.targets, False, -(-len(text.ids) // 3))
    except (*FAILURES, CheckpointError) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        return f"this model's texts cannot be read in pieces ({str(error or repr(error)).splitlines()[0][:150]})"
    wrong = _compared(runtime, "measure", expected, found).fault
    return f"this model's texts cannot be read in pieces: {wrong}" if wrong else ""


_ATTEMPTS: dict[str, Attempt] = {"choose": _choose, "generate": _generate, "measure": _measure}
