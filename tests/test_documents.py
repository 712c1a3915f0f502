"""Documents for perplexity, from files and through the real download code against a hub on this machine."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from loopback_hub import LoopbackHub
from qwen_eval.data.files import Source
from qwen_eval.data.long_texts import ARXIV, ARXIV_FILE, documents
from qwen_eval.schema import DataError
from shared import REPOSITORY


def test_a_folder_of_text_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    (tmp_path / "a.txt").write_text("first 第一", encoding="utf-8")
    assert documents(Source(tmp_path)).texts == ("first 第一", "second")


def test_json_lines_alone_or_in_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "papers.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("one", "two")))
    assert documents(Source(path)).texts == documents(Source(tmp_path)).texts == ("one", "two")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"text": ""}\n', r"x\.jsonl:1"),
        ("x.jsonl", '{"text": "a"}\n{"body": "b"}\n', r"x\.jsonl:2"),
        ("x.txt", "", "is empty"),
        ("x.csv", "a", "has no documents"),
    ],
)
def test_a_row_that_is_no_document_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        documents(Source(tmp_path))
    with pytest.raises(DataError, match="missing"):
        documents(Source(tmp_path / "nowhere"))


def test_papers_from_the_hub(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"article": ["a long paper", "another"], "abstract": ["x", "y"]}), buffer)
    with LoopbackHub(datasets={ARXIV.repo: {ARXIV_FILE: buffer.getvalue()}}) as hub:
        code = "from qwen_eval.data import files, long_texts; print(long_texts.documents(files.Source()).texts)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=REPOSITORY / "eval",
            env=hub.env(tmp_path),
            check=False,
        )
    assert "('a long paper', 'another')" in done.stdout, done.stderr[-500:]
