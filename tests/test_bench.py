"""The bench's bookkeeping: what a stopped run keeps, which baselines are repeated, the table, and counts."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from random import Random

import pytest
import torch

from bench import child, counts, table
from bench.contest import Contest, Timing, compete
from bench.record import Record


class Stopped(Exception):
    pass


def contest(calls: list[str], stop_at: int) -> Contest:
    """Ours takes 1, 2, 3 s and the baselines 10 and 4 times as long as ours; the run stops before call `stop_at`."""

    def side(name: str, factor: float) -> Timing:
        if len(calls) == stop_at:
            raise Stopped
        calls.append(name)
        seconds = (calls.count(name)) * factor
        return Timing(seconds, 2 * seconds, [name], (3, 9) if name == "ours" else None)

    names = {"lm-eval, batch 1": 10.0, "lm-eval, batch 8": 4.0, "part": 0.5}
    baselines = {name: lambda name=name, factor=factor: side(name, factor) for name, factor in names.items()}
    return Contest("MMLU", "tiny", 7, lambda: side("ours", 1.0), baselines, scale={"part": 20.0})


def test_a_stopped_stage_resumes_and_slow_baselines_are_dropped(tmp_path: Path) -> None:
    calls: list[str] = []
    path = tmp_path / "stage.jsonl"
    with pytest.raises(Stopped):
        compete(contest(calls, 6), 3, Record(path))
    with path.open("a") as file:  # killed while a line was written
        file.write('{"contest": "MMLU", "si')
    with pytest.raises(Stopped):
        compete(contest(calls, 6), 3, Record(path))  # all that was measured is stored: nothing is called again
    rows = compete(contest(calls, 99), 3, Record(path))
    first = ["ours", "lm-eval, batch 1", "lm-eval, batch 8", "part"]
    assert calls == [*first, *["ours", "lm-eval, batch 8", "part"] * 2]
    found = {row["baseline"]: (row["repetitions"], row["ratio_cpu"], row["baseline_wall_s"]) for row in rows}
    assert found == {
        "lm-eval, batch 1": ("1", "10.00", "20.00"),
        "lm-eval, batch 8": ("3", "4.00", "16.00"),
        "part": ("3", "10.00", "40.00"),
    }
    assert {(row["tokens_computed"], row["tokens_in_prompts"]) for row in rows} == {("3", "9")}
    record = Record(path)
    assert record.rows(3) is None
    record.finish(3, rows)
    assert Record(path).rows(3) == rows and Record(path).rows(1) is None
    assert Record(path, overwrite=True).rows(3) is None


def test_rows_join_a_file_with_fewer_columns_and_the_newest_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "bench.csv"
    old = {"stage": "MMLU", "baseline": "loop", "model": "m", "ratio_cpu": "2.00", "tokens_computed": ""}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(old))
        writer.writeheader()
        writer.writerows([old, {**old, "baseline": "other"}])
    table.append(
        path,
        [{**old, "ratio_cpu": "3.00", "tokens_computed": "102", "tokens_in_prompts": "900", "tokens_distinct": "100"}],
    )
    shown = table.newest(path)
    assert [(row["baseline"], row["ratio_cpu"]) for row in shown] == [("loop", "3.00"), ("other", "2.00")]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table:bench -->\nold\n<!-- /table:bench -->\nafter\n")
    table.rewrite(page, table.markdown(shown))
    text = page.read_text()
    assert "102 of 900, 1.020 x the distinct" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n")
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="table:bench"):
        table.rewrite(page, "")


def test_counts_equal_the_set_of_all_prefixes() -> None:
    random = Random(0)
    prompts = [[7, 7, *(random.choice((1, 2)) for _ in range(random.randrange(9)))] for _ in range(60)]
    prefixes = {tuple(ids[:end]) for ids in prompts for end in range(1, len(ids) + 1)}
    assert counts.distinct_tokens(prompts) == len(prefixes)
    assert counts.distinct_pairs(prompts) == sum(map(len, prefixes))
    assert counts.shared_prefix(prompts) == 2 and counts.shared_prefix([[1, 2], [1, 2]]) == 2


def test_share_of_matrix_products() -> None:
    left = torch.randn(700, 700)
    assert 0 < counts.matrix_share(lambda: [left @ left for _ in range(10)]) <= 1
    assert counts.matrix_share(lambda: [left.sin() for _ in range(10)]) == 0


def test_a_child_process_is_timed_and_its_failure_reported() -> None:
    assert child.spawn([sys.executable, "-c", "print('noise'); print(5)"]).answers == ["5"]
    with pytest.raises(SystemExit, match="ended with status 1: ZeroDivisionError"):
        child.spawn([sys.executable, "-c", "1 / 0"])
