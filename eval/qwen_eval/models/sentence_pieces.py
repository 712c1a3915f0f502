"""Tokenizers that are one SentencePiece model and a little code of 2023: Baichuan's, ChatGLM2's and InternLM's.

The model file is read by sentencepiece itself. What transformers makes of these files puts spaces where they have none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from qwen_eval.models import files
from qwen_eval.models.chat_formats import Format
from qwen_eval.models.pieces import sentencepiece_bytes
from qwen_eval.models.tokenizers import TextTokenizer, one_line, without_surrogates
from qwen_eval.schema import CheckpointError

FILE = "tokenizer.model"
sentencepiece.SetMinLogLevel(2)  # else it writes a warning for a piece of InternLM's
records: Any = sentencepiece_model_pb2  # its classes are made when it is imported


class SentencePieceTokenizer(TextTokenizer):
    """The tokenizer of a folder with tokenizer.model.

    extra: names of special tokens whose ids follow the last piece; no text becomes them. first: names of what is put before a
    text. eos_ids: those its config and generation config name. format: the chat format where the folder has no template. Raises
    CheckpointError where the file is missing, damaged, or lacks one of these.
    """

    def __init__(
        self,
        folder: Path,
        extra: Sequence[str] = (),
        first: Sequence[str] = (),
        eos_ids: Sequence[int] = (),
        format: Format | None = None,
    ) -> None:
        self.path = folder / FILE
        content = _read(self.path)
        self._model = content
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.path} is no SentencePiece model ({one_line(error)}); get it again, or the whole checkpoint"
            ) from None
        self._size = int(self._pieces.get_piece_size())
        self._extra = {name: self._size + index for index, name in enumerate(extra)}
        self.vocab_size = self._size + len(extra)
        own = self._pieces.eos_id()
        self.eos_ids = tuple(dict.fromkeys([*([own] if own >= 0 else []), *eos_ids]))
        self.stop_ids = self.eos_ids
        self.chat_template: str | None = None
        self._first = [self._named(name) for name in first]
        self.fingerprint = hashlib.sha256(content + repr((sorted(self._extra), self._first)).encode()).hexdigest()[:16]
        template = _template(folder) or format
        if template is not None:
            self.use(template)

    def _named(self, name: str) -> int:
        index = self.special_id(name)
        if index is None:
            raise CheckpointError(
                f"{self.path} has no token {name!r}, which is put before texts; get the tokenizer again"
            )
        return index

    @cached_property
    def _continuing(self) -> Any:
        """The same model for text that continues another one: without a space put first."""
        model = records.ModelProto.FromString(self._model)
        model.normalizer_spec.add_dummy_prefix = False
        return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())

    @cached_property
    def _special(self) -> frozenset[int]:
        """What decoding leaves out with skip_special."""
        pieces = self._pieces
        return frozenset(index for index in range(self._size) if pieces.is_control(index) or pieces.is_unknown(index))

    def special_id(self, name: str) -> int | None:
        if name in ("bos", "eos"):
            index = int(self._pieces.bos_id() if name == "bos" else self._pieces.eos_id())
            return index if index >= 0 else None
        if name in self._extra:
            return self._extra[name]
        index = int(self._pieces.piece_to_id(name))
        return None if self._pieces.is_unknown(index) else index

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._pieces.encode([without_surrogates(text) for text in texts])
        return [[*self._first, *ids] for ids in found]

    @cached_property
    def _spelled(self) -> list[str]:
        """The pieces that a text becomes wherever it spells them."""
        kind = records.ModelProto.SentencePiece.USER_DEFINED
        return [piece.piece for piece in records.ModelProto.FromString(self._model).pieces if piece.type == kind]

    @cached_property
    def _never_text(self) -> list[str]:
        """The names of what no text becomes."""
        return [*self._extra, *(str(self._pieces.id_to_piece(index)) for index in sorted(self._special))]

    @property
    def special_tokens(self) -> Collection[str]:
        """What no text becomes, and the marks that a template spells."""
        return [*self._never_text, *(name for name in self._spelled if name in (self.chat_template or ""))]

    def encode_special(self, text: str) -> list[int]:
        names = self._never_text
        ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]:
            if part in names:
                ids.append(self._extra.get(part, int(self._pieces.piece_to_id(part))))
            elif part:
                ids += self._pieces.encode(without_surrogates(part))
        return ids

    def encode_part(self, text: str, begins: bool, tokens: Collection[str]) -> list[int]:
        text = without_surrogates(text)
        own = {"bos", "eos", *self._extra}  # what no text becomes
        spelled = [name for name in tokens if name not in own and len(name) > 1]
        # a name that the text spells is cut behind its first character
        cuts = "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in spelled)
        ids: list[int] = []
        for index, part in enumerate(re.split(cuts, text) if cuts else [text]):
            pieces = self._pieces if begins and index == 0 else self._continuing
            ids += pieces.encode(part)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = False, kept: Collection[int] = ()) -> str:
        known = [int(index) for index in ids if 0 <= index < self._size]  # those behind the last piece have no text
        if skip_special:
            known = [index for index in known if index not in self._special]
        return str(self._pieces.decode(known))

    def token_bytes(self, ids: Iterable[int]) -> bytes:
        known = [int(index) for index in ids if 0 <= index < self._size and not self._pieces.is_control(int(index))]
        return b"".join(sentencepiece_bytes(self._pieces.id_to_piece(index)) for index in known)

    def token_texts(self, ids: Iterable[int]) -> list[str]:
        return [self.token_bytes([index]).decode("utf-8", "replace") for index in ids]

    def token_name(self, index: int) -> str:
        names = {number: name for name, number in self._extra.items()}
        return names.get(index) or str(self._pieces.id_to_piece(index))


def _template(folder: Path) -> str:
    """The chat template that somebody added to the folder, "" where there is none, as there is in those of 2023."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8", errors="replace")
    path = folder / "tokenizer_config.json"
    found = files.read_json(path).get("chat_template") if path.exists() else None
    return found if isinstance(found, str) else ""


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; get it from the checkpoint's page on the hub") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if content.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, no tokenizer; run: git lfs pull")
    return content
