"""The check at the start: a planted padding bug stops the run, rounding and ties do not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.engines.local.runtime import Runtime
from qwen_eval.runs import self_check
from qwen_eval.schema import Choose, Chosen, Generate, Generated, InputError, ModelSpec, OnResponse, Sample
from test_engine import LETTERS, questions
from test_runner import Letters, Questions, ask, options


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(str(tiny.write_qwen1(tmp_path_factory.mktemp("model"), positions=4096, spread=0.3)))


def choices() -> list[Sample]:
    return [Sample(f"q/{index}", request, "A") for index, request in enumerate(questions(40)[:40])]


def texts(chat: bool = False) -> list[Sample]:
    prompts = [request.prompt() for request in questions(20)[:20]]
    return [
        Sample(f"t/{index}", Generate(({"role": "user", "content": text},) if chat else text, 64, key=str(index)), "")
        for index, text in enumerate(prompts)
    ]


def left_padded(self: Runtime, sequences: Sequence[np.ndarray], keep: Sequence[int]) -> torch.Tensor:
    """Shorter prompts padded on the left, with neither mask nor positions adjusted: the classic mistake."""
    longest = max(map(len, sequences))
    ids = np.zeros((len(sequences), longest), dtype=np.int64)
    for row, tokens in enumerate(sequences):
        ids[row, longest - len(tokens) :] = tokens
    logits = self.logits(torch.arange(longest), input_ids=torch.from_numpy(ids), use_cache=False)
    places = [[longest - len(tokens) + min(index, len(tokens) - 1) for index in keep] for tokens in sequences]
    return torch.stack([row[torch.tensor(at)] for row, at in zip(logits, places, strict=True)])


@pytest.mark.parametrize("share", [True, False])
def test_a_sound_engine_passes_and_a_planted_padding_bug_does_not(
    share: bool, checkpoint: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert self_check.check(HFEngine(checkpoint, share=share), choices(), "fp32") == []
    assert self_check.check(HFEngine(checkpoint, share=share), texts(), "fp32") == []
    assert self_check.check(HFEngine(checkpoint, share=share), texts(chat=True), "fp32") == []
    if not share:
        monkeypatch.setattr(Runtime, "forward_padded", left_padded)
        with pytest.raises(
            InputError, match=r"q/\d+ gets option . alone and option . in a batch of \d\d.*padding"
        ) as stop:
            self_check.check(HFEngine(checkpoint, share=False), choices(), "fp32")
        assert "--no-self-check" in str(stop.value) and "\n" not in str(stop.value)


class Planted(Letters):
    """Answers a single item correctly and a batch as `wrong` says."""

    def __init__(self, wrong: Callable[[Sequence[Choose], int], tuple[float, ...]]) -> None:
        super().__init__()
        self.wrong = wrong
        self.asked = 0

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        self.asked += len(requests)
        true = (0.0, -1.0, -2.0, -3.0)
        rows = [true if len(requests) == 1 else self.wrong(requests, index) for index in range(len(requests))]
        answers = [Chosen(row, 0, 1) for row in rows]
        for index, answer in enumerate(answers):
            done(index, answer)
        return answers


def mixed(requests: Sequence[Choose], index: int) -> tuple[float, ...]:
    """Wrong only beside prompts of another length."""
    same = len({len(request.prompt()) for request in requests}) == 1
    return (0.0, -1.0, -2.0, -3.0) if same else (-1.0, 0.0, -2.0, -3.0)


@pytest.mark.parametrize(
    ("wrong", "precision", "says"),
    [
        (mixed, "fp32", "likely padding or positions"),
        (mixed, "bf16", "likely padding or positions"),
        (lambda requests, index: (-1.0, 0.0, -2.0, -3.0), "fp32", "likely the kernel: a batch of 16 copies"),
        (lambda requests, index: (math.nan,) * 4, "fp16", "are not numbers; use --dtype bfloat16"),
    ],
)
def test_the_reason_is_named(wrong: Callable[..., tuple[float, ...]], precision: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        self_check.check(Planted(wrong), choices(), precision)


@pytest.mark.parametrize(
    ("second", "precision", "says"),
    [
        (-1.00005, "fp32", None),  # rounding
        (-1.3, "fp32", "differ by up to 0.3, more than rounding explains; no answer flipped"),
        (-1.3, "bf16", "differ by up to 0.3, no more than its precision explains; no answer flipped"),
    ],
)
def test_smaller_differences_are_reported(second: float, precision: str, says: str | None) -> None:
    lines = self_check.check(Planted(lambda requests, index: (0.0, second, -2.0, -3.0)), choices(), precision)
    assert (says in lines[0]) if says else lines == []


def test_a_tie_within_rounding_may_flip() -> None:
    class Tie(Planted):
        def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
            row = (-1.0, -1.0 - 5e-5, -9.0, -9.0) if len(requests) == 1 else (-1.0 - 4e-5, -1.0, -9.0, -9.0)
            return [Chosen(row, 0, 1) for _ in requests]

    assert self_check.check(Tie(mixed), choices(), "fp32") == []


class Writer(Planted):
    """Writes ten letters; the third is another in a batch, by `lead` in log-probability."""

    def __init__(self, lead: float, every: int = 1) -> None:
        super().__init__(mixed)
        self.lead, self.every = lead, every

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        wrong = [len(requests) > 1 and int(request.key) % self.every == 0 for request in requests]
        written = ["abXdefghij" if other else "abcdefghij" for other in wrong]
        return [
            Generated((text[: request.max_tokens],), ("",), ("length",))
            for text, request in zip(written, requests, strict=True)
        ]

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        (request,) = requests
        assert request.options == ("abc", "abX")  # what is compared ends where the texts diverge
        return [Chosen((-1.0, -1.0 - self.lead), 0, 1)]


def test_texts_that_diverge_at_a_tie_and_texts_that_do_not() -> None:
    with pytest.raises(
        InputError, match=r"one text alone and another in a batch of 16, where they diverge by 0.7 in log-p"
    ):
        self_check.check(Writer(0.7), texts(), "fp32")
    (line,) = self_check.check(Writer(5e-5), texts(), "fp32")
    assert line.startswith("self-check: 4 of 4 texts begin differently in a batch of 16 and alone")
    assert self_check.check(Writer(0.3), texts(), "bf16")
    with pytest.raises(InputError, match="and so do 4 of 4, more than rounding explains"):
        self_check.check(Writer(0.7), texts(chat=True), "fp32")
    assert self_check.check(Writer(0.7, every=19), texts(chat=True), "fp32")  # one of four


def test_a_run_is_stopped_before_anything_is_stored(tmp_path: Path) -> None:
    engine = Planted(lambda requests, index: (-1.0, 0.0, -2.0, -3.0))
    asked = options(tmp_path)
    checking = type(asked)(**{**vars(asked), "no_self_check": False})
    with pytest.raises(InputError, match=r"self-check: .* --no-self-check runs anyway"):
        ask(Questions(checking), engine)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    engine.asked = 0
    ask(Questions(asked), engine)
    assert engine.asked == 16


def test_few_items_are_not_checked_and_many_cost_twenty() -> None:
    engine = Planted(lambda requests, index: (0.0, -1.0, -2.0, -3.0))
    made = [Sample(str(index), dataclasses.replace(questions(1)[0], options=LETTERS), "A") for index in range(5_000)]
    assert self_check.check(engine, made[:7], "fp32") == [] and engine.asked == 0
    assert self_check.check(engine, made, "fp32") == [] and engine.asked == 20
