"""Texts cut at blank lines and encoded piece by piece, each distinct piece once: few-shot prompts repeat their shots in
thousands of requests. Only for tokenizers where this provably gives the ids of the whole text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

# After a line feed that a non-space follows, the patterns below always start a new piece, and no alternative looks
# further back or across it: the text may be cut there. Cut at blank lines only, where few-shot prompts repeat.
_CUT = re.compile(r"(?<=\n\n)(?=\S)")

# The split pattern of Qwen-1: that of the GPT-4 family with single digits.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen-1 to Qwen3; the GPT-4 family with numbers of up to three digits (Llama 3)
_PATTERNS = {QWEN_PATTERN, QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")}


def encode_pieces(texts: Sequence[str], encode: Callable[[list[str]], Sequence[list[int]]]) -> list[list[int]]:
    """The ids of each text. encode: gives the ids of the distinct pieces, each by itself."""
    split = [_CUT.split(text) for text in texts]
    distinct = list(dict.fromkeys(chain.from_iterable(split)))
    ids = dict(zip(distinct, encode(distinct), strict=True))
    return [list(chain.from_iterable(map(ids.__getitem__, pieces))) for pieces in split]


def may_be_cut(backend: Any) -> bool:
    """Whether a tokenizers.Tokenizer may be asked for pieces: byte-level BPE without dropout, whose words are found by one
    of the patterns above, over text that is at most NFC-normalised, with no added token that spans a cut. (A line
    feed composes with nothing, so the pieces' normal forms are the text's.)"""
    definition = json.loads(backend.to_str())
    steps = (definition.get("pre_tokenizer") or {}).get("pretokenizers") or [{}]
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    return (
        definition["model"].get("type") == "BPE"
        and not definition["model"].get("dropout")
        and (definition.get("normalizer") or {"type": "NFC"})["type"] == "NFC"
        and [step.get("type") for step in steps] == ["Split", "ByteLevel"]
        and {**split, "pattern": steps[0]["pattern"]} == steps[0]
        and steps[0]["pattern"].get("Regex") in _PATTERNS
        and not steps[1].get("add_prefix_space")
        and not steps[1].get("use_regex")
        and not any("\n" in token["content"] or token["lstrip"] for token in definition["added_tokens"])
    )
