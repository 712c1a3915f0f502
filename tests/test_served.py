"""What is known of a served model is the run's identity: a replaced model is run again, the same one is not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny
from known import Run, run_script
from openai_server import Loopback, OpenAIServer, send
from qwen_eval.engines.api import engine as api
from qwen_eval.engines.api import probe, served
from qwen_eval.engines.api import server as server_module
from qwen_eval.engines.api.server import Server
from qwen_eval.schema import EngineInfo

WORDS = ["-d", "demo", "--limit", "4", "--max-new-tokens", "4", "--engine", "api"]
PROBED = len(probe.PROMPTS) * probe.ROUNDS


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints that differ in nothing but their weights."""
    root = tmp_path_factory.mktemp("checkpoints")
    return [tiny.write_qwen2(root / f"{seed}" / "model", seed=seed, positions=2048) for seed in (0, 1)]


@pytest.fixture
def running(folders: list[Path]) -> Iterator[OpenAIServer]:
    with OpenAIServer(folders[0]) as server:
        yield server


class Chat(Loopback):
    """A hosted server without a model: conversations only, pages for people elsewhere. replies: what it answers; None: it
    refuses. entry, pages, stamp: as OpenAIServer's."""

    def __init__(self, replies: Iterator[str] | None = None) -> None:
        super().__init__()
        self._replies = replies
        self.entry: dict[str, Any] = {}
        self.pages: dict[str, Any] = {}
        self.stamp: dict[str, Any] = {}

    def answer(self, handler: Any, body: dict[str, Any]) -> None:
        if handler.path == "/v1/models":
            send(
                handler, 200, [{"id": "tiny", "object": "model", "created": 1, **self.entry}]
            )  # a bare list, as some have it
        elif handler.path == "/v1/chat/completions" and self._replies:
            message = {"role": "assistant", "content": next(self._replies)}
            send(handler, 200, {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], **self.stamp})
        elif handler.path in self.pages:
            send(handler, 200, self.pages[handler.path])
        elif handler.path.startswith("/v1"):
            send(handler, 404, {"error": {"message": "no such path"}})
        else:
            data = b"<html>Welcome</html>"
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)


@pytest.fixture
def hosted() -> Iterator[Chat]:
    with Chat(itertools.cycle(["same"])) as server:
        yield server


