"""Whether two responses of a model are the same, as far as processors agree."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch

from qwen_eval.models.opening import open_checkpoint
from qwen_eval.runs import samples
from qwen_eval.schema import ModelSpec, Sample

CLOSE = 1e-3  # two best tokens whose log-probabilities are closer may change places on another processor
EXACT = 1e-4  # of log-probabilities in float32


def compare_responses(now: Mapping[str, Any], old: Mapping[str, Any], sample: Sample, spec: ModelSpec) -> bool:
    """Whether two stored responses to a sample are the same; fails where they are not and no tie explains it. Returns False
    where a tie does. spec: the model, for a look at its tokens."""
    if "nll" in now:
        assert now["tokens"] == old["tokens"]
        assert now["nll"] == pytest.approx(old["nll"], rel=1e-6), f"{sample.id}: another perplexity"
        return True
    if "logprobs" in now:
        assert now["logprobs"] == pytest.approx(old["logprobs"], abs=EXACT), f"{sample.id}: other log-probabilities"
        first, second = sorted(old["logprobs"])[:-3:-1]
        return first - second > EXACT
    if samples.same_texts(now["texts"], old["texts"]):
        assert list(now["end_reasons"]) == list(old["end_reasons"])
        return True
    known_by_hash = samples.withheld({"response": old})
    assert not known_by_hash, f"{sample.id}: another reply, and the old one is known by its hash alone"
    assert greedy_within(sample, old["texts"][0], CLOSE, spec), f"{sample.id}: another reply, and no tie explains it"
    return False


@cache
def _plain(spec: ModelSpec) -> tuple[Any, Any]:
    """The model by transformers alone, and its tokenizer."""
    checkpoint = open_checkpoint(spec)
    return checkpoint.load(), checkpoint.tokenizer


def greedy_within(sample: Sample, text: str, margin: float, spec: ModelSpec) -> bool:
    """Whether a text is a greedy continuation of a prompt when tokens within `margin` of the best may take its place. By
    transformers' own forward, token by token."""
    plain, tokenizer = _plain(spec)
    request: Any = sample.request
    prompt = request.prompt if not isinstance(request.prompt, str) else None
    ids = tokenizer.chat_ids(prompt, request.system) if prompt else tokenizer.encode(request.text())
    written: list[int] = []
    while len(written) < request.max_tokens:
        with torch.no_grad():
            scores = torch.log_softmax(plain(torch.tensor([ids + written])).logits[0, -1].double(), -1)
        near = torch.nonzero(scores >= scores.max() - margin).flatten().tolist()
        fitting = [token for token in near if text.startswith(tokenizer.decode([*written, token]).rstrip("\ufffd"))]
        if not fitting:
            # the text ends here: a stop string, or the end token
            return bool(tokenizer.decode(written).startswith(text))
        written.append(fitting[0])
    return True
