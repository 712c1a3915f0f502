"""Choose.totals: the log-probability of each whole option, against transformers' own forward of every prompt + option alone.

The reference counts as lm-evaluation-harness does: the tokens of encode(prompt + option) beyond len(encode(prompt)).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from openai_server import OpenAIServer
from qwen_eval.engines import plan
from qwen_eval.engines.api.engine import APIEngine
from qwen_eval.engines.api.server import Server
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models import qwen1
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.runs.samples import sample_row, stored_response
from qwen_eval.runs.signature import _identity
from qwen_eval.schema import Choose, Chosen, InputError, ModelSpec, Sample, Score, Scored

BUILDERS = {
    "qwen1": lambda folder: tiny.write_qwen1(folder, positions=1024),
    "llama": lambda folder: tiny.write_llama(folder, positions=1024),
}
FORMS = {
    "that begin alike": (" the red one", " the blue one", " the red and the blue one"),
    "of one token": (" A", " B", " C"),
    "of one token and of several": (" A", " the red boat", " the seven lamps of the island"),
    "of which one begins another": (" the red", " the red boat", " the"),
}
SIZES: tuple[int | None, ...] = (1, 7, None)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    root = tmp_path_factory.mktemp("totals")
    return {name: ModelSpec(str(build(root / name)), dtype="float32") for name, build in BUILDERS.items()}


@cache
def reference(folder: str) -> tuple[Any, Any]:
    """The tokenizer, and transformers' model without anything of the engine's."""
    qwen1.register()
    return open_checkpoint(ModelSpec(folder)).tokenizer, AutoModelForCausalLM.from_pretrained(folder).float().eval()


def whole(spec: ModelSpec, prompt: str, option: str, kept: int | None = None) -> float:
    """The log-probability of an option after its prompt. kept: how many of the prompt's last tokens are read."""
    tokenizer, model = reference(spec.path)
    full, start = tokenizer.encode(prompt + option), len(tokenizer.encode(prompt))
    first = 0 if kept is None else max(0, start - kept)
    with torch.inference_mode():
        logits = model(torch.tensor([full[first:]])).logits[0].float().log_softmax(-1)
    return sum(float(logits[index - first - 1, full[index]]) for index in range(start, len(full)))


def questions(options: Sequence[str], count: int = 9, end: str = "Answer:") -> list[Choose]:
    """Two subjects with shots of their own; no two questions are of equal length."""
    shots = [
        tuple(f"Question: {word} lamps {index}\n{end} the red\n\n" for index in range(3)) for word in ("red", "of")
    ]
    return [
        Choose("The island.\n\n", shots[index % 2], f"Question: {'boat ' * index}?\n{end}", tuple(options), totals=True)
        for index in range(count)
    ]


def asked(engine: HFEngine | APIEngine, requests: Sequence[Choose]) -> list[Chosen]:
    done: dict[int, Chosen] = {}
    chosen = engine.choose(requests, done.__setitem__)
    assert [done[index] for index in range(len(requests))] == chosen
    return chosen


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BUILDERS)
def test_totals_are_those_of_every_option_alone(name: str, form: str, checkpoints: dict[str, ModelSpec]) -> None:
    spec = checkpoints[name]
    requests = questions(FORMS[form])
    expected = [[whole(spec, request.prompt(), option) for option in request.options] for request in requests]
    without = asked(HFEngine(spec), [dataclasses.replace(request, totals=False) for request in requests])
    assert all(item.totals == () for item in without)
    for share in (True, False):
        for size in SIZES:
            chosen = asked(HFEngine(spec, batch_size=size, share=share), requests)
            np.testing.assert_allclose([item.totals for item in chosen], expected, atol=1e-4)
            np.testing.assert_allclose(
                [item.logprobs for item in chosen], [item.logprobs for item in without], atol=1e-4
            )
            assert [dataclasses.replace(item, logprobs=(), totals=()) for item in chosen] == [
                dataclasses.replace(item, logprobs=()) for item in without
            ]


