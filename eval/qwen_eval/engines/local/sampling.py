"""The choice of the next token, and the end of a text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.prompting import before_stop, stream_name
from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import Generate

# Tokens of the prompt that are decoded with the reply: some tokenizers drop the first space of what they decode.
CONTEXT = 4


@dataclass(eq=False)
class Reply:
    """One text while it is generated. prompt: int32 [length]. ends: the tokens that end it. kept: special tokens that
    stay in the text. open_stream: gives this sample's
    random numbers from the start, None for greedy decoding."""

    request: int
    sample: int
    prompt: np.ndarray
    max_tokens: int
    stop: tuple[str, ...]
    ends: frozenset[int]
    temperature: float = 0.0
    open_stream: Callable[[], random.Random | None] = lambda: None
    kept: frozenset[int] = frozenset()
    tokens: list[int] = field(default_factory=list)
    reason: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        self.stream = self.open_stream()

    def restart(self) -> None:
        """Back to before the first token: its batch did not fit in memory, it will be generated again."""
        self.tokens, self.reason, self.text = [], "", ""
        self.stream = self.open_stream()

    def add(self, token: int, tokenizer: TextTokenizer) -> bool:
        """Takes the next token; returns whether the text ended (reason says how)."""
        if token in self.ends:
            return self._finish("eos", tokenizer)
        self.tokens.append(token)
        if self.stop and self._may_stop(tokenizer) and self._finish("stop", tokenizer):
            return True
        return len(self.tokens) >= self.max_tokens and self._finish("length", tokenizer)

    def _may_stop(self, tokenizer: TextTokenizer) -> bool:
        """Whether there is a stop string in the last tokens; every token is at least one byte, most are several."""
        longest = max(len(text.encode()) for text in self.stop)
        tail = tokenizer.decode(self.tokens[-(longest + 4) :])
        return any(text in tail for text in self.stop)

    def _finish(self, reason: str, tokenizer: TextTokenizer) -> bool:
        """Ends the text, cut before the first stop string. "stop" only ends it if there is one."""
        before = [int(token) for token in self.prompt[-CONTEXT:]]
        context, text, alone = (
            tokenizer.decode(ids, skip_special=True, kept=self.kept)
            for ids in (before, before + self.tokens, self.tokens)
        )
        text = text[len(context) :] if text.startswith(context) else alone
        cut = before_stop(text, self.stop)
        if cut is not None:
            text, reason = cut, "stop"
        elif reason == "stop":
            return False
        self.text, self.reason = text, reason
        return True


# (logits [replies, vocabulary], replies) -> tokens
Choice: TypeAlias = Callable[[Tensor, Sequence[Reply]], Sequence[int]]


def stream(seed: int, request: Generate, sample: int) -> random.Random | None:
    """The random numbers of one sample, seeded by the name of its stream (of which Python takes the SHA-512); None for
    greedy decoding."""
    return random.Random(stream_name(seed, request, sample)) if request.temperature > 0 else None


def choose_tokens(logits: Tensor, replies: Sequence[Reply]) -> list[int]:
    """The next token of each reply. logits [replies, vocabulary]; greedy takes the highest (the first of equals), sampling
    inverts the cumulative distribution at the reply's next random number."""
    best = logits.argmax(-1).tolist()
    for row, reply in enumerate(replies):
        if reply.stream is not None:
            odds = (logits[row].double() / reply.temperature).softmax(-1).cumsum(-1)
            index = torch.searchsorted(odds, reply.stream.random() * float(odds[-1]), right=True)
            best[row] = min(int(index), logits.shape[1] - 1)
    return best
