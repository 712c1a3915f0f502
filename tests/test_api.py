"""The API engine: the answers of the HF engine on the same checkpoint, whatever the network does."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest

import tiny
from known import run_script
from openai_server import FaultProxy, Loopback, OpenAIServer, send
from qwen_eval.data import demo
from qwen_eval.engines.api import server as server_module
from qwen_eval.engines.api.engine import APIEngine
from qwen_eval.engines.api.server import Server
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import Generate, InputError, Measure, ModelSpec
from test_engine import LETTERS, questions

KEY = "sk-0123456789abcdefSECRET"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_qwen1(tmp_path_factory.mktemp("checkpoint"), positions=512)


@pytest.fixture(scope="module")
def local(folder: Path) -> HFEngine:
    return HFEngine(ModelSpec(str(folder), dtype="float32"))


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[OpenAIServer]:
    with OpenAIServer(folder) as server:
        yield server


def engine(url: str, folder: Path | None, timeout: float = 60.0) -> APIEngine:
    return APIEngine(ModelSpec(str(folder)) if folder else None, Server(url, "NO_SUCH_KEY", timeout))


def texts() -> list[Generate]:
    rng = np.random.default_rng(3)
    asked: list[Generate] = []
    for index in range(6):
        words = " ".join(rng.choice(["red", "boat", "lamps", "seven", "灯"], 8))
        shots = ("Question: the red boat\n\n",) * (index % 3)
        asked.append(Generate(f"Question: {words}\nAnswer:", 12, shots=shots, stop=("a", "的"), key=str(index)))
        asked.append(Generate(({"role": "user", "content": words},), 12, key=f"chat/{index}"))
    return asked


def equal_choices(found: Sequence, wanted: Sequence) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert int(np.argmax(one.logprobs)) == int(np.argmax(other.logprobs))
        assert (one.shots_used, one.prompt_tokens, one.truncated) == (
            other.shots_used,
            other.prompt_tokens,
            other.truncated,
        )


@pytest.mark.parametrize("without", [(), ("prompt_logprobs",), ("echo",), ("return_tokens_as_token_ids",)], ids=str)
def test_choices_are_those_of_the_local_engine(without: Sequence[str], folder: Path, local: HFEngine) -> None:
    """Through the top log-probabilities, by token id or by text, and the prompt's own for options not among them, by
    echo or in vLLM's way."""
    requests = questions(6)
    with OpenAIServer(folder, without) as server:
        asking = engine(server.url, folder)
        equal_choices(asking.choose(requests, lambda *_: None), local.choose(requests, lambda *_: None))
    assert not asking.notes


def test_long_options_and_perplexity_through_echo(running: OpenAIServer, folder: Path, local: HFEngine) -> None:
    asking = engine(running.url, folder)
    requests = questions(5, (" red boat", " sail", " the island of lamps"))
    equal_choices(asking.choose(requests, lambda *_: None), local.choose(requests, lambda *_: None))
    documents = tuple("The red boat and the lamps of the island. " * count for count in (9, 12))
    cells = [Measure(documents, 32), Measure(documents, 48, same_as=48), Measure(documents, 32, stride=16)]
    found, wanted = asking.measure(cells, lambda *_: None), local.measure(cells, lambda *_: None)
    for one, other in zip(found, wanted, strict=True):
        assert one.nll == pytest.approx(other.nll, rel=1e-5)
        assert (one.tokens, one.bytes, one.chunks, one.dropped) == (
            other.tokens,
            other.bytes,
            other.chunks,
            other.dropped,
        )


def test_texts_are_those_of_the_local_engine(running: OpenAIServer, folder: Path, local: HFEngine) -> None:
    requests = texts()
    found = engine(running.url, folder).generate(requests, lambda *_: None)
    assert found == local.generate(requests, lambda *_: None)
    assert len({reason for answer in found for reason in answer.end_reasons}) > 1


