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
class Place:
    """A complete set-up in a folder of its own, to be damaged: data, a checkpoint in two shards, results of a good
    run."""

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
def good(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("good"))
    for subject in SUBJECTS:
        for split in ("dev", "test"):
            path = place.data / split / f"{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{row}\n" for row in ROWS), encoding="utf-8")
    tiny.write_qwen1(place.checkpoint, hidden=32, layers=1, positions=4096, shards=2)
    command = [sys.executable, str(REPOSITORY / "eval/mmlu.py"), *place.words(), "-o", str(place.results)]
    subprocess.run(command, check=True, capture_output=True)
    assert len(place.kept()) == 3  # CSV, samples, manifest
    return place


@pytest.fixture
def place(good: Place, tmp_path: Path) -> Place:
    return Place(Path(shutil.copytree(good.root, tmp_path / "copy")))


def line_of(file: Path, number: int, new: bytes) -> None:
    """Replaces one line (counted from 1)."""
    lines = file.read_bytes().split(b"\n")
    lines[number - 1] = new
    file.write_bytes(b"\n".join(lines))


def shard(place: Place) -> Path:
    return place.checkpoint / "model-00002-of-00002.safetensors"


def spoil_columns(place: Place) -> list[str]:
    line_of(place.data / "test/virology_test.csv", 3, b"only,four,columns,here")
    return place.words()


def spoil_answer(place: Place) -> list[str]:
    line_of(place.data / "dev/virology_dev.csv", 2, b"Which lamp?,red,blue,None,0.50,E")
    return place.words()


def spoil_encoding(place: Place) -> list[str]:
    line_of(place.data / "test/anatomy_test.csv", 4, b"Which caf\xe9?,red,blue,None,0.50,A")
    return place.words()


def empty_file(place: Place) -> list[str]:
    (place.data / "test/anatomy_test.csv").write_bytes(b"")
    return place.words()


def lose_subject(place: Place) -> list[str]:
    (place.data / "dev/virology_dev.csv").unlink()
    return place.words()


def lose_weights(place: Place) -> list[str]:
    for path in place.checkpoint.glob("model*"):
        path.unlink()
    return place.words()


def lose_shard(place: Place) -> list[str]:
    shard(place).unlink()
    return place.words()


def truncate_shard(place: Place) -> list[str]:
    shard(place).write_bytes(shard(place).read_bytes()[:-100])
    return place.words()


def truncate_shard_overwriting(place: Place) -> list[str]:
    return [*truncate_shard(place), "--overwrite"]


def lose_tokenizer(place: Place) -> list[str]:
    (place.checkpoint / "qwen.tiktoken").unlink()
    return place.words()


def spoil_config(place: Place) -> list[str]:
    line_of(place.checkpoint / "config.json", 3, b"this is not JSON")
    return place.words()


def lose_tensor(place: Place) -> list[str]:
    """A whole file of another model: the checkpoint's own tensors are not in it."""
    other = tiny.write_qwen1(place.root / "other", hidden=32, layers=2, positions=4096, shards=2)
    shutil.copy(other / "config.json", place.checkpoint)
    return place.words()


def csv_of_another_layout(place: Place) -> list[str]:
    (place.results / "mmlu.csv").write_text("a,b\n1,2\n")
    return place.words()


def csv_that_is_no_text(place: Place) -> list[str]:
    (place.results / "mmlu.csv").write_bytes(b"\xff\xfer\x00u\x00n\x00\n\x00")
    return place.words()


def csv_that_is_a_folder(place: Place) -> list[str]:
    (place.results / "mmlu.csv").unlink()
    (place.results / "mmlu.csv").mkdir()
    return place.words()


def samples_that_are_no_text(place: Place) -> list[str]:
    (samples,) = (place.results / "samples").glob("*.jsonl")
    line_of(samples, 2, b"\xff\xfe\x00")
    return place.words()


def samples_of_something_else(place: Place) -> list[str]:
    (samples,) = (place.results / "samples").glob("*.jsonl")
    first = json.loads(samples.read_bytes().split(b"\n")[0])["id"]
    line_of(samples, 1, json.dumps({"id": first, "answer": "A"}).encode())
    return place.words()


def results_that_are_a_file(place: Place) -> list[str]:
    shutil.rmtree(place.results)
    place.results.write_text("not a folder")
    return place.words()


