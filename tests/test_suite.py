"""The suite: one model for all jobs, the same rows as the scripts alone."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import suite
from known import work
from qwen_eval import options
from qwen_eval.compare.gating import Gates
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.runs import estimate, run
from qwen_eval.runs.results import read_results
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
from shared import REPOSITORY

# benchmark, mode, shots of every run but the precisions', in order
PLANNED = [
    ("mmlu", "base", 5), ("ceval", "base", 5), ("cmmlu", "base", 5), ("gsm8k", "base", 8), ("humaneval", "base", 0),
    ("wmt22", "base", 5), ("long_ppl", "base", 0), ("long_ppl", "base", 0), ("long_ppl", "base", 0), ("long_ppl", "base", 0),
    ("mmlu", "chat", 0), ("ceval", "chat", 0), ("gsm8k", "chat", 0), ("gsm8k", "chat", 4), ("humaneval", "chat", 0),
    ("plugin", "chat", 0),
]  # fmt: skip


def arguments(**changes: object) -> argparse.Namespace:
    """The suite's own options."""
    usual = {
        "checkpoint_path": "demo",
        "chat_checkpoint": None,
        "data": None,
        "own": [],
        "template": None,
        "only": None,
        "skip": None,
        "mode": None,
        "skip_missing": False,
        "precisions": [],
        "dry_run": False,
        "table": None,
        "speed": None,
        "readme": None,
    }
    ungated = dict.fromkeys(("gate", "max_loss", "sequential", "gate_seed", "junit", "gate_summary"))
    return argparse.Namespace(**{**usual, **ungated, **changes})


