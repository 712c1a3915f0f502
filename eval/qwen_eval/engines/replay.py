"""Engines that answer without a model: texts from files, or the replies of an earlier run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qwen_eval.engines.base import BaseEngine
from qwen_eval.engines.prompting import Completion, Prompt, answer
from qwen_eval.schema import (
    Choose,
    Chosen,
    DataError,
    EngineInfo,
    Generate,
    Generated,
    InputError,
    Measure,
    Measured,
    ModelSpec,
    OnResponse,
    Request,
)


class StandIn(BaseEngine):
    """What all engines without a model share. info: what describes the model in the results. prompt: the first prompt that
    was answered, as the model read it."""

    def __init__(self, info: EngineInfo, prompt: str | None = None) -> None:
        super().__init__([])
        self._info = info
        self._prompt = prompt

    def describe(self) -> EngineInfo:
        return self._info

    def token_texts(self, texts: Sequence[str]) -> list[list[str]]:
        raise InputError(f"the tokens of {self._info.model} are not stored with its replies; ask the model itself")

    def prompt_text(self, request: Generate) -> str | None:
        return self._prompt

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        raise self._no_answer(requests)

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        raise self._no_answer(requests)

    def measure(self, requests: Sequence[Measure], done: OnResponse) -> list[Measured]:
        raise self._no_answer(requests)

    def extend(self, spec: ModelSpec) -> None:
        raise InputError(f"{self._info.model} is no model; it has no context to extend")

    def _no_answer(self, requests: Sequence[Request]) -> InputError:
        return InputError(f"{self._info.model} has no answer for {len(requests)} of the items; ask a model")


class GivenTexts(StandIn):
    """Replies from files, in the order of the requests: one sequence of texts (its samples) per request."""

    def __init__(self, paths: Sequence[Path], texts: Sequence[Sequence[str]]) -> None:
        content = hashlib.sha256(repr([list(samples) for samples in texts]).encode("utf-8", "surrogatepass"))
        name = "+".join(path.name for path in paths)
        super().__init__(EngineInfo(name, "local", content.hexdigest()[:16], 0, "text", "none", "file", "none"))
        self._paths, self._texts = paths, texts

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        """Raises DataError when there are more or fewer texts than requests."""
        if len(requests) != len(self._texts):
            names = ", ".join(map(str, self._paths))
            raise DataError(f"{names}: {len(self._texts)} texts for {len(requests)} items; give one for each")
        answers = []
        for index, (request, texts) in enumerate(zip(requests, self._texts, strict=True)):
            made = answer(request, Prompt(0, "", 0), [Completion(text, "file", 0) for text in texts])
            answers.append(replace(made, new_tokens=()))
            done(index, answers[-1])
        return answers
