"""--gate and --audit as users call them, on the demonstration model."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]


def call(script: str, *words: Any) -> tuple[int, str]:
    made = subprocess.run(
        [sys.executable, str(ROOT / "eval" / f"{script}.py"), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return made.returncode, made.stdout + made.stderr


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a run of MMLU and one of GSM8K."""
    folder = tmp_path_factory.mktemp("base")
    for name in ("mmlu", "gsm8k"):
        status, text = call(name, "-c", "demo", "-o", folder, "--quiet")
        assert status == 0, text
    return folder


def sample_file(folder: Path, name: str = "mmlu") -> Path:
    return next((folder / "samples").glob(f"{name}-*.jsonl"))


def altered(base: Path, folder: Path, count: int, to_right: bool) -> Path:
    """A copy of the run whose first `count` wrong items are published as right, or right ones as wrong."""
    path = sample_file(base)
    target = folder / "samples" / path.name
    target.parent.mkdir(parents=True)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    left = count
    for row in rows:
        if left and row["stats"]["correct"] == (0.0 if to_right else 1.0):
            left -= 1
            row["stats"]["correct"] = 1.0 if to_right else 0.0
            if to_right:  # as if the model had said it
                best, logprobs = "ABCD".index(row["target"]), row["response"]["logprobs"]
                top = max(range(4), key=lambda i: logprobs[i])
                logprobs[best], logprobs[top] = logprobs[top], logprobs[best]
                row["answer"] = row["target"]
    assert not left
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    target.with_suffix(".json").write_text(path.with_suffix(".json").read_text(encoding="utf-8"), encoding="utf-8")
    return target


def test_an_equal_model_is_cleared_early_and_goes_on_to_the_full_set(base: Path, tmp_path: Path) -> None:
    words = ("-c", "demo", "-o", tmp_path, "--quiet")
    report = tmp_path / "gate.xml"
    gate = (
        "--gate",
        base,
        "--max-loss",
        5,
        "--sequential",
        "--junit",
        report,
        "--gate-summary",
        tmp_path / "summary.md",
    )
    status, text = call("mmlu", *words, *gate)
    assert status == 0 and "PASS mmlu base 5-shot, acc (micro): not worse by more than 5 points" in text
    asked = len(sample_file(tmp_path).read_text(encoding="utf-8").splitlines())
    assert 20 < asked < 300 and f"after {asked} of 300 items" in text
    assert not (tmp_path / "mmlu.csv").exists()  # no figure from a part that was not drawn at random
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    assert "PASS mmlu" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    again, told = call("mmlu", *words, *gate)
    assert again == 0 and f"after {asked} of 300 items" in told and "exploratory" not in told
    assert "exploratory" in call("mmlu", *words, *gate, "--gate-seed", 7)[1]
    status, text = call("mmlu", *words)
    assert status == 0 and sample_file(tmp_path).read_text(encoding="utf-8").count("\n") == 300
    assert (tmp_path / "mmlu.csv").exists()


def test_a_loss_is_found(base: Path, tmp_path: Path) -> None:
    """Against a baseline that has 42 wrong items right, 14 points, the same model is worse by more than 5, not by 20."""
    better = altered(base, tmp_path / "better", 42, to_right=True)
    words = ("-c", "demo", "--quiet", "--gate", better, "--sequential")
    status, text = call("mmlu", *words, "-o", tmp_path / "a", "--max-loss", 5)
    assert status == 3 and "FAIL mmlu base 5-shot" in text and "worse by more than 5 points" in text
    status, text = call("mmlu", *words, "-o", tmp_path / "b", "--max-loss", 20)
    assert status == 0, text


