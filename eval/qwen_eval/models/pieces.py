"""The exact bytes of the tokens of a tokenizer.json: decoding cannot give them where a character is split between tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece's fallback: one token per byte
_SPACE = "▁"  # SentencePiece's mark of a space


def piece_reader(backend: Any) -> Callable[[str], bytes] | None:
    """The function from a token, as the vocabulary spells it, to its bytes: by the byte-level alphabet of GPT-2, or as
    SentencePiece spells it. backend: a tokenizers.Tokenizer. None where its decoder is of another kind."""
    kinds = set(re.findall(r'"type": ?"(\w+)"', json.dumps(json.loads(backend.to_str())["decoder"])))
    if "ByteLevel" in kinds:
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        alphabet: Any = bytes_to_unicode  # has no types
        byte: dict[str, int] = {character: number for number, character in alphabet().items()}
        return lambda piece: b"".join(bytes([byte[c]]) if c in byte else c.encode() for c in piece)
    return sentencepiece_bytes if "ByteFallback" in kinds else None


def sentencepiece_bytes(piece: str) -> bytes:
    """The bytes of a piece as SentencePiece spells it."""
    found = _BYTE.fullmatch(piece)
    return bytes([int(found[1], 16)]) if found else piece.replace(_SPACE, " ").encode()
