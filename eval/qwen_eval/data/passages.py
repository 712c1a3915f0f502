"""Which questions are about one passage: those that begin with the same long text."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from qwen_eval.data.texts import common_prefix

# bytes of a common beginning from which on two questions are about one passage: 35 English words, 66 Chinese characters
LENGTH = 200
# a beginning that more questions share, and more than half of them, is an instruction and no passage
MANY = 20
INSTRUCTION = 40  # bytes of a common beginning by which those questions are found


def passages(texts: Sequence[str], start: str = "") -> list[str]:
    """For every text a short name of the passage that it is about, "" for one that shares its with no other.

    start: what all texts begin with that is known to be no passage.
    """
    heads = [_head(tail, LENGTH) for tail in _without_instruction([text[len(start) :] for text in texts])]
    shared = {head for head, count in Counter(heads).items() if head and count > 1}
    return [hashlib.sha256(head).hexdigest()[:12] if head in shared else "" for head in heads]


def _without_instruction(texts: list[str]) -> list[str]:
    """The texts without the beginning that most of them share."""
    while True:
        heads = [_head(text, INSTRUCTION) for text in texts]
        ((most, count),) = Counter(heads).most_common(1) or [(b"", 0)]
        if not most or count <= max(MANY, len(texts) / 2):
            return texts
        start = common_prefix([text for text, head in zip(texts, heads, strict=True) if head == most])
        texts = [text[len(start) :] if head == most else text for text, head in zip(texts, heads, strict=True)]


def _head(text: str, length: int) -> bytes:
    """The first bytes of a text; none of one that has no more than they."""
    data = text[: length + 1].encode("utf-8", "surrogatepass")
    return data[:length] if len(data) > length else b""
