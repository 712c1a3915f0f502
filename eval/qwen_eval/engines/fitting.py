"""Which requests do not fit the context: found with the tokenizer alone, before anything is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from qwen_eval.engines.plan import read_tokens
from qwen_eval.engines.prompting import prompt_ids
from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import Choose, Generate, Request, Unanswered


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
