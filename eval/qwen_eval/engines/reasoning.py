"""Reasoning models: the reasoning is split from the reply, so that no extractor sees it."""

from __future__ import annotations

# Opening and closing mark of each family: Qwen3 and DeepSeek; variants; Magistral; Kimi; Seed-OSS.
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
)


def split_reasoning(text: str, opened: bool = False) -> tuple[str, str]:
    """The reasoning and the reply of a generated text.

    Everything up to the last closing mark is reasoning, also where the opening one was in the prompt. Reasoning that is
    never closed goes to the end and leaves no reply; with `opened`, the prompt ended inside it, so that a text with no
    mark at all is all reasoning. A text without marks is a reply as it stands.
    """
    closings = [(index, end) for _, end in TAGS if (index := text.rfind(end)) >= 0]
    reasoning, reply = "", text
    if closings:
        index, end = max(closings)
        reasoning, reply = text[:index], text[index + len(end) :].lstrip("\r\n")
    elif opened:
        reasoning, reply = text, ""
    unclosed = [index for start, _ in TAGS if (index := reply.find(start)) >= 0]
    if unclosed:
        reasoning, reply = reasoning + reply[min(unclosed) :], reply[: min(unclosed)]
    return _bare(reasoning), reply


def _bare(reasoning: str) -> str:
    """The reasoning without its marks."""
    for pair in TAGS:
        for mark in pair:
            reasoning = reasoning.replace(mark, "")
    return reasoning.strip()
