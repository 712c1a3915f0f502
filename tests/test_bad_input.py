"""Bad input of every kind: one line on stderr that names the problem and the remedy, exit status 2, no traceback, and
not a byte of earlier results changed. Most run the script inside this process, some as users do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import tiny
from known import run_script
from loopback_hub import client_env
from shared import REPOSITORY

DEAD_HUB = "http://127.0.0.1:9"  # nobody listens on the discard port
ROWS = [f"Which lamp is lit at hour {hour}?,red,blue,None,0.50,{'ABCD'[hour % 4]}" for hour in range(6)]
SUBJECTS = ("anatomy", "virology")


@dataclass(frozen=True)
class Setup:
    """A set-up in a folder of its own, to be damaged: data, a checkpoint in two shards, results of a good run."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint"

    @property
    def results(self) -> Path:
        return self.root / "results"

    def words(self, **changed: object) -> list[str]:
        """The command line of the good run; an option changed to None is left out."""
        options = {"-c": self.checkpoint, "-d": self.data, "--subjects": ",".join(SUBJECTS)}
        options |= {
            ("-" if len(name) == 1 else "--") + name.replace("_", "-"): value for name, value in changed.items()
        }
        return [str(word) for option, value in options.items() if value is not None for word in (option, value)]

    def kept(self) -> dict[str, bytes]:
        """Every file of the results and its bytes."""
        files = (
            [path for path in self.results.rglob("*") if path.is_file()] if self.results.is_dir() else [self.results]
        )
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    setup = Setup(tmp_path_factory.mktemp("good"))
    for subject in SUBJECTS:
        for split in ("dev", "test"):
            path = setup.data / split / f"{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{row}\n" for row in ROWS), encoding="utf-8")
    tiny.write_qwen1(setup.checkpoint, hidden=32, layers=1, positions=4096, shards=2)
    command = [sys.executable, str(REPOSITORY / "eval/mmlu.py"), *setup.words(), "-o", str(setup.results)]
    subprocess.run(command, check=True, capture_output=True)
    assert len(setup.kept()) == 3  # CSV, samples, manifest
    return setup


@pytest.fixture
def setup(good: Setup, tmp_path: Path) -> Setup:
    return Setup(Path(shutil.copytree(good.root, tmp_path / "copy")))


def line_of(file: Path, number: int, new: bytes) -> None:
    """Replaces one line (counted from 1)."""
    lines = file.read_bytes().split(b"\n")
    lines[number - 1] = new
    file.write_bytes(b"\n".join(lines))


def shard(setup: Setup) -> Path:
    return setup.checkpoint / "model-00002-of-00002.safetensors"


def damage_columns(setup: Setup) -> list[str]:
    line_of(setup.data / "test/virology_test.csv", 3, b"only,four,columns,here")
    return setup.words()


def damage_answer(setup: Setup) -> list[str]:
    line_of(setup.data / "dev/virology_dev.csv", 2, b"Which lamp?,red,blue,None,0.50,E")
    return setup.words()


def damage_encoding(setup: Setup) -> list[str]:
    line_of(setup.data / "test/anatomy_test.csv", 4, b"Which caf\xe9?,red,blue,None,0.50,A")
    return setup.words()


def empty_file(setup: Setup) -> list[str]:
    (setup.data / "test/anatomy_test.csv").write_bytes(b"")
    return setup.words()


def lose_subject(setup: Setup) -> list[str]:
    (setup.data / "dev/virology_dev.csv").unlink()
    return setup.words()


def lose_weights(setup: Setup) -> list[str]:
    for path in setup.checkpoint.glob("model*"):
        path.unlink()
    return setup.words()


def lose_shard(setup: Setup) -> list[str]:
    shard(setup).unlink()
    return setup.words()


def truncate_shard(setup: Setup) -> list[str]:
    shard(setup).write_bytes(shard(setup).read_bytes()[:-100])
    return setup.words()


def truncate_shard_overwriting(setup: Setup) -> list[str]:
    return [*truncate_shard(setup), "--overwrite"]


def lose_tokenizer(setup: Setup) -> list[str]:
    (setup.checkpoint / "qwen.tiktoken").unlink()
    return setup.words()


def damage_config(setup: Setup) -> list[str]:
    line_of(setup.checkpoint / "config.json", 3, b"this is not JSON")
    return setup.words()


