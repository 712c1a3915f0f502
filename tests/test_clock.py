"""Chat templates that read a clock: found, rendered on the day of the run's first start, told; others are left alone."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2.defaults
import pytest
from transformers.utils import chat_template_utils

import tiny
from known import Run, benchmark_of, run_script
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.tokenizers import HubTokenizer
from qwen_eval.report.page import stored_runs
from qwen_eval.runs import answer, prompts, samples, unanswered, workers
from qwen_eval.runs import run as runs
from qwen_eval.runs.signature import run_id, signature
from qwen_eval.schema import CheckpointError, EngineInfo, ModelSpec

# another template than the reference's, with the same clock: the date in a system turn
DATED = "<|im_start|>system\nToday is {{ strftime_now('%A, %d %B %Y') }}.<|im_end|>\n" + tiny.CHATML
DAYS = ["", "2031-05-30", "2031-05-31"]
HI = [{"role": "user", "content": "Hi"}]
WORDS = ["-d", "demo", "--chat", "--limit", "3", "--max-new-tokens", "3", "--dtype", "float32"]


def set_template(folder: Path, template: str) -> Path:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> Callable[[str], HubTokenizer]:
    tiny.write_byte_tokenizer(tmp_path)
    return lambda template: HubTokenizer(set_template(tmp_path, template))


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Moves the calendar to a day of May 2031: for what asks the date, and for what transformers renders."""

    def move(day: int) -> None:
        class Date(datetime.date):
            @classmethod
            def today(cls) -> datetime.date:  # type: ignore[override]
                return datetime.date(2031, 5, day)

        class Now(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
                return datetime.datetime(2031, 5, day, 21, 7)

        monkeypatch.setattr(prompts, "date", Date)
        monkeypatch.setattr(chat_template_utils, "datetime", Now)

    return move


def moving(template: str) -> str:
    return "{% if messages|length > 0 %}" + template + "{% endif %}{{ messages[0]['content'] }}"


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "06 May 2020"),
        ("{{ strftime_now('%H:%M:%S') }}", "12:00:00"),
        ("{% if strftime_now('%Y')|int > 2030 %}late{% else %}early{% endif %}", "early"),
        ("{{ datetime.datetime.now().year }}", "2020"),
        ("{{ datetime.date.today() }}", "2020-05-06"),
        ("{{ day.today().isoformat() }}", "2020-05-06"),
        ("{{ moment.utcnow().strftime('%Y-%m') }}", "2020-05"),
        ("{{ now().strftime('%j') }}", "127"),
        ("{{ time.strftime('%y-%m-%d') }}", "20-05-06"),
        ("{{ ticks()|int }}", str(int(datetime.datetime(2020, 5, 6, 12).timestamp()))),
        ("{{ wrapped() }}", "2020-05-06T12:00:00"),
    ],
)
def test_every_clock_is_found_and_stopped(
    template: str, wanted: str, tokenizer: Callable[[str], HubTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    clocks: dict[str, Any] = {
        "datetime": datetime, "day": datetime.date, "moment": datetime.datetime, "now": datetime.datetime.now,
        "time": time, "ticks": time.time, "wrapped": lambda: datetime.datetime.now().isoformat(),
    }  # fmt: skip
    for (
        name,
        clock,
    ) in clocks.items():  # as a later transformers, or the code of a checkpoint, may give them to templates
        monkeypatch.setitem(jinja2.defaults.DEFAULT_NAMESPACE, name, clock)
    tok = tokenizer(moving(template))
    real = datetime.datetime.now()
    assert tok.moves(HI)
    tok.day = "2020-05-06"
    assert tok.chat_text(HI) == wanted + "Hi"
    assert tok.decode(tok.chat_ids(HI)) == wanted + "Hi"
    assert datetime.datetime.now() >= real and time.time() >= real.timestamp()  # the clocks of others go on
    tok.day = None
    assert wanted == "early" or tok.chat_text(HI) != wanted + "Hi"


@pytest.mark.parametrize(
    "template",
    [
        tiny.CHATML,
        "{% if strftime_now is defined %}{% set today = strftime_now('%d') %}{% endif %}x",  # read and not shown
        "{% if messages[0]['role'] == 'system' %}{{ strftime_now('%d') }}{% endif %}x",  # of conversations of another kind
        "{% if thinking is defined %}{{ strftime_now('%d') }}{% endif %}x",
    ],
)
def test_a_template_whose_text_does_not_move(template: str, tokenizer: Callable[[str], HubTokenizer]) -> None:
    tok = tokenizer(template)
    assert not tok.moves(HI)
    if template != tiny.CHATML:
        assert tok.moves([{"role": "system", "content": "s"}, *HI], thinking=True) == ("set today" not in template)


def test_a_template_with_random_text_is_refused(tokenizer: Callable[[str], HubTokenizer]) -> None:
    tok = tokenizer("{% for turn in range(40) %}{{ [1, 2, 3]|random }}{% endfor %}")
    with pytest.raises(CheckpointError, match="a different text for the same conversation each time"):
        tok.moves(HI)


def run(folder: Path, output: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Run:
    return run_script("gsm8k", ["-c", folder, *WORDS, *words], output, capsys)


def manifest(output: Path) -> dict[str, Any]:
    (path,) = (output / "samples").glob("*.json")
    return dict(json.loads(path.read_text()))


def test_a_run_keeps_the_date_of_its_first_start(
    tmp_path: Path, today: Callable[[int], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted on the 30th, gone on with on the 31st, asked for again later: one run, prompts of the 30th."""
    folder = set_template(tiny.write_qwen2(tmp_path / "model", positions=2048), DATED)
    output = tmp_path / "results"
    rendered: list[str] = []
    original = HubTokenizer.chat_ids

    def seen(self: HubTokenizer, messages: Any, *args: Any, **options: Any) -> list[int]:
        ids = original(self, messages, *args, **options)
        rendered.append(self.decode(ids))
        return ids

    monkeypatch.setattr(HubTokenizer, "chat_ids", seen)
    find = unanswered.find

    def checked(*words: Any) -> Any:
        """What is encoded to see whether it fits is not asked."""
        found = find(*words)
        rendered.clear()
        return found

    monkeypatch.setattr(unanswered, "find", checked)
    today(30)
    with monkeypatch.context() as patch:
        patch.setattr(samples.SampleFile, "append", interrupted(after=1))
        stopped = run(folder, output, capsys)
    assert stopped.status == 130
    (start,) = (output / "samples").glob("*.start")
    assert json.loads(start.read_text())["model"]["day"] == "2031-05-30"
    assert not list((output / "samples").glob("*.json"))
    today(31)
    done = run(folder, output, capsys)
    assert done.status == 0, done.err
    assert rendered and all("Today is Friday, 30 May 2031." in text for text in rendered)
    assert "|date:2031-05-30|" in done.signature
    assert "the chat template shows the date: all prompts are those of 2031-05-30" in done.out
    kept = manifest(output)
    assert kept["model"]["day"] == "2031-05-30" and not list((output / "samples").glob("*.start"))
    assert kept["prompt"].startswith("<|im_start|>system\nToday is Friday, 30 May 2031.<|im_end|>\n<|im_start|>user\n")
    assert done.samples["0"]["prompt"][0]["content"] in kept["prompt"]
    rendered.clear()
    again = run(folder, output, capsys)
    assert not rendered and again.signature == done.signature and "already in" in again.out
    assert manifest(output)["started"] == kept["started"]
    # on the page
    (shown,) = stored_runs(output, {})
    assert shown.about["prompt"] == kept["prompt"]
    # a new measurement has a date of its own
    today(31)
    fresh = run(folder, output, capsys, "--overwrite")
    assert "|date:2031-05-31|" in fresh.signature and len(fresh.samples) == len(done.samples)
    assert manifest(output)["prompt"].startswith("<|im_start|>system\nToday is Saturday, 31 May 2031.")
    rescored = run_script("gsm8k", [*WORDS[:3], "--limit", "3", "--rescore", next((output / "samples").glob("*.json")).stem],
                          output, capsys)  # fmt: skip
    assert rescored.status == 0 and "|date:2031-05-31|" in rescored.signature


def test_a_start_without_an_answer_is_no_first_start(
    tmp_path: Path, today: Callable[[int], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = set_template(tiny.write_qwen2(tmp_path / "model", positions=2048), DATED)
    today(30)
    with monkeypatch.context() as patch:
        patch.setattr(samples.SampleFile, "append", interrupted(after=0))
        assert run(folder, tmp_path / "results", capsys).status == 130
    today(31)
    done = run(folder, tmp_path / "results", capsys)
    assert "|date:2031-05-31|" in done.signature
    assert manifest(tmp_path / "results")["prompt"].startswith("<|im_start|>system\nToday is Saturday, 31 May 2031.")


def interrupted(after: int) -> Callable[..., None]:
    """SampleFile.append that is interrupted once `after` rows are stored."""
    original = samples.SampleFile.append
    stored: list[object] = []

    def append(self: samples.SampleFile, row: Any) -> None:
        if len(stored) == after:
            raise KeyboardInterrupt
        stored.append(row)
        original(self, row)

    return append


def test_answers_of_unknown_days_are_not_taken_over(
    tmp_path: Path, today: Callable[[int], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = set_template(tiny.write_qwen2(tmp_path / "model", positions=2048), DATED)
    output = tmp_path / "results"
    today(3)
    with monkeypatch.context() as patch:  # as a version that knew of no dates
        patch.setattr(HubTokenizer, "moves", lambda *args, **options: False)
        before = run(folder, output, capsys)
    assert "date:" not in before.signature
    after = run(folder, output, capsys)
    assert after.status == 0 and "|date:2031-05-03|" in after.signature
    assert "was stored under prompts of whatever day they were asked on" in after.out
    # the answers are there and what says their date is lost
    (path,) = [
        path for path in (output / "samples").glob("*.json") if "date:" in json.loads(path.read_text())["signature"]
    ]
    path.unlink()
    lost = run(folder, output, capsys)
    assert lost.status == 2 and "show the date of the run's first start" in lost.err
    assert run(folder, output, capsys, "--overwrite").status == 0


def test_a_template_that_moves_otherwise_is_an_error_where_items_are_left(
    tmp_path: Path, today: Callable[[int], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that nobody finds (here: moves says no) shows in the first prompt, which is kept."""
    folder = set_template(tiny.write_qwen2(tmp_path / "model", positions=2048), DATED)
    output = tmp_path / "results"
    monkeypatch.setattr(HubTokenizer, "moves", lambda *args, **options: False)
    today(3)
    with monkeypatch.context() as patch:
        patch.setattr(samples.SampleFile, "append", interrupted(after=1))
        assert run(folder, output, capsys).status == 130
    today(4)
    other = run(folder, output, capsys)
    assert other.status == 2 and re.search(r"first prompt differs .*Saturday, 03 .*Sunday, 04 ", other.err)
    today(3)
    assert run(folder, output, capsys).status == 0
    today(4)
    finished = run(folder, output, capsys)  # nothing is left to ask
    assert finished.status == 0 and "the first prompt differs from that of the run's first start" in finished.out


def test_the_id_does_not_depend_on_the_day() -> None:
    benchmark = benchmark_of("gsm8k", "-c", "some/model", *WORDS)
    infos = [
        EngineInfo("some/model", "abc", "f00d", 8192, "fp32", "none", "hf", "cpu", "1234", day=day) for day in DAYS
    ]
    none, one, other = (run_id(benchmark, info) for info in infos)
    assert none != one == other
    lines = [signature(benchmark, info) for info in infos]
    assert lines[1:] == [lines[0].replace("|ctx:", f"|date:{day}|ctx:") for day in DAYS[1:]]


def test_the_first_prompt_is_a_hash_where_no_prompts_are_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.write_qwen2(tmp_path / "model", positions=2048)
    done = run(folder, tmp_path / "results", capsys, "--no-prompts")
    assert "date:" not in done.signature and re.search(r"\|template:[0-9a-f]{8}\|ctx:2048\|dtype:fp32$", done.signature)
    kept = manifest(tmp_path / "results")
    prompt = "<|im_start|>user\nTom has 4 eggs. Tom loses 3. Tom sells 1. How many eggs does Tom have now?<|im_end|>\n"
    prompt += "<|im_start|>assistant\n"
    assert kept["prompt"] == {"sha256": hashlib.sha256(prompt.encode()).hexdigest()} and kept["model"]["day"] == ""


def test_every_process_renders_the_same_day(tmp_path: Path, today: Callable[[int], None], monkeypatch: Any) -> None:
    """What rank 0 found in the run's first start reaches the others."""
    folder = set_template(tiny.write_qwen2(tmp_path / "model", positions=2048), DATED)
    engine = HFEngine(ModelSpec(str(folder), dtype="float32"))
    benchmark = benchmark_of("gsm8k", "-c", folder, *WORDS, "-o", tmp_path)
    given: dict[str, Any] = {}

    class Second(workers.Processes):
        def broadcast(self, value: Any) -> Any:
            return ("the-run", "2031-05-30") if value is None else value

    monkeypatch.setattr(answer, "answer_share", lambda b, e, name, *rest: given.update(name=name, day=e.tokenizer.day))
    today(31)
    assert runs.run(benchmark, engine, Second(1, 2)) is None
    assert given == {"name": "the-run", "day": "2031-05-30"}
