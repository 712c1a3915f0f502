"""Prompts that do not fit the context: told before the run, never cut in silence; unanswered where that is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import tiny
from known import benchmark_of, run_script
from openai_server import Loopback, send
from qwen_eval.data import demo
from qwen_eval.engines import fitting
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.checkpoint import Checkpoint
from qwen_eval.models.tokenizers import QwenTokenizer
from qwen_eval.runs import unanswered
from qwen_eval.schema import CheckpointError, Choose, Generate, InputError, Measure, ModelSpec, Unanswered
from test_plan import Words

REPLY = 512  # tokens of GSM8K's replies


@pytest.fixture(scope="module")
def tokenizer() -> QwenTokenizer:
    return QwenTokenizer(demo.checkpoint() / "qwen.tiktoken")


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads weights fails."""

    def never(*_: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(Checkpoint, "load", never)
    monkeypatch.setattr(Checkpoint, "weights", property(never))


def lengths(tokenizer: QwenTokenizer, name: str, *words: object) -> dict[str, int]:
    """By id the tokens of each prompt of the demonstration without shots, counted apart from the code under test."""
    found = {}
    for sample in benchmark_of(name, "-c", "demo", *words).asked:
        request = sample.request
        assert isinstance(request, Generate)
        prompt = request.header + request.prompt if isinstance(request.prompt, str) else request.prompt
        found[sample.id] = len(tokenizer.encode(prompt) if isinstance(prompt, str) else tokenizer.chat_ids(prompt))
    return found


def test_a_reply_as_long_as_the_context_is_an_error(
    unloaded: None, tokenizer: QwenTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It left one token of every prompt: accuracy 0, status 0 and a row in the CSV."""
    longest = max(lengths(tokenizer, "gsm8k").values())
    for words in ([], ["--too-long", "wrong"], ["--recipe", "qwen2023"], ["--chat"]):
        done = run_script("gsm8k", ["-c", "demo", "--max-seq-len", REPLY, *words], tmp_path, capsys)
        assert done.status == 2 and len(done.err.splitlines()) == 1, done.err
        assert "--max-new-tokens 512 leaves no room for a prompt in the context of 512 tokens" in done.err
        if not words:
            assert f"set --max-new-tokens to {REPLY - longest} or fewer" in done.err
            assert f"set --max-seq-len to {REPLY + longest} or more" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [(), ("--shots", "0"), ("--chat",)], ids=" ".join)
def test_items_that_do_not_fit_are_an_error_before_the_run(
    words: Sequence[str], unloaded: None, tokenizer: QwenTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lengths(tokenizer, "gsm8k", *words)
    longest = max(found.values())
    limit = REPLY + longest - 1
    count = sum(length == longest for length in found.values())
    done = run_script("gsm8k", ["-c", "demo", "--max-seq-len", limit, *words], tmp_path, capsys)
    assert done.status == 2 and len(done.err.splitlines()) == 1, done.err
    for part in (
        f"{count} of 50 items do{'es' * (count == 1)} not fit the context of {limit} tokens",
        f"takes {limit + 1}, 512 of them for its reply",
        f"--max-new-tokens to {REPLY - 1} or fewer",
        f"--max-seq-len to {limit + 1} or more",
        "--too-long wrong",
    ):
        assert part in done.err
    assert not list(tmp_path.iterdir())


def test_unanswered_items_are_wrong_and_told(
    tokenizer: QwenTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", "demo", "--max-new-tokens", 48, "--limit", 12]
    found = lengths(tokenizer, "gsm8k", "--limit", 12)
    limit = 48 + sorted(found.values())[5]
    out = {name for name, length in found.items() if 48 + length > limit}
    assert 0 < len(out) < 12
    whole = run_script("gsm8k", words, tmp_path, capsys)
    part = run_script("gsm8k", [*words, "--max-seq-len", limit, "--too-long", "wrong"], tmp_path, capsys)
    assert part.status == 0, part.err
    assert f"warning: {len(out)} of 12 items do not fit the context of {limit} tokens" in part.out
    assert f"|ctx:{limit}|unanswered:{len(out)}|" in part.signature
    assert part.figure("unanswered", "all") == pytest.approx(100 * len(out) / 12, abs=1e-6)
    assert "unanswered" not in {row["metric"] for row in whole.rows}
    for name, row in part.samples.items():
        assert (row["response"]["kind"] == "unanswered") == (name in out)
        if name in out:
            tokens = 48 + found[name]
            assert row["response"] == {"kind": "unanswered", "tokens": tokens, "limit": limit}
            assert row["answer"] is None and row["stats"]["correct"] == 0 and row["stats"]["invalid"] == 1
            assert row["stats"]["unanswered"] == 1
    right = sum(row["stats"]["correct"] for name, row in part.samples.items() if name not in out)
    assert part.figure("acc", "all") == pytest.approx(100 * right / 12, abs=1e-6)
    again = run_script("gsm8k", [*words, "--max-seq-len", limit, "--too-long", "wrong"], tmp_path, capsys)
    assert "already in" in again.out and again.samples == part.samples
    # unasked items stay what they are when the replies are scored again
    name = Path(next(line for line in part.out.splitlines() if line.startswith("samples in "))).stem
    scored = run_script("gsm8k", ["-d", "demo", *words[2:], "--rescore", name], tmp_path, capsys)
    assert scored.status == 0 and f"unanswered:{len(out)}|" in scored.signature
    assert scored.figure("acc", "all") == part.figure("acc", "all")


def test_options_that_do_not_fit_are_counted_in_multiple_choice(
    tokenizer: QwenTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Subjects' questions are of different lengths; each is read with a letter, the last token, after it."""
    words = ["-c", "demo", "--subjects", "formal_logic,nutrition", "--limit", "8"]
    asked = benchmark_of("mmlu", *words).asked
    tokens = {sample.id: len(tokenizer.encode(sample.request.prompt(5) + " A")) - 1 for sample in asked}  # type: ignore[union-attr]
    limit = min(tokens.values())
    out = {name for name, length in tokens.items() if length > limit}
    assert 0 < len(out) < len(asked)
    refused = run_script("mmlu", [*words, "--max-seq-len", limit], tmp_path, capsys)
    assert refused.status == 2 and f"{len(out)} of 16 items do not fit the context of {limit} tokens" in refused.err
    done = run_script("mmlu", [*words, "--max-seq-len", limit, "--too-long", "wrong"], tmp_path, capsys)
    assert done.status == 0, done.err
    assert {name for name, row in done.samples.items() if row["response"]["kind"] == "unanswered"} == out
    assert all(done.samples[name]["answer"] is None and not done.samples[name]["stats"]["correct"] for name in out)
    assert done.figure("ties", "all") == 0


@pytest.mark.parametrize("recipe", ["default", "qwen2023"])
def test_a_question_where_no_tool_fits_is_wrong_when_unasked(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty reply calls no tool, which would be right."""
    rows = [{"prompt": "one two three"}, {"prompt": "one two three " * 40}]
    path = tmp_path / "negative.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["-c", "demo", "--react-negative", path, "--max-new-tokens", 8, "--max-seq-len", 90, "--recipe", recipe]
    assert run_script("plugin_eval", words, tmp_path / "results", capsys).status == 2
    done = run_script("plugin_eval", [*words, "--too-long", "wrong"], tmp_path / "results", capsys)
    assert done.status == 0, done.err
    _, second = sorted(row["stats"]["calls"] for row in read(tmp_path / "results"))
    assert second == 1 and "1 of 2 items do not fit" in done.out


def read(output: Path) -> list[dict]:
    (path,) = (output / "samples").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_unanswered_programs_fail_and_are_listed_in_the_submission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", "demo", "--limit", "4", "--max-new-tokens", "24", "--samples", "2", "--temperature", "0.5"]
    asked = benchmark_of("humaneval", *words).asked
    tokenizer = QwenTokenizer(demo.checkpoint() / "qwen.tiktoken")
    found = sorted(len(tokenizer.encode(sample.request.prompt)) for sample in asked)  # type: ignore[union-attr]
    limit = 24 + found[-1] - 1
    done = run_script("humaneval", [*words, "--max-seq-len", limit, "--too-long", "wrong"], tmp_path, capsys)
    assert done.status == 0, done.err
    (row,) = [row for row in done.samples.values() if row["response"]["kind"] == "unanswered"]
    assert row["stats"]["passed"] == 0 and row["stats"]["failed"] == row["stats"]["texts"] == 2
    (submission,) = (tmp_path / "submissions").iterdir()
    lines = [json.loads(line) for line in submission.read_text().splitlines()]
    assert [line["completion"] for line in lines if line["task_id"] == row["id"]] == ["", ""]


def test_the_recipe_of_2023_cuts_as_its_protocol_says(tokenizer: QwenTokenizer, unloaded: None) -> None:
    """MMLU keeps 2,047 tokens whatever the model's limit, C-Eval and GSM8K cut nothing: nothing of them is too long."""
    engine = HFEngine(ModelSpec(str(demo.checkpoint()), max_seq_len=80))
    for name, words in (("mmlu", ()), ("ceval", ()), ("cmmlu", ()), ("gsm8k", ("--max-new-tokens", 64))):
        made = benchmark_of(name, "-c", "demo", "--recipe", "qwen2023", "--limit", 2, *words)
        assert unanswered.find(made, engine) == {}
    with pytest.raises(InputError, match="do not fit the context of 80 tokens"):
        unanswered.find(benchmark_of("gsm8k", "-c", "demo", "--limit", 2, "--max-new-tokens", 64), engine)


def test_what_can_compute_nothing_beyond_its_limit_says_so_for_protocols_that_cut_nothing() -> None:
    """By hand: "q" and three spaced words are four tokens of Words, an option is the fifth, and not read."""
    tokenizer = type("Tokenizer", (Words,), {"encode": lambda self, text: self.encode_batch([text])[0]})()
    shots, options = (" s",) * 6, (" A", " B")
    requests = [
        Choose("", shots, " q a b c", options),
        Choose("", shots, " q a b c", options, overflow="none"),
        Choose("", shots, " q a b c", options, overflow="keep_last", limit=20),
        Choose("", shots, " q a b c", options, overflow="keep_last", limit=5),
        Generate(" q a b c", 2, shots=shots),
        Generate(" q a b c", 2, shots=shots, overflow="none"),
        Measure(("q",), 6),
        Measure(("q",), 7),
        Choose("", shots, " q a b c", options, limit=3),
    ]

    def found(limit: int, rigid: bool, spare: int = 0) -> Mapping[int, Unanswered]:
        return fitting.too_long(requests, tokenizer, limit, rigid, spare)

    assert found(0, True) == {}
    assert found(6, False) == {8: Unanswered(4, 3)}
    assert found(6, True) == {
        1: Unanswered(10, 6), 2: Unanswered(10, 6), 5: Unanswered(12, 6), 7: Unanswered(7, 6), 8: Unanswered(4, 3)
    }  # fmt: skip
    assert found(4, False) == {4: Unanswered(6, 4), 8: Unanswered(4, 3)}
    assert found(4, True, 1).keys() == {0, 1, 2, 3, 4, 5, 6, 7, 8} and found(4, True, 1)[0] == Unanswered(5, 4)
    # without a tokenizer only the replies' room is known
    assert fitting.too_long(requests, None, 3, True) == {6: Unanswered(6, 3), 7: Unanswered(7, 3)}
    assert fitting.too_long(requests, None, 2, True)[4] == Unanswered(3, 2)


class Served(Loopback):
    """A server that lists a model of 16 tokens and says no word more."""

    def answer(self, handler, body) -> None:  # type: ignore[no-untyped-def]
        send(handler, 200 if handler.path == "/v1/models" else 400, {"data": [{"id": "m", "max_model_len": 16}]})


@pytest.mark.parametrize("known", [True, False])
def test_a_server_is_asked_nothing(known: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the checkpoint's tokenizer all is known here, without it the room that replies leave."""
    with Served() as server:
        words = ["-d", "demo", "--engine", "api", "--base-url", server.url, *(["-c", "demo"] if known else [])]
        done = run_script("gsm8k", [*words, "--max-new-tokens", 16], tmp_path, capsys)
        assert done.status == 2 and "--max-new-tokens 16 leaves no room" in done.err, done.err
        if known:
            done = run_script("gsm8k", [*words, "--max-new-tokens", 8], tmp_path, capsys)
            assert done.status == 2 and "50 of 50 items do not fit the context of 16 tokens" in done.err
            assert "the server's own limit" in done.err
        assert not [body for body in server.asked if {"prompt", "messages"} & body.keys()]  # what it is may be asked
    assert not list(tmp_path.iterdir())


def test_learned_positions_are_a_limit_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GPT-2 looks its positions up: beyond them it failed with a traceback."""
    folder = tiny.write_causal(tmp_path / "gpt2", "gpt2", n_positions=512)
    capsys.readouterr()
    done = run_script("long_ppl", ["-c", folder, "-d", "demo", "--lengths", "64,1024"], tmp_path / "results", capsys)
    assert done.status == 2 and "1 of 2 items does not fit the context of 512 tokens" in done.err
    assert "measure shorter --lengths" in done.err
    done = run_script("gsm8k", ["-c", folder, "-d", "demo", "--max-seq-len", 513], tmp_path / "results", capsys)
    assert done.status == 2 and "--max-seq-len 513 is more than the 512 positions" in done.err
    assert HFEngine(ModelSpec(str(tiny.write_causal(tmp_path / "llama", "llama")))).rigid is False
    with pytest.raises(CheckpointError):
        HFEngine(ModelSpec(str(folder), max_seq_len=513))
