"""What a run took over all its starts: seconds add up, memory is that of the start that needed most, and asking nothing costs
nothing."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from known import work
from qwen_eval.runs import effort

RUN = "mmlu-x"


def start(folder: Path, monkeypatch: pytest.MonkeyPatch, began: float, last: float) -> None:
    """A start that begins to ask, and stores its last answer at a later time (in seconds)."""
    monkeypatch.setattr(effort.time, "time", lambda: began)
    effort.begin(folder, RUN)
    path = folder / "samples" / f"{RUN}.jsonl"
    with path.open("a") as file:
        file.write("{}\n")
    os.utime(path, (last, last))


def test_the_seconds_of_starts_that_were_cut_off_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "samples").mkdir()
    assert effort.seconds(tmp_path, RUN) == 0
    start(tmp_path, monkeypatch, 1_000, 1_100)
    assert effort.seconds(tmp_path, RUN) == 100
    monkeypatch.setattr(effort.time, "time", lambda: 2_000.0)
    effort.begin(tmp_path, RUN)  # killed before it stored anything
    assert effort.seconds(tmp_path, RUN) == 100
    start(tmp_path, monkeypatch, 5_000, 5_050.5)
    assert effort.seconds(tmp_path, RUN) == 150.5
    start(tmp_path, monkeypatch, 9_000, 8_000)  # the clock was set back
    assert effort.seconds(tmp_path, RUN) == 150.5


def test_memory_is_that_of_the_start_that_needed_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "samples").mkdir()
    small, large = (dict.fromkeys(effort.MEMORY, f"{size}.0") for size in (2, 30))
    assert effort.memory(tmp_path, RUN, small) == small
    start(tmp_path, monkeypatch, 1_000, 1_100)
    (tmp_path / "samples" / f"{RUN}.json").write_text(json.dumps({"seconds": "100.0", "model": {}, **large}))
    effort.end(tmp_path, RUN)
    assert effort.memory(tmp_path, RUN, small) == large  # nothing was asked
    start(tmp_path, monkeypatch, 2_000, 2_100)
    assert effort.memory(tmp_path, RUN, small) == large
    assert effort.seconds(tmp_path, RUN) == 200


def test_a_finished_run_that_is_asked_again_keeps_what_it_took(tmp_path: Path) -> None:
    words = ["-c", "demo", "-o", str(tmp_path), "--subjects", "nutrition", "--limit", "3", "--quiet"]

    def run(*more: str) -> tuple[dict[str, Any], dict[str, str]]:
        work("mmlu", *words, *more)
        (path,) = (tmp_path / "samples").glob("*.json")
        rows = list(csv.DictReader((tmp_path / "mmlu.csv").open()))
        return json.loads(path.read_text()), rows[-1]

    first, row = run()
    assert float(first["seconds"]) > 0 and row["seconds"] == first["seconds"]
    (path,) = (tmp_path / "samples").glob("*.json")
    took = {"seconds": "12345.0", "peak_memory_gb": "99.000", "weights_gb": "0.5", "resident_gb": "0.25"}
    path.write_text(json.dumps({**first, **took}))
    (tmp_path / "mmlu.csv").unlink()  # as if it were scored anew
    again, row = run()
    for name, value in took.items():
        assert (again[name], row[name]) == (value, value)
    assert again["tokens"] == first["tokens"]
    assert not list((tmp_path / "samples").glob("*.asking"))
    anew, _ = run("--overwrite")
    assert float(anew["seconds"]) < 12345 and anew["peak_memory_gb"] != "99.000"
