"""What the trust test expects: the reference's values for its texts (reference.py), and how far a second one is from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qwen_eval.engines.local import reference
from qwen_eval.engines.local.probes import PAIR, SHORT, TAILS, Probe
from qwen_eval.engines.local.rounding import BOUNDS, QUANTIZED
from qwen_eval.engines.local.runtime import Runtime, out_of_memory
from qwen_eval.schema import InputError

TOP = 4  # of the most likely tokens at a position, compared beside those that are asked for
FAILURES = (RuntimeError, TypeError, AttributeError, LookupError, ValueError, AssertionError)


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


def refuse_what_looks_ahead(model: Any, runtime: Runtime, text: Probe) -> None:
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


def expect(model: Any, runtime: Runtime, verb: str, texts: Sequence[Probe], lengths: Sequence[int]) -> Expected:
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
