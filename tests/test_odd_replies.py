"""Odd replies are judged by every benchmark that reads texts; one whose judging fails counts as wrong, and the run says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from known import benchmark_of
from qwen_eval.runs import answer
from qwen_eval.runs.files import json_lines
from qwen_eval.runs.samples import read_samples, sample_row
from qwen_eval.runs.unanswered import empty_response
from qwen_eval.schema import Generated, Scored
from qwen_eval.tasks import judging

ODD = [
    "", "\0", "\ud800", "\udc80" * 99, "\ufeff", "\u2028\u2029", "\r\r\n", "\x1b[2J", "\u202e", "9" * 5_000,
    "-" + "9" * 5_000, "0." + "3" * 5_000, "1e999999999999", "1e-999999999999", "10^" + "9" * 4_400, "10^10^10^10",
    "9" * 99 + "^999999", "1/0", "0/0", "1/" + "9" * 5_000, "½", "²", "٣" * 5_000, "Ⅷ", "一" * 5_000, "亿" * 99, "nan", "NaN",
    "inf", "-inf", "Infinity", "sNaN", "1,2,3," * 999, "1'000'000", "(" * 5_000, "[" * 50_000, "{" * 50_000, '{"a":' * 50_000,
    "}" * 5_000, "```" * 999, "```python\n" * 999, "`" * 5_000, "*" * 5_000, "#" * 5_000, "A" * 5_000, "A. B. C. D. " * 500,
    "The answer is " * 500, "(A" * 2_000, "A)" * 2_000, "选择" * 2_000, "答案是" * 2_000, "\\boxed{" * 2_000, "\\boxed{}" * 500,
    "$" * 5_000, "<think>" * 500, "</think>" * 500, "####" * 999, "#### " + "9" * 5_000, "#### 1e999999999",
    "the answer is 1e99999999999999999999", "x = " * 999, "\n" * 9_999, " " * 9_999, "\t" * 9_999,
    "Action: x\nAction Input: " + "[" * 50_000, "Action: x\nAction Input: " + "9" * 5_000, "Action: x\nAction Input: NaN",
    "Action:" * 999, "Action Input:" * 999, "Action: \ud800\nAction Input: \ud800",
    "Action: x\nAction Input: {'a': " + "0x" + "f" * 5_000 + "}", "Action: x\nAction Input: 1e999",
    "Action: x\nAction Input: " + "/*" * 500, "Observation:" * 99, "def f(" * 999, "def f():\n" + " " * 5_000,
    "class A:" * 99, "import os\n" * 999, "'''" * 999, '"""' * 999, "\\" * 5_000, "%s%n{0}{x!r}" * 99, "🏴\u200d☠️" * 99,
    "e\u0301" * 999, "ﷺ" * 999, "ß" * 999, "İ" * 999, "A\u0300" * 999,
]  # fmt: skip
TOLD = "The answer is {}."
NAMES = {
    "gsm8k": ("--recipe", "default"),
    "gsm8k 2023": ("--recipe", "qwen2023"),
    "mmlu": ("--recipe", "default", "--chat"),
    "mmlu 2023": ("--recipe", "qwen2023", "--chat"),
    "ceval": ("--recipe", "default", "--chat"),
    "ceval 2023": ("--recipe", "qwen2023", "--chat"),
    "wmt22": (),
}


def reply(text: str, like: Generated) -> Generated:
    return dataclasses.replace(like, texts=(text,))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_odd_replies_are_judged(name: str) -> None:
    benchmark = benchmark_of(name.split()[0], "-c", "demo", *NAMES[name])
    sample = benchmark.asked[0]
    empty = empty_response(sample.request)
    for text in [*ODD, *map(TOLD.format, ODD)]:
        score = benchmark.score(sample, reply(text, empty))
        json_lines([sample_row(Scored(sample, reply(text, empty), score))])


@pytest.mark.timeout(300)
def test_odd_tool_calls_are_judged() -> None:
    import plugin_eval
    from test_plugin import asked

    sample = asked("react_positive", 'Thought: x\nAction: x\nAction Input: {"a": 1}')
    empty = empty_response(sample.request)
    for text in ODD:
        plugin_eval.score_react(sample, reply(text, empty))
        plugin_eval.score_react_2023(sample, reply(text, empty), lambda texts: [text.split() for text in texts])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("words", [(), ("--chat",)])
def test_odd_programs_are_made(words: tuple[str, ...]) -> None:
    benchmark = benchmark_of("humaneval", "-c", "demo", *words)
    row = benchmark.rows()[0]
    for text in ODD:
        benchmark.program(row, benchmark.completion(row, text))


class Fails:
    """An engine whose every reply is the same text."""

    notes: tuple[str, ...] = ()

    def generate(self, requests: Any, done: Any) -> None:
        for index, request in enumerate(requests):
            done(index, empty_response(request, "The answer is 1."))

    def token_texts(self, texts: Any) -> Any:
        return [list(text) for text in texts]


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "plugin"])
def test_an_item_whose_judging_fails_counts_as_wrong_and_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--hfagent",) if name == "plugin" else ("-c", "demo")
    benchmark = benchmark_of(name, *words, "-o", str(tmp_path), "--quiet")

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise RecursionError("of a reply")

    if name == "plugin":
        from qwen_eval.tasks import agent

        monkeypatch.setattr(agent, "split", lambda text: ("explanation", "1"))
        monkeypatch.setattr(agent, "named", fails)
    elif name == "humaneval":
        monkeypatch.setattr(type(benchmark), "completion", fails)
    else:
        before = type(benchmark).score

        def score(self: Any, sample: Any, response: Any) -> Any:
            return before(self, sample, response) if not response.texts[0] else fails()

        monkeypatch.setattr(type(benchmark), "score", score)
    scored = answer.answer(benchmark, Fails(), "run")  # type: ignore[arg-type]
    assert {item.score.stats[judging.UNJUDGED] for item in scored} == {1.0}
    (line,) = judging.remark(scored)
    assert line.startswith(f"warning: judging {len(scored)} of {len(scored)} replies failed ({scored[0].sample.id}")
    headline = {"gsm8k": "correct", "humaneval": "passed", "plugin": "code"}[name]
    assert {item.score.stats[headline] for item in scored} == {0.0}
    assert all(
        metric.value == 0.0 for metric in benchmark.metrics(scored) if metric.metric in ("acc", "pass@1", "code")
    )
    stored: Mapping[str, Any] = read_samples(tmp_path / "samples" / "run.jsonl")
    assert {row["stats"][judging.UNJUDGED] for row in stored.values()} == {1.0}
