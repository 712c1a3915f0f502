"""The pipeline with a stub engine: resume, limits, result files, messages. No model is loaded."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qwen_eval import main
from qwen_eval.data.choice import ChoiceSet
from qwen_eval.runs import results as results_csv
from qwen_eval.runs import run, samples
from qwen_eval.schema import Choose, Chosen, EngineInfo, InputError, OnResponse, Sample, Score, Unanswered
from qwen_eval.tasks.benchmark import Benchmark, code_hash
from qwen_eval.tasks.choice import ChoiceRow, MultipleChoice, Question, categories

# what the signature says of a custom benchmark; the frame is the SHA-256 of the line "hq\u0000": what the prompts share
FIELDS = "scoring:context|frame:eeed0b88|data:unverified-0000"


class Letters:
    """An engine that always prefers one letter, and counts what it is asked."""

    def __init__(self, best: int = 0, fail_after: int | None = None) -> None:
        self.best, self.fail_after = best, fail_after
        self.asked = 0
        self.notes: list[str] = []

    def describe(self) -> EngineInfo:
        return EngineInfo("some/model", "abc", "f00d", 8192, "fp32", "none", "hf", "cpu")

    def too_long(self, requests: Sequence[Choose]) -> dict[int, Unanswered]:
        return {}

    def usage(self) -> dict[str, float]:
        return {"tokens": 1, "prompt_tokens": 1, "peak_memory_gb": 0.1}

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        answers = []
        for index, _ in enumerate(requests):
            if self.asked == self.fail_after:
                raise KeyboardInterrupt
            self.asked += 1
            answers.append(Chosen(tuple(0.0 if option == self.best else -1.0 for option in range(4)), 5, 10))
            done(index, answers[-1])
        return answers

    def generate(self, requests: object, done: OnResponse) -> list:
        raise AssertionError("nobody asks for text here")

    def token_texts(self, texts: Sequence[str]) -> list[list[str]]:
        raise AssertionError("nobody asks for tokens here")


class Questions(MultipleChoice):
    """Two of MMLU's subjects, eight questions each; a custom benchmark, since its file is not among the eight."""

    name = "mmlu"
    shots = {"base": 5}  # noqa: RUF012  # a fact of the class
    writes = ()
    has_subjects = True

    def read(self) -> dict[str, ChoiceSet[Question]]:
        rows = tuple(Question(f"q{index}", tuple("wxyz"), "ABCD"[index % 4]) for index in range(8))
        return {subject: ChoiceSet(rows, rows, "files") for subject in ("anatomy", "virology")}

    def request(self, row: ChoiceRow, examples: Sequence[ChoiceRow]) -> Choose:
        return Choose("h", (), row.question, (" A", " B", " C", " D"))

    def categories(self) -> Mapping[str, Sequence[str]]:
        return categories("mmlu")

    def fields(self) -> dict[str, str]:
        return {"data": "0000"}


def options(tmp_path: Path, *words: str) -> argparse.Namespace:
    return Questions.parser().parse_args(
        ["-c", "some/model", "-o", str(tmp_path), "--quiet", "--no-self-check", *words]
    )


def ask(benchmark: Benchmark, engine: Any) -> None:
    """Runs a benchmark as a command line does, with this engine in place of the one that it names."""
    run.prepare(benchmark)
    run.run(benchmark, engine)


def rows(tmp_path: Path) -> list[dict[str, str]]:
    return results_csv.read_results(tmp_path / "mmlu.csv")


def test_results_samples_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(Questions(options(tmp_path)), Letters())
    table = capsys.readouterr().out
    assert (
        "all" in table
        and "25.00" in table
        and f"signature mmlu|v1|default|base|shots:5|{FIELDS}|n:16|ctx:8192|dtype:fp32" in table
    )
    figures = {(row["metric"], row["group"]): row for row in rows(tmp_path)}
    assert float(figures["acc", "all"]["value"]) == 25 and figures["acc", "all"]["n"] == "16"
    assert figures["acc", "all"]["partial"] == "0" and figures["acc", "STEM"]["n"] == "8"
    run_id = figures["acc", "all"]["run_id"]
    stored = [json.loads(line) for line in (tmp_path / "samples" / f"{run_id}.jsonl").read_text().splitlines()]
    assert stored[0] == {
        "id": "anatomy/0", "group": "anatomy", "cluster": "", "prompt": "hq0", "answer": "A", "target": "A",
        "response": {
            "kind": "chosen", "logprobs": [0.0, -1.0, -1.0, -1.0],
            "shots_used": 5, "prompt_tokens": 10, "truncated": False,
        },
        "stats": {"correct": 1.0, "tie": 0.0, "shots_dropped": 0.0, "truncated": 0.0},
    }  # fmt: skip
    assert json.loads((tmp_path / "samples" / f"{run_id}.json").read_text())["model"]["fingerprint"] == "f00d"


