"""Conversations that the server renders: what it shows of them, where it does.

llama.cpp has /apply-template; vLLM gives the tokens of a conversation (/tokenize) and their text (/detokenize).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_eval.engines.api import completions
from qwen_eval.engines.api.server import Server
from qwen_eval.schema import Generate

CLOCKS = ("strftime_now", "now()", "currentDate")  # what templates of Jinja and of Ollama call


def prompt_text(server: Server, model: str, request: Generate) -> str | None:
    """A conversation as the server's template writes it; None where the server does not show it."""
    _, body = completions.conversation(request)
    written = _object(server.look("/apply-template", body)).get("prompt")
    if isinstance(written, str):
        return written
    tokens = _object(server.look("/tokenize", {"model": model, "add_generation_prompt": True, **body})).get("tokens")
    if not isinstance(tokens, list):
        return None
    text = _object(server.look("/detokenize", {"model": model, "tokens": tokens})).get("prompt")
    return text if isinstance(text, str) else None


def told(template: str) -> str:
    """What is known of whether the server's template shows the date. template: its text, "" where it is not known."""
    if any(name in template for name in CLOCKS):
        return "the server renders the chat template, which reads a clock: replies of different days are to different prompts"
    if template:
        return "the server renders the chat template; it does not name a clock"
    return "the server renders the chat template and does not show it: whether prompts show a date, and which, is not known"


def _object(answer: Any) -> Mapping[str, Any]:
    return answer if isinstance(answer, Mapping) else {}
