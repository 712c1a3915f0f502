"""The pipeline with a stand-in engine: resume, limits, result files, messages. No model is loaded."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from qwen_eval import options as arguments
from qwen_eval.runs import results as results_csv
from qwen_eval.runs import run as runner
from qwen_eval.runs import samples
from qwen_eval.schema import Benchmark, Choose, Chosen, EngineInfo, InputError, OnResponse, Sample
from qwen_eval.tasks import choice


class Letters:
    """An engine that always prefers one letter, and counts what it is asked."""

    def __init__(self, best: int = 0, fail_after: int | None = None) -> None:
        self.best, self.fail_after = best, fail_after
        self.asked = 0
        self.notes: list[str] = []

    def describe(self) -> EngineInfo:
        return EngineInfo("some/model", "abc", "f00d", 8192, "fp32", "none", "hf", "cpu")

    def usage(self) -> dict[str, float]:
        return {"tokens": 1, "prompt_tokens": 1, "peak_memory_gb": 0.1}

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        answers = []
        for index, _ in enumerate(requests):
            if self.asked == self.fail_after:
                raise KeyboardInterrupt
            self.asked += 1
            answers.append(Chosen(tuple(0.0 if place == self.best else -1.0 for place in range(4)), 5, 10))
            done(index, answers[-1])
        return answers

    def generate(self, requests: object, done: OnResponse) -> list:
        raise AssertionError("nobody asks for text here")


def build(args: argparse.Namespace) -> Benchmark:
    samples = [
        Sample(f"{group}/{index}", Choose("h", (), f"q{index}", (" A", " B", " C", " D")), "ABCD"[index % 4], group)
        for group in ("anatomy", "virology")
        for index in range(8)
    ]
    return Benchmark(
        "mmlu", 1, "default", "base", 5, samples, choice.score("default"),
        choice.accuracy("mmlu", "micro"), {"data": "0000"}, remarks=choice.remarks,
    )  # fmt: skip


def options(tmp_path: Path, *words: str) -> argparse.Namespace:
    return arguments.parser("", {"base": 5}, subjects=True).parse_args(
        ["-c", "some/model", "-o", str(tmp_path), "--quiet", "--no-self-check", *words]
    )


def rows(tmp_path: Path) -> list[dict[str, str]]:
    return results_csv.read_results(tmp_path / "mmlu.csv")


def test_results_samples_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.run(options(tmp_path), build, engine=Letters()) == 0
    table = capsys.readouterr().out
    assert (
        "all" in table
        and "25.00" in table
        and "signature mmlu|v1|default|base|shots:5|data:0000|n:16|ctx:8192|dtype:fp32" in table
    )
    figures = {(row["metric"], row["group"]): row for row in rows(tmp_path)}
    assert float(figures["acc", "all"]["value"]) == 25 and figures["acc", "all"]["n"] == "16"
    assert figures["acc", "all"]["partial"] == "0" and figures["acc", "STEM"]["n"] == "8"
    run_id = figures["acc", "all"]["run_id"]
    stored = [json.loads(line) for line in (tmp_path / "samples" / f"{run_id}.jsonl").read_text().splitlines()]
    assert stored[0] == {
        "id": "anatomy/0", "group": "anatomy", "prompt": "hq0", "answer": "A", "target": "A",
        "response": {
            "kind": "chosen", "logprobs": [0.0, -1.0, -1.0, -1.0],
            "shots_used": 5, "prompt_tokens": 10, "truncated": False,
        },
        "stats": {"correct": 1.0, "tie": 0.0, "shots_dropped": 0.0, "truncated": 0.0},
    }  # fmt: skip
    assert json.loads((tmp_path / "samples" / f"{run_id}.json").read_text())["model"]["fingerprint"] == "f00d"


def test_an_interrupted_run_goes_on_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    runner.run(options(whole), build, engine=Letters(1))
    with pytest.raises(KeyboardInterrupt):
        runner.run(options(broken), build, engine=Letters(1, fail_after=6))
    assert not (broken / "mmlu.csv").exists()
    second = Letters(1)
    runner.run(options(broken), build, engine=second)
    assert second.asked == 10
    volatile = ("timestamp", "seconds", "git_commit")
    strip = [[{k: v for k, v in row.items() if k not in volatile} for row in rows(path)] for path in (whole, broken)]
    assert strip[0] == strip[1]


def test_a_torn_last_line_is_asked_again(tmp_path: Path) -> None:
    runner.run(options(tmp_path), build, engine=Letters())
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    samples.write_bytes(samples.read_bytes()[:-20])
    engine = Letters()
    runner.run(options(tmp_path), build, engine=engine)
    assert engine.asked == 1
    assert len(samples.read_text().splitlines()) == 16


def test_the_same_run_twice_asks_nothing_and_adds_no_rows(tmp_path: Path) -> None:
    runner.run(options(tmp_path), build, engine=Letters())
    before = (tmp_path / "mmlu.csv").read_bytes()
    engine = Letters()
    runner.run(options(tmp_path), build, engine=engine)
    assert engine.asked == 0 and (tmp_path / "mmlu.csv").read_bytes() == before
    runner.run(options(tmp_path, "--overwrite"), build, engine=engine)
    assert engine.asked == 16 and (tmp_path / "mmlu.csv").read_bytes() == before


def test_limit_takes_the_first_of_every_group_and_marks_the_rows_partial(tmp_path: Path) -> None:
    engine = Letters()
    runner.run(options(tmp_path, "--limit", "3"), build, engine=engine)
    assert engine.asked == 6 and {row["partial"] for row in rows(tmp_path)} == {"1"}
    assert "|n:6|" in rows(tmp_path)[0]["signature"]


def test_another_model_never_inherits_answers(tmp_path: Path) -> None:
    class Other(Letters):
        def describe(self) -> EngineInfo:
            return EngineInfo("some/model", "abc", "beef", 8192, "fp32", "none", "hf", "cpu")

    runner.run(options(tmp_path), build, engine=Letters())
    other = Other(2)
    runner.run(options(tmp_path), build, engine=other)
    assert other.asked == 16 and len({row["run_id"] for row in rows(tmp_path)}) == 2


def test_stored_replies_are_scored_again_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By another version that reads them otherwise; an item whose prompt that version changed is told."""
    runner.run(options(tmp_path), build, engine=Letters(1))
    (before,) = (tmp_path / "samples").glob("*.jsonl")
    stored = before.read_bytes()

    def least_likely(args: argparse.Namespace) -> Benchmark:
        made = build(args)
        first, *rest = made.samples
        changed = dataclasses.replace(first, request=dataclasses.replace(first.request, question="another"))
        return dataclasses.replace(
            made, version=2, samples=[changed, *rest], score=lambda sample, chosen: made.score(sample, worst(chosen))
        )

    def worst(chosen: Chosen) -> Chosen:
        return dataclasses.replace(chosen, logprobs=tuple(-value for value in chosen.logprobs))

    capsys.readouterr()
    assert runner.run(options(tmp_path, "--rescore", before.stem), least_likely) == 0
    out = capsys.readouterr().out
    assert (
        "1 of 16 replies answered another prompt" in out
        and f"mmlu|v2|default|base|shots:5|data:0000|replies:{before.stem}" in out
    )
    assert before.read_bytes() == stored
    (after,) = set((tmp_path / "samples").glob("*.jsonl")) - {before}
    old, new = (samples.read_samples(path) for path in (before, after))
    assert all(new[name]["response"] == row["response"] for name, row in old.items())
    # the engine preferred B throughout; the least likely option, the earliest of equals, is A
    assert {row["answer"] for row in old.values()} == {"B"} and {row["answer"] for row in new.values()} == {"A"}
    figures = [row for row in rows(tmp_path) if (row["metric"], row["group"]) == ("acc", "all")]
    assert [row["model"] for row in figures] == ["some/model"] * 2 and figures[0]["run_id"] != figures[1]["run_id"]
    with pytest.raises(InputError, match="has no answer for 16"):
        runner.run(options(tmp_path, "--rescore", before.stem), lambda args: more_items(build(args)))


