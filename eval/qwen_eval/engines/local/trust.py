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
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from qwen_eval.engines.chunks import Chunk
from qwen_eval.engines.local import blocked, generation, kernel_test, kernels, measuring, reference, scoring, verdicts
from qwen_eval.engines.local.probes import (
    PAIR,
    SHORT,
    TAILS,
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

TOP = 4  # of the most likely tokens at a position, compared beside those that are asked for
MIN_SAVING = 64  # tokens: two of the test's prompts are enough to share a prefix
LOGITS = 2**25  # at a time, of a text whose loss is measured
# The largest difference of a log-probability that is allowed: CALIBRATED times that of two references of transformers, but no
# less than the first number and no more than the second, which is also the limit where a model has one reference only. In 16
# bits three quarters of a text's differences have to be below NARROW times those of the references, or MEAN_SHARE of the first.
BOUNDS = {torch.float32: (1e-3, 1e-2), torch.float16: (2e-2, 0.5), torch.bfloat16: (0.1, 2.0)}
# the same for the mean loss of the tokens of a text
LOSS_BOUNDS = {torch.float32: (1e-4, 1e-3), torch.float16: (1e-3, 1e-2), torch.bfloat16: (5e-3, 5e-2)}
# Of quantized matrices, whose kernels round otherwise for other rows beside them (LLM.int8 takes a column as it is where any
# row has a large value in it), which two references, each of one text alone, do not show.
QUANTIZED, QUANTIZED_LOSS = (0.5, 2.0), (2e-2, 5e-2)
CALIBRATED = 2.5
NARROW = 4.0  # the same in 16 bits, where the engine rounds in more places than the reference
# the same for the root mean square over all compared tokens, which finds what is small and everywhere
MEAN_SHARE = 0.25  # of the first number
FAILURES = (
    RuntimeError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    ValueError,
    NotImplementedError,
    AssertionError,
)
REMEDY = "try --dtype float32, --attn sdpa or --batch-size 1, and report it with the model's name; --no-self-check runs anyway"

Attempt: TypeAlias = Callable[[Runtime, Sequence[Probe], Sequence[Tensor], bool], list[Tensor]]


@dataclass(frozen=True)
class Expected:
    """What the reference gives for the texts of one verb. targets: by text, token ids [scored, n]. values: their
    log-probabilities, float32, of "measure" the mean loss [1]. apart: how far another reference is from these, by text, None
    where it was not computed. by: the reference's attention. exact: whether the other one differs in nothing but its precision,
    float32."""

    probes: Sequence[Probe]
    targets: Sequence[Tensor]
    values: Sequence[Tensor]
    apart: Sequence[Tensor | None]
    by: str
    exact: bool


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
                _refuse_what_looks_ahead(model, runtime, min(texts, key=lambda text: abs(len(text.ids) - SHORT)))
                expected[verb] = _expected(model, runtime, verb, texts, found.lengths)

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


# ------------------------------------------------------------------------------------------------------- the reference
def _refuse_what_looks_ahead(model: Any, runtime: Runtime, text: Probe) -> None:
    """Raises InputError for a model whose tokens attend to those that follow (masked, permuted and diffusion language models):
    what it gives at the end of a prompt is no next token's probability."""
    ids = text.ids[:SHORT]
    if len(ids) < 2:
        return
    other = ids.copy()
    other[-1] = ids[0] if ids[0] != ids[-1] else (ids[-1] + 1) % model.get_input_embeddings().weight.shape[0]
    attention, _ = reference.attentions(model, runtime.checkpoint.context, len(ids))
    pair = [replace(text, ids=one, scored=len(ids), prompt=len(ids)) for one in (ids, other)]
    one, two = (_reference(model, runtime, each, "choose", attention)[:-1] for each in pair)
    likely = one.topk(min(TOP, one.shape[1]), -1).indices
    difference = float((one - two).gather(1, likely).abs().max())
    quantized = runtime.checkpoint.spec.quantize != "none"
    allowed = QUANTIZED[0] if quantized else BOUNDS.get(model.dtype, BOUNDS[torch.bfloat16])[0]
    if difference > allowed:
        raise InputError(
            f"trust test: {type(model).__name__} looks ahead: another last token of {text.item} changes "
            f"log-probabilities before it by up to {difference:.2g}; a model that generates "
            "text reads from left to right. --no-self-check runs anyway"
        )


def _expected(model: Any, runtime: Runtime, verb: str, texts: Sequence[Probe], lengths: Sequence[int]) -> Expected:
    """The reference's values, and how far a second reference is from them: in 16 bits of all texts, in float32, where that
    costs as much as the test itself, of a few short ones. lengths: at which a rotation changes."""
    context = runtime.checkpoint.context
    first, second = reference.attentions(model, context, max(len(text.ids) for text in texts))
    targets, values, apart = [], [], []
    left = float("inf") if second == reference.FLOAT32 else PAIR + max(TAILS)  # tokens
    for text in texts:
        # a text that is written past such a length: every token as if the text so far were all
        by_step = verb == "generate" and any(text.prompt <= length < len(text.ids) for length in lengths)
        whole = _reference(model, runtime, text, verb, first, by_step=by_step)
        wanted = _targets(verb, text, whole)
        tokens = _tokens(verb, whole, wanted)
        values.append(_values(verb, tokens))
        other = None
        if second is not None and len(text.ids) <= left:
            left -= len(text.ids)
            try:
                again = _again(model, runtime, text, verb, first, second, by_step)
                other = _apart(verb, tokens, _tokens(verb, again, wanted))
            except FAILURES as error:
                if isinstance(error, RuntimeError) and out_of_memory(error):
                    raise
                second = None
        targets.append(wanted)
        apart.append(other)
    by = "eager" if first in (reference.WIDE, reference.EAGER) else first
    return Expected(texts, targets, values, apart, by, second == reference.FLOAT32)


def _again(model: Any, runtime: Runtime, text: Probe, verb: str, first: str, second: str, by_step: bool) -> Tensor:
    """The reference once more, with its second attention or in float32."""
    if second == reference.FLOAT32:
        return _reference(model, runtime, text, verb, first, exact=True, by_step=by_step)
    try:
        return _reference(model, runtime, text, verb, second, by_step=by_step)
    except reference.NoReference:
        return _reference(model, runtime, text, verb, reference.WIDEST, by_step=by_step)


def _reference(
    model: Any,
    runtime: Runtime,
    text: Probe,
    verb: str,
    attention: str,
    exact: bool = False,
    by_step: bool = False,
) -> Tensor:
    """Log-probabilities [scored, vocabulary]. by_step: with a pass of its own for every scored position."""
    scored, context = text.scored + (verb == "measure"), runtime.checkpoint.context
    ends = range(len(text.ids) - scored + 1, len(text.ids) + 1) if by_step else [len(text.ids)]
    count = 1 if by_step else scored
    try:
        rows = [
            reference.log_probabilities(model, text.ids[:end], count, attention, context, text.prompt, exact)
            for end in ends
        ]
        found = torch.cat(rows)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"trust test: {text.item} alone ({len(text.ids)} tokens) does not fit the memory of {runtime.checkpoint.device} in "
            "transformers' own attention; use a smaller --max-seq-len, or --no-self-check"
        ) from error
    if found.isnan().any() and attention != reference.SDPA:
        raise InputError(
            f"trust test: the log-probabilities of {text.item} are not numbers in transformers' own forward; use --dtype "
            "bfloat16 or float32"
        )
    return found


