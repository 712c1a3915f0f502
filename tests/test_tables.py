"""The rows of a custom benchmark: a file per split in a folder, or parquet files of a hub dataset at a commit."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopback_hub import LoopbackHub
from qwen_eval.data.files import Source
from qwen_eval.data.tables import Dataset
from qwen_eval.schema import DataError
from shared import REPOSITORY
from test_hub import parquet

ROWS = [{"q": "None", "a": "NA"}, {"q": "two\nlines", "a": "0.50"}, {"q": "“七”，, and more", "a": "True"}]
DATASET = Dataset("me/mine", "c" * 40, {"train": "data/train.parquet", "test": "data/test.parquet"})


def columns(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def as_csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8-sig")


def as_json_lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows).encode()


FORMATS = {"csv": as_csv, "jsonl": as_json_lines, "parquet": lambda rows: parquet(columns(rows))}


@pytest.mark.parametrize("ending", FORMATS)
def test_cells_of_a_folder_stay_text(ending: str, tmp_path: Path) -> None:
    for split in DATASET.files:
        (tmp_path / f"{split}.{ending}").write_bytes(FORMATS[ending](ROWS))
    found = DATASET.read(Source(tmp_path))
    assert {split: [dict(row) for row in rows] for split, rows in found.rows.items()} == {"train": ROWS, "test": ROWS}
    assert found.origin == "files"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("test.csv", b"q,a\nonly one\n", r"test\.csv:2: 1 columns, expected 2"),
        ("test.csv", b"q,a\n", "test has no rows"),
        ("test.jsonl", b'{"q": 1}\n[2]\n', r"test\.jsonl:2: found list"),
        ("test.jsonl", b"\xff\n", r"test\.jsonl:1: byte 0xff"),
        ("test.parquet", b"PAR1", "not a readable parquet file"),
        ("other.jsonl", b'{"q": 1}\n', r"test\.jsonl is missing; give a folder with train\.jsonl and test\.jsonl"),
    ],
)
def test_a_bad_file_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(as_json_lines(ROWS))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        DATASET.read(Source(tmp_path))


def test_without_a_folder_and_without_a_hub_dataset() -> None:
    with pytest.raises(DataError, match="names no hub dataset; give a folder with test"):
        Dataset("", "", {"test": ""}).read(Source())


def test_rows_of_a_hub_at_its_commit(tmp_path: Path) -> None:
    """An example asks the hub's rows through the command, and again from the cache when the hub is gone."""
    choices = {"text": ["red", "green", "blue"], "label": ["1", "2", "3"]}
    rows: dict[str, list[Any]] = {
        "id": ["x"], "question": ["Which colour has grass?"], "choices": [choices], "answerKey": ["2"]
    }  # fmt: skip
    files = {f"ARC-Challenge/{split}-00000-of-00001.parquet": parquet(rows) for split in ("train", "test")}
    command = "from qwen_eval.main import console; console()"
    words = ("run", str(REPOSITORY / "examples/arc.py"), "--dump-prompts", "--shots", "1")

    def ask(env: dict[str, str]) -> str:
        done = subprocess.run(
            [sys.executable, "-c", command, *words],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, **env, "PYTHONPATH": str(REPOSITORY / "eval"), "USE_TORCH": "0"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    with LoopbackHub(datasets={"allenai/ai2_arc": files}) as hub:
        env = hub.env(tmp_path / "home")
        first = ask(env)
    line = "Question: Which colour has grass?\nAnswer:"
    assert json.loads(first) == {"id": "0", "group": "", "prompt": f"{line} green\n\n{line}"}
    assert ask({**env, "HF_HUB_OFFLINE": "1"}) == first