def more_items(benchmark: Benchmark) -> Benchmark:
    """The same with other ids."""
    return dataclasses.replace(
        benchmark, samples=[dataclasses.replace(item, id=f"new/{item.id}") for item in benchmark.samples]
    )


def test_ties_are_said_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Equal(Letters):
        def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
            answers = [Chosen((-1.4,) * 4, 5, 10) for _ in requests]
            for index, answer in enumerate(answers):
                done(index, answer)
            return answers

    runner.run(options(tmp_path), build, engine=Equal())
    table = capsys.readouterr().out
    assert "16 of 16 items have their two best options within 1e-05" in table
    figures = {(row["metric"], row["group"]): row for row in rows(tmp_path)}
    assert float(figures["ties", "all"]["value"]) == 100


def test_prompts_can_be_left_out(tmp_path: Path) -> None:
    runner.run(options(tmp_path, "--no-prompts"), build, engine=Letters())
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    assert set(json.loads(samples.read_text().splitlines()[0])["prompt"]) == {"sha256"}


def test_a_sample_file_that_was_edited_is_named(tmp_path: Path) -> None:
    runner.run(options(tmp_path), build, engine=Letters())
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    samples.write_text("not json\n" + samples.read_text())
    with pytest.raises(InputError, match=r"jsonl:1 .*--overwrite"):
        runner.run(options(tmp_path), build, engine=Letters())


def test_a_results_file_of_another_layout_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mmlu.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"mmlu\.csv:1"):
        runner.run(options(tmp_path), build, engine=Letters())
    assert (tmp_path / "mmlu.csv").read_text() == "a,b\n1,2\n"


def test_a_torn_csv_line_is_dropped_when_rows_are_added(tmp_path: Path) -> None:
    runner.run(options(tmp_path), build, engine=Letters(0))
    path = tmp_path / "mmlu.csv"
    path.write_bytes(path.read_bytes() + b"mmlu-default,2026")
    runner.run(options(tmp_path, "--limit", "2"), build, engine=Letters(1))
    with path.open(newline="") as file:
        assert all(len(row) == len(results_csv.COLUMNS) for row in csv.reader(file))


def test_mistakes_on_the_command_line_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--shots", "x"], ["--batch-size", "0"], ["--dtype", "int3"], ["--nonsense"], ["--limit", "-1"]):
        with pytest.raises(SystemExit) as stop:
            arguments.parser("", {"base": 5}, subjects=True).parse_args(words)
        assert stop.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