def planned(tmp_path: Path, *words: str, precisions: list[str] | None = None) -> list[suite.Job]:
    args = arguments(precisions=precisions)
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
    suite.run_all(planned(together, precisions=[])[:3], Gates(arguments(), 3))
    assert len(opened) == 1
    work("mmlu", "-c", "demo", "-o", alone, "--quiet", "--limit", 2)
    same = ("metric", "group", "value", "n", "signature", "run_id", "tokens")
    rows = [
        [{name: row[name] for name in same} for row in read_results(path / "mmlu.csv")] for path in (together, alone)
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
    args = arguments(dry_run=True, readme=[readme])
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
    rows = read_results(tmp_path / "results" / "mmlu.csv")
    assert suite.work(args, words) == 0  # nothing is asked again
    assert readme.read_bytes() == once and read_results(tmp_path / "results" / "mmlu.csv") == rows


def test_what_cannot_be_run_is_named_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = planned(tmp_path, precisions=["nf4"])
    jobs = [jobs[0], jobs[1], jobs[-1], jobs[2]]  # mmlu, ceval, mmlu in 4 bits, cmmlu
    original = run.run

    def refusing(benchmark: Benchmark, engine: Engine, *rest: Any) -> run.Outcome | None:
        if benchmark.args.quantize == "nf4":
            raise CheckpointError("no 4 bits\nhere")
        if benchmark.name == "ceval":
            raise InputError("no sandbox")
        return original(benchmark, engine, *rest)

    monkeypatch.setattr(run, "run", refusing)
    outcomes, failed = suite.run_all(jobs, Gates(arguments(), len(jobs)))
    assert failed == {"mmlu base nf4": "no 4 bits here", "ceval base none": "no sandbox"}
    assert [outcome.benchmark.name for outcome in outcomes] == ["mmlu", "cmmlu"]
    shown = suite.summary(outcomes, failed)
    assert shown[-2:] == ["left out: ceval base none: no sandbox", "left out: mmlu base nf4: no 4 bits here"]
    for outcome, line in zip(outcomes, shown[1:], strict=False):
        assert outcome.samples.is_file() and str(outcome.samples) in line and "(partial)" in line
    assert {path.name for path in tmp_path.glob("*.csv")} == {"mmlu.csv", "cmmlu.csv"}


def test_a_checkpoint_that_cannot_be_loaded_ends_the_suite(tmp_path: Path) -> None:
    args = arguments(checkpoint_path=str(tmp_path / "none"), data="demo")
    with pytest.raises(CheckpointError, match="none"):
        suite.run_all(suite.plan(args, ["-o", str(tmp_path), "--quiet"], load.official())[:1], Gates(args, 1))


def run_suite(*words: object, kill_after: str = "") -> tuple[int, str, str]:
    """`python eval/suite.py -c demo WORDS` in a process of its own; ended when stderr shows `kill_after`."""
    command = [sys.executable, "eval/suite.py", "-c", "demo", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True
    )
    if kill_after:
        assert process.stderr is not None
        seen = ""
        while kill_after not in seen:
            char = process.stderr.read(1)
            assert char, seen
            seen += char
        os.killpg(process.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def test_only_and_skip_choose_benchmarks_and_one_table_ends_the_suite(tmp_path: Path) -> None:
    status, out, err = run_suite("-o", tmp_path, "--only", "mmlu,gsm8k", "--skip", "gsm8k", "--limit", 2, "--quiet")
    assert status == 0, err
    first = out.splitlines()[0]
    assert re.match(r"\d runs of mmlu: about \d+ s ", first), first
    path = next((tmp_path / "samples").glob("mmlu-default-base-*.jsonl"))
    ours = read_results(tmp_path / "mmlu.csv")
    (row,) = [row for row in ours if (row["run_id"], row["metric"], row["group"]) == (path.stem, "acc", "all")]
    line = next(line for line in out.splitlines() if line.startswith("mmlu base 5-shot ") and str(path) in line)
    assert f" {float(row['value']):.2f} " in line and "12 (partial)" in line
    assert {path.name for path in tmp_path.glob("*.csv")} == {"mmlu.csv"}
    assert run_suite("-o", tmp_path, "--only", "mlu")[0::2] == (
        2,
        f"suite.py: --only: there is no benchmark 'mlu'; there are {', '.join(load.official())}\n",
    )


@pytest.mark.parametrize("option", ["only", "skip"])
def test_an_empty_choice_is_an_error_and_not_everything(option: str) -> None:
    with pytest.raises(InputError, match=f"--{option} names no benchmark; there are mmlu, "):
        suite.plan(arguments(**{option: []}), [], load.official())


def test_missing_data_is_an_error_before_a_model_is_loaded_or_left_out_by_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "mmlu").symlink_to(REPOSITORY / "demo" / "data" / "mmlu")
    words = [
        "-d",
        data,
        "-o",
        tmp_path / "out",
        "--only",
        "mmlu,wmt22,gsm8k",
        "--limit",
        1,
        "--precisions",
        "none",
        "--quiet",
    ]
    status, out, err = run_suite(*words)
    assert (status, out) == (2, "") and not (tmp_path / "out").exists()
    assert err.count("\n") == 1 and "no data of gsm8k, wmt22 (" in err and "--skip-missing" in err
    status, out, err = run_suite(*words, "--skip-missing")
    assert status == 0, err
    assert out.count("left out: ") == 2 and f"left out: wmt22: {data / 'wmt22'} is missing" in out
    assert (tmp_path / "out" / "mmlu.csv").exists()
    # what is there and damaged is no missing data
    (data / "gsm8k").mkdir()
    (data / "gsm8k" / "test.jsonl").write_text("{")
    status, out, err = run_suite(*words, "--skip-missing")
    assert status == 2 and "gsm8k" in err and err.count("\n") == 1


def test_a_suite_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    words = ["--only", "mmlu,gsm8k", "--limit", 3, "--mode", "base", "--precisions", "none"]
    assert run_suite("-o", tmp_path / "whole", *words)[0] == 0
    assert run_suite("-o", tmp_path / "cut", *words, kill_after="gsm8k:   0%")[0] == -signal.SIGKILL
    stored = {path.name: path.read_text() for path in (tmp_path / "cut" / "samples").glob("mmlu*.jsonl")}
    status, _, err = run_suite("-o", tmp_path / "cut", *words)
    assert status == 0 and "18 of 18 items were answered before" in err
    assert {path.name: path.read_text() for path in (tmp_path / "cut" / "samples").glob("mmlu*.jsonl")} == stored
    for name in ("mmlu", "gsm8k"):
        rows = [
            [(row["run_id"], row["metric"], row["group"], row["value"]) for row in read_results(folder / f"{name}.csv")]
            for folder in (tmp_path / "whole", tmp_path / "cut")
        ]
        assert rows[0] == rows[1] and rows[0]


def test_options_reach_the_benchmarks_that_have_them_and_help_lists_them_all(tmp_path: Path) -> None:
    jobs = planned(tmp_path, "--max-new-tokens", "7", "--thinking", "off")
    got = {(job.kind.name, options.mode(job.args)): getattr(job.args, "max_new_tokens", None) for job in jobs}
    assert got["gsm8k", "base"] == got["mmlu", "chat"] == 7 and got["long_ppl", "base"] is None
    shown = subprocess.run(
        [sys.executable, "eval/suite.py", "--help"], capture_output=True, text=True, cwd=REPOSITORY
    ).stdout
    single = load.official()["gsm8k"].parser().format_help()
    for option in re.findall(r"--[a-z][a-z-]+", single):
        if option not in ("--chat", "--shots", "--rescore", "--dump-prompts", "--batch", "--cot"):
            assert option in shown, option


def told(*words: str) -> int:
    """The exit status of a command line of the suite."""
    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["suite.py", *words])
        suite.main()
    return int(ended.value.code or 0)


