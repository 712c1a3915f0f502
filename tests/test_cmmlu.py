"""CMMLU: recorded answers of the 2023 script, files with and without a byte-order mark, overlapping categories."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import tiny
from known import answers_as_in_2023, benchmark_of, run_script

RECORDED = ["anatomy", "chinese_history", "logical", "machine_learning"]
HEAD = ["", "Question", "A", "B", "C", "D", "Answer"]
# test rows a subject; three of the subjects are in "China specific" beside their own category
SUBJECTS = {"ancient_chinese": 3, "chinese_history": 6, "anatomy": 4, "logical": 5, "chinese_food_culture": 8}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    return tiny.write_qwen1(folder, hidden=32, layers=1, positions=8192, spread=0.5, seed=1)


def write_lamps(folder: Path, encoding: str = "utf-8") -> Path:
    """Our own questions in CMMLU's files: five development rows, and as many test rows as SUBJECTS says."""
    for number, (subject, count) in enumerate(SUBJECTS.items()):
        for split, rows in (("dev", 5), ("test", count)):
            path = folder / split / f"{subject}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding=encoding) as file:
                asked = [
                    [row, f"第{10 * number + row}盏灯？", "红", "蓝", "None", "0.50", "ABCD"[(row + number) % 4]]
                    for row in range(rows)
                ]
                csv.writer(file, lineterminator="\n").writerows([HEAD, *asked])
    return folder


def test_the_prompt_of_one_question_by_hand(tmp_path: Path) -> None:
    words = ["-d", write_lamps(tmp_path), "--shots", 1, "--subjects", "chinese_history"]
    sample = benchmark_of("cmmlu", *words).asked[1]
    assert sample.request.prompt() == (
        "问题：第10盏灯？\nA. 红\nB. 蓝\nC. None\nD. 0.50\n答案：B\n\n"
        "问题：第11盏灯？\nA. 红\nB. 蓝\nC. None\nD. 0.50\n答案："
    )
    assert sample.request.options == ("A", "B", "C", "D") and sample.target == "C"


def test_the_recipes_differ_in_the_tokens_of_an_option(tmp_path: Path) -> None:
    words = ["-d", write_lamps(tmp_path), "--subjects", "logical"]
    ours, old = (benchmark_of("cmmlu", *words, "--recipe", r).asked[0].request for r in ("default", "qwen2023"))
    assert ours.prompt() == old.prompt()
    assert (ours.overflow, ours.scoring, old.overflow, old.scoring) == ("drop_shots", "context", "none", "isolated")


def test_a_byte_order_mark_changes_neither_rows_nor_signature(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for encoding in ("utf-8", "utf-8-sig"):
        data = write_lamps(tmp_path / encoding, encoding)
        words = ["-c", small, "-d", data, "--subjects", ",".join(SUBJECTS)]
        runs.append(run_script("cmmlu", words, tmp_path / f"results {encoding}", capsys))
    assert (tmp_path / "utf-8-sig/dev/logical.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    plain, marked = runs
    assert plain.signature == marked.signature and plain.samples == marked.samples and len(plain.samples) == 26
    assert plain.rows[0]["run_id"] == marked.rows[0]["run_id"]


def test_china_specific_overlaps_the_other_categories(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A subject of "China specific" counts there and in its own category, and once in the average over all."""
    words = ["-c", small, "-d", write_lamps(tmp_path / "data"), "--subjects", ",".join(SUBJECTS)]
    run = run_script("cmmlu", words, tmp_path, capsys)
    right: dict[str, list[float]] = defaultdict(list)
    for sample in run.samples.values():
        right[sample["group"]].append(float(sample["answer"] == sample["target"]))
    groups = {
        "all": list(SUBJECTS),
        "China specific": ["ancient_chinese", "chinese_history", "chinese_food_culture"],
        "Social Science": ["ancient_chinese", "chinese_food_culture"],
        "Humanities": ["chinese_history", "logical"],
        "STEM": ["anatomy"],
    }
    for group, members in groups.items():
        macro = 100 * float(np.mean([np.mean(right[subject]) for subject in members]))
        micro = 100 * float(np.mean([flag for subject in members for flag in right[subject]]))
        assert run.figure("acc", group) == run.figure("acc_macro", group) == pytest.approx(macro, abs=1e-6), group
        assert run.figure("acc_micro", group) == pytest.approx(micro, abs=1e-6), group
    assert len({run.figure("acc", group) for group in groups}) == len(groups)  # none equal by accident


the_2023_answers = partial(answers_as_in_2023, "cmmlu", cut=lambda answer: False)


def test_qwen2023_answers_as_the_original_script_on_some_rows() -> None:
    the_2023_answers(["anatomy", "chinese_history"], step=10)


@pytest.mark.slow
@pytest.mark.parametrize("subject", RECORDED)
def test_qwen2023_answers_as_the_original_script(subject: str, record_property: Callable[[str, object], None]) -> None:
    identical, asked = the_2023_answers([subject], step=1)
    record_property("items", identical)
    record_property("of", asked)
