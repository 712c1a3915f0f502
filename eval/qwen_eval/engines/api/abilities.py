"""Which log-probabilities an OpenAI-compatible server gives, probed once.

Two kinds are of use. `next`: the most likely next tokens with their log-probabilities (field logprobs). `prompt`: the
log-probability of every token of a prompt, through echo (the original completions API) or prompt_logprobs (vLLM).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from qwen_eval.engines.api.completions import MISSING, first_choice, next_values, prompt_tokens, prompt_values
from qwen_eval.engines.api.server import FIRST_ATTEMPTS, Refused, Server
from qwen_eval.schema import InputError

STILL_RUN = "benchmarks of generated text still run, and multiple choice with --chat"

Body: TypeAlias = dict[str, Any]
# Request fields that may get the most likely next tokens, and those that may get the log-probabilities of the prompt's own
# tokens; the most informative ones first.
_NEXT: tuple[Body, ...] = tuple(
    {"max_tokens": 1, "temperature": 0, "logprobs": count, **names}
    for count in (20, 5)
    for names in ({"return_tokens_as_token_ids": True}, {})
)
_PROMPT: tuple[Body, ...] = (
    {"max_tokens": 0, "echo": True, "logprobs": 1},
    {"max_tokens": 1, "echo": True, "logprobs": 1},
    {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0},
)


@dataclass(frozen=True)
class Abilities:
    """The fields that get the most likely next tokens, and those that get the prompt's own log-probabilities; None
    where the server has neither. ids: whether it takes a prompt as token ids at all."""

    ids: bool
    next: Body | None
    prompt: Body | None

    def require(self, one_token: bool, url: str) -> None:
        """Raises InputError where options of one token (or, else, longer ones and whole texts) cannot be scored."""
        if self.prompt is None and not (one_token and self.next is not None):
            what = "log-probabilities" if self.next is None else "log-probabilities of the tokens of a prompt"
            if not self.ids:
                what = "log-probabilities for a prompt of token ids"
            raise InputError(f"the server at {url} gives no {what}, which this needs; {STILL_RUN}")


def find(server: Server, model: str, ids: Sequence[int]) -> Abilities:
    """Probes with a short prompt (at least two tokens). Raises InputError when the server cannot be reached."""

    def ask(fields: Body) -> Mapping[str, Any]:
        return server.post("/completions", {"model": model, "prompt": list(ids), **fields}, FIRST_ATTEMPTS)

    def first(tried: Sequence[Body], read: Callable[[Mapping[str, Any]], object]) -> Body | None:
        for fields in tried:
            with suppress(InputError, *MISSING):  # some servers fail with status 500 where they should refuse
                read(first_choice(ask(fields)))
                return fields
        return None

    try:
        counted = prompt_tokens(ask({"max_tokens": 1, "temperature": 0}))
    except Refused:
        return Abilities(False, None, None)
    if counted not in (None, len(ids)):
        return Abilities(False, None, None)
    return Abilities(True, first(_NEXT, next_values), first(_PROMPT, lambda choice: prompt_values(choice, ids)))