@pytest.mark.parametrize("name", BUILDERS)
def test_what_all_options_begin_with_counts_in_totals_only(name: str, checkpoints: dict[str, ModelSpec]) -> None:
    spec = checkpoints[name]
    (request, *_) = questions(FORMS["that begin alike"])
    (chosen,) = asked(HFEngine(spec), [request])
    shared = {total - own for total, own in zip(chosen.totals, chosen.logprobs, strict=True)}
    assert max(shared) < -0.1 and max(shared) - min(shared) < 1e-4  # the same tokens in all three


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", BUILDERS)
def test_whole_shots_are_dropped(name: str, share: bool, checkpoints: dict[str, ModelSpec]) -> None:
    requests = questions(FORMS["that begin alike"])
    longest = max(len(reference(checkpoints[name].path)[0].encode(request.prompt())) for request in requests)
    spec = dataclasses.replace(checkpoints[name], max_seq_len=longest - 20)
    chosen = asked(HFEngine(spec, share=share), requests)
    assert len({item.shots_used for item in chosen}) > 1 and not any(item.truncated for item in chosen)
    for request, item in zip(requests, chosen, strict=True):
        prompt = request.prompt(len(request.shots) - item.shots_used)
        assert item.totals == pytest.approx([whole(spec, prompt, option) for option in request.options], abs=1e-4)


@pytest.mark.parametrize("limit", [2, 5, 24])
@pytest.mark.parametrize("name", BUILDERS)
def test_the_last_tokens_are_kept(name: str, limit: int, checkpoints: dict[str, ModelSpec]) -> None:
    """Also where the limit is shorter than an option: every option keeps all of its tokens, and one of the prompt."""
    spec = checkpoints[name]
    tokenizer, _ = reference(spec.path)
    requests = [
        dataclasses.replace(request, overflow="keep_last", limit=limit, shots=())
        for request in questions(FORMS["that begin alike"])
    ]
    for share in (True, False):
        for request, item in zip(requests, asked(HFEngine(spec, share=share), requests), strict=True):
            prompt = tokenizer.encode(request.prompt())
            longest = max(len(tokenizer.encode(request.prompt() + option)) for option in request.options)
            kept = max(1, limit - (longest - 1 - len(prompt)))
            expected = [whole(spec, request.prompt(), option, kept) for option in request.options]
            assert item.totals == pytest.approx(expected, abs=1e-4)
            assert item.truncated == (len(prompt) > kept)


@pytest.mark.parametrize("without", [(), ("prompt_logprobs",), ("echo",)], ids=str)
@pytest.mark.parametrize("name", BUILDERS)
def test_through_a_server(name: str, without: Sequence[str], checkpoints: dict[str, ModelSpec]) -> None:
    spec = checkpoints[name]
    with OpenAIServer(Path(spec.path), without) as server:
        engine = APIEngine(ModelSpec(spec.path), Server(server.url, "NO_SUCH_KEY"))
        for form in FORMS.values():
            requests = questions(form, 3)
            expected = [[whole(spec, request.prompt(), option) for option in request.options] for request in requests]
            chosen = asked(engine, requests)
            np.testing.assert_allclose([item.totals for item in chosen], expected, atol=1e-4)
            local = asked(HFEngine(spec), requests)
            np.testing.assert_allclose([item.logprobs for item in chosen], [item.logprobs for item in local], atol=1e-4)
    assert not engine.notes


def test_options_of_one_token_are_one_row_and_one_request(checkpoints: dict[str, ModelSpec]) -> None:
    spec = checkpoints["qwen1"]
    (encoded,) = plan.encode_requests(questions(FORMS["of one token"], 1), reference(spec.path)[0], 1024)
    assert [len(row.options) for row in encoded.rows] == [3]


@pytest.mark.parametrize("share", [True, False])
def test_a_tokenizer_that_joins_prompt_and_option(share: bool, checkpoints: dict[str, ModelSpec]) -> None:
    """ "Ans" + "wer the lamps" is "Answer", " the", ...: the joined token takes the place of the prompt's last one."""
    spec = checkpoints["qwen1"]
    tokenizer, _ = reference(spec.path)
    (request,) = questions(("wer the lamps", ": red", "wer of the island"), 1, "Ans")
    prompt, *full = (tokenizer.encode(request.prompt() + text) for text in ("", *request.options))
    assert full[0][: len(prompt)] != prompt and full[1][: len(prompt)] == prompt
    (chosen,) = asked(HFEngine(spec, share=share), [request])
    assert chosen.totals == pytest.approx(
        [whole(spec, request.prompt(), option) for option in request.options], abs=1e-4
    )


