"""What the vLLM engine asks and how it reads the answers, with a stand-in for vLLM that computes plain float32 forwards.

test_vllm.py has vLLM itself, in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import tiny
from qwen_eval.engines import vllm as module
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.engines.vllm import VLLMEngine
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import Choose, Generate, Measure, ModelSpec
from test_api import equal_choices
from test_engine import questions


class LLM:
    """vllm.LLM of a folder. asked: the settings of every prompt that it was given."""

    def __init__(self, model: str, **options: Any) -> None:
        checkpoint = open_checkpoint(ModelSpec(model, dtype="float32"))
        self.options, self.asked = options, list[Mapping[str, Any]]()
        self._model, self._tokenizer = checkpoint.load(), checkpoint.tokenizer

    def generate(self, prompts: Sequence[Any], settings: Sequence[Any], use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        self.asked += settings
        return [self._one(prompt["prompt_token_ids"], one) for prompt, one in zip(prompts, settings, strict=True)]

    def _logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self._model(torch.tensor([list(ids)])).logits[0].float().log_softmax(-1)

    def _one(self, ids: Sequence[int], one: Mapping[str, Any]) -> Any:
        new: list[int] = []
        text, finish, stop = "", "length", None
        while len(new) < one["max_tokens"]:
            token = int(self._logprobs([*ids, *new])[-1].argmax())
            new.append(token)
            if token in one.get("stop_token_ids", ()):
                finish, stop = "stop", token
                break
            before = self._tokenizer.decode(ids, skip_special=True)
            text = self._tokenizer.decode([*ids, *new], skip_special=True)[len(before) :]
            cuts = [(text.find(word), word) for word in one.get("stop", ()) if word in text]
            if cuts:
                index, stop = min(cuts)
                text, finish = text[:index], "stop"
                break
        values = self._logprobs(ids)
        wanted = {
            token: SimpleNamespace(logprob=float(values[-1, token])) for token in one.get("logprob_token_ids", ())
        }
        own = [
            {ids[index]: SimpleNamespace(logprob=float(values[index - 1, ids[index]]))} for index in range(1, len(ids))
        ]
        reply = SimpleNamespace(text=text, token_ids=new, finish_reason=finish, stop_reason=stop, logprobs=[wanted])
        return SimpleNamespace(prompt_token_ids=ids, prompt_logprobs=[None, *own], num_cached_tokens=1, outputs=[reply])


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[VLLMEngine, HFEngine]:
    fake: Any = ModuleType("vllm")
    fake.LLM, fake.SamplingParams, fake.__version__ = LLM, dict, "0"
    monkeypatch.setitem(sys.modules, "vllm", fake)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: fake if name == "vllm" else find(name))
    monkeypatch.setattr(module, "CHUNK", 4)  # several calls
    spec = ModelSpec(str(tiny.write_qwen2(tmp_path / "checkpoint", positions=1024)), dtype="float32")
    return VLLMEngine(spec), HFEngine(spec)


FORMS = ((" A", " B", " C", " D"), (" red boat", " sail", " the island of lamps"), (" the red one", " the blue one"))


@pytest.mark.parametrize("totals", [False, True])
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_choices_are_those_of_the_local_engine(
    options: Sequence[str], totals: bool, engines: tuple[VLLMEngine, HFEngine]
) -> None:
    engine, local = engines
    asked = [
        Choose(item.header, item.shots, item.question, item.options, totals=totals) for item in questions(5, options)
    ]
    found, wanted = engine.choose(asked, lambda *_: None), local.choose(asked, lambda *_: None)
    equal_choices(found, wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.totals == pytest.approx(other.totals, abs=1e-4) and len(one.totals) == totals * len(options)


def test_perplexity_and_usage_are_those_of_the_local_engine(engines: tuple[VLLMEngine, HFEngine]) -> None:
    engine, local = engines
    cells = [Measure(("The red boat and the lamps of the island. " * 12,), length) for length in (16, 48)]
    for one, other in zip(engine.measure(cells, lambda *_: None), local.measure(cells, lambda *_: None), strict=True):
        assert one.nll == pytest.approx(other.nll, rel=1e-5)
        assert (one.tokens, one.bytes, one.chunks) == (other.tokens, other.bytes, other.chunks)
    usage = engine.usage()
    assert usage["prompt_tokens"] == local.usage()["prompt_tokens"] and usage["peak_memory_gb"] > 0
    assert usage["tokens"] == usage["prompt_tokens"]  # of every prompt one token was cached and one was generated


def test_texts_are_those_of_the_local_engine(engines: tuple[VLLMEngine, HFEngine]) -> None:
    engine, local = engines
    asked = [
        Generate(f"Question: {'lamps ' * index}\nAnswer:", 12, stop=("a", "e"), key=str(index)) for index in range(5)
    ]
    asked += [Generate(({"role": "user", "content": "lamps " * index},), 8, key="c") for index in range(1, 3)]
    assert engine.generate(asked, lambda *_: None) == local.generate(asked, lambda *_: None)
    assert all("seed" not in one for one in engine._llm.asked)


def test_samples_have_their_own_seeds(engines: tuple[VLLMEngine, HFEngine]) -> None:
    engine, _ = engines
    (made,) = engine.generate([Generate("Question", 2, samples=3, temperature=0.5, key="k")], lambda *_: None)
    assert len(made.texts) == 3
    assert [one["seed"] for one in engine._llm.asked] == [715705906, 1649911642, 130425086]


def test_the_description_of_the_model(engines: tuple[VLLMEngine, HFEngine]) -> None:
    engine, local = engines
    info, other = engine.describe(), local.describe()
    assert (info.engine, info.device, info.versions) == ("vllm", "tensor parallel 1", {"vllm": "0"})
    for field in ("model", "revision", "fingerprint", "context_limit", "precision", "chat_template"):
        assert getattr(info, field) == getattr(other, field)
    assert (info.context, info.window, info.trained_length) == ("none", "", 0)
    assert engine.token_texts(["The red boat"]) == local.token_texts(["The red boat"])
