"""The official rows are recognised, and others are named: edited or truncated, from any source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from known import benchmark_of
from qwen_eval.data.official import changed, official
from qwen_eval.schema import DataError
from qwen_eval.tasks import load
from shared import shared
from test_runner import Letters, Questions, ask, options

KNOWN = [name for name, kind in load.official().items() if kind.sums]


def test_the_benchmarks_whose_official_rows_are_known() -> None:
    assert KNOWN == ["mmlu", "ceval", "cmmlu", "gsm8k", "humaneval", "wmt22"]


@pytest.mark.parametrize("name", KNOWN)
def test_the_released_files_are_the_official_ones(name: str) -> None:
    benchmark = benchmark_of(name, "-d", shared(f"data/{name}"))
    assert benchmark.changed == () and benchmark.origin == "files"


def test_c_eval_s_splits_are_held_against_their_own_sums(tmp_path: Path) -> None:
    """All 52 subjects of val are as the hub has them, and of test; an edit is named by the split that was asked. The numbers of
    rows are those of the paper: 260, 1,346 and 12,342."""
    folder = shared("data/ceval")
    rows = {"dev": 0, "val": 0, "test": 0}
    for split in ("val", "test"):
        benchmark = benchmark_of("ceval", "-d", folder, "--split", split)
        assert benchmark.changed == () and len(benchmark.data) == 52
        parts = benchmark.parts()
        assert parts.keys() <= benchmark.sums.keys() and len(parts) == 104
        rows |= {
            name: sum(len(found) for part, found in parts.items() if part.startswith(name)) for name in ("dev", split)
        }
    assert rows == {"dev": 260, "val": 1346, "test": 12342}
    for split in ("dev", "val", "test"):
        (tmp_path / split).mkdir()
        shutil.copy(folder / split / f"law_{split}.csv", tmp_path / split)
    for split in ("val", "test"):
        path = tmp_path / split / f"law_{split}.csv"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:7]))
        number = len(lines) - 1
        words = ("-d", tmp_path, "--subjects", "law", "--split", split)
        assert benchmark_of("ceval", *words).changed == (f"{split}/law (6 rows, {number} in the official file)",)


def test_an_edited_and_a_short_file_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "mmlu"
    for split in ("dev", "test"):
        (folder / split).mkdir(parents=True)
        for subject in ("anatomy", "virology"):
            shutil.copy(shared(f"data/mmlu/{split}/{subject}_{split}.csv"), folder / split)
    words = ("-d", folder, "--subjects", "anatomy,virology")
    assert benchmark_of("mmlu", *words).changed == ()
    edited, short = folder / "dev/virology_dev.csv", folder / "test/anatomy_test.csv"
    edited.write_bytes(edited.read_bytes().replace(b"A\n", b"B\n", 1))
    short.write_bytes(b"".join(short.read_bytes().splitlines(keepends=True)[:40]))
    assert benchmark_of("mmlu", *words).changed == (
        "dev/virology (edited)", "test/anatomy (40 rows, 135 in the official file)",
    )  # fmt: skip
    crlf = folder / "test/virology_test.csv"
    crlf.write_bytes(b"\xef\xbb\xbf" + crlf.read_bytes().replace(b"\n", b"\r\n"))
    assert len(benchmark_of("mmlu", *words).changed) == 2  # the same rows in other bytes
    short.write_bytes(short.read_bytes()[:-30])  # and cut inside a row it is not valid data
    with pytest.raises(DataError, match=r"anatomy_test\.csv:\d+: "):
        benchmark_of("mmlu", *words)


def test_the_demonstration_and_unknown_data_are_not_called_edited() -> None:
    for name in KNOWN:
        assert benchmark_of(name, "-c", "demo").changed == ()
    assert load.official()["plugin"].sums == {} and changed({}, {"dev/law": ()}) == ()
    assert changed(official("mmlu"), {"dev/nothing": ()}) == ()


def test_the_run_says_so_at_its_start_in_its_table_and_in_its_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Edited(Questions):
        name = "mmlu"
        sums = {"test/anatomy": [8, "00000000"], "test/virology": [8, "00000000"]}  # noqa: RUF012

        def data_origin(self) -> str:
            return "cais/mmlu@abc"

    loud = options(tmp_path)
    loud.quiet = False
    ask(Edited(loud), Letters())
    streams = capsys.readouterr()
    said = "warning: mmlu's data is not the official one: test/anatomy (edited) and 1 more; no figure is comparable"
    assert streams.err.startswith(said) and said in streams.out
    (manifest,) = (tmp_path / "samples").glob("*.json")
    assert json.loads(manifest.read_text())["data"] == {
        "origin": "cais/mmlu@abc", "changed": ["test/anatomy (edited)", "test/virology (edited)"],
    }  # fmt: skip
