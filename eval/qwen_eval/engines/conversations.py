"""What a chat template is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwen_eval.schema import Generate, Message, Request


def conversations(
    requests: Sequence[Request], each: bool = False
) -> Iterator[tuple[tuple[Message, ...], Mapping[str, Any]]]:
    """The messages and template variables of the requests that are conversations: of those that differ in nothing but what
    users say only the first, unless `each` is asked for."""
    seen: set[str] = set()
    for request in requests:
        if not isinstance(request, Generate) or isinstance(request.prompt, str):
            continue
        turns = [(turn["role"], None if turn["role"] == "user" else turn["content"]) for turn in request.prompt]
        kind = repr((turns, sorted(request.chat_options.items())))
        if each or kind not in seen:
            seen.add(kind)
            yield request.prompt, request.chat_options
