"""Which requests do not fit the context: found with the tokenizer alone, before anything is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_eval.engines.plan import read_tokens
from qwen_eval.engines.prompting import prompt_ids
from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import Choose, Generate, Request, Unanswered

SLACK = 64  # tokens that an option may add to its prompt beyond those that it has by itself


def too_long(
    requests: Sequence[Request], tokenizer: TextTokenizer | None, limit: int, rigid: bool, spare: int = 0
) -> dict[int, Unanswered]:
    """By index the requests that do not fit a context of `limit` tokens (0: not known) even without shots.

    tokenizer: None where it is not known here; then only replies as long as the whole context are found. rigid: whether nothing
    longer than `limit` can be computed at all. Otherwise requests that their protocol cuts, or runs past the limit, fit. spare:
    tokens that a choice needs beside its prompt.
    """
    if not limit:
        return {}
    found: dict[int, Unanswered] = {}
    choices: dict[int, Choose] = {}
    for index, request in enumerate(requests):
        if isinstance(request, Choose):
            if tokenizer and (rigid or request.overflow == "drop_shots"):
                choices[index] = _shortest(request)
        elif isinstance(request, Generate):
            tokens = _generated(_shortest(request), tokenizer, limit, rigid)
            if tokens > limit:
                found[index] = Unanswered(tokens, limit)
        elif rigid and request.length > limit:
            found[index] = Unanswered(request.length, limit)
    if tokenizer:
        choices = _near(choices, tokenizer, limit - spare)
        for index, read in zip(choices, read_tokens(list(choices.values()), tokenizer), strict=True):
            request = choices[index]
            own = limit - spare if request.limit is None else request.limit
            tokens = min(read, own) if request.overflow == "keep_last" else read
            most = min([limit - spare] * rigid + [own] * (request.overflow == "drop_shots"))
            if tokens > most:
                found[index] = Unanswered(tokens + spare, most + spare)
    return dict(sorted(found.items()))


def _shortest(request: Any) -> Any:
    """The request as it is when all shots that may be dropped are."""
    return dataclasses.replace(request, shots=()) if request.overflow == "drop_shots" else request


def _near(choices: Mapping[int, Choose], tokenizer: TextTokenizer, limit: int) -> dict[int, Choose]:
    """The choices that may not fit `limit` tokens. A prompt and an option take about as many tokens together as apart; only
    these are worth the exact count, which takes an encoding for every option."""
    options = sorted({option for request in choices.values() for option in request.options})
    sizes = dict(zip(options, map(len, tokenizer.encode_batch(options)), strict=True))
    prompts = tokenizer.encode_batch([request.prompt() for request in choices.values()])
    return {
        index: request
        for (index, request), prompt in zip(choices.items(), prompts, strict=True)
        if len(prompt) + max(map(sizes.__getitem__, request.options)) + SLACK
        > min(limit, limit if request.limit is None else request.limit)
    }


def _generated(request: Generate, tokenizer: TextTokenizer | None, limit: int, rigid: bool) -> int:
    """The tokens that a prompt and its reply take; 0 where its protocol cuts it or runs past the limit. A reply as long as the
    context leaves no room for any prompt."""
    checked = request.max_tokens >= limit or rigid or request.overflow == "drop_shots"
    if not checked:
        return 0
    if tokenizer is None:
        return request.max_tokens + 1
    if request.overflow == "keep_last" and request.max_tokens < limit:
        return 0
    return request.max_tokens + len(prompt_ids(request, tokenizer, 0))