def gsm8k(server: OpenAIServer, output: Path, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[Run, int]:
    """A run through the server, and the number of its items' replies that it asked for."""
    before = len([body for body in server.asked if body.get("max_tokens") == 4])
    done = run_script("gsm8k", [*WORDS, "--base-url", server.url, *words], output, capsys)
    return done, len([body for body in server.asked if body.get("max_tokens") == 4]) - before


def identity(server: Loopback, name: str | None = "tiny") -> EngineInfo:
    return api.APIEngine(None, Server(server.url, "NO_SUCH_KEY"), name).describe()


def test_a_model_exchanged_under_the_same_name_is_asked_anew(
    running: OpenAIServer, folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that the server says of it differs; its replies do."""
    first, asked = gsm8k(running, tmp_path, capsys)
    assert (first.status, asked) == (0, 4), first.err
    assert gsm8k(running, tmp_path, capsys)[1] == 0  # the same model: nothing is asked again
    running.exchange(folders[1])
    second, asked = gsm8k(running, tmp_path, capsys)
    assert (second.status, asked) == (0, 4)
    texts = [[row["response"]["texts"] for row in run.samples.values()] for run in (first, second)]
    assert texts[0] != texts[1]
    assert "was answered by another served model (replies.text" in second.out
    assert "|served:replies|" in second.signature
    assert (
        "of the served model tiny is known: replies.text " in second.out and "models.max_model_len 2048" in second.out
    )
    assert "one that replies alike would not be told apart" in second.out
    running.exchange(folders[0])
    assert gsm8k(running, tmp_path, capsys)[1] == 0  # the first one's answers are still there
    kept = [json.loads(path.read_text()) for path in (tmp_path / "samples").glob("*.json")]
    assert len({one["model"]["fingerprint"] for one in kept}) == 2
    assert all(one["model"]["served"]["models.max_model_len"] == "2048" for one in kept)


@pytest.mark.parametrize(
    ("where", "before", "after"),
    [
        ("entry", {"root": "/models/a"}, {"root": "/models/b"}),
        ("entry", {"owned_by": "vllm"}, {"owned_by": "me"}),
        ("entry", {"meta": {"n_params": 100, "size": 70}}, {"meta": {"n_params": 100, "size": 64}}),  # llama.cpp
        ("entry", {"max_model_len": 1024}, {"max_model_len": 2048}),
        ("entry", {"sha": "aa"}, {"sha": "ab"}),
        ("/props", {"model_path": "a.Q4.gguf"}, {"model_path": "a.Q8.gguf"}),
        ("/props", {"chat_template": "a" * 300}, {"chat_template": "a" * 299 + "b"}),
        ("/props", {"default_generation_settings": {"n_ctx": 512}}, {"default_generation_settings": {"n_ctx": 1024}}),
        ("/info", {"model_id": "m", "model_sha": "1f"}, {"model_id": "m", "model_sha": "2f"}),  # TGI
        ("/get_model_info", {"model_path": "m", "weight_version": "1"}, {"model_path": "m", "weight_version": "2"}),
        ("/api/show", {"details": {"quantization_level": "Q4_0"}}, {"details": {"quantization_level": "Q8_0"}}),
        (
            "/api/tags",
            {"models": [{"name": "other:latest", "digest": "1"}, {"name": "tiny:latest", "digest": "1"}]},
            {"models": [{"name": "other:latest", "digest": "1"}, {"name": "tiny:latest", "digest": "2"}]},
        ),
        ("/api/v0/models", *({"data": [{"id": "tiny", "quantization": bits}]} for bits in ("4bit", "8bit"))),
        ("stamp", {"system_fingerprint": "fp_1"}, {"system_fingerprint": "fp_2"}),
        ("stamp", {"model": "large-2026-10-01"}, {"model": "large-2026-11-01"}),
    ],
)  # fmt: skip
def test_whatever_the_server_says_of_its_model_counts(
    where: str, before: dict[str, Any], after: dict[str, Any], hosted: Chat
) -> None:
    say(hosted, where, before)
    first, again = identity(hosted), identity(hosted)
    assert first.fingerprint == again.fingerprint
    say(hosted, where, after)
    assert identity(hosted).fingerprint != first.fingerprint


def say(server: Chat, where: str, what: dict[str, Any]) -> None:
    if where in ("entry", "stamp"):
        setattr(server, where, what)
    else:
        server.pages[where] = what


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("entry", [{"created": 1}, {"created": 2}]),
        ("entry", [{"permission": [{"id": "x1", "created": 1}]}, {"permission": [{"id": "x2", "created": 2}]}]),  # vLLM
        ("entry", [{"status": {"value": state}, "meta": {"n_params": 5}} for state in ("loaded", "idle")]),
        ("entry", [{"pricing": {"prompt": "1"}, "description": "good"}, {"pricing": {"prompt": "2"}, "description": "better"}]),
        ("entry", [{"max_model_len": 2048}, {"max_model_len": "2048"}]),
        ("/api/tags", [{"models": [{"name": "tiny", "digest": "1", "modified_at": day}]} for day in ("a", "b")]),
        ("/api/tags", [{"models": [{"name": "other", "digest": day}]} for day in ("a", "b")]),
        ("/props", [{"model_path": "m", "total_slots": slots, "build_info": "b1"} for slots in (1, 4)]),
        ("stamp", [{"id": "1", "created": 1}, {"id": "2", "created": 2}]),
    ],
)  # fmt: skip
def test_what_moves_while_the_model_stays_does_not(where: str, values: list[Any], hosted: Chat) -> None:
    found = set()
    for value in values:
        say(hosted, where, value)
        found.add(identity(hosted).fingerprint)
    assert len(found) == 1


def test_what_is_known_and_what_is_not(hosted: Chat) -> None:
    hosted.pages["/info"] = {"model_id": "m", "model_sha": "1f"}
    info = identity(hosted)
    assert info.known_by == "content" and info.served["TGI.model_sha"] == "1f"
    with Chat(replies=itertools.cycle(["one", "two", "three", "four", "five"])) as random:  # another text each time
        engine = api.APIEngine(None, Server(random.url, "NO_SUCH_KEY"))
        assert engine.describe().known_by == "name" and not engine.describe().served
        assert "is known: nothing but its name; another one under that name would not be told apart" in engine.notes[0]
        assert "differently to the same prompt each time, at temperature 0" in engine.notes[1]
    with Chat(replies=itertools.cycle(["same"])) as steady:  # no /completions: asked as a conversation
        assert identity(steady).known_by == "replies"
        assert {len(body["messages"]) for body in steady.asked if "messages" in body} == {1}
    with Chat(replies=itertools.cycle([""])) as silent:
        assert identity(silent).known_by == "name"
    with Chat(replies=None) as refusing:
        engine = api.APIEngine(None, Server(refusing.url, "NO_SUCH_KEY"), "tiny")
        assert engine.describe().known_by == "name" and "answers no probe" in engine.notes[1]


def test_a_server_in_trouble_is_asked_again_before_anything_is_missed(
    hosted: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statuses after which another attempt may succeed are no answer."""
    monkeypatch.setattr(server_module, "FIRST_DELAY", 0.01)
    hosted.pages["/info"] = {"model_sha": "1f"}
    wanted = identity(hosted)
    tries = iter([503, 429, 200] * 20)
    original = Chat.answer

    def troubled(self: Chat, handler: Any, body: dict[str, Any]) -> None:
        status = next(tries)
        original(self, handler, body) if status == 200 else send(handler, status, {"error": {"message": "busy"}})

    monkeypatch.setattr(Chat, "answer", troubled)
    assert identity(hosted).fingerprint == wanted.fingerprint


def test_fingerprints_that_move_during_a_run_are_told(
    running: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six replies to the probe and one item with the first, three with the second."""
    running.stamp = lambda number: {"system_fingerprint": "fp_a" if number < PROBED + 1 else "fp_b"}
    done, _ = gsm8k(running, tmp_path, capsys, "--concurrency", "1")
    warning = "warning: the server's system_fingerprint changed during the run (replies by fingerprint: fp_b 3, fp_a 1)"
    assert warning in done.out, done.out
    (path,) = (tmp_path / "samples").glob("*.json")
    kept = json.loads(path.read_text())
    assert kept["system_fingerprints"] == {"fp_b": 3, "fp_a": 1}
    assert kept["model"]["served"]["replies.system_fingerprint"] == "fp_a"
    assert [row["response"]["system_fingerprints"] for row in done.samples.values()] == [["fp_a"], *[["fp_b"]] * 3]


def test_a_model_exchanged_while_it_is_asked_is_told(
    running: OpenAIServer, folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the finished run is asked for again, with its first model back."""
    running.stamp = lambda number: {"model": "a" if number < PROBED + 2 else "b"}
    done, _ = gsm8k(running, tmp_path, capsys)
    warning = (
        "warning: another model was served at the end (replies.model a, now b): the last 4 answers may be of either"
    )
    assert done.status == 0 and warning in done.out
    running.stamp = lambda number: {"model": "a"}
    again, asked = gsm8k(running, tmp_path, capsys)
    assert asked == 0 and warning in again.out


def test_choices_keep_their_fingerprints_and_rows_without_stay(
    running: OpenAIServer, folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", folders[0], "-d", "demo", "--engine", "api", "--base-url", running.url, "--shots", "0"]
    words += ["--subjects", "formal_logic", "--limit", "2"]
    plain = run_script("mmlu", words, tmp_path / "plain", capsys)
    running.stamp = lambda number: {"system_fingerprint": "fp_a"}
    stamped = run_script("mmlu", words, tmp_path / "stamped", capsys)
    assert plain.status == stamped.status == 0, stamped.err
    for name, row in stamped.samples.items():
        assert row["response"].pop("system_fingerprints") == ["fp_a"]
        assert row["response"] == plain.samples[name]["response"]
    assert "warning: the server's system_fingerprint" not in stamped.out


def test_runs_of_version_0_1_are_named_and_not_taken_over(
    running: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = api.APIEngine.describe

    def former(self: api.APIEngine) -> EngineInfo:
        import dataclasses

        return dataclasses.replace(describe(self), served={}, known_by="", fingerprint="0123456789abcdef")

    with monkeypatch.context() as patch:
        patch.setattr(api.APIEngine, "describe", former)
        old, _ = gsm8k(running, tmp_path, capsys)
    assert "|served:" not in old.signature
    new, asked = gsm8k(running, tmp_path, capsys)
    assert asked == 4 and "was answered by whatever tiny was then (version 0.1)" in new.out


@pytest.mark.parametrize("shows", ["llama.cpp", "vLLM", "nothing"])
def test_the_prompt_that_the_server_renders(
    shows: str, running: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rendered(body: dict[str, Any]) -> str:
        return "<today>" + body["messages"][0]["content"]

    pages: dict[str, dict[str, Callable[[dict[str, Any]], Any]]] = {
        "llama.cpp": {"/apply-template": lambda body: {"prompt": rendered(body)}},
        "vLLM": {
            "/tokenize": lambda body: {"tokens": list(rendered(body).encode()), "count": 3},
            "/detokenize": lambda body: {"prompt": bytes(body["tokens"]).decode()},
        },
        "nothing": {},
    }
    running.pages.update(pages[shows])
    done, _ = gsm8k(running, tmp_path, capsys, "--chat")
    assert done.status == 0 and "|template:server|" in done.signature
    (path,) = (tmp_path / "samples").glob("*.json")
    question = done.samples["0"]["prompt"][0]["content"]
    assert json.loads(path.read_text())["prompt"] == (None if shows == "nothing" else f"<today>{question}")
    assert "whether prompts show a date, and which, is not known" in done.out
    running.pages["/props"] = {"chat_template": "{{ strftime_now('%d') }}"}
    told, _ = gsm8k(running, tmp_path / "told", capsys, "--chat")
    assert "which reads a clock: replies of different days are to different prompts" in told.out


def test_a_template_that_the_server_did_not_use_is_not_named(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """-c names a checkpoint with a template, and the server takes no token ids."""
    with OpenAIServer(folders[0], ("ids",)) as server:
        done, _ = gsm8k(server, tmp_path, capsys, "--chat", "-c", folders[0])
    assert done.status == 0 and "|template:server|" in done.signature


def test_long_facts_and_odd_entries() -> None:
    class Odd:
        url = "http://127.0.0.1/v1"

        def __init__(self, listed: Any) -> None:
            self.listed = listed

        def get(self, path: str, attempts: int) -> Any:
            return self.listed

        def look(self, path: str, body: Any = None) -> Any:
            return None

    entries = [{"object": "model"}, "text", None, {"id": "m", "root": "r" * 500, "max_model_len": "4k"}]
    for listed in (entries, {"data": entries}):
        found = served.find(Odd(listed), None)  # type: ignore[arg-type]
        assert (found.name, found.limit, found.known_by) == ("m", 0, "entry")
        assert found.facts["models.root"].startswith("sha256 ") and found.facts["models.max_model_len"] == "4k"
    for listed in ({}, {"data": None}, {"data": {"id": "m"}}, []):
        assert served.find(Odd(listed), "m").facts == {}  # type: ignore[arg-type]
