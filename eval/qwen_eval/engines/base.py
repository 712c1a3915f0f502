"""What all engines have in common: the counters, the notes, the settings that an engine refuses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from qwen_eval.engines.conversations import conversations
from qwen_eval.schema import (
    Choose,
    Chosen,
    EngineInfo,
    Generate,
    Generated,
    InputError,
    Measure,
    Measured,
    ModelSpec,
    OnResponse,
    Request,
    Sample,
    Trusted,
    Unanswered,
)

if TYPE_CHECKING:  # torch takes seconds to import, and engines without a model need none
    from qwen_eval.models.checkpoint import Checkpoint
    from qwen_eval.models.tokenizers import TextTokenizer

# by command-line option, whether a spec asks for something other than the default; the first one that is set is named
_SETTINGS: Mapping[str, Callable[[ModelSpec], bool]] = {
    "--quantize": lambda spec: spec.quantize != "none",
    "--dtype": lambda spec: spec.dtype != "auto",
    "--dynamic-ntk": lambda spec: spec.dynamic_ntk == "on",
    "--logn": lambda spec: spec.logn == "on",
    "--window": lambda spec: spec.window != "off",
    "--attn": lambda spec: spec.attention != "auto",
    "--adapter": lambda spec: spec.adapter is not None,
}


class BaseEngine(ABC):
    """What an engine (schema.Engine) has beside what it computes.

    name: its name in the results. refused: the options of `_SETTINGS` that it does not support, and the error's text after
    the option. notes: sentences about the run. checkpoint: the model's files, None where there are none here. spare: tokens of
    the context that a choice needs beside its prompt (a server and vLLM generate one).
    """

    name: str
    spare: ClassVar[int] = 0
    refused: tuple[frozenset[str], str] = frozenset(), ""
    checkpoint: Checkpoint | None = None

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes
        self._computed = self._asked = 0

    @abstractmethod
    def describe(self) -> EngineInfo:
        """What defines the answers of this engine, and where it runs."""

    @abstractmethod
    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        """Scores the options of every request."""

    @abstractmethod
    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        """Generates the replies to every request."""

    @abstractmethod
    def measure(self, requests: Sequence[Measure], done: OnResponse) -> list[Measured]:
        """Negative log-likelihoods of texts."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the checkpoint."""
        assert self.checkpoint is not None
        return self.checkpoint.tokenizer

    @property
    def context_limit(self) -> int:
        """In tokens; 0 where it is not known here."""
        return self.checkpoint.context_limit if self.checkpoint else 0

    @property
    def rigid(self) -> bool:
        """Whether nothing longer than the context limit can be computed."""
        return False

    def too_long(self, requests: Sequence[Request]) -> Mapping[int, Unanswered]:
        """By index the requests that do not fit the context; see fitting.too_long. Loads no weights."""
        from qwen_eval.engines import fitting

        tokenizer = self.checkpoint.tokenizer if self.checkpoint else None
        return fitting.too_long(requests, tokenizer, self.context_limit, self.rigid, self.spare)

    def trust(self, samples: Sequence[Sample]) -> Trusted | None:
        """Tests, before the samples are asked, that the engine answers as the model does. None where nothing is tested. Raises
        InputError where it does not."""
        return None

    def usage(self) -> Mapping[str, float]:
        """tokens computed, tokens in the prompts, peak memory in GB (0 where it is not this machine's)."""
        return {"tokens": self._computed, "prompt_tokens": self._asked, "peak_memory_gb": 0.0}

    def token_texts(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text as the texts of its tokens, without the BOS that some tokenizers put first. Raises InputError
        where the tokenizer is not known here."""
        return self.tokenizer.split_texts(texts)

    def moves(self, requests: Sequence[Request]) -> bool:
        """Whether the template writes some of these conversations otherwise at another time."""
        if self.checkpoint is None:
            return False
        tokenizer = self.tokenizer
        found = conversations(requests, each="strftime_now" in (tokenizer.chat_template or ""))
        return any(tokenizer.moves(messages, **variables) for messages, variables in found)

    def set_day(self, day: str | None) -> None:
        """Conversations are rendered as on this date from now on; None: as on the day they are asked."""
        if self.checkpoint:
            self.tokenizer.day = day

    def prompt_text(self, request: Generate) -> str | None:
        """A conversation as the model reads it; None where that is not known here."""
        if self.checkpoint is None or isinstance(request.prompt, str):
            return None
        return self.tokenizer.chat_text(request.prompt, **request.chat_options)

    def exchanged(self) -> str:
        """How the model now differs from the one that `describe` described, "" where it does not: a server's may."""
        return ""

    def extend(self, spec: ModelSpec) -> None:
        """Another context extension on the same weights. Raises InputError where there is none."""
        self.refuse(spec)

    def refuse(self, spec: ModelSpec) -> None:
        """Raises InputError for the first setting in the spec that this engine does not have."""
        options, remedy = self.refused
        for option, is_set in _SETTINGS.items():
            if option in options and is_set(spec):
                raise InputError(f"{option} {remedy}")

    def _described(self, checkpoint: Checkpoint, device: str, versions: Mapping[str, str]) -> EngineInfo:
        """What is known of a checkpoint, without context extension. Downloads the weights if need be: their fingerprint is
        part of it."""
        return EngineInfo(
            model=checkpoint.name,
            revision=checkpoint.revision,
            fingerprint=checkpoint.fingerprint,
            sampled=checkpoint.sampled_fingerprint,
            context_limit=checkpoint.context_limit,
            precision=checkpoint.precision,
            context="none",
            engine=self.name,
            device=device,
            chat_template=checkpoint.template_label,
            versions=versions,
            weights=dict(checkpoint.header.kinds) if checkpoint.header else {},
            adapter=checkpoint.adapter.label if checkpoint.adapter else "",
        )
