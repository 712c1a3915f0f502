"""Chat formats by name, for checkpoints that have no template: what the code that was published with their models wrote.

A conversation becomes a sequence of parts: texts, each encoded by itself and as plain text, and special tokens by name. What a
message spells is never a special token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from qwen_eval.schema import CheckpointError, Message


@dataclass(frozen=True)
class Token:
    """A special token, by its name in the vocabulary; "bos" and "eos" stand for the tokenizer's own. within: whether the text
    that follows it is tokenized as a continuation, as in the published code, which spelled the token out, and not as the start
    of a text."""

    name: str
    within: bool = False


Part: TypeAlias = str | Token
Writer: TypeAlias = Callable[[Sequence[Message], str | None], list[Part]]
BOS, EOS = Token("bos"), Token("eos")


@dataclass(frozen=True)
class Format:
    """A chat format. write: (messages, the system text or None) -> the parts of the conversation up to where the assistant
    begins to answer; raises CheckpointError for a conversation that the format does not have. ends: the tokens that end a reply
    beside the end of text."""

    name: str
    write: Writer
    ends: tuple[Token, ...] = ()

    @cached_property
    def label(self) -> str:
        """What signatures call it: the name, and the first 8 hexadecimal digits of the SHA-256 of two rounds in it."""
        turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
        return f"{self.name}-{hashlib.sha256(repr((self.write(turns, None), self.ends)).encode()).hexdigest()[:8]}"

    @cached_property
    def tokens(self) -> set[Token]:
        """The special tokens that it writes or ends with."""
        turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
        return {part for part in self.write(turns, None) if isinstance(part, Token)} | set(self.ends)


@dataclass(frozen=True)
class Rounds:
    """A conversation. system: its system text, None for none. past: (user, assistant) by round. last: what is to be
    answered."""

    system: str | None
    past: Sequence[tuple[str, str]]
    last: str


def rounds(messages: Sequence[Message], system: str | None, name: str, with_system: bool = True) -> Rounds:
    """A conversation by rounds. with_system: whether the format has system texts. Raises CheckpointError for a conversation in
    which user and assistant do not take turns, and for a system text where the format has none."""
    turns = list(messages)
    if turns and turns[0]["role"] == "system":
        system = turns.pop(0)["content"]
    if system is not None and not with_system:
        raise CheckpointError(f"the chat format {name} has no system text; leave --system-prompt out")
    roles = [turn["role"] for turn in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise CheckpointError(
            f"the chat format {name} has user and assistant in turns, the user first and last; here: {', '.join(roles)}"
        )
    texts = [turn["content"] for turn in turns]
    return Rounds(system, list(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1])


def _chatglm2(messages: Sequence[Message], system: str | None) -> list[Part]:
    """ChatGLM2's code of 2023: rounds are counted from 1 and joined by blank lines."""
    talk = rounds(messages, system, "chatglm2", with_system=False)
    done = [f"[Round {number}]\n\n问：{user}\n\n答：{reply}\n\n" for number, (user, reply) in enumerate(talk.past, 1)]
    text = "".join(done) + f"[Round {len(done) + 1}]\n\n问：{talk.last}\n\n答："
    return [Token("[gMASK]"), Token("sop"), text]


def baichuan(user: str, assistant: str) -> Format:
    """Baichuan-13B-Chat's format, with the names of the tokens that begin a turn of either side."""

    def write(messages: Sequence[Message], system: str | None) -> list[Part]:
        talk = rounds(messages, system, "baichuan", with_system=False)
        parts: list[Part] = []
        for asked, reply in talk.past:
            parts += [Token(user), asked, Token(assistant), reply, EOS]
        return [*parts, Token(user), talk.last, Token(assistant)]

    return Format("baichuan", write)


def _chatml(messages: Sequence[Message], system: str | None) -> list[Part]:
    """ChatML (OpenAI, 2023), without a system text of its own."""
    start, end = Token("<|im_start|>"), Token("<|im_end|>")
    turns = list(messages)
    if system is not None and not (turns and turns[0]["role"] == "system"):
        turns.insert(0, {"role": "system", "content": system})
    parts: list[Part] = []
    for turn in turns:
        parts += [start, f"{turn['role']}\n{turn['content']}", end, "\n"]
    return [*parts, start, "assistant\n"]


def _internlm(messages: Sequence[Message], system: str | None) -> list[Part]:
    """InternLM-Chat's code of 2023: <s> is spelled before every past round, and before the first one where it is open; the line
    feed before such a <s> is lost, and the tokenizer puts another one first."""
    talk = rounds(messages, system, "internlm", with_system=False)
    asked, replied = Token("<eoh>", within=True), Token("<eoa>", within=True)
    parts: list[Part] = [BOS]
    for user, reply in talk.past:
        parts += [BOS, f"<|User|>:{user}", asked, f"\n<|Bot|>:{reply}", replied]
    first: list[Part] = [f"\n<|User|>:{talk.last}"] if talk.past else [BOS, f"<|User|>:{talk.last}"]
    return [*parts, *first, asked, "\n<|Bot|>:"]


def _llama2(messages: Sequence[Message], system: str | None) -> list[Part]:
    """LLaMA 2 Chat, as in Meta's chat_completion (2023): every round begins with BOS, and past ones end with EOS."""
    talk = rounds(messages, system, "llama2")
    before = "" if talk.system is None else f"<<SYS>>\n{talk.system}\n<</SYS>>\n\n"
    asked = [user for user, _ in talk.past] + [talk.last]
    asked[0] = before + asked[0]
    parts: list[Part] = []
    for user, (_, reply) in zip(asked[:-1], talk.past, strict=True):
        parts += [BOS, f"[INST] {user.strip()} [/INST] {reply.strip()} ", EOS]
    return [*parts, BOS, f"[INST] {asked[-1].strip()} [/INST]"]


_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
    "answers to the user's questions."
)


def _vicuna(messages: Sequence[Message], system: str | None) -> list[Part]:
    """Vicuna v1.1 and v1.5, as FastChat writes it (2023)."""
    talk = rounds(messages, system, "vicuna")
    parts: list[Part] = [BOS]
    text = f"{_VICUNA if talk.system is None else talk.system} "
    for user, reply in talk.past:
        parts += [f"{text}USER: {user} ASSISTANT: {reply}", EOS]
        text = ""
    return [*parts, f"{text}USER: {talk.last} ASSISTANT:"]


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        baichuan("<reserved_102>", "<reserved_103>"),  # as released
        Format("chatglm2", _chatglm2),
        Format("chatml", _chatml, (Token("<|im_end|>"),)),
        Format("internlm", _internlm, (Token("<eoa>"),)),
        Format("llama2", _llama2),
        Format("vicuna", _vicuna),
    )
}
NAMES = ", ".join(sorted(FORMATS))


def find(named: str) -> Format | str:
    """What --template names: a format, or the text of a file with a Jinja template. Raises CheckpointError for neither."""
    if named in FORMATS:
        return FORMATS[named]
    path = Path(named)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        what = "is no format" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise CheckpointError(
            f"--template {named} {what}; use one of {NAMES}, or a file with a Jinja template"
        ) from None
    if "messages" not in text:
        raise CheckpointError(f"--template {named}: no chat template in Jinja, it does not mention its messages")
    return text