class Merging:
    """A tokenizer of characters with three merges: "ab" after x is one token with it, and "xa" is one by itself."""

    VOCABULARY = ("xab", "xa")

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        while text:
            merged = next((word for word in self.VOCABULARY if text.startswith(word)), text[0])
            ids.append(200 + self.VOCABULARY.index(merged) if len(merged) > 1 else ord(merged))
            text = text[len(merged) :]
        return ids


def test_an_option_joined_with_the_prompt_counts_what_exceeds_the_prompt() -> None:
    """ "qx" + "abc" is q, xab, c: of these the first two stand for the prompt, which alone is q, x. The option "b" is x, b;
    they share q alone, so logprobs begin there and totals do not."""
    request = Choose("", (), "qx", ("abc", "b"), totals=True)
    (encoded,) = plan.encode_requests([request], Merging(), 100)
    q, x, b, c = map(ord, "qxbc")
    assert [(row.ids.tolist(), row.targets, row.own, row.whole) for row in encoded.rows] == [
        ([q, 200], ((200,), (c,)), 2, 1),
        ([q, x], ((x,), (b,)), 2, 1),
    ]
    chosen = encoded.chosen({0: [-1.0, -2.0], 1: [-4.0, -8.0]}, True)
    assert chosen.logprobs == (-3.0, -12.0) and chosen.totals == (-2.0, -8.0) and chosen.prompt_tokens == 2


@pytest.mark.parametrize("scoring", ["context", "split"])
def test_an_option_that_vanishes_in_the_prompt_is_refused(scoring: Any) -> None:
    """ "qx" + "a" is q, xa: no more tokens than the prompt has, nothing is left to be the option's."""
    with pytest.raises(InputError, match="the option 'a' adds no token to its prompt in this tokenizer"):
        plan.encode_requests([Choose("", (), "qx", ("a", "b"), scoring=scoring, totals=True)], Merging(), 100)


@pytest.mark.parametrize("scoring", ["split", "isolated"])
def test_totals_of_the_other_scorings_are_their_own_tokens(scoring: Any, checkpoints: dict[str, ModelSpec]) -> None:
    requests = [dataclasses.replace(request, scoring=scoring) for request in questions((" A", " B"), 3)]
    for item in asked(HFEngine(checkpoints["qwen1"]), requests):
        assert item.totals == item.logprobs


def test_run_ids_and_rows_are_unchanged_where_totals_are_not_requested() -> None:
    """What was stored before there were totals is found again, and read."""
    plain = Choose("h", ("s",), "q", (" A", " B"))
    sample = Sample("anatomy/0", plain, "A", "anatomy")
    assert _identity(sample) == (
        "('anatomy/0', 'hsq', {'options': (' A', ' B'), 'overflow': 'drop_shots', 'limit': None, 'scoring': 'context', "
        "'bos': True})"
    )
    with_totals = dataclasses.replace(sample, request=dataclasses.replace(plain, totals=True))
    assert "'totals': True" in _identity(with_totals)
    score = Score({"correct": 1.0}, "A")
    row = sample_row(Scored(sample, Chosen((-1.0, -2.0), 1, 5), score))
    assert row["response"] == {
        "kind": "chosen", "logprobs": (-1.0, -2.0), "shots_used": 1, "prompt_tokens": 5, "truncated": False,
    }  # fmt: skip
    assert stored_response(row) == Chosen((-1.0, -2.0), 1, 5)
    answer = Chosen((-1.0, -2.0), 1, 5, totals=(-3.0, -4.0))
    row = sample_row(Scored(with_totals, answer, score))
    assert row["response"]["totals"] == (-3.0, -4.0) and stored_response(row) == answer
