"""How a served model answers: greedy replies to fixed prompts, asked twice.

Where the server gives no hash of the weights, only this reveals that another model is served under the same name. It cannot
reveal one that gives the same replies to these prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qwen_eval.engines.api import completions
from qwen_eval.engines.api.server import FIRST_ATTEMPTS, Refused, Server
from qwen_eval.schema import InputError

PROMPTS = (
    "In the year 1807 the harbour master wrote down every ship that",
    "def merge(left, right):\n",
    "那年冬天，村子里的老人们常常说起",
)
LENGTH = 24  # tokens of a reply
ROUNDS = 2
_Body = Mapping[str, Any]
_PATHS: Sequence[tuple[str, Callable[[str], _Body]]] = (
    ("/completions", lambda text: {"prompt": text}),
    ("/chat/completions", lambda text: {"messages": [{"role": "user", "content": text}]}),
)


def facts(server: Server, model: str) -> tuple[dict[str, str], list[str]]:
    """What is the same in all rounds: the replies ("text", a hash), the name that the server gives the model in them ("model")
    and its system_fingerprint; and sentences on what is not. Raises InputError where the server cannot be reached."""
    notes: list[str] = []
    for path, make in _PATHS:
        try:
            rounds = [[_reply(server, path, model, make(text)) for text in PROMPTS] for _ in range(ROUNDS)]
        except Refused as error:
            notes = [
                f"the server answers no probe ({error}): another model under the same name would not show in replies"
            ]
            continue
        except InputError:  # some servers fail with status 500 where they should refuse
            if path == _PATHS[-1][0]:
                raise
            continue
        return _steady(rounds)
    return {}, notes


def _reply(server: Server, path: str, model: str, body: _Body) -> _Body:
    full = {"model": model, "max_tokens": LENGTH, "temperature": 0, **body}
    return server.complete(path, full, FIRST_ATTEMPTS)


def _steady(rounds: Sequence[Sequence[_Body]]) -> tuple[dict[str, str], list[str]]:
    found, notes = {}, []
    texts = [[_text(reply) for reply in replies] for replies in rounds]
    if any(each != texts[0] for each in texts):
        notes.append(
            "the server replies differently to the same prompt each time, at temperature 0: another model under the same name "
            "would not show in replies"
        )
    elif any(texts[0]):
        joined = "\0".join(texts[0])
        found["replies.text"] = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    else:
        notes.append(
            "the server's replies to the probe are empty: another model under the same name would not show in them"
        )
    for name in ("model", "system_fingerprint"):
        values = {completions.named(reply, name) for replies in rounds for reply in replies}
        if len(values) == 1 and "" not in values:
            found[f"replies.{name}"] = values.pop()
    return found, notes


def _text(reply: _Body) -> str:
    """The text of a reply with its reasoning, "" where it has none."""
    try:
        choice = completions.first_choice(reply)
    except completions.MISSING:
        return ""
    message = choice.get("message")
    parts = (
        [message.get(name) for name in ("reasoning_content", "reasoning", "content")]
        if isinstance(message, Mapping)
        else []
    )
    return "\0".join(str(part) for part in [choice.get("text"), *parts] if part)
