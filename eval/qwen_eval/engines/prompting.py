"""What all engines do with a Generate request: its prompt in tokens, and a chat reply without its reasoning."""

from __future__ import annotations

from qwen_eval.engines.reasoning import TAGS, split_reasoning
from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import Generate


def encode_prompt(request: Generate, tokenizer: TextTokenizer, limit: int) -> tuple[list[int], int, bool]:
    """The prompt's tokens, the shots it kept, and whether it lost more than shots. A prompt has to leave room for
    max_tokens in the context of `limit` tokens."""
    room = limit - request.max_tokens
    for dropped in range(len(request.shots) + 1):
        prompt = request.text(dropped)
        ids = (
            tokenizer.encode(prompt) if isinstance(prompt, str) else tokenizer.chat_ids(prompt, **request.chat_options)
        )
        if len(ids) <= room or request.overflow == "none":
            return ids, len(request.shots) - dropped, False
    return ids[-max(1, room) :], 0, True


def split_reply(text: str, request: Generate, end: str) -> tuple[str, str]:
    """A chat reply's reasoning and the reply proper; some templates open the reasoning in the prompt.

    end: how the prompt ends, as text. A text that continues a prompt is all reply.
    """
    if isinstance(request.prompt, str):
        return "", text
    return split_reasoning(text, opened=any(end.rstrip().endswith(start) for start, _ in TAGS))
