"""Runs kept in little space: what is there, what is not, and that comparisons, the page and a resumed run work on them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from known import work
from qwen_eval.compare import pairs
from qwen_eval.runs import find, kept, manifest, samples
from qwen_eval.schema import InputError
from qwen_eval.tasks import load

QUESTION = "A boat carries seven lamps to the island of the keeper every evening at dusk. How many lamps in a week?"


def row(**changes: Any) -> dict[str, Any]:
    usual = {
        "id": "0",
        "group": "",
        "prompt": f"Question: {QUESTION}\nAnswer:",
        "response": {"kind": "generated", "texts": ["49"], "reasoning": [None], "end_reasons": ["end_eos"]},
        "answer": "49",
        "target": "49",
        "stats": {"correct": 1.0},
    }
    return {**usual, **changes}


def test_prompts_are_hashes_and_short_texts_stay() -> None:
    made = kept.kept_row(row(), Path("a.jsonl"))
    assert set(made["prompt"]) == {"sha256"} and len(made["prompt"]["sha256"]) == 64
    assert {name: made[name] for name in made if name != "prompt"} == {
        name: value for name, value in row().items() if name != "prompt"
    }


@pytest.mark.parametrize("prompt", [f"Question: {QUESTION}", [{"role": "user", "content": QUESTION}]])
def test_a_text_that_repeats_its_question_is_its_hash(prompt: Any) -> None:
    reply = f"Sure! {QUESTION} The answer is 49."
    given = row(prompt=prompt, answer=reply)
    given["response"]["texts"] = ["49", reply]
    made = kept.kept_row(given, Path("a.jsonl"))
    assert QUESTION[:40] not in json.dumps(made)
    assert made["response"]["texts"] == ["49", samples.withheld_text(reply)] and samples.withheld(made)
    assert made["answer"] == samples.withheld_text(reply) and made["stats"] == given["stats"]
    assert samples.same_texts(["49", reply], made["response"]["texts"])
    assert not samples.same_texts(["49", reply + "!"], made["response"]["texts"])


@pytest.mark.parametrize(("length", "stays"), [(39, True), (40, False)])
def test_forty_bytes_in_a_row_are_a_repetition(length: int, stays: bool) -> None:
    given = row()
    given["response"]["texts"] = [f"x{QUESTION[5 : 5 + length]}~"]
    assert samples.withheld(kept.kept_row(given, Path("a.jsonl"))) is not stays
    chinese = "岛上的守灯人每天傍晚都要点亮七盏灯然后数一数海上的船有几只"
    given = row(prompt=chinese)
    given["response"]["texts"] = [chinese[:14]]
    assert samples.withheld(kept.kept_row(given, Path("a.jsonl")))


def test_long_gold_texts_are_not_kept() -> None:
    long = "The keeper lights the first lamp at dusk. " * 4
    assert kept.kept_target([long]) == [samples.withheld_text(long)]
    assert kept.kept_target("C") == "C" and kept.kept_target(3) == 3 and kept.kept_target(["x", "y"]) == ["x", "y"]


def test_a_verdict_does_not_quote_the_test() -> None:
    answer = [{"completion": "    return 7", "verdict": "failed", "detail": "AssertionError at: assert lamps(3) == 21"}]
    made = kept.kept_row(row(answer=answer), Path("a.jsonl"))
    assert made["answer"] == [{"completion": "    return 7", "verdict": "failed", "detail": "AssertionError"}]


def test_rows_without_prompts_are_refused() -> None:
    with pytest.raises(InputError, match=r"a\.jsonl: its prompts were not stored"):
        kept.kept_row(row(prompt={"sha256": "0" * 64}), Path("a.jsonl"))


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, str]:
    """A run of GSM8K on the demonstration whose samples are kept in little space, and its id."""
    work("gsm8k", "-c", "demo", "-o", tmp_path, "--quiet", "--limit", 4)
    (path,) = (tmp_path / "samples").glob("*.jsonl")
    made = kept.keep(tmp_path, path.stem)
    again = made.read_bytes()
    assert kept.keep(tmp_path, path.stem).read_bytes() == again
    path.rename(tmp_path / "whole.jsonl")
    return tmp_path, path.stem


def test_a_kept_run_is_found_compared_and_shown(packed: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, name = packed
    (one,) = find.find(name, folder)
    assert one.path.name == f"{name}.jsonl.gz" and one.finished and one.benchmark == "gsm8k"
    whole = find.open_run(folder / "whole.jsonl")
    joined = pairs.join(one, whole)
    assert all(not ids for ids in pairs.differences_by_stage(joined).values()) and len(joined.ids) == 4
    figures = pairs.compare(joined, load.official()["gsm8k"].facts())
    assert all(result.loss == 0 for result in figures.values()) and figures
    assert manifest.read_rows(folder, name).keys() == whole.rows.keys()
    from qwen_eval.report import page

    (run,) = page.stored_runs(folder, {"gsm8k": load.official()["gsm8k"].facts()}, [])
    assert run.about["run"] == name and len(run.rows) == 4


def test_a_kept_run_is_resumed_where_its_replies_were_kept(
    packed: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, name = packed
    path = folder / "samples" / f"{name}.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    whole = rows[1]["response"]["texts"]
    rows[1]["response"]["texts"] = [samples.withheld_text(text) for text in whole]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    work("gsm8k", "-c", "demo", "-o", folder, "--limit", 4)
    assert "3 of 4 items were answered before" in capsys.readouterr().err
    found = samples.read_samples(folder / "samples" / f"{name}.jsonl")
    assert found[rows[1]["id"]]["response"]["texts"] == whole and len(found) == 4


def test_a_damaged_file_is_one_line(packed: tuple[Path, str]) -> None:
    folder, name = packed
    path = folder / "samples" / f"{name}.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"\.jsonl\.gz is damaged"):
        samples.read_samples(path)
