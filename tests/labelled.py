"""Replies of a real model, each with the answer that a person read in it.

tests/labelled/NAME.jsonl has one reply a line: `id` of the item, `reply`, `end` (why it ended), `label` (the letter or number
that the reply commits to, null for none, UNCLEAR). The labels were given without sight of what the harness reads. What a reply
quotes of its prompt is not in the file: `reply` is a list of texts and of [start, length] in the prompt, whose text the shared
data has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

FOLDER = Path(__file__).parent / "labelled"
UNCLEAR = "unclear"  # the label of a reply that states two answers
QUOTED = 24  # characters in a row that a reply shares with its prompt: about four words

Pieces: TypeAlias = "list[str | list[int]]"


def read(name: str) -> list[dict[str, Any]]:
    """The labelled replies of tests/labelled/NAME.jsonl."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def prompt_text(prompt: str | Sequence[dict[str, str]]) -> str:
    """A prompt as one text: of messages their contents, one after another."""
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def cut(reply: str, prompt: str) -> Pieces:
    """A reply with what it quotes of its prompt taken out: the longest stretch from the left, again and again."""
    starts: dict[str, list[int]] = {}
    for start in range(len(prompt) - QUOTED + 1):
        starts.setdefault(prompt[start : start + QUOTED], []).append(start)
    pieces: Pieces = []
    own, place = "", 0
    while place < len(reply):
        best = (0, 0)
        for start in starts.get(reply[place : place + QUOTED], ()):
            length = QUOTED
            while reply[place + length : place + length + 1] == prompt[start + length : start + length + 1] != "":
                length += 1
            best = max(best, (length, start))
        if best[0]:
            pieces += [own] if own else []
            pieces.append([best[1], best[0]])
            own, place = "", place + best[0]
        else:
            own, place = own + reply[place], place + 1
    return pieces + ([own] if own else [])


def whole(pieces: Pieces, prompt: str) -> str:
    """The reply of its pieces."""
    return "".join(piece if isinstance(piece, str) else prompt[piece[0] : piece[0] + piece[1]] for piece in pieces)