def lose_tensor(setup: Setup) -> list[str]:
    """A whole file of another model: the checkpoint's own tensors are not in it."""
    other = tiny.write_qwen1(setup.root / "other", hidden=32, layers=2, positions=4096, shards=2)
    shutil.copy(other / "config.json", setup.checkpoint)
    return setup.words()


def csv_of_another_layout(setup: Setup) -> list[str]:
    (setup.results / "mmlu.csv").write_text("a,b\n1,2\n")
    return setup.words()


def csv_that_is_not_text(setup: Setup) -> list[str]:
    (setup.results / "mmlu.csv").write_bytes(b"\xff\xfer\x00u\x00n\x00\n\x00")
    return setup.words()


def csv_that_is_a_folder(setup: Setup) -> list[str]:
    (setup.results / "mmlu.csv").unlink()
    (setup.results / "mmlu.csv").mkdir()
    return setup.words()


def samples_that_are_not_text(setup: Setup) -> list[str]:
    (samples,) = (setup.results / "samples").glob("*.jsonl")
    line_of(samples, 2, b"\xff\xfe\x00")
    return setup.words()


def samples_of_something_else(setup: Setup) -> list[str]:
    (samples,) = (setup.results / "samples").glob("*.jsonl")
    first = json.loads(samples.read_bytes().split(b"\n")[0])["id"]
    line_of(samples, 1, json.dumps({"id": first, "answer": "A"}).encode())
    return setup.words()


def results_that_are_a_file(setup: Setup) -> list[str]:
    shutil.rmtree(setup.results)
    setup.results.write_text("not a folder")
    return setup.words()


