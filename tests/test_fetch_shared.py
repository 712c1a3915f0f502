"""The files that `make shared` writes hold the hub's rows, in the layouts that tests read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loopback_hub import LoopbackHub, client_env
from qwen_eval.data import catalogue, choice, problems
from qwen_eval.data.files import Source, content_hash
from shared import REPOSITORY
from test_data import write_ceval, write_cmmlu, write_mmlu
from test_hub import archive, mmlu_repo, parquet

SUBJECTS = {name: catalogue.choose_subjects(name, None) for name in ("mmlu", "ceval", "cmmlu")}
PROBLEMS = [("How many?", "1 + 1 = <<1+1=2>>2\n#### 2"), ("几个？", "3\n#### 3")]


def run(env: dict[str, str], root: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "tools/fetch_shared.py"), *parts]
    env = {**os.environ, **env, "SHARED_DIR": str(root)}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def rows(name: str, folder: Path) -> str:
    """The content hash of every row of a benchmark in a folder."""
    source = Source(folder)
    sets = [getattr(choice, name)(source, SUBJECTS[name])]
    if name == "ceval":
        sets.append(choice.ceval(source, SUBJECTS[name], "test"))
    return content_hash(row for found in sets for part in found.values() for row in (*part.dev, *part.test))


def test_the_files_hold_the_rows_of_the_hub(tmp_path: Path) -> None:
    official = tmp_path / "official"
    write_mmlu(official / "mmlu", tuple(SUBJECTS["mmlu"]))
    write_ceval(official / "ceval", tuple(SUBJECTS["ceval"]))
    write_cmmlu(official / "cmmlu", tuple(SUBJECTS["cmmlu"]))
    parquet_file = parquet({"question": [q for q, _ in PROBLEMS], "answer": [a for _, a in PROBLEMS]})
    repos = {
        "cais/mmlu": mmlu_repo(official / "mmlu"),
        "ceval/ceval-exam": {"ceval-exam.zip": archive(official / "ceval")},
        "haonan-li/cmmlu": {"cmmlu_v1_0_1.zip": archive(official / "cmmlu")},
        "openai/gsm8k": {f"main/{split}-00000-of-00001.parquet": parquet_file for split in ("train", "test")},
    }
    root = tmp_path / "shared data"
    with LoopbackHub(datasets=repos, models={"Qwen/Qwen-7B": {"qwen.tiktoken": b"another file"}}) as hub:
        done = run(hub.env(tmp_path / "home"), root, "mmlu", "tokenizer", "ceval", "cmmlu", "gsm8k")
    assert done.returncode == 2  # for this alone; the others are still fetched
    assert done.stderr.count("\n") == 1 and "tokenizer: qwen.tiktoken of Qwen/Qwen-7B is another file" in done.stderr
    for name in ("mmlu", "ceval", "cmmlu"):
        assert rows(name, root / "data" / name) == rows(name, official / name), name
    math = problems.gsm8k(Source(root / "data/gsm8k"))
    assert [(row.question, row.answer) for row in (*math.train, *math.test)] == PROBLEMS * 2
    assert [path.name for path in (root / "checkpoints").iterdir()] == []  # whole or not at all
    again = run(client_env("http://127.0.0.1:9", tmp_path / "empty"), root, "mmlu", "gsm8k")
    assert again.returncode == 0 and again.stdout.count(" is there\n") == 2


@pytest.mark.parametrize("part", ["mmlu", "tokenizer"])
def test_a_dead_hub_is_a_one_line_error(part: str, tmp_path: Path) -> None:
    done = run(client_env("http://127.0.0.1:9", tmp_path / "home"), tmp_path / "shared", part)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot be downloaded" in done.stderr
    assert not list((tmp_path / "shared").glob("*/*"))
