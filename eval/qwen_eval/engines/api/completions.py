"""Requests and replies of the OpenAI protocol, built and parsed: completions, chat completions, log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_eval.engines.prompting import Completion, before_stop, end_reason
from qwen_eval.schema import Generate

TOKEN_ID = "token_id:"  # before the id of a token, under vLLM's return_tokens_as_token_ids
MISSING = (KeyError, IndexError, TypeError, ValueError)  # what reading raises where a reply lacks a part


def first_choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first completion of a reply. Raises KeyError, IndexError or TypeError where there is none."""
    choice = reply["choices"][0]
    if not isinstance(choice, Mapping):
        raise TypeError(type(choice).__name__)
    return choice


def named(reply: Mapping[str, Any], field: str) -> str:
    """What a reply says of its maker under `field` ("model", "system_fingerprint"), "" where it says nothing."""
    value = reply.get(field)
    return value if isinstance(value, str) else ""


def prompt_tokens(reply: Mapping[str, Any]) -> int | None:
    """How many tokens the server counted in the prompt; None where it does not say."""
    return (reply.get("usage") or {}).get("prompt_tokens")


def next_values(choice: Mapping[str, Any]) -> dict[int | str, float]:
    """The log-probabilities of the most likely next tokens, by id if the server gives it, else by text. Raises KeyError,
    IndexError, TypeError or ValueError where the reply has none."""
    found = choice["logprobs"]
    if "content" in found:  # llama.cpp answers as chat completions do, with the ids
        listed = found["content"][0]["top_logprobs"]
        values: dict[int | str, float] = {item.get("id", item["token"]): float(item["logprob"]) for item in listed}
    else:
        named = found["top_logprobs"][0]
        values = {_token(name): float(value) for name, value in named.items()}
    if not values:
        raise ValueError("no tokens")
    return values


def _token(name: str) -> int | str:
    return int(name.removeprefix(TOKEN_ID)) if name.startswith(TOKEN_ID) else name


def prompt_values(choice: Mapping[str, Any], ids: Sequence[int]) -> list[float]:
    """The log-probabilities of ids[1:], each given all before it. Raises KeyError, IndexError, TypeError or ValueError
    where the reply does not have them."""
    listed = choice.get("prompt_logprobs")
    if listed is not None:
        values = [found[str(token)]["logprob"] for token, found in zip(ids[1:], listed[1:], strict=True)]
    else:
        values = choice["logprobs"]["token_logprobs"][1 : len(ids)]  # with max_tokens 1 there is one more
    if len(values) != len(ids) - 1:
        raise ValueError(f"{len(values)} values for {len(ids)} tokens")
    return [float(value) for value in values]


def conversation(request: Generate) -> tuple[str, dict[str, Any]]:
    """Path and body of a conversation through the server's own template."""
    assert not isinstance(request.prompt, str)
    body: dict[str, Any] = {"messages": [dict(message) for message in request.prompt]}
    if request.chat_options:
        body["chat_template_kwargs"] = dict(request.chat_options)
    return "/chat/completions", body


def completion(reply: Mapping[str, Any], request: Generate) -> Completion:
    """The text of a reply, cut before the first of all stop strings."""
    choice, usage = first_choice(reply), reply.get("usage") or {}
    message = choice.get("message") or {}
    text: str = (choice.get("text") if "text" in choice else message.get("content")) or ""
    cut = before_stop(text, request.stop)
    return Completion(
        text if cut is None else cut,
        end_reason(choice.get("finish_reason"), choice.get("stop_reason")),
        usage.get("completion_tokens", 0),
        message.get("reasoning_content") or message.get("reasoning") or "",
        named(reply, "system_fingerprint"),
    )