# what is wrong -> how it is produced, and what the line must contain: the problem, and the remedy
CASES: dict[str, tuple[Callable[[Setup], list[str]], Sequence[str]]] = {
    "missing folder": (lambda p: p.words(d=p.data / "nowhere"), ("data/nowhere is missing", "with -d DIR")),
    "a file for a folder": (lambda p: p.words(d=p.data / "dev/anatomy_dev.csv"), ("is not a folder", "with -d DIR")),
    "missing subject file": (lose_subject, ("dev/virology_dev.csv is missing", "with -d DIR")),
    "wrong column count": (damage_columns, ("test/virology_test.csv:3: 4 columns, expected 6", "get the file again")),
    "answer outside A-D": (
        damage_answer,
        ("dev/virology_dev.csv:2: answer 'E', expected A, B, C or D", "get the file"),
    ),
    "not UTF-8": (damage_encoding, ("test/anatomy_test.csv:4: byte 0xe9", "is not UTF-8", "get the file again")),
    "empty file": (empty_file, ("test/anatomy_test.csv is empty", "get the file again")),
    "unknown subject": (lambda p: p.words(subjects="anatomie"), ("unknown mmlu subject 'anatomie'", "anatomy?")),
    "no subject": (lambda p: p.words(subjects=","), ("no mmlu subject is named", "leave --subjects out")),
    "too many shots": (lambda p: p.words(shots=9), ("--shots 9 is more than the 6 development rows", "ask for fewer")),
    "no checkpoint": (lambda p: p.words(c=p.root / "nowhere"), ("nowhere does not exist", "pass a folder")),
    "a file for a checkpoint": (lambda p: p.words(c=shard(p)), ("safetensors is a file", "pass the folder")),
    "no weights": (lose_weights, ("checkpoint holds no weights (model.safetensors", "get it again")),
    "missing shard": (lose_shard, ("model-00002-of-00002.safetensors, which is missing", "get it again")),
    "truncated shard": (truncate_shard, ("model-00002-of-00002.safetensors is truncated", "get it again")),
    "truncated shard, --overwrite": (truncate_shard_overwriting, ("is truncated", "get it again")),
    "no tokenizer": (lose_tokenizer, ("qwen.tiktoken",)),
    "broken config": (damage_config, ("config.json:3: not valid JSON", "get it again")),
    "config of another model": (lose_tensor, ("its weights lack", "belong to different models")),
    "unknown device": (lambda p: p.words(device="abacus"), ("--device abacus is no torch device", "use cpu, cuda")),
    "another device": (lambda p: p.words(device="cuda:99"), ("--device cuda:99 is not there", "use --device cpu")),
    "CSV of another layout": (
        csv_of_another_layout,
        ("results/mmlu.csv:1 has other columns", "move the file elsewhere"),
    ),
    "CSV that is not text": (csv_that_is_not_text, ("results/mmlu.csv", "move the file elsewhere")),
    "CSV that is a folder": (csv_that_is_a_folder, ("results/mmlu.csv", "move the file elsewhere")),
    "samples that are not text": (samples_that_are_not_text, (".jsonl:2 is not a sample row", "use --overwrite")),
    "samples of something else": (samples_of_something_else, ("was not stored by this version", "use --overwrite")),
    "results that are a file": (results_that_are_a_file, ("cannot write", "choose another folder with --output-dir")),
    "no number": (lambda p: p.words(shots="x"), ("argument --shots: 'x'", "mmlu.py --help")),
    "nothing to ask": (lambda p: p.words(limit=0), ("argument --limit: '0'", "mmlu.py --help")),
    "no batch": (lambda p: p.words(batch_size="-1"), ("argument --batch-size: '-1'", "mmlu.py --help")),
    "unknown precision": (lambda p: p.words(dtype="int3"), ("argument --dtype", "bfloat16", "mmlu.py --help")),
    "unknown recipe": (lambda p: p.words(recipe="2022"), ("argument --recipe", "qwen2023", "mmlu.py --help")),
    "unknown option": (lambda p: [*p.words(), "--shot", "3"], ("unrecognized arguments: --shot 3", "mmlu.py --help")),
}


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_one_line_with_file_and_remedy(case: str, setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    damage, says = CASES[case]
    words = damage(setup)
    before = setup.kept()
    run = run_script("mmlu", words, setup.results, capsys)
    assert run.status == 2 and run.out == ""
    assert run.err.startswith("mmlu.py: ") and run.err.endswith("\n") and run.err.count("\n") == 1
    for part in says:
        assert part in run.err
    after = setup.kept()
    assert {name: after.get(name) for name in before} == before


def process(setup: Setup, words: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    """The script as users run it, progress and all, with a hub that is not there."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "eval/mmlu.py"), *words, "-o", str(setup.results)],
        env={**os.environ, **client_env(DEAD_HUB, setup.root / "home"), **env},
        cwd=setup.root,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], setup: Setup, before: dict[str, bytes], *says: str) -> None:
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("mmlu.py: ") and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(part in done.stderr for part in says), done.stderr
    assert setup.kept() == before


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_encoding, ("test/anatomy_test.csv:4: byte 0xe9 at offset", "get the file again")),
        (csv_of_another_layout, ("results/mmlu.csv:1 has other columns", "move the file elsewhere")),
    ],
)
def test_bad_files_show_before_torch_is_imported(
    damage: Callable[[Setup], list[str]], says: Sequence[str], setup: Setup
) -> None:
    """A torch that fails when it is imported comes first on the path: the line about the file is all that appears."""
    trap = setup.root / "trap/torch"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise RuntimeError('torch was imported')\n")
    sound = process(setup, setup.words(), PYTHONPATH=str(trap.parent))
    assert "torch was imported" in sound.stderr  # the trap works
    words, before = damage(setup), setup.kept()
    assert_one_line(process(setup, words, PYTHONPATH=str(trap.parent)), setup, before, *says)


def test_no_network_for_the_data_says_which_files_to_get(setup: Setup) -> None:
    before = setup.kept()
    done = process(setup, setup.words(d=None))
    says = ("hub dataset cais/mmlu cannot be downloaded", "data.tar", "test/<subject>_test.csv", "-d DIR")
    assert_one_line(done, setup, before, *says)


def test_no_network_for_the_checkpoint_says_which_files_to_get(setup: Setup) -> None:
    before = setup.kept()
    done = process(setup, setup.words(c="Some/Model-7B"))
    says = ("Some/Model-7B is no folder here", "config.json", "qwen.tiktoken", "https://huggingface.co/Some/Model-7B")
    assert_one_line(done, setup, before, *says)


def test_a_truncated_shard_as_users_see_it(setup: Setup) -> None:
    """Libraries that would write warnings of their own are loaded by then."""
    words, before = truncate_shard(setup), setup.kept()
    assert_one_line(
        process(setup, words), setup, before, "model-00002-of-00002.safetensors is truncated", "get it again"
    )