def _targets(verb: str, text: Probe, whole: Tensor) -> Tensor:
    """The tokens whose log-probabilities are compared at every scored position."""
    if verb == "measure":
        return torch.from_numpy(text.ids[-text.scored :].astype("int64"))[:, None]
    top = whole.topk(min(TOP, whole.shape[1]), -1).indices
    if verb == "generate":
        following = [*text.ids[text.prompt :].tolist(), int(text.ids[-1])]  # the token that is forced next
        return torch.cat([top, torch.tensor(following)[:, None]], 1)
    return torch.cat([top, torch.tensor(text.options or (0,)).expand(len(top), -1)], 1)


def _tokens(verb: str, whole: Tensor, wanted: Tensor) -> Tensor:
    """The log-probabilities of the tokens that are compared, of "measure" those of a text [n, 1]."""
    return whole[:-1].gather(1, wanted) if verb == "measure" else whole.gather(1, wanted)


def _values(verb: str, tokens: Tensor) -> Tensor:
    """What is compared: log-probabilities, of "measure" the mean loss [1]."""
    return -tokens.double().mean(0).float() if verb == "measure" else tokens


def _apart(verb: str, one: Tensor, other: Tensor) -> Tensor:
    """How far two references are apart. Of a mean loss they may agree by chance: two standard errors are added."""
    difference = other - one
    if verb != "measure":
        return difference.abs()
    error = float(difference.square().mean().sqrt()) / len(difference) ** 0.5
    return torch.tensor([abs(float(difference.double().mean())) + 2 * error])


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
    table, quantized = (LOSS_BOUNDS, QUANTIZED_LOSS) if verb == "measure" else (BOUNDS, QUANTIZED)
    rounded = runtime.checkpoint.spec.quantize != "none"
    bounds = quantized if rounded else table.get(runtime.model.dtype, table[torch.bfloat16])
    differences = [
        (one - other).abs().nan_to_num(float("inf")) for one, other in zip(found, expected.values, strict=True)
    ]
    known = [item.flatten() for item in expected.apart if item is not None and not item.isnan().any()]
    largest = max(float(item.max()) for item in differences)
    if verb == "measure" or (runtime.model.dtype == torch.float32 and not rounded):
        allowed, wrong, more = _beyond_rounding(differences, known, bounds, expected.exact, mean=verb != "measure")
    else:
        allowed, wrong, more = _mostly_beyond_rounding(differences, known, bounds, expected.exact)
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


