"""Reasoning models: the reasoning is split from the reply, so that no extractor sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator

Marks = tuple[str, str] | tuple[()]

# Opening and closing mark of each family: Qwen3, DeepSeek and others; variants; Magistral; Kimi; Seed-OSS; Cohere; Gemma 4;
# OpenThinker; Apertus.
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
# What some of them put around the reply.
REPLIES = (("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<|begin_of_solution|>", "<|end_of_solution|>"))
# The tokens of gpt-oss's harmony format, where messages have channels: analysis, commentary, final.
CHANNEL = "<|channel|>"
HARMONY = (CHANNEL, "<|message|>", "<|start|>")

_MESSAGE = re.compile(r"<\|channel\|>\s*(?P<channel>\w+)[^<\n]*(?:<\|constrain\|>[^<\n]*)?<\|message\|>")
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_OPENS_ANALYSIS = CHANNEL + "analysis<|message|>"
# The same where the special tokens were dropped: analysisWe need ...assistantfinalThe answer is 18
_BARE_START = re.compile(r"\s*(?:assistant)?(?:analysis|commentary)(?P<glued>[^\W_])?")
_ONLY_FINAL = re.compile(r"\s*(?:assistant)?final(?=[A-Z0-9*#$`\\]|[^\x00-\x7f])|\s*assistantfinal")


def split_reasoning(text: str, opened: bool = False, marks: Marks = ()) -> tuple[str, str]:
    """The reasoning and the reply of a generated text.

    Everything up to the last closing mark is reasoning, also where the opening one was in the prompt. Reasoning that is
    never closed goes to the end and leaves no reply; with `opened`, the prompt ended inside it, so that a text with no
    mark at all is all reasoning. A text without marks is a reply as it stands. In the harmony format the reply is the
    message in the channel `final`. marks: another opening and closing mark.
    """
    before, text, closed = _harmony(text)
    tags = [*TAGS, marks] if marks else TAGS
    ends = [*(end for _, end in tags), *(start for start, _ in REPLIES)]
    closings = [(index, end) for end in ends if (index := text.rfind(end)) >= 0]
    reasoning, reply = "", text
    if closings:
        index, end = max(closings)
        reasoning, reply = text[:index], text[index + len(end) :].lstrip("\r\n")
    elif opened and not closed:
        reasoning, reply = text, ""
    unclosed = [index for start, _ in tags if (index := reply.find(start)) >= 0]
    if unclosed:
        reasoning, reply = reasoning + reply[min(unclosed) :], reply[: min(unclosed)]
    ended = [index for _, end in REPLIES if (index := reply.find(end)) >= 0]
    return _bare(before + reasoning, [*tags, *REPLIES]), reply[: min(ended, default=len(reply))]


def opens_reasoning(prompt_end: str, marks: Marks = ()) -> bool:
    """Whether a prompt that ends like this has opened the reasoning."""
    starts = [*(start for start, _ in ([*TAGS, marks] if marks else TAGS)), _OPENS_ANALYSIS]
    return prompt_end.rstrip().endswith(tuple(starts))


def special_marks(marks: Marks = ()) -> Iterator[str]:
    """The marks that may be special tokens, which a decoder drops unless told to keep them."""
    yield from (mark for pair in [*TAGS, *REPLIES, marks] for mark in pair)
    yield from (*HARMONY, "<|channel>")


def _harmony(text: str) -> tuple[str, str, bool]:
    """What a text in the harmony format has before its reply, the reply ("" where the text ended before it), and whether it
    is in that format; ("", text, False) for others."""
    start = 0
    for message in _MESSAGE.finditer(text):
        if message["channel"] == "final":
            end = _MESSAGE_END.search(text, message.end())
            return (
                _without_tokens(text[: message.start()]),
                text[message.end() : end.start() if end else len(text)],
                True,
            )
        start = message.end()
    if start or text.lstrip().startswith((CHANNEL, f"<|start|>assistant{CHANNEL}")):
        return _without_tokens(text), "", True
    begun, only = _BARE_START.match(text), _ONLY_FINAL.match(text)
    if begun and (final := text.find("assistantfinal", begun.end())) >= 0:
        return (
            text[begun.start("glued") if begun["glued"] else begun.end() : final],
            text[final + len("assistantfinal") :],
            True,
        )
    if begun and begun["glued"]:
        return text[begun.start("glued") :], "", True
    return ("", text[only.end() :], True) if only else ("", text, False)


def _without_tokens(text: str) -> str:
    """The messages of harmony text one after the other."""
    return re.sub(
        r"<\|start\|>\w*|<\|(?:end|return|call)\|>|<\|channel\|>\s*\w*[^<\n]*|<\|constrain\|>\s*\w*|<\|\w+\|>", "", text
    )


def _bare(reasoning: str, tags: list[tuple[str, str]]) -> str:
    """The reasoning without its marks."""
    for pair in tags:
        for mark in pair:
            reasoning = reasoning.replace(mark, "")
    return reasoning.strip()
