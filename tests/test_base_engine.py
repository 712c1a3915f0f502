"""What all engines have from their base class: which settings each refuses and how, and the names of random streams."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from qwen_eval.engines.api.engine import APIEngine
from qwen_eval.engines.base import BaseEngine
from qwen_eval.engines.local.sampling import stream
from qwen_eval.engines.prompting import (
    Completion,
    Prompt,
    answer,
    before_stop,
    end_reason,
    stream_name,
    stream_seed,
)
from qwen_eval.engines.replay import GivenTexts
from qwen_eval.engines.vllm import VLLMEngine
from qwen_eval.schema import Choose, DataError, Generate, Generated, InputError, ModelSpec

SETTINGS = {
    "--quantize": {"quantize": "nf4"},
    "--dtype": {"dtype": "float32"},
    "--dynamic-ntk": {"dynamic_ntk": "on"},
    "--logn": {"logn": "on"},
    "--window": {"window": "64"},
    "--attn": {"attention": "sdpa"},
}
SERVERS = "is the server's own setting; start the server with it, or use --engine hf"
VLLMS = "is not for --engine vllm; use --engine hf"


def refusal(kind: type[BaseEngine], spec: ModelSpec) -> str:
    engine = kind.__new__(kind)  # neither a server nor vLLM is asked for it
    try:
        engine.extend(spec)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("option", SETTINGS)
def test_settings_that_an_engine_does_not_have_are_refused_by_name(option: str) -> None:
    spec = ModelSpec("folder", **SETTINGS[option])  # type: ignore[arg-type]
    assert refusal(APIEngine, spec) == f"{option} {SERVERS}"
    assert refusal(VLLMEngine, spec) == ("" if option == "--dtype" else f"{option} {VLLMS}")


def test_the_first_of_several_is_named_and_defaults_are_taken() -> None:
    everything = ModelSpec("folder", **{name: value for one in SETTINGS.values() for name, value in one.items()})  # type: ignore[arg-type]
    assert refusal(APIEngine, everything) == f"--quantize {SERVERS}"
    off = ModelSpec("folder", dynamic_ntk="off", logn="off", max_seq_len=64)
    assert not refusal(APIEngine, off) and not refusal(VLLMEngine, off)


def test_a_stream_has_one_name_for_all_engines() -> None:
    request = Generate("p", 4, temperature=0.7, key="humaneval/3")
    assert stream_name(1234, request, 2) == "1234/humaneval/3/2"
    digest = hashlib.sha256(b"1234/humaneval/3/2").hexdigest()
    assert stream_seed(1234, request, 2) == int(digest[:8], 16) // 2
    numbers = stream(1234, request, 2)
    assert numbers is not None and numbers.random() == random.Random("1234/humaneval/3/2").random()
    assert stream(1234, Generate("p", 4), 0) is None


@pytest.mark.parametrize(
    ("finish", "stop", "reason"),
    [
        ("length", None, "length"),
        ("length", "x", "length"),
        ("stop", "x", "stop"),
        ("stop", 151643, "eos"),
        ("stop", None, "eos"),
    ],
)
def test_end_reasons(finish: str, stop: object, reason: str) -> None:
    assert end_reason(finish, stop) == reason


def test_texts_are_cut_before_the_first_stop_string() -> None:
    assert before_stop("a b c b", ("c", "b")) == "a " and before_stop("a", ("b",)) is None
    assert before_stop("b", ("b",)) == ""


@pytest.mark.parametrize(
    ("prompt", "end", "written", "expected"),
    [
        ("Continue", "ue", Completion("<think>x</think>y", "eos", 3), ("", "<think>x</think>y")),
        ("chat", "assistant\n", Completion("<think>x</think>y", "eos", 3), ("x", "y")),
        ("chat", "<think>\n", Completion("still thinking", "length", 3), ("still thinking", "")),
        ("chat", "", Completion("analysisx.assistantfinaly", "eos", 3), ("x.", "y")),
        ("chat", "<|channel|>analysis<|message|>", Completion("still thinking", "length", 3), ("still thinking", "")),
        ("chat", "", Completion("y", "eos", 3, "taken out by the server"), ("taken out by the server", "y")),
    ],
)
def test_answers(prompt: str, end: str, written: Completion, expected: tuple[str, str]) -> None:
    given = ({"role": "user", "content": "hello"},) if prompt == "chat" else prompt
    made = answer(Generate(given, 8), Prompt(7, end, 2, True), [written])
    reasoning, text = expected
    assert made == Generated((text,), (reasoning,), (written.reason,), 7, (3,), 2, True)


def test_texts_of_files_stand_for_a_model() -> None:
    engine = GivenTexts([Path("a.jsonl"), Path("b.jsonl")], [("x",), ("y", "z")])
    asked: Sequence[Generate] = [Generate("p", 4), Generate("q", 4, samples=2)]
    assert [item.texts for item in engine.generate(asked, lambda *_: None)] == [("x",), ("y", "z")]
    assert engine.usage() == {"tokens": 0, "prompt_tokens": 0, "peak_memory_gb": 0.0} and engine.notes == []
    talk = ({"role": "user", "content": "hello"},)
    made = GivenTexts([Path("a")], [("<think>x</think>y",), ("<think>x",), ("<r>x</r>y",)]).generate(
        [Generate(talk, 4), Generate(talk, 4), Generate(talk, 4, reasoning_marks=("<r>", "</r>"))], lambda *_: None
    )
    assert [(item.reasoning[0], item.texts[0]) for item in made] == [("x", "y"), ("x", ""), ("x", "y")]
    assert engine.describe().model == "a.jsonl+b.jsonl"
    with pytest.raises(DataError, match="2 texts for 1 items; give one for each"):
        engine.generate(asked[:1], lambda *_: None)
    with pytest.raises(InputError, match="has no answer for 1 of the items; ask a model"):
        engine.choose([Choose("", (), "q", (" A", " B"))], lambda *_: None)
    with pytest.raises(InputError, match="is no model; it has no context to extend"):
        engine.extend(ModelSpec("folder"))
    with pytest.raises(InputError, match="are not stored with its replies"):
        engine.token_texts(["a"])
