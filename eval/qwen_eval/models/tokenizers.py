"""Text to tokens and back, one interface for every checkpoint.

Qwen-1's tokenizer is a rank file read with tiktoken; every other checkpoint's is the one transformers finds in it. Plain
text never becomes a special token here, whatever it spells: only `encode_special` and the chat template make those.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import inspect
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import tiktoken

from qwen_eval.models import clock, deadline, gguf_tokenizer
from qwen_eval.models.chat_formats import NAMES, Format, Part, Token
from qwen_eval.models.cutting import QWEN_PATTERN, encode_pieces, may_be_cut
from qwen_eval.models.gguf import Header
from qwen_eval.models.pieces import piece_reader
from qwen_eval.schema import CheckpointError, Message

QWEN_FILE = "qwen.tiktoken"
TEMPLATE_CHARACTERS = 1_000_000  # the longest known has some 30,000
TEMPLATE_SECONDS = 5.0  # of CPU time for one conversation, a thousand times what is needed
JINJA_FILE = "<template>"  # what Jinja calls the file of a template that came as text
QWEN_SYSTEM = "You are a helpful assistant."  # the system text of all chat scripts published with Qwen-7B


class TextTokenizer(ABC):
    """What the engine asks of a tokenizer. Token ids are plain ints.

    vocab_size: ids are below it. eos_ids: what ends a base model's text. stop_ids: what ends a chat reply.
    chat_template: the template's text, None where the checkpoint has none. format: the chat format in the place of a template.
    path: what errors name. template_path: the file of a template that is not the checkpoint's. fingerprint: 16 hex digits that
    change with anything that changes the ids. day: the date (2026-12-01) on which chat templates are rendered, at noon; None:
    whenever it is.
    """

    day: str | None = None
    format: Format | None = None
    path: Path
    template_path: Path | None = None
    vocab_size: int
    eos_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    chat_template: str | None
    fingerprint: str

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, with the BOS the tokenizer itself puts first (none for Qwen), never an EOS."""

    @abstractmethod
    def encode_special(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are recognised; nothing is added."""

    @abstractmethod
    def decode(self, ids: Iterable[int], skip_special: bool = False, kept: Collection[int] = ()) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD. skip_special: without special tokens but those kept."""

    def special_id(self, name: str) -> int | None:
        """The id of a special token, "bos" and "eos" being the tokenizer's own; None where there is none."""
        return None

    def encode_part(self, text: str, begins: bool, tokens: Collection[str]) -> list[int]:
        """Ids of a text within a conversation, whatever it spells. begins: whether it is tokenized as the start of a text.
        tokens: the names that must not become tokens."""
        return self.encode(text)[len(self.encode("")) :]

    def chat_ids(self, messages: Sequence[Message], system: str | None = None, **options: Any) -> list[int]:
        """A conversation as ids, up to where the assistant begins to answer, with the BOS the template gives and no second.

        messages: {"role", "content"} in order. system: the system text where messages do not begin with one (None: what
        the checkpoint does by itself). options: variables of the checkpoint's own template, such as enable_thinking.
        Raises CheckpointError where there is no template or it refuses the messages.
        """
        if self.format is None and self.chat_template is not None:
            turns = with_system(messages, system)
            _refuse_spelled_tokens(turns, self.special_tokens, "use a format by its name (--template)")
            return self.encode_special(self._written(messages, system, options))
        ids: list[int] = []
        parts = self._parts(messages, system, options)
        assert self.format is not None
        names = {token.name for token in self.format.tokens}
        begins = True
        for part in parts:
            if isinstance(part, Token):
                ids.append(self._required(part))
                begins = not part.within
            else:
                ids += self.encode_part(part, begins, names)
                begins = True
        return ids

    def chat_text(self, messages: Sequence[Message], system: str | None = None, **options: Any) -> str:
        """The conversation of chat_ids as text."""
        if self.format is None and self.chat_template is not None:
            return self._written(messages, system, options)
        parts = self._parts(messages, system, options)
        return "".join(self.token_name(self._required(part)) if isinstance(part, Token) else part for part in parts)

    def token_name(self, index: int) -> str:
        """How a special token is spelled."""
        return self.decode([index])

    def _parts(self, messages: Sequence[Message], system: str | None, options: Mapping[str, Any]) -> list[Part]:
        if self.format is None:
            raise CheckpointError(
                f"{self.path} has no chat template; name the model's format with --template ({NAMES}, or a file), take a chat "
                "checkpoint, or leave --chat out"
            )
        if options:
            raise CheckpointError(
                f"the chat format {self.format.name} has no {', '.join(options)}; leave --thinking out"
            )
        return self.format.write(messages, system)

    def _required(self, token: Token) -> int:
        index = self.special_id(token.name)
        if index is None:
            assert self.format is not None
            raise CheckpointError(
                f"{self.path}: its tokenizer has no token {token.name!r}, which the chat format {self.format.name} needs; take "
                "another --template"
            )
        return index

    @property
    def special_tokens(self) -> Collection[str]:
        """The names of the special tokens that `encode_special` recognises."""
        return ()

    @property
    def special_ids(self) -> set[int]:
        """The special tokens, which plain text never becomes."""
        return {index for name in self.special_tokens if (index := self.special_id(name)) is not None}

    def _written(self, messages: Sequence[Message], system: str | None, variables: Mapping[str, Any]) -> str:
        """The conversation by the template in Jinja, where transformers does not know the tokenizer."""
        from transformers.utils.chat_template_utils import render_jinja_template

        named = {name: self.special_id(name) for name in ("bos", "eos")}
        tokens = {f"{name}_token": "" if index is None else self.token_name(index) for name, index in named.items()}
        turns = [dict(message) for message in with_system(messages, system)]
        settings = {"chat_template": self.chat_template, "add_generation_prompt": True, **tokens, **variables}
        render: Any = render_jinja_template  # its result has another type than it says
        try:
            found, _ = render([turns], **settings)
        except Exception as error:  # a template is a program and may raise anything
            raise CheckpointError(
                f"{self.template_path or self.path}: its chat template failed: {one_line(error)}"
            ) from error
        return str(found[0])

    def _ends_of_reply(self, written: str) -> list[int]:
        """The first special token behind the reply "Reply" in a conversation that a template wrote."""
        ids = self.encode_special(written.rpartition("Reply")[2])
        return [index for index in ids if index in self.special_ids][:1]

    def use(self, template: Format | str) -> None:
        """Writes conversations in this format, or by this template in Jinja, from now on. Raises CheckpointError where the
        tokenizer lacks tokens of the format."""
        if isinstance(template, str):
            if "strftime_now" in template:
                raise CheckpointError(
                    f"{self.path}: a chat template that shows the date is not supported for this tokenizer; take one that does "
                    f"not, or a format by its name ({NAMES})"
                )
            self.format, self.chat_template = None, template
            try:
                ends = self._ends_of_reply(self._written(ONE_ROUND, None, {}))
            except CheckpointError:  # it may refuse this conversation
                ends = []
            self.stop_ids = tuple(dict.fromkeys([*self.eos_ids, *ends]))
            return
        self.format, self.chat_template = template, None
        for token in template.tokens:
            self._required(token)
        self.stop_ids = tuple(dict.fromkeys([*self.eos_ids, *map(self._required, template.ends)]))

    @property
    def template_label(self) -> str:
        """What signatures call the way conversations are written: the name of a format with a hash of what it writes, or the
        first 8 hexadecimal digits of the SHA-256 of a template's text."""
        if self.format is not None and self.chat_template is None:
            return self.format.label
        return hashlib.sha256((self.chat_template or "").encode()).hexdigest()[:8]

    def moves(self, messages: Sequence[Message], **options: Any) -> bool:
        """Whether the template writes this conversation otherwise at another time. Raises CheckpointError for a template that
        writes it otherwise at the same time."""
        return False

    def special_named(self, names: Collection[str]) -> frozenset[int]:
        """The special tokens of these names."""
        return frozenset()

    def encode(self, text: str) -> list[int]:
        """encode_batch for one text."""
        return self.encode_batch([text])[0]

    def token_bytes(self, ids: Iterable[int]) -> bytes:
        """The UTF-8 text of some ids; for Qwen-1 the very bytes of the tokens."""
        return self.decode(ids).encode("utf-8", "replace")

    def token_texts(self, ids: Iterable[int]) -> list[str]:
        """Each token's text by itself; part of a character becomes U+FFFD."""
        return [self.decode([index]) for index in ids]

    def split_texts(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text as the texts of its tokens, without the BOS that some tokenizers put first."""
        start = len(self.encode(""))
        return [self.token_texts(ids[start:]) for ids in self.encode_batch(texts)]


# what a template is asked for to see how it ends a reply
ONE_ROUND: list[Message] = [{"role": "user", "content": "Ask"}, {"role": "assistant", "content": "Reply"}]


def with_system(messages: Sequence[Message], system: str | None) -> list[Message]:
    """The messages with a system message first, unless they have one or `system` is None."""
    if system is None or (messages and messages[0]["role"] == "system"):
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


def _qwen(messages: Sequence[Message], system: str | None) -> list[Part]:
    """Qwen-1's ChatML: it always begins with a system text, if necessary an empty one. Role, line feed and content are apart,
    so that no token spans two of them."""
    parts: list[Part] = []
    for turn in with_system(messages, QWEN_SYSTEM if system is None else system):
        parts += [Token("<|im_start|>"), turn["role"], "\n", turn["content"], Token("<|im_end|>"), "\n"]
    return [*parts, Token("<|im_start|>"), "assistant", "\n"]


QWEN_FORMAT = Format("qwen1", _qwen, (Token("<|im_end|>"), Token("<|im_start|>")))


class QwenTokenizer(TextTokenizer):
    """Qwen-1's tokenizer from its rank file (lines of base64 token, space, rank): text is NFC-normalised, and 208
    special tokens follow the last rank."""

    # what QWEN_FORMAT writes, by whose hash signatures name it
    chat_template: str | None = (
        "<|im_start|>{role}\\n{content}<|im_end|>\\n ... <|im_start|>assistant\\n; system: " + QWEN_SYSTEM
    )

    def __init__(self, path: Path) -> None:
        content = _read(path)
        ranks = _parse_ranks(path, content)
        first = max(ranks.values()) + 1
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{index}|>" for index in range(205))]
        specials = {name: first + index for index, name in enumerate(names)}
        self.path = path
        self.endoftext, self.im_start, self.im_end = first, first + 1, first + 2
        self.vocab_size = first + len(names)
        self.eos_ids = (self.endoftext,)
        self.stop_ids = (self.im_end, self.im_start, self.endoftext)
        self.fingerprint = hashlib.sha256(content + QWEN_PATTERN.encode()).hexdigest()[:16]
        self.format = QWEN_FORMAT
        self._special = specials
        self._encoding = tiktoken.Encoding("qwen", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens=specials)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        normal = [unicodedata.normalize("NFC", text) for text in texts]
        return encode_pieces(normal, lambda pieces: [self._encoding.encode_ordinary(piece) for piece in pieces])

    def encode_special(self, text: str) -> list[int]:
        return self._encoding.encode(unicodedata.normalize("NFC", text), allowed_special="all")

    def decode(self, ids: Iterable[int], skip_special: bool = False, kept: Collection[int] = ()) -> str:
        limit = self.endoftext if skip_special else self.vocab_size
        return self.token_bytes(index for index in ids if index < limit).decode("utf-8", "replace")

    def token_bytes(self, ids: Iterable[int]) -> bytes:
        # models have more output rows than tokens (151,936 against 151,851); such an id has no text
        return self._encoding.decode_bytes([int(index) for index in ids if index < self.vocab_size])

    @property
    def special_tokens(self) -> Collection[str]:
        return self._special

    def special_id(self, name: str) -> int | None:
        return self._special.get("<|endoftext|>" if name == "eos" else name)

    def chat_text(self, messages: Sequence[Message], system: str | None = None, **options: Any) -> str:
        return self.decode(self.chat_ids(messages, system, **options))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; get it from the checkpoint's page on the hub") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def _parse_ranks(path: Path, content: bytes) -> dict[bytes, int]:
    """The ranks of a tiktoken file. Raises CheckpointError with the number of the first bad line."""
    ranks: dict[bytes, int] = {}
    remedy = "the file is damaged, get it again"
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            piece = base64.b64decode(token, validate=True)
            value = int(rank)
            if value < 0:
                raise ValueError
        except (ValueError, binascii.Error):
            raise CheckpointError(f"{path}:{number}: not a base64 token and its rank; {remedy}") from None
        if piece in ranks:
            raise CheckpointError(f"{path}:{number}: a token that an earlier line has; {remedy}")
        ranks[piece] = value
    if len(set(ranks.values())) != len(ranks):
        raise CheckpointError(f"{path}: one rank is given to two tokens; {remedy}")
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise CheckpointError(f"{path}: {missing} of the 256 single bytes are missing; {remedy}")
    return ranks


class HubTokenizer(TextTokenizer):
    """Whatever tokenizer transformers finds in a folder, or in a GGUF file."""

    def __init__(
        self,
        folder: Path,
        eos_ids: Sequence[int] = (),
        trust_remote_code: bool = False,
        header: Header | None = None,
    ) -> None:
        import transformers

        self.path = folder = header.path if header else folder
        where = {"gguf_file": folder.name} if header else {"trust_remote_code": trust_remote_code}
        try:
            tok: Any = transformers.AutoTokenizer.from_pretrained(
                folder.parent if header else folder, local_files_only=True, **where
            )
            if header:
                gguf_tokenizer.complete(folder, header.metadata, tok)
        except CheckpointError:
            raise
        except Exception as error:  # transformers raises anything here, from KeyError to RuntimeError
            if "trust_remote_code" in str(error):
                why = "its tokenizer is Python code in the checkpoint; pass --trust-remote-code if you trust it"
                raise CheckpointError(f"{folder}: {why}") from error
            raise CheckpointError(f"{folder}: its tokenizer cannot be loaded: {one_line(error)}") from error
        self.model_max_length = int(tok.model_max_length)
        tok.model_max_length = 10**30  # the engine knows the limit; the tokenizer would only warn
        self.tok = tok
        self.vocab_size = len(tok)
        named = [tok.eos_token_id, *eos_ids]
        self.eos_ids = tuple(dict.fromkeys(index for index in named if index is not None))
        template = getattr(tok, "chat_template", None)
        self.chat_template = (template.get("default") if isinstance(template, dict) else template) or None
        if len(self.chat_template or "") > TEMPLATE_CHARACTERS:
            raise CheckpointError(
                f"{folder}: its chat template has {len(self.chat_template or '')} characters, {TEMPLATE_CHARACTERS} are the "
                "most that is read; get the checkpoint's files again"
            )
        if not tok.encode("The answer is A.", add_special_tokens=False):
            # transformers makes an empty tokenizer where there is no file of one
            why = "its tokenizer cannot be loaded: tokenizer.json or its like is missing, or has no vocabulary"
            raise CheckpointError(f"{folder}: {why}; get the tokenizer's files from the checkpoint's page")
        self._bos = self._find_bos()
        # without what it puts first: OPT's BOS is its unknown token, too
        if tok.unk_token_id is not None and tok.unk_token_id in tok.encode(
            "The answer is A.", add_special_tokens=False
        ):
            why = (
                f"transformers {transformers.__version__} misreads its tokenizer (plain English becomes unknown tokens)"
            )
            raise CheckpointError(f"{folder}: {why}; upgrade transformers")
        self._safe_chat = "sanitize_control_tokens" in inspect.signature(tok.apply_chat_template).parameters

    def _find_bos(self) -> list[int]:
        """What this tokenizer itself puts before a text."""
        bare: list[int] = self.tok.encode("a", add_special_tokens=False)
        whole: list[int] = self.tok.encode("a", add_special_tokens=True)
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return whole[:start]
        return []

    @cached_property
    def _special_names(self) -> dict[str, int]:
        return {token.content: index for index, token in self.tok.added_tokens_decoder.items() if token.special}

    @property
    def special_ids(self) -> set[int]:
        return set(self._special_names.values())

    @property
    def special_tokens(self) -> Collection[str]:
        return {*self._special_names, *self.tok.all_special_tokens}

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:  # type: ignore[override]
        """The end-of-text tokens, and the special token that the template puts after an assistant's turn: base checkpoints with
        a chat template do not name it as one."""
        if self.chat_template is None:
            return self.eos_ids  # `use` adds those of a format
        try:
            text = self.tok.apply_chat_template([dict(turn) for turn in ONE_ROUND], tokenize=False)
        except Exception:  # a template is a program of the checkpoint and may refuse this
            return self.eos_ids
        return tuple(dict.fromkeys([*self.eos_ids, *self._ends_of_reply(text)]))

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        backend = getattr(self.tok, "backend_tokenizer", None)
        definition = backend.to_str() if backend is not None else repr(sorted(self.tok.get_vocab().items()))
        return hashlib.sha256(f"{definition}{self._bos}".encode("utf-8", "replace")).hexdigest()[:16]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        clean = [text if text.isascii() else without_surrogates(text) for text in texts]
        ids = encode_pieces(clean, self._encode_plain) if self._may_be_cut else self._encode_plain(clean)
        return [[*self._bos, *own] for own in ids]

    @cached_property
    def _may_be_cut(self) -> bool:
        backend = getattr(self.tok, "backend_tokenizer", None)
        return backend is not None and may_be_cut(backend)

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tok(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,  # special tokens spelled out in a text are text
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return ids

    def encode_special(self, text: str) -> list[int]:
        ids: list[int] = self.tok.encode(text, add_special_tokens=False, split_special_tokens=False)
        return ids

    @cached_property
    def _piece_bytes(self) -> Callable[[str], bytes] | None:
        backend = getattr(self.tok, "backend_tokenizer", None)
        return piece_reader(backend) if backend is not None else None

    def token_bytes(self, ids: Iterable[int]) -> bytes:
        if self._piece_bytes is None:
            return super().token_bytes(ids)
        pieces = self.tok.convert_ids_to_tokens([int(index) for index in ids if index < self.vocab_size])
        return b"".join(map(self._piece_bytes, pieces))

    def special_named(self, names: Collection[str]) -> frozenset[int]:
        return frozenset(self._special_names[name] for name in names if name in self._special_names)

    def decode(self, ids: Iterable[int], skip_special: bool = False, kept: Collection[int] = ()) -> str:
        known = [int(index) for index in ids if index < self.vocab_size]  # some output matrices have more rows
        if skip_special and kept:
            special = self.special_ids
            known, skip_special = [index for index in known if index not in special or index in kept], False
        text: str = self.tok.decode(known, skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)
        return text

    def special_id(self, name: str) -> int | None:
        own = {"bos": self.tok.bos_token_id, "eos": self.tok.eos_token_id}
        return own[name] if name in own else self._special_names.get(name)

    def token_name(self, index: int) -> str:
        return str(self.tok.convert_ids_to_tokens(index))

    def use(self, template: Format | str) -> None:
        if isinstance(template, str):
            self.format, self.chat_template, self.tok.chat_template = None, template, template
            vars(self).pop("stop_ids", None)  # those of another template
        else:
            super().use(template)

    def chat_ids(self, messages: Sequence[Message], system: str | None = None, **options: Any) -> list[int]:
        if self.chat_template is None:
            return super().chat_ids(messages, system, **options)
        # where transformers can tell the template's special tokens from those that a message spells out, it does
        safe = {"sanitize_control_tokens": True} if self._safe_chat else {}
        if not self._safe_chat:
            turns = with_system(messages, system)
            _refuse_spelled_tokens(turns, self.special_tokens, "install transformers 5.23 or later")
        ids = list(self._template(messages, system, tokenize=True, return_dict=False, **safe, **options))
        if not ids:
            raise CheckpointError(
                f"{self.template_path or self.path}: its chat template writes nothing; get the checkpoint's files again"
            )
        return ids

    def chat_text(self, messages: Sequence[Message], system: str | None = None, **options: Any) -> str:
        if self.chat_template is None:
            return super().chat_text(messages, system, **options)
        return str(self._template(messages, system, tokenize=False, **options))

    def moves(self, messages: Sequence[Message], **options: Any) -> bool:
        if self.chat_template is None:
            return False

        def text(moment: datetime) -> str:
            with clock.stopped(moment, self._clock_names):
                return str(self._render(messages, None, tokenize=False, **options))

        texts = [text(moment) for moment in clock.MOMENTS]
        if text(clock.MOMENTS[0]) != texts[0]:
            raise CheckpointError(
                f"{self.template_path or self.path}: its chat template gives a different text for the same conversation each "
                "time (at random?), so that no answer could be repeated; take a template that does not"
            )
        return len(set(texts)) > 1

    @cached_property
    def _clock_names(self) -> list[clock.Names]:
        """Where names of clocks are looked up when a conversation is rendered: in the modules of the tokenizer's classes, among
        the template's globals and in the modules of the functions among them."""
        from transformers.utils import chat_template_utils

        modules = (sys.modules.get(kind.__module__) for kind in type(self.tok).__mro__ if kind is not object)
        places: list[clock.Names] = [vars(module) for module in modules if module]
        try:  # transformers keeps what it compiled: it renders this very template
            names = chat_template_utils._compile_jinja_template(self.chat_template).globals
        except Exception:  # an older or newer transformers, or a template that does not compile: rendering it says so
            return [*places, vars(chat_template_utils)]
        functions = [value for value in names.values() if inspect.isfunction(value)]
        return [*places, names, *(function.__globals__ for function in functions)]

    def _template(self, messages: Sequence[Message], system: str | None, **options: Any) -> Any:
        if self.day is None:
            return self._render(messages, system, **options)
        with clock.stopped(clock.noon(self.day), self._clock_names):
            return self._render(messages, system, **options)

    def _render(self, messages: Sequence[Message], system: str | None, **options: Any) -> Any:
        turns = [dict(message) for message in with_system(messages, system)]
        try:
            with deadline.on_frames(JINJA_FILE, TEMPLATE_SECONDS):
                return self.tok.apply_chat_template(turns, add_generation_prompt=True, **options)
        except deadline.Passed:
            raise CheckpointError(
                f"{self.path}: its chat template takes more than {TEMPLATE_SECONDS:g} s for one conversation; get the "
                "checkpoint's files again, from a source that you trust"
            ) from None
        except Exception as error:  # a template is a program of the checkpoint's and may raise anything
            raise CheckpointError(
                f"{self.template_path or self.path}: its chat template failed: {one_line(error)}"
            ) from error


def _refuse_spelled_tokens(messages: Sequence[Message], special: Collection[str], remedy: str) -> None:
    """Raises CheckpointError for a message that spells a special token, which the template's text could not be told from: a
    turn could end in the middle of its message."""
    for message in messages:
        spelled = next((token for token in sorted(special) if token in message["content"]), None)
        if spelled is not None:
            raise CheckpointError(
                f"a message contains {spelled!r}, which the template's special token cannot be told from here; {remedy}"
            )


def without_surrogates(text: str) -> str:
    """Lone surrogates, which are no UTF-8, become U+FFFD, as tiktoken makes them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_line(error: BaseException) -> str:
    """The first line of an error's text that is not blank, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
