"""The engine that runs a transformers model in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import torch
import transformers

from qwen_eval.engines import chunks
from qwen_eval.engines.base import BaseEngine
from qwen_eval.engines.local import generation, measuring, scoring, trust
from qwen_eval.engines.local.runtime import Runtime, device_failures, device_name
from qwen_eval.models.checkpoint import Checkpoint
from qwen_eval.models.context import install
from qwen_eval.models.opening import context_extension, open_checkpoint
from qwen_eval.schema import (
    CheckpointError,
    Choose,
    Chosen,
    EngineInfo,
    Generate,
    Generated,
    Measure,
    Measured,
    ModelSpec,
    OnResponse,
    Sample,
    Trusted,
)


class HFEngine(BaseEngine):
    """Answers requests with a transformers model. Weights are loaded at the first question that needs them.

    batch_size: items per forward pass, or None for as many as fit a budget found automatically (halved when memory runs
    out). share: compute shared prefixes once; without it every prompt is computed whole. seed: names the random streams.
    Raises CheckpointError when the checkpoint cannot be opened.
    """

    name = "hf"
    checkpoint: Checkpoint

    def __init__(self, spec: ModelSpec, batch_size: int | None = None, share: bool = True, seed: int = 1234) -> None:
        self.checkpoint = open_checkpoint(spec)
        _check_limit(self.checkpoint)
        self.runtime = Runtime(self.checkpoint, batch_size)
        super().__init__(self.runtime.notes)
        self._asked_to_share = self._share = share
        self._seed = seed

    @property
    def rigid(self) -> bool:
        """Whether nothing longer than the context limit can be computed."""
        return self.checkpoint.learned_positions > 0 or getattr(self.checkpoint.config, "reach", 0) > 0

    def describe(self) -> EngineInfo:
        """What defines the answers of this engine, and where it runs."""
        checkpoint = self.checkpoint
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        return dataclasses.replace(
            self._described(checkpoint, device_name(checkpoint.device), versions),
            context=checkpoint.context.label,
            window=",".join(map(str, checkpoint.context.windows)),
            trained_length=checkpoint.context.trained_length,
        )

    def trust(self, samples: Sequence[Sample]) -> Trusted:
        """Holds the engine against transformers' own forward before it answers; see trust.test. Prefixes are shared from then
        on only where that gave the same."""
        with device_failures(self.checkpoint.device):
            verdict = trust.test(self.runtime, samples, self._asked_to_share)
        self._share = verdict.share
        return Trusted("+".join(verdict.marks), verdict.notes, verdict.as_json())

    def usage(self) -> Mapping[str, float]:
        """Tokens computed, tokens in the prompts, and memory in GB; see Runtime.usage."""
        return self.runtime.usage()

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        """Scores the options of every request; see scoring.choose."""
        with device_failures(self.checkpoint.device):
            return scoring.choose(self.runtime, requests, done, self._share)

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        """Generates the replies to every request; see generation.generate."""
        with device_failures(self.checkpoint.device):
            return generation.generate(self.runtime, requests, done, self._seed, self._share)

    def measure(self, requests: Sequence[Measure], done: OnResponse) -> list[Measured]:
        """Negative log-likelihoods of texts; see measuring.chunk_losses."""
        with device_failures(self.checkpoint.device):
            return chunks.measure(requests, self.tokenizer, partial(measuring.chunk_losses, self.runtime), done)

    def extend(self, spec: ModelSpec) -> None:
        """Another context extension (NTK, LogN, window) on the same loaded weights. Raises CheckpointError."""
        checkpoint = self.checkpoint
        context = context_extension(spec, checkpoint.config, checkpoint.trained_length)
        self.checkpoint = self.runtime.checkpoint = dataclasses.replace(checkpoint, context=context)
        if self.runtime.loaded:
            install(self.runtime.model, context)


def _check_limit(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError where --max-seq-len asks for more positions than the model has learned."""
    asked = checkpoint.spec.max_seq_len
    if asked and checkpoint.learned_positions and asked > checkpoint.learned_positions:
        raise CheckpointError(
            f"--max-seq-len {asked} is more than the {checkpoint.learned_positions} positions that {checkpoint.name} has "
            "learned; set no more than that"
        )