Judged: TypeAlias = tuple[float, int | None, str]  # what is allowed, the text that has more, and what to say of it


def _beyond_rounding(
    differences: Sequence[Tensor], known: Sequence[Tensor], bounds: tuple[float, float], exact: bool, mean: bool
) -> Judged:
    """Whether any difference is larger than rounding explains. exact: whether `known` holds nothing but rounding, in 16 bits.
    mean: or their mean square."""
    apart = max((float(item.max()) for item in known), default=float("inf"))
    # references that contradict each other say nothing about rounding
    contradict = not exact and bounds[1] <= apart < float("inf")
    if exact and known:
        allowed = max(NARROW * apart, bounds[0])
    else:
        allowed = bounds[0] if contradict else min(max(CALIBRATED * apart, bounds[0]), bounds[1])
    worst = max(range(len(differences)), key=lambda index: float(differences[index].max()))
    if float(differences[worst].max()) > allowed:
        return allowed, worst, f"{allowed:.2g}"
    if mean:
        typical = _root(known) if known and not contradict else 0.0
        here, most = _root(differences), max(CALIBRATED * typical, MEAN_SHARE * bounds[0])
        if here > most:
            return allowed, worst, f"{most:.2g} in the mean, {here:.2g} here,"
    return allowed, None, ""


def _mostly_beyond_rounding(
    differences: Sequence[Tensor], known: Sequence[Tensor], bounds: tuple[float, float], exact: bool
) -> Judged:
    """Whether more than a quarter of any text's differences are larger than rounding explains, in 16 bits or quantized: there a
    few may be, where rounding changes which expert is chosen. exact: whether `known` holds nothing but rounding."""
    apart = max((_quartile(item) for item in known), default=float("inf"))
    allowed = max(NARROW * apart, MEAN_SHARE * bounds[0])
    allowed = allowed if exact and known else min(allowed, bounds[1])
    worst = max(range(len(differences)), key=lambda index: _quartile(differences[index]))
    here = _quartile(differences[worst])
    if here > allowed:
        return allowed, worst, f"{allowed:.2g} for three quarters of such numbers, {here:.2g} here,"
    return allowed, None, ""


def _quartile(differences: Tensor) -> float:
    """What three quarters of these are at most."""
    ordered = differences.flatten().sort().values
    return float(ordered[max(0, 3 * len(ordered) // 4 - 1)])


def _root(differences: Sequence[Tensor]) -> float:
    return float(torch.cat([item.flatten() for item in differences]).square().mean().sqrt())


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
