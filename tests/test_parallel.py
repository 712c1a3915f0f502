"""Several processes share a run (torchrun, gloo): the same results as one, also after one of them was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from qwen_eval.runs import results as results_csv
from qwen_eval.runs import workers
from qwen_eval.runs.samples import read_samples
from qwen_eval.schema import Choose, Generate, Sample
from shared import REPOSITORY

VOLATILE = {"timestamp", "seconds", "peak_memory_gb", "weights_gb", "resident_gb", "git_commit"}
MMLU = ["eval/mmlu.py", "-c", "demo", "--dtype", "float32", "--shots", "2", "--subjects", "formal_logic,nutrition"]
GSM8K = ["eval/gsm8k.py", "-c", "demo", "--dtype", "float32", "--limit", "7", "--max-new-tokens", "32"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(words: Sequence[str], output: Path, processes: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, *(TORCHRUN if processes == 2 else []), *words, "-o", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True, stdout=pipe, stderr=pipe)


def run(words: Sequence[str], output: Path, processes: int = 1) -> tuple[str, str]:
    process = start(words, output, processes)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out, err


def results(output: Path, benchmark: str) -> list[dict[str, str]]:
    rows = results_csv.read_results(output / f"{benchmark}.csv")
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in rows]


def samples(output: Path) -> dict[str, dict]:
    (path,) = (output / "samples").glob("*.jsonl")
    rows = read_samples(path)
    assert len(path.read_text().splitlines()) == len(rows)  # none twice
    return rows


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for words in (MMLU, GSM8K):
        run([*words, "--quiet"], folder / words[0][5:-3])
    return folder


def test_two_processes_give_what_one_gives(alone: Path, tmp_path: Path) -> None:
    for words, name in ((MMLU, "mmlu"), (GSM8K, "gsm8k")):
        out, _ = run(words, tmp_path / name, 2)
        assert out.count("signature ") == 1 and "2 processes shared the work" in out
        assert results(tmp_path / name, name) == results(alone / name, name)
        whole, shared = samples(alone / name), samples(tmp_path / name)
        assert whole.keys() == shared.keys() and len(whole) == {"mmlu": 100, "gsm8k": 7}[name]
        for item, row in whole.items():
            other = shared[item]
            assert {**other, "response": None} == {**row, "response": None}
            if name == "mmlu":
                assert other["response"]["logprobs"] == pytest.approx(row["response"]["logprobs"], abs=1e-4)
            else:
                assert other["response"] == row["response"]


def rank_one(parent: int) -> int:
    """The process that torchrun started as rank 1."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            child = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if child and b"\0RANK=1\0" in b"\0" + (entry / "environ").read_bytes():
                return int(entry.name)
    raise AssertionError("no process of rank 1")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process in /proc")
def test_a_killed_process_costs_its_unfinished_items_only(alone: Path, tmp_path: Path) -> None:
    words = [*MMLU, "--batch-size", "1"]
    process = start([*words, "--no-self-check", "--quiet"], tmp_path, 2)
    part: list[Path] = []
    while not part or part[0].read_bytes().count(b"\n") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
        part = list((tmp_path / "samples").glob("*.rank1.jsonl"))
    os.kill(rank_one(process.pid), signal.SIGKILL)
    process.communicate(timeout=600)
    assert process.returncode != 0 and not (tmp_path / "mmlu.csv").exists()
    files = list((tmp_path / "samples").glob("*.jsonl"))
    answered = set().union(*(read_samples(path) for path in files))
    lines = read_samples(part[0])
    assert 3 <= len(lines) < 50 and len(answered) < 100
    _, err = run(words, tmp_path, 2)
    assert f"{len(answered)} of 100 items were answered before" in err
    assert results(tmp_path, "mmlu") == results(alone / "mmlu", "mmlu")
    after = samples(tmp_path)
    assert {name: after[name]["response"] for name in lines} == {name: row["response"] for name, row in lines.items()}


def test_shares_keep_prefixes_together_and_are_even() -> None:
    def choice(subject: int, item: int) -> Sample:
        return Sample(
            f"{subject}/{item}", Choose(f"About {subject}. " * 50, (), f"Which of {item}? " * 9, (" A", " B")), "A"
        )

    made = [choice(subject, item) for subject in range(9) for item in range(5 + 7 * subject)]
    made += [Sample(f"g/{item}", Generate("Say it. " * 9, 16, header="x" * 4000), "") for item in range(40)]
    for size in (1, 2, 3, 8):
        parts = workers.split_work(made, size)
        assert sorted(index for part in parts for index in part) == list(range(len(made)))
        assert parts == workers.split_work(made, size) and all(parts)
    two = workers.split_work(made[:293], 2)  # subjects alone
    homes = {index: number for number, part in enumerate(two) for index in part}
    assert len({(made[index].id.split("/")[0], home) for index, home in homes.items()}) <= 10  # at most one in both
    assert max(map(len, two)) < 1.2 * min(map(len, two))
    one_prefix = workers.split_work(made[-40:], 4)
    assert [len(part) for part in one_prefix] == [10] * 4


def test_what_a_launcher_did_is_reported() -> None:
    assert workers.notes(workers.Processes(0, 4), {"ACCELERATE_USE_CPU": "1"}) == ["4 processes shared the work"]
    assert "torchrun --nproc-per-node" in workers.notes(workers.Processes(), {"ACCELERATE_USE_CPU": "1"})[0]
    assert workers.notes(workers.Processes(), {"PATH": "/bin"}) == []
    assert workers.join({"WORLD_SIZE": "1"}).size == 1
