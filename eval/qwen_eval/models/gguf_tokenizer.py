"""The pre-tokenizer of a GGUF file: how a text is split before bytes are merged.

Such a file holds a vocabulary, its merges and the name of a pre-tokenizer (tokenizer.ggml.pre), not the pre-tokenizer itself.
transformers' reader takes GPT-2's where it does not know the name: SmolLM2 then silently gets "  3" as other tokens than it was
trained on. Here a name is either known, with the pattern of the tokenizer.json that models of this name were published with, or
an error. The names are llama.cpp's (src/llama-vocab.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_eval.schema import CheckpointError

_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
# words of capitals end where a word of small letters begins
_LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_OTHERS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_SUFFIXES}|{_LETTERS}|\p{{N}}{{1,3}}|{_OTHERS}|{_SPACES}"
QWEN2 = rf"{_SUFFIXES}|{_LETTERS}|\p{{N}}|{_OTHERS}|{_SPACES}"
QWEN35 = rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
TEKKEN = rf"{_LOWER}|{_UPPER}|\p{{N}}|{_OTHERS_AND_SLASHES}|{_SPACES}"
GPT4O = rf"{_LOWER}{_SUFFIXES}?|{_UPPER}{_SUFFIXES}?|\p{{N}}{{1,3}}|{_OTHERS_AND_SLASHES}|{_SPACES}"


@dataclass(frozen=True)
class _PreTokenizer:
    """patterns: applied one after the other, each to the pieces before it. nfc: whether text is NFC-normalised first. whole:
    whether a piece that is a token needs no merges. bos: whether a BOS comes first where the file does not say."""

    patterns: tuple[str, ...]
    nfc: bool = False
    whole: bool = False
    bos: bool = False


_LLAMA3_LIKE = _PreTokenizer((LLAMA3,), whole=True, bos=True)
_DIGITS_LIKE = _PreTokenizer((r"\p{N}", GPT2))
PRE_TOKENIZERS = {
    "gpt-2": _PreTokenizer((GPT2,)),
    "phi-2": _PreTokenizer((GPT2,)),
    "smollm": _DIGITS_LIKE,
    "starcoder": _DIGITS_LIKE,
    "refact": _DIGITS_LIKE,
    "codeshell": _DIGITS_LIKE,
    "llama3": _LLAMA3_LIKE,
    "llama-v3": _LLAMA3_LIKE,
    "llama-bpe": _LLAMA3_LIKE,
    "falcon3": _LLAMA3_LIKE,
    "qwen2": _PreTokenizer((QWEN2,), nfc=True),
    "deepseek-r1-qwen": _PreTokenizer((QWEN2,)),
    "qwen35": _PreTokenizer((QWEN35,), nfc=True),
    "tekken": _PreTokenizer((TEKKEN,), whole=True, bos=True),
    "gpt-4o": _PreTokenizer((GPT4O,)),
    "llama4": _PreTokenizer((GPT4O,), bos=True),
}


def complete(path: Path, metadata: Any, tok: Any) -> None:
    """Gives a tokenizer that transformers read from a GGUF file the pre-tokenizer and the BOS that the file asks for.

    metadata: of the file's header. tok: transformers' tokenizer, changed in place. Raises CheckpointError for a pre-tokenizer
    or a kind of tokenizer that is not known here.
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind == "gpt2":
        how = PRE_TOKENIZERS.get(pre)
        if how is None:
            unnamed = pre in (None, "default")
            what = "it names no pre-tokenizer" if unnamed else f"its pre-tokenizer {pre!r} is not known here"
            raise CheckpointError(
                f"{path}: {what} (tokenizer.ggml.pre); convert the model again, or use the checkpoint that it was made from"
            )
        _set_pre_tokenizer(tok.backend_tokenizer, how)
        first = how.bos
    elif kind == "llama":
        if metadata.get("tokenizer.ggml.add_space_prefix", True):
            _set_space_prefix(tok.backend_tokenizer)
        first = True
    else:
        raise CheckpointError(
            f"{path}: its tokenizer is of the kind {kind!r}, and byte-level BPE (gpt2) and SentencePiece (llama) are read; use "
            "the checkpoint that the file was made from"
        )
    _set_bos(path, tok, metadata.get("tokenizer.ggml.add_bos_token", first))


def _set_pre_tokenizer(backend: Any, how: _PreTokenizer) -> None:
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    steps = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in how.patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, last])
    backend.normalizer = normalizers.NFC() if how.nfc else normalizers.Sequence([])
    backend.decoder = decoders.ByteLevel()
    backend.model.ignore_merges = how.whole


def _set_space_prefix(backend: Any) -> None:
    """A space in front of every text, as SentencePiece puts it there; transformers puts none where a text begins with one."""
    from tokenizers import normalizers, pre_tokenizers

    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.pre_tokenizer = pre_tokenizers.Sequence([])


def _set_bos(path: Path, tok: Any, wanted: bool) -> None:
    """A BOS in front of every text, or none; an EOS never."""
    from tokenizers import processors

    if not wanted:
        tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A", pair="$A $B", special_tokens=[]
        )
        return
    if tok.bos_token_id is None:
        raise CheckpointError(
            f"{path}: a BOS comes first and none is named (tokenizer.ggml.bos_token_id); convert it again"
        )
    bos = tok.bos_token
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tok.bos_token_id)]
    )