# what is wrong -> how it is produced, and what the line must contain: the problem, and the remedy
CASES: dict[str, tuple[Callable[[Place], list[str]], Sequence[str]]] = {
    "missing folder": (lambda p: p.words(d=p.data / "nowhere"), ("data/nowhere is missing", "with -d DIR")),
    "a file for a folder": (lambda p: p.words(d=p.data / "dev/anatomy_dev.csv"), ("is not a folder", "with -d DIR")),
    "missing subject file": (lose_subject, ("dev/virology_dev.csv is missing", "with -d DIR")),
    "wrong column count": (spoil_columns, ("test/virology_test.csv:3: 4 columns, expected 6", "get the file again")),
    "answer outside A-D": (spoil_answer, ("dev/virology_dev.csv:2: answer 'E', expected A, B, C or D", "get the file")),
    "not UTF-8": (spoil_encoding, ("test/anatomy_test.csv:4: byte 0xe9", "is not UTF-8", "get the file again")),
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
    "broken config": (spoil_config, ("config.json:3: not valid JSON", "get it again")),
    "config of another model": (lose_tensor, ("its weights lack", "belong to different models")),
    "unknown device": (lambda p: p.words(device="abacus"), ("--device abacus is no torch device", "use cpu, cuda")),
    "another device": (lambda p: p.words(device="cuda:99"), ("--device cuda:99 is not there", "use --device cpu")),
    "CSV of another layout": (
        csv_of_another_layout,
        ("results/mmlu.csv:1 has other columns", "move the file elsewhere"),
    ),
    "CSV that is not text": (csv_that_is_no_text, ("results/mmlu.csv", "move the file elsewhere")),
    "CSV that is a folder": (csv_that_is_a_folder, ("results/mmlu.csv", "move the file elsewhere")),
    "samples that are not text": (samples_that_are_no_text, (".jsonl:2 is not a sample row", "use --overwrite")),
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
def test_an_error_is_one_line_with_file_and_remedy(case: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, says = CASES[case]
    words = spoil(place)
    before = place.kept()
    run = run_script("mmlu", words, place.results, capsys)
    assert run.status == 2 and run.out == ""
    assert run.err.startswith("mmlu.py: ") and run.err.endswith("\n") and run.err.count("\n") == 1
    for part in says:
        assert part in run.err
    after = place.kept()
    assert {name: after.get(name) for name in before} == before


def process(place: Place, words: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    """The script as users run it, progress and all, with a hub that is not there."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "eval/mmlu.py"), *words, "-o", str(place.results)],
        env={**os.environ, **client_env(DEAD_HUB, place.root / "home"), **env},
        cwd=place.root,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], place: Place, before: dict[str, bytes], *says: str) -> None:
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("mmlu.py: ") and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(part in done.stderr for part in says), done.stderr
    assert place.kept() == before


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_encoding, ("test/anatomy_test.csv:4: byte 0xe9 at offset", "get the file again")),
        (csv_of_another_layout, ("results/mmlu.csv:1 has other columns", "move the file elsewhere")),
    ],
)
def test_bad_files_show_before_torch_is_imported(
    spoil: Callable[[Place], list[str]], says: Sequence[str], place: Place
) -> None:
    """A torch that fails when it is imported comes first on the path: the line about the file is all that appears."""
    trap = place.root / "trap/torch"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise RuntimeError('torch was imported')\n")
    sound = process(place, place.words(), PYTHONPATH=str(trap.parent))
    assert "torch was imported" in sound.stderr  # the trap works
    words, before = spoil(place), place.kept()
    assert_one_line(process(place, words, PYTHONPATH=str(trap.parent)), place, before, *says)


def test_no_network_for_the_data_says_which_files_to_get(place: Place) -> None:
    before = place.kept()
    done = process(place, place.words(d=None))
    says = ("hub dataset cais/mmlu cannot be downloaded", "data.tar", "test/<subject>_test.csv", "-d DIR")
    assert_one_line(done, place, before, *says)


def test_no_network_for_the_checkpoint_says_which_files_to_get(place: Place) -> None:
    before = place.kept()
    done = process(place, place.words(c="Some/Model-7B"))
    says = ("Some/Model-7B is no folder here", "config.json", "qwen.tiktoken", "https://huggingface.co/Some/Model-7B")
    assert_one_line(done, place, before, *says)


def test_a_truncated_shard_as_users_see_it(place: Place) -> None:
    """Libraries that would write warnings of their own are loaded by then."""
    words, before = truncate_shard(place), place.kept()
    assert_one_line(
        process(place, words), place, before, "model-00002-of-00002.safetensors is truncated", "get it again"
    )
