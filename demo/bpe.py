"""Learns the demonstration's byte-pair ranks and writes them as a `qwen.tiktoken` file."""

from __future__ import annotations

import base64
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import regex
import tiktoken

# How text is cut before any merge: the pattern of the GPT-4 family, with one digit a piece.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


def allowed(token: bytes) -> bool:
    """May these bytes be one token?

    A piece such as "：A" or "“热" is one word to the pattern, but the option letter and the character must be the same
    token there as everywhere else; so a token is ASCII, or CJK letters alone, or the beginning of one character.
    """
    if token.isascii():
        return True
    try:
        text = token.decode()
    except UnicodeDecodeError as error:
        # the start of one character: lead byte and what follows, nothing before it
        return error.start == 0 and error.reason == "unexpected end of data"
    return len(text) == 1 or all(unicodedata.category(char) == "Lo" for char in text)


def learn(texts: Iterable[str], size: int, least: int = 2) -> dict[bytes, int]:
    """The ranks: all 256 bytes, then the most frequent allowed pairs of the texts, up to `size` ranks."""
    counts = Counter(piece for text in texts for piece in regex.findall(PATTERN, unicodedata.normalize("NFC", text)))
    words = {piece: [bytes([byte]) for byte in piece.encode()] for piece in sorted(counts)}
    ranks = {bytes([byte]): byte for byte in range(256)}
    while len(ranks) < size:
        found: Counter[tuple[bytes, bytes]] = Counter()
        for piece, parts in words.items():
            for pair in pairwise(parts):
                found[pair] += counts[piece]
        # ties are broken by the bytes themselves, so that the file does not depend on the order of a dictionary
        best = max(
            (pair for pair in found if allowed(b"".join(pair))), key=lambda pair: (found[pair], pair), default=None
        )
        if best is None or found[best] < least:
            break
        ranks.setdefault(b"".join(best), len(ranks))
        words = {piece: merge(parts, best) for piece, parts in words.items()}
    return ranks


def merge(parts: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """The parts with every occurrence of the pair joined."""
    if len(parts) < 2:
        return parts
    joined: list[bytes] = []
    at = 0
    while at < len(parts):
        if tuple(parts[at : at + 2]) == pair:
            joined.append(parts[at] + parts[at + 1])
            at += 2
        else:
            joined.append(parts[at])
            at += 1
    return joined


def unreachable(ranks: dict[bytes, int]) -> list[bytes]:
    """Tokens that merging by rank never makes from their own bytes: there must be none."""
    wrong = []
    for token in ranks:
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], len(ranks)))
            if parts[best] + parts[best + 1] not in ranks:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) > 1:
            wrong.append(token)
    return wrong


def encoding(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    """The tokenizer of these ranks, with the 208 special tokens after the last of them."""
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIALS)}
    return tiktoken.Encoding("demo", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials)


def write(path: Path, ranks: dict[bytes, int]) -> None:
    """One line a rank: base64 of the bytes, a space, the rank."""
    lines = (
        f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in sorted(ranks.items(), key=lambda x: x[1])
    )
    path.write_text("".join(lines), encoding="ascii", newline="\n")
