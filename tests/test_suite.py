"""The suite: one model for all jobs, the same rows as the scripts alone."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import pytest

import suite
from known import work
from qwen_eval import options
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.runs import estimate, run
from qwen_eval.runs import results as results_csv
from qwen_eval.schema import (
    CheckpointError,
    Choose,
    Engine,
    Generate,
    InputError,
    Measure,
    ModelSpec,
    Sample,
)
from qwen_eval.tasks import load
from qwen_eval.tasks.benchmark import Benchmark

# benchmark, mode, shots of every run but the precisions', in order
PLANNED = [
    ("mmlu", "base", 5), ("ceval", "base", 5), ("cmmlu", "base", 5), ("gsm8k", "base", 8), ("humaneval", "base", 0),
    ("wmt22", "base", 5), ("long_ppl", "base", 0), ("long_ppl", "base", 0), ("long_ppl", "base", 0), ("long_ppl", "base", 0),
    ("mmlu", "chat", 0), ("ceval", "chat", 0), ("gsm8k", "chat", 0), ("gsm8k", "chat", 4), ("humaneval", "chat", 0),
    ("plugin", "chat", 0),
]  # fmt: skip


def planned(tmp_path: Path, *words: str, precisions: list[str] | None = None) -> list[suite.Job]:
    args = argparse.Namespace(checkpoint_path="demo", chat_checkpoint=None, data=None, precisions=precisions)
    return suite.plan(args, ["-o", str(tmp_path), "--quiet", "--limit", "2", *words], load.official())


def test_every_protocol_of_the_tables_is_planned(tmp_path: Path) -> None:
    """The long-context table has four rows; all other jobs are one run."""
    jobs = planned(tmp_path, precisions=[])
    assert [(job.kind.name, options.mode(job.args), job.args.shots) for job in jobs] == PLANNED
    long = [job.args for job in jobs if job.kind.name == "long_ppl"]
    assert [(row.dynamic_ntk, row.logn, row.window) for row in long] == [
        ("off", "off", "off"), ("on", "off", "off"), ("on", "on", "off"), ("on", "on", "auto"),
    ]  # fmt: skip


def test_one_engine_serves_all_and_rows_are_those_of_the_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[ModelSpec] = []

    class Counted(HFEngine):
        def __init__(self, spec: ModelSpec, *rest: object, **options: object) -> None:
            opened.append(spec)
            super().__init__(spec, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("qwen_eval.engines.local.engine.HFEngine", Counted)
    together, alone = tmp_path / "together", tmp_path / "alone"
    suite.run_all(planned(together, precisions=[])[:3])
    assert len(opened) == 1
    work("mmlu", "-c", "demo", "-o", alone, "--quiet", "--limit", 2)
    same = ("metric", "group", "value", "n", "signature", "run_id", "tokens")
    rows = [
        [{name: row[name] for name in same} for row in results_csv.read_results(path / "mmlu.csv")]
        for path in (together, alone)
    ]
    assert rows[0] == rows[1]
    assert {path.name for path in together.glob("*.csv")} == {"mmlu.csv", "ceval.csv", "cmmlu.csv"}


def test_mmlu_is_asked_in_the_other_precisions_and_a_model_is_loaded_once_each(tmp_path: Path) -> None:
    jobs = planned(tmp_path, precisions=["bf16", "int8", "nf4"])
    models = [job.model for job in jobs]
    assert len(list(itertools.groupby(models))) == len(set(models)) == 4
    last = [(job.args.dtype, job.args.quantize, job.kind.name) for job in jobs[-3:]]
    assert last == [("bfloat16", "none", "mmlu"), ("bfloat16", "int8", "mmlu"), ("bfloat16", "nf4", "mmlu")]
    assert {job.args.quantize for job in planned(tmp_path, "--quantize", "nf4")} == {"nf4"}
    with pytest.raises(InputError, match="int4"):
        planned(tmp_path, precisions=["int4"])


def test_the_work_of_a_benchmark_by_hand() -> None:
    """Shared shots once, every question, at 3.5 bytes per token; replies at maximum length; whole documents."""
    head, shots = "h" * 70, ("s" * 35, "s" * 35)
    requests = [
        Choose(head, shots, "q" * 34, ("A",)), Choose(head, shots, "灯" * 11 + "q", ("A",)),  # 35 bytes each
        Choose(head, (), "q" * 34, ("A",)), Generate("p" * 70, 512, samples=2), Measure(("d" * 350, "d" * 350), 128),
        Generate(({"role": "user", "content": "p" * 35},), 100),
    ]  # fmt: skip
    samples = [Sample(str(number), request, None) for number, request in enumerate(requests)]

    class Asked(Benchmark):
        name = "b"

        def data_origin(self) -> str:
            return "here"

        def read(self) -> None:
            return None

        def samples(self) -> list[Sample]:
            return samples

    asked = Asked(Asked.parser().parse_args([]))
    read = (140 + 35 + 35) + (70 + 35) + 70 + 700 + 35
    assert estimate.work(asked) == estimate.Work(6, round(read / 3.5), 1124)


def test_speeds_come_from_earlier_runs_of_the_same_model() -> None:
    def row(run: str, model: str, tokens: int, seconds: float, mode: str = "base") -> dict[str, str]:
        return {"run_id": run, "model": model, "tokens": str(tokens), "seconds": str(seconds), "mode": mode}

    results = {
        "mmlu": [row("a", "m", 1000, 2), row("a", "m", 1000, 2), row("b", "other", 9, 9), row("c", "m", 30, 1, "chat")],
        "cmmlu": [row("d", "m", 500, 3)],
        "gsm8k": [row("e", "m", 70, 1), row("f", "m", 70, 0)],
    }
    writes = {name: kind.writes for name, kind in load.official().items()}
    assert estimate.speeds(results, writes, "m") == {"read": 300.0, "write": 50.0}  # by hand: 1500 / 5 and 100 / 2
    assert estimate.speeds(results, writes, "nobody") == {}
    assert estimate.seconds(estimate.Work(3, 600, 100), {"read": 300, "write": 50}) == 4
    assert [estimate.duration(time) for time in (42, 600, 5400, 200_000)] == ["42 s", "10 min", "1.5 h", "2.3 d"]


def test_a_dry_run_computes_nothing_and_a_run_ends_with_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "MODEL_CN.md"
    words = ["-o", str(tmp_path / "results"), "--quiet", "--limit", "2"]
    args = argparse.Namespace(
        checkpoint_path="demo",
        chat_checkpoint=None,
        data=None,
        own=[],
        precisions=[],
        dry_run=True,
        speed=None,
        readme=[readme],
    )
    assert suite.work(args, words) == 0
    out = capsys.readouterr().out
    assert "mmlu base 5-shot" in out and "about " in out and "assumed where nothing was measured" in out
    assert not (tmp_path / "results").exists() and not readme.exists()
    # a whole run of one benchmark; the plan is as long as it is, so the others are left out here
    monkeypatch.setattr(suite, "runs_of", lambda kind, mode: [()] if (kind.name, mode) == ("mmlu", "base") else [])
    args.dry_run = False
    assert suite.work(args, words) == 0
    once = readme.read_bytes()
    text = once.decode()
    assert "## 基准" in text and "| demo † ‡ [1] |" in text and "<!-- table:long_ppl -->" in text
    rows = results_csv.read_results(tmp_path / "results" / "mmlu.csv")
    assert suite.work(args, words) == 0  # nothing is asked again
    assert readme.read_bytes() == once and results_csv.read_results(tmp_path / "results" / "mmlu.csv") == rows


def test_what_cannot_be_run_is_named_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = planned(tmp_path, precisions=["nf4"])
    jobs = [jobs[0], jobs[1], jobs[-1], jobs[2]]  # mmlu, ceval, mmlu in 4 bits, cmmlu
    original = run.run

    def refusing(benchmark: Benchmark, engine: Engine) -> None:
        if benchmark.args.quantize == "nf4":
            raise CheckpointError("no 4 bits\nhere")
        if benchmark.name == "ceval":
            raise InputError("no sandbox")
        original(benchmark, engine)

    monkeypatch.setattr(run, "run", refusing)
    assert suite.run_all(jobs) == 2
    said = capsys.readouterr().err
    assert "left out: mmlu base nf4: no 4 bits here" in said and "left out: ceval base none: no sandbox" in said
    assert {path.name for path in tmp_path.glob("*.csv")} == {"mmlu.csv", "cmmlu.csv"}


def test_a_checkpoint_that_cannot_be_loaded_ends_the_suite(tmp_path: Path) -> None:
    args = argparse.Namespace(checkpoint_path=str(tmp_path / "none"), chat_checkpoint=None, data="demo", precisions=[])
    with pytest.raises(CheckpointError, match="none"):
        suite.run_all(suite.plan(args, ["-o", str(tmp_path), "--quiet"], load.official())[:1])
