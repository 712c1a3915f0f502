"""JSON lines in and out: what the harness adds to the library holds for every reader and writer."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from qwen_eval.compare.readers import detect
from qwen_eval.data import files
from qwen_eval.runs import find
from qwen_eval.runs import samples as samples_file
from qwen_eval.runs.files import write_json_lines
from qwen_eval.schema import DataError, InputError


def read(content: bytes) -> list[tuple[int, dict]]:
    return list(files.json_lines(files.Blob("f.jsonl", content), "get it again"))


def test_numbers_are_those_of_the_lines() -> None:
    """A byte-order mark, Windows line ends, blank lines, and what str.splitlines takes for a line end inside a text."""
    content = b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": "\xe2\x80\xa8\xc2\x85"}\r\n{"a": [NaN, -Infinity]}'
    (first, one), (second, two), (third, three) = read(content)
    assert (first, second, third) == (1, 4, 5)
    assert (one, two) == ({"a": 1}, {"a": "\u2028\x85"})
    assert math.isnan(three["a"][0]) and three["a"][1] == -math.inf


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1', "not JSON (Expecting ',' delimiter, column 8)"),
        (b'{"a": 1} {}', "not JSON (Extra data, column 10)"),
        (b"[" * 100_000, "not JSON (a number or a nesting too long)"),
        (b"9" * 5000, "not JSON (a number or a nesting too long)"),
        (b"[1]", "found list, expected a JSON object"),
        (b"null", "found NoneType, expected a JSON object"),
        (b'"\xff"', "byte 0xff at offset 13 is not UTF-8"),
        (b"\0", "NUL byte at offset 12"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_a_bad_line_is_a_one_line_error(line: bytes, said: str) -> None:
    good = b'{"a": 1}\n\n\n\n'
    with pytest.raises(DataError) as error:
        read(good + line + b"\n" + good)
    assert str(error.value) == f"f.jsonl:5: {said}; get it again"


ROWS = [
    {"id": "a/0", "text": "\u2028 é \x85 \r\n"},
    {"id": "a/1", "text": "half a character \ud83d and 中"},
    {"id": "a/2", "value": [math.inf, 1e-300, 10**30, None, True]},
]


def test_rows_come_back_as_they_were_stored(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "whole.jsonl", ROWS)
    written = samples_file.SampleFile(tmp_path, "run")
    for row in ROWS:
        written.append(row)
    assert list(written.read().values()) == ROWS
    written.close()
    assert written.path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    lines = written.path.read_bytes().split(b"\n")
    assert lines == [json.dumps(row, ensure_ascii=row["id"] == "a/1").encode() for row in ROWS] + [b""]


def test_a_row_goes_to_the_disk_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines in one call: a kill between two calls would leave half of one."""
    written: list[bytes] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: written.append(bytes(data)) or write(file, data))
    samples = samples_file.SampleFile(tmp_path, "run")
    for row in ROWS:
        samples.append(row)
    samples.close()
    assert [json.loads(line) for line in written] == ROWS and all(line.endswith(b"\n") for line in written)


def test_a_torn_last_line_is_no_row(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "f.jsonl", ROWS)
    with (tmp_path / "f.jsonl").open("ab") as file:
        file.write(b'{"id": "a/3"}')  # whole JSON, and yet cut: its end may be missing, as that of a number
    assert list(samples_file.read_samples(tmp_path / "f.jsonl")) == ["a/0", "a/1", "a/2"]


@pytest.mark.parametrize(
    "line", [b"{", b"", b"null", b"[1]", b"3", b'"id"', b'{"a": 1}', b'{"id": []}', b"\xff", b"[" * 10**5]
)
def test_a_line_that_is_no_row_is_refused_by_its_number(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"id": "a/0"}\n' + line + b'\n{"id": "a/1"}\n')
    with pytest.raises(InputError) as error:
        samples_file.read_samples(path)
    assert str(error.value).startswith(f"{path}:2 is not a sample row (") and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"{", b"[1]\n", b"null\n", b"\xff\n", b"[" * 10**5, b'{"id": 1}\n'])
def test_a_file_that_no_harness_wrote_is_recognized_by_no_reader(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    assert not find.is_own_format(path) and detect.read(path) is None


def test_another_harness_s_texts_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "samples_gsm8k_2026-01-01T00-00-00.000001.jsonl"
    row = {"doc_id": 0, "doc": {"question": "a\u2028b"}, "target": "1", "arguments": {"gen_args_0": {"arg_0": "q"}}}
    row |= {"resps": [["1"]], "filtered_resps": ["1"], "metrics": ["exact_match"], "exact_match": 1.0}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n\n", encoding="utf-8")
    samples = detect.read(path)
    assert samples is not None
    (item,) = samples.items
    assert item.texts[0] == "a\u2028b"