def test_an_interrupted_run_resumes_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ask(Questions(options(whole)), Letters(1))
    with pytest.raises(KeyboardInterrupt):
        ask(Questions(options(broken)), Letters(1, fail_after=6))
    assert not (broken / "mmlu.csv").exists()
    second = Letters(1)
    ask(Questions(options(broken)), second)
    assert second.asked == 10
    volatile = ("timestamp", "seconds", "git_commit")
    strip = [[{k: v for k, v in row.items() if k not in volatile} for row in rows(path)] for path in (whole, broken)]
    assert strip[0] == strip[1]


def test_a_torn_last_line_is_asked_again(tmp_path: Path) -> None:
    ask(Questions(options(tmp_path)), Letters())
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    samples.write_bytes(samples.read_bytes()[:-20])
    engine = Letters()
    ask(Questions(options(tmp_path)), engine)
    assert engine.asked == 1
    assert len(samples.read_text().splitlines()) == 16


def test_the_same_run_twice_asks_nothing_and_adds_no_rows(tmp_path: Path) -> None:
    ask(Questions(options(tmp_path)), Letters())
    before = (tmp_path / "mmlu.csv").read_bytes()
    engine = Letters()
    ask(Questions(options(tmp_path)), engine)
    assert engine.asked == 0 and (tmp_path / "mmlu.csv").read_bytes() == before
    ask(Questions(options(tmp_path, "--overwrite")), engine)
    assert engine.asked == 16 and (tmp_path / "mmlu.csv").read_bytes() == before


def test_limit_takes_the_first_of_every_group_and_marks_the_rows_partial(tmp_path: Path) -> None:
    engine = Letters()
    ask(Questions(options(tmp_path, "--limit", "3")), engine)
    assert engine.asked == 6 and {row["partial"] for row in rows(tmp_path)} == {"1"}
    assert "|n:6|" in rows(tmp_path)[0]["signature"]


def test_another_model_never_inherits_answers(tmp_path: Path) -> None:
    class Other(Letters):
        def describe(self) -> EngineInfo:
            return EngineInfo("some/model", "abc", "beef", 8192, "fp32", "none", "hf", "cpu")

    ask(Questions(options(tmp_path)), Letters())
    other = Other(2)
    ask(Questions(options(tmp_path)), other)
    assert other.asked == 16 and len({row["run_id"] for row in rows(tmp_path)}) == 2