def test_every_published_model_has_its_command_or_why_it_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert told("--table", "main", "-d", "demo", "--speed", "1000") == 0
    blocks = dict(block.split(": ", 1) for block in capsys.readouterr().out.strip().split("\n\n")[:-1])
    assert len(blocks) == 12
    for name in ("ChatGLM2-12B", "PolyLM-13B"):
        assert blocks[name].splitlines()[1].startswith("    cannot be run: ") and "suite.py" not in blocks[name]
    figures, command, needs, apart = blocks["Baichuan-7B"].splitlines()
    assert figures == "MMLU 42.3, C-Eval 42.8, GSM8K 9.7, HumanEval 9.2, WMT22 (en-zh) 26.6"
    only = "--only mmlu,ceval,gsm8k,humaneval,wmt22 --precisions none -d demo"
    assert command.strip() == f"python eval/suite.py -c baichuan-inc/Baichuan-7B --mode base {only}"
    assert needs.startswith("    weights of 14.0 GB in 16 bits, 28.0 GB in float32; about ")
    assert apart == "    not comparable: WMT22 (en-zh)"


def test_every_published_table_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    for table in ("precision", "plugin", "hfagent", "long_ppl", "chat", "wmt22", "mmlu", "ceval"):
        assert told("--table", table, "-d", "demo") == 0
    assert "--template llama2" in capsys.readouterr().out
    for table, says in (
        ("cmmlu", "no figures are published for the table cmmlu"),
        ("mian", "there is no table 'mian'"),
    ):
        assert told("--table", table) == 2
        assert says in capsys.readouterr().err


def test_a_chat_format_reaches_the_chat_protocols_alone(tmp_path: Path) -> None:
    jobs = suite.plan(arguments(template="vicuna"), ["-o", str(tmp_path)], load.official())
    assert {(options.mode(job.args), getattr(job.args, "template", None)) for job in jobs} == {
        ("base", None),
        ("chat", "vicuna"),
    }
    assert {job.model[0] for job in jobs} == {"demo"} and len({job.model for job in jobs}) == 2  # no engine serves both
