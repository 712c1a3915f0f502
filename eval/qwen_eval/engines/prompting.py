"""What all engines do with a Generate request: its prompt in tokens, the name of its random stream, its answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qwen_eval.engines.reasoning import opens_reasoning, special_marks, split_reasoning
from qwen_eval.schema import DoesNotFit, Generate, Generated

if TYPE_CHECKING:  # tokenizers take long to load, and texts of files and stored replies need none
    from qwen_eval.models.tokenizers import TextTokenizer

END = 16  # tokens at the end of a prompt, enough to show a reasoning mark that the template opened


@dataclass(frozen=True)
class Prompt:
    """The prompt of a request as it is sent. tokens: its length. end: how it ends, as text ("" where the server's
    template writes it). shots_used: the shots it kept. truncated: whether it lost more than shots."""

    tokens: int
    end: str
    shots_used: int
    truncated: bool = False


@dataclass(frozen=True)
class Completion:
    """One text as the model generated it, cut before the first stop string. reason: why it ended. tokens: its length, without
    the token that ended it. reasoning: what the server itself took out of the text. system_fingerprint: what the server says
    computed it."""

    text: str
    reason: str
    tokens: int
    reasoning: str = ""
    system_fingerprint: str = ""


def encode_prompt(request: Generate, tokenizer: TextTokenizer, limit: int) -> tuple[list[int], Prompt]:
    """The prompt's ids, and its description for the answer. A prompt has to leave room for max_tokens in the context of
    `limit` tokens. Raises DoesNotFit for one that does not without shots, and for a reply that leaves none for any prompt,
    unless nothing is to be cut."""
    room = limit - request.max_tokens
    for dropped in range(len(request.shots) + 1):
        ids = prompt_ids(request, tokenizer, dropped)
        if len(ids) <= room or request.overflow != "drop_shots":
            break
    truncated = len(ids) > room and request.overflow != "none"
    if truncated and (request.overflow == "drop_shots" or room < 1):
        raise DoesNotFit(len(ids) + request.max_tokens, limit)
    if truncated:
        ids = ids[-room:]
    return ids, Prompt(len(ids), tokenizer.decode(ids[-END:]), len(request.shots) - dropped, truncated)


def prompt_ids(request: Generate, tokenizer: TextTokenizer, first_shot: int) -> list[int]:
    """The ids of a request's prompt without its first `first_shot` shots."""
    prompt = request.text(first_shot)
    return tokenizer.encode(prompt) if isinstance(prompt, str) else tokenizer.chat_ids(prompt, **request.chat_options)


def answer(request: Generate, prompt: Prompt, completions: Sequence[Completion]) -> Generated:
    """The answer to a request from its texts, one per sample."""
    parts = [_split(text, request, prompt.end) for text in completions]
    return Generated(
        texts=tuple(reply for _, reply in parts),
        reasoning=tuple(reasoning for reasoning, _ in parts),
        end_reasons=tuple(text.reason for text in completions),
        prompt_tokens=prompt.tokens,
        new_tokens=tuple(text.tokens for text in completions),
        shots_used=prompt.shots_used,
        truncated=prompt.truncated,
        system_fingerprints=prints if any(prints := tuple(text.system_fingerprint for text in completions)) else (),
    )


def _split(completion: Completion, request: Generate, end: str) -> tuple[str, str]:
    """The reasoning of a chat reply, and the reply; some templates open the reasoning in the prompt. A text that continues
    a prompt is all reply."""
    if isinstance(request.prompt, str):
        reasoning, reply = "", completion.text
    else:
        marks = request.reasoning_marks
        reasoning, reply = split_reasoning(completion.text, opens_reasoning(end, marks), marks)
    return completion.reasoning or reasoning, reply


def split_again(request: Generate, stored: Generated) -> Generated:
    """A stored answer with its texts split by this version's marks and those of the request."""
    if isinstance(request.prompt, str):
        return stored
    parts = [split_reasoning(text, marks=request.reasoning_marks) for text in stored.texts]
    reasoning = tuple(old + new for old, (new, _) in zip(stored.reasoning, parts, strict=True))
    return replace(stored, texts=tuple(reply for _, reply in parts), reasoning=reasoning)


def kept_tokens(request: Generate, tokenizer: TextTokenizer) -> frozenset[int]:
    """The special tokens that stay in the text of a request: a conversation's marks of reasoning."""
    if isinstance(request.prompt, str):
        return frozenset()
    return tokenizer.special_named(frozenset(special_marks(request.reasoning_marks)))


def before_stop(text: str, stop: Sequence[str]) -> str | None:
    """The text before the first of the stop strings in it, None where there is none."""
    found = [index for index in map(text.find, stop) if index >= 0]
    return text[: min(found)] if found else None


def end_reason(finish_reason: object, stop_reason: object) -> str:
    """ "length"; "stop" where vLLM or the server names the stop string; else "eos"."""
    if finish_reason == "length":
        return "length"
    return "stop" if isinstance(stop_reason, str) else "eos"


def stream_name(seed: int, request: Generate, sample: int) -> str:
    """What names the random stream of one sample: it depends neither on the other samples nor on the order."""
    return f"{seed}/{request.key}/{sample}"


def stream_seed(seed: int, request: Generate, sample: int) -> int:
    """The first 31 bits of the SHA-256 of the stream's name, for servers and libraries that take a number as seed."""
    return int.from_bytes(hashlib.sha256(stream_name(seed, request, sample).encode()).digest()[:4], "big") >> 1