def test_a_model_only_the_server_knows(running: OpenAIServer, local: HFEngine) -> None:
    """No -c: conversations go to the server's own template, and what needs a tokenizer is refused."""
    asking = engine(running.url, None)
    requests = texts()
    found, wanted = asking.generate(requests, lambda *_: None), local.generate(requests, lambda *_: None)
    assert [answer.texts for answer in found] == [answer.texts for answer in wanted]
    assert any("messages" in body for body in running.asked)
    assert asking.describe().model == "tiny" and asking.describe().context_limit == 512
    with pytest.raises(InputError, match=r"-c .*generated text"):
        asking.choose(questions(1), lambda *_: None)


def test_faults_lose_and_duplicate_no_item(
    folder: Path, running: OpenAIServer, local: HFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FIRST_DELAY", 0.01)
    choices, replies = questions(12), texts()
    done: list[int] = []
    with FaultProxy(running.url) as proxy:
        asking = engine(proxy.url, folder, timeout=4.0)
        chosen = asking.choose(choices, lambda index, answer: done.append(index))
        assert sorted(done) == list(range(len(choices)))
        done.clear()
        made = asking.generate(replies, lambda index, answer: done.append(index))
        assert sorted(done) == list(range(len(replies)))
    equal_choices(chosen, local.choose(choices, lambda *_: None))
    assert made == local.generate(replies, lambda *_: None)
    assert min(proxy.faults.values()) >= 3, proxy.faults


def test_retry_after_and_backoff() -> None:
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    asked = {"7": 7.0, " 0.5 ": 0.5, "-3": 0.0, "inf": math.inf, soon: 29.5, "Fri, 01 Jan 2016 00:00:00 GMT": 0.0}
    for value, seconds in asked.items():
        assert server_module._retry_after(value) == pytest.approx(seconds, abs=1.5 if value == soon else 0)
    for value in (None, "", "soon", "Fri, 99 Jan 2016", "Fri, 31 Dec 999999999 00:00:00 GMT", "1;2"):
        assert server_module._retry_after(value) is None
    for attempt in range(20):
        wait = server_module._delay(attempt, None)
        longest = min(60.0, 0.5 * 2**attempt)
        assert longest / 2 <= wait <= longest and server_module._delay(attempt, math.inf) <= 66.0


@pytest.mark.parametrize(
    ("without", "options", "said"),
    [
        (("logprobs", "echo", "prompt_logprobs"), LETTERS, "gives no log-probabilities, which"),
        (("ids",), LETTERS, "for a prompt of token ids"),
        (("echo", "prompt_logprobs"), (" red boat", " sail"), "of the tokens of a prompt"),
    ],
)
def test_what_a_server_cannot_do_is_refused(
    without: Sequence[str], options: Sequence[str], said: str, folder: Path
) -> None:
    with OpenAIServer(folder, without) as server:
        asking = engine(server.url, folder)
        with pytest.raises(InputError, match=said + r".*generated text still run, and multiple choice with --chat"):
            asking.choose(questions(2, options), lambda *_: None)
        (reply,) = asking.generate([texts()[1]], lambda *_: None)  # these scripts do run
        assert reply.new_tokens[0] > 0


def test_an_option_that_the_server_does_not_list_is_reported(folder: Path, local: HFEngine) -> None:
    requests = questions(6)
    with OpenAIServer(folder, ("echo", "prompt_logprobs")) as server:
        asking = engine(server.url, folder)
        found = asking.choose(requests, lambda *_: None)
    (note,) = asking.notes
    exact = local.choose(requests, lambda *_: None)
    hidden = 0
    for one, other in zip(found, exact, strict=True):
        wrong = [value for value, true in zip(one.logprobs, other.logprobs, strict=True) if abs(value - true) > 1e-4]
        hidden += bool(wrong)
        assert all(value >= true - 1e-4 for value, true in zip(one.logprobs, other.logprobs, strict=True))
    assert note.startswith(f"{hidden} of {len(requests)} items")


class Rude(Loopback):
    """A server that echoes the request's headers in its errors."""

    def answer(self, handler: object, body: dict) -> None:
        status = 401 if body else 200
        said = {"error": {"message": f"bad key {self.headers[-1].get('Authorization')}"}}
        send(handler, status, said if body else {"data": [{"id": "m"}]})  # type: ignore[arg-type]


def test_the_key_is_sent_and_appears_nowhere(
    folder: Path, running: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("MY_KEY", KEY)
    words = ["-c", folder, "-d", "demo", "--engine", "api", "--api-key-env", "MY_KEY", "--limit", "2"]
    words += ["--subjects", "formal_logic", "--shots", "1"]
    done = run_script("mmlu", [*words, "--base-url", running.url], tmp_path, capsys)
    assert done.status == 0, done.err
    assert f"Bearer {KEY}" in {header.get("Authorization") for header in running.headers}
    assert done.rows[0]["engine"] == "api" and "|dtype:server" in done.signature
    with Rude() as rude:
        refused = run_script("mmlu", [*words, "--base-url", rude.url], tmp_path / "rude", capsys)
    assert refused.status == 2 and len(refused.err.strip().splitlines()) == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".csv", ".json", ".jsonl", ".start", ".asking"}
    for text in [*(path.read_text() for path in files), done.out, done.err, refused.out, refused.err]:
        assert KEY not in text
    with Rude() as rude, pytest.raises(InputError, match=r"bad key Bearer \[key\]"):
        Server(rude.url, "MY_KEY").post("/completions", {"prompt": "x"})


def test_the_run_through_a_server_is_the_run_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The trained demonstration, whose letters are mostly among the top tokens that a server lists; it has no echo."""
    words = ["-c", "demo", "--subjects", "formal_logic,nutrition", "--limit", "6", "--shots", "2"]
    off = ["--dtype", "float32", "--dynamic-ntk", "off", "--logn", "off"]
    here = run_script("mmlu", [*words, *off], tmp_path / "hf", capsys)
    with OpenAIServer(demo.checkpoint(), ("echo", "prompt_logprobs")) as server:
        there = run_script("mmlu", [*words, "--engine", "api", "--base-url", server.url], tmp_path / "api", capsys)
    assert there.status == here.status == 0, there.err
    figures = [[(row["metric"], row["group"], row["value"]) for row in run.rows] for run in (here, there)]
    assert figures[0] == figures[1]
    assert len(here.samples) == 12 and here.samples.keys() == there.samples.keys()
    unlisted = set()
    for name, row in here.samples.items():
        assert there.samples[name]["answer"] == row["answer"]
        for stated, own in zip(there.samples[name]["response"]["logprobs"], row["response"]["logprobs"], strict=True):
            if stated != pytest.approx(own, abs=1e-4):
                unlisted.add(name)
                assert own < stated  # the lowest value that the server lists replaces that of a less likely token
    assert (f"{len(unlisted)} of 12 items have options that are not among" in there.out) == bool(unlisted)
    assert len(unlisted) < 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "api"], "--base-url http"),
        (["--engine", "vllm"], "--engine vllm needs vLLM; run: pip install -e '.[vllm]'"),
        (["--tensor-parallel-size", "2"], "add --engine vllm"),
        (["--base-url", "http://127.0.0.1:9/v1"], "add --engine api"),
        (["--engine", "api", "--base-url", "127.0.0.1:8000"], "is no URL of a server"),
        (["--engine", "api", "--base-url", f"http://me:{KEY}@127.0.0.1:9/v1"], "no name, password or query"),
        (["--engine", "api", "--base-url", "http://127.0.0.1:9/v1"], "failed 3 times, lastly: ConnectionError"),
        (["--engine", "api", "--base-url", "URL", "--quantize", "int8"], "--quantize is the server's own"),
        (["--engine", "api", "--base-url", "URL", "--dynamic-ntk", "on"], "--dynamic-ntk is the server's own"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_mistakes_are_one_line_errors(
    words: Sequence[str], said: str, running: OpenAIServer, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(server_module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, find=importlib.util.find_spec: None if name == "vllm" else find(name)
    )
    given = [running.url if word == "URL" else word for word in words]
    done = run_script("mmlu", ["-c", folder, "-d", "demo", *given], tmp_path, capsys)
    assert done.status == 2 and said in done.err and len(done.err.strip().splitlines()) == 1, done.err
    assert KEY not in done.err
    assert not json.dumps(done.rows).count(KEY)