def test_stored_replies_are_scored_again_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By another version with another extraction; an item whose prompt that version changed is reported (all share "h")."""
    ask(Questions(options(tmp_path)), Letters(1))
    (before,) = (tmp_path / "samples").glob("*.jsonl")
    stored = before.read_bytes()

    class LeastLikely(Questions):
        name, version = "mmlu", 2

        def samples(self) -> list[Sample]:
            first, *rest = super().samples()
            return [dataclasses.replace(first, request=dataclasses.replace(first.request, question="another")), *rest]

        def score(self, sample: Sample, reply: Chosen) -> Score:
            worst = dataclasses.replace(reply, logprobs=tuple(-value for value in reply.logprobs))
            return super().score(sample, worst)

    class OtherItems(Questions):
        """The same with other ids."""

        def read(self) -> dict[str, ChoiceSet[Question]]:
            return {f"new_{subject}": rows for subject, rows in super().read().items()}

    again = options(tmp_path, "--rescore", before.stem)
    capsys.readouterr()
    assert main.work(LeastLikely, again) == 0
    out = capsys.readouterr().out
    assert "1 of 16 replies answered another prompt" in out
    own_rule = f"context+{code_hash(LeastLikely)}"
    fields = FIELDS.replace("eeed0b88", "8364c3f0").replace("context", own_rule)
    assert f"mmlu|v2|default|base|shots:5|{fields}|replies:{before.stem}" in out
    assert before.read_bytes() == stored
    (after,) = set((tmp_path / "samples").glob("*.jsonl")) - {before}
    old, new = (samples.read_samples(path) for path in (before, after))
    assert all(new[name]["response"] == row["response"] for name, row in old.items())
    # the engine preferred B throughout; the least likely option, the earliest of equals, is A
    assert {row["answer"] for row in old.values()} == {"B"} and {row["answer"] for row in new.values()} == {"A"}
    figures = [row for row in rows(tmp_path) if (row["metric"], row["group"]) == ("acc", "all")]
    assert [row["model"] for row in figures] == ["some/model"] * 2 and figures[0]["run_id"] != figures[1]["run_id"]
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="has no answer for 16 of the 16 items; give the data and the options"):
        main.work(OtherItems, again)
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize(
    ("made", "asked", "remedy"),
    [
        (("--limit", "3"), (), "it asked a part of them: add --limit 3"),
        (("--limit", "3"), ("--limit", "5"), "it asked a part of them: add --limit 3"),
        (("--subjects", "virology"), (), "it asked a part of them: add --subjects virology"),
        (("--subjects", "virology", "--limit", "2"), (), "add --subjects virology --limit 2"),
        (("--limit", "3"), ("--limit", "2"), None),
        (("--subjects", "virology", "--limit", "3"), ("--subjects", "virology", "--limit", "3"), None),
    ],
)
def test_rescoring_a_part_names_the_part_and_leaves_nothing_behind(
    made: Sequence[str], asked: Sequence[str], remedy: str | None, tmp_path: Path
) -> None:
    class Some(Questions):
        def read(self) -> dict[str, ChoiceSet[Question]]:
            sets = super().read()
            return {name: sets[name] for name in self.args.subjects or sets}

    ask(Some(options(tmp_path, *made)), Letters())
    (before,) = (tmp_path / "samples").glob("*.jsonl")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = options(tmp_path, "--rescore", before.stem, *asked)
    if remedy is None:
        assert main.work(Some, again) == 0
        return
    with pytest.raises(InputError, match=re.escape(remedy)):
        main.work(Some, again)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_rescoring_an_unfinished_run_says_that_it_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(Questions(options(tmp_path)), Letters(fail_after=5))
    (before,) = (tmp_path / "samples").glob("*.jsonl")
    again = options(tmp_path, "--rescore", before.stem)
    with pytest.raises(InputError, match="is unfinished: 5 items are answered, and it has no manifest; finish it"):
        main.work(Questions, again)
    ask(Questions(options(tmp_path)), Letters())
    whole = before.read_bytes()
    before.write_bytes(b"".join(whole.splitlines(keepends=True)[:7]))  # asked again and interrupted
    with pytest.raises(InputError, match="is unfinished: 7 of 16 items are answered; finish it with its own command"):
        main.work(Questions, again)
    assert [path.name for path in (tmp_path / "samples").glob("*.jsonl")] == [before.name]


def test_ties_are_reported_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Equal(Letters):
        def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
            answers = [Chosen((-1.4,) * 4, 5, 10) for _ in requests]
            for index, answer in enumerate(answers):
                done(index, answer)
            return answers

    ask(Questions(options(tmp_path)), Equal())
    table = capsys.readouterr().out
    assert "16 of 16 items have their two best options within 1e-05" in table
    figures = {(row["metric"], row["group"]): row for row in rows(tmp_path)}
    assert float(figures["ties", "all"]["value"]) == 100


def test_prompts_can_be_left_out(tmp_path: Path) -> None:
    ask(Questions(options(tmp_path, "--no-prompts")), Letters())
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    assert set(json.loads(samples.read_text().splitlines()[0])["prompt"]) == {"sha256"}


def test_a_sample_file_that_was_edited_is_named(tmp_path: Path) -> None:
    ask(Questions(options(tmp_path)), Letters())
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    samples.write_text("not json\n" + samples.read_text())
    with pytest.raises(InputError, match=r"jsonl:1 .*--overwrite"):
        ask(Questions(options(tmp_path)), Letters())


def test_a_results_file_of_another_layout_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mmlu.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"mmlu\.csv:1"):
        ask(Questions(options(tmp_path)), Letters())
    assert (tmp_path / "mmlu.csv").read_text() == "a,b\n1,2\n"


def test_a_torn_csv_line_is_dropped_when_rows_are_added(tmp_path: Path) -> None:
    ask(Questions(options(tmp_path)), Letters(0))
    path = tmp_path / "mmlu.csv"
    path.write_bytes(path.read_bytes() + b"mmlu-default,2026")
    ask(Questions(options(tmp_path, "--limit", "2")), Letters(1))
    with path.open(newline="") as file:
        assert all(len(row) == len(results_csv.COLUMNS) for row in csv.reader(file))


def test_mistakes_on_the_command_line_are_one_line_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--shots", "x"], ["--batch-size", "0"], ["--dtype", "int3"], ["--nonsense"], ["--limit", "-1"]):
        with pytest.raises(SystemExit) as stop:
            Questions.parser().parse_args(words)
        assert stop.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