def test_without_sequential_the_gate_is_compares(base: Path, tmp_path: Path) -> None:
    better = altered(base, tmp_path / "better", 42, to_right=True)
    words = ("-c", "demo", "--quiet", "-o", tmp_path / "a")
    status, text = call("mmlu", *words, "--gate", better, "--max-loss", 5)
    assert status == 3 and "FAIL mmlu acc: loss 14.00" in text
    status, text = call("compare", better, sample_file(tmp_path / "a"), "--max-loss", 5)
    assert status == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", 10), "items that this command does not ask"),
        (("--shots", 3), "no run of mmlu default base 3 shots"),
    ],
)
def test_a_baseline_over_other_items_is_refused(base: Path, tmp_path: Path, words: tuple[Any, ...], said: str) -> None:
    status, text = call("mmlu", "-c", "demo", "-o", tmp_path, "--gate", base, "--max-loss", 2, *words)
    assert status == 2 and said in text and len(text.splitlines()) == 1


def test_a_partial_and_an_unfinished_baseline_are_refused(base: Path, tmp_path: Path) -> None:
    path = altered(base, tmp_path / "cut", 0, to_right=True)
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:200]), encoding="utf-8")
    words = ("-c", "demo", "-o", tmp_path / "a", "--gate", path, "--max-loss", 2)
    status, text = call("mmlu", *words)
    assert status == 2 and "is partial: it lacks 100 of the 300 items" in text
    path.with_suffix(".json").unlink()
    status, text = call("mmlu", *words)
    assert status == 2 and "no finished run" in text


def test_what_has_no_order_is_refused(base: Path, tmp_path: Path) -> None:
    words = ("-c", "demo", "-o", tmp_path, "--max-loss", 2, "--sequential", "--limit", 20)
    status, text = call("wmt22", *words, "--gate", ROOT / "demo" / "baseline")
    assert status == 2 and "BLEU is no mean over items" in text
    status, text = call("mmlu", "-c", "demo", "-o", tmp_path, "--max-loss", 2)
    assert status == 2 and "--gate" in text


def test_macro_is_gated_by_weights(tmp_path: Path) -> None:
    status, text = call(
        "ceval", "-c", "demo", "-o", tmp_path, "--limit", 20, "--quiet", "--gate", ROOT / "demo" / "baseline", "--max-loss", 30,
        "--sequential",
    )  # fmt: skip
    assert status == 0 and "acc (macro)" in text


def test_generated_texts_are_gated_without_margins(base: Path, tmp_path: Path) -> None:
    status, text = call(
        "gsm8k", "-c", "demo", "-o", tmp_path, "--quiet", "--gate", base, "--max-loss", 30, "--sequential"
    )
    assert status == 0 and "PASS gsm8k base 8-shot" in text


# ----------------------------------------------------------------------------------------------------------- audit
def audit(path: Path, *words: Any) -> tuple[int, str]:
    return call("compare", path, "--audit", *words)


def test_an_honest_run_agrees_in_both_precisions(base: Path) -> None:
    for words in ((), ("--dtype", "bfloat16")):
        status, text = audit(sample_file(base), "-c", "demo", "--audit-seed", 1, *words)
        assert status == 0 and "AGREES" in text and "of 60 agree" in text, text


def test_altered_answers_are_found(base: Path, tmp_path: Path) -> None:
    path = altered(base, tmp_path, 30, to_right=True)  # 10 points
    status, text = audit(path, "-c", "demo", "--audit-seed", 1)
    assert status == 3 and "wrong when asked again" in text
    assert audit(path)[0] == 0  # the file alone is consistent
    rows = path.read_text(encoding="utf-8").replace('"correct": 0.0', '"correct": 1.0', 5)
    path.write_text(rows, encoding="utf-8")
    status, text = audit(path)
    assert status == 3 and "5 scores are higher than their stored replies" in text


def test_too_few_items_are_said_before_asking(base: Path) -> None:
    status, text = audit(sample_file(base), "-c", "demo", "--items", 20)
    assert status == 2 and "cannot show a figure to 5 points" in text


def test_a_packed_run_is_audited_and_texts_too(base: Path, tmp_path: Path) -> None:
    path = sample_file(base)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / path.name).with_suffix(".json").write_text(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert audit(packed, "-c", "demo")[0] == 0
    status, text = audit(sample_file(base, "gsm8k"), "-c", "demo", "--tolerance", 30)
    assert status == 0 and "AGREES" in text, text
