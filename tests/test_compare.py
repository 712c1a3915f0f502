"""compare.py on real runs of the demonstration: gates, joins, messages; a planted regression and a harmless change."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import compare
from known import work
from qwen_eval.compare import pairs as comparison
from qwen_eval.data import demo
from qwen_eval.runs import find
from qwen_eval.stats import paired
from qwen_eval.tasks import load

LIMITS = {"mmlu": 20, "gsm8k": 15, "wmt22": 5, "long_ppl": 5}

Compare = Callable[..., tuple[int, str]]


def measure(output: Path, *words: str, benchmarks: Iterable[str] = LIMITS) -> Path:
    """Runs the benchmarks on the demonstration's data into a results folder."""
    for name in benchmarks:
        work(name, "-d", "demo", "-o", output, "--quiet", "--limit", LIMITS[name], *words)
    return output


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measure(tmp_path_factory.mktemp("reference"), "-c", "demo")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Compare:
    """`compare.py WORDS`: the exit status, and what was printed."""

    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            compare.main()
        caught = capsys.readouterr()
        return int(stop.value.code or 0), caught.out + caught.err

    return run


def sample_file(folder: Path, benchmark: str) -> Path:
    (path,) = (folder / "samples").glob(f"{benchmark}-*.jsonl")
    return path


def test_another_batch_size_changes_nothing(reference: Path, tmp_path: Path, call: Compare) -> None:
    """Choices, texts, translations and perplexities."""
    other = measure(tmp_path, "-c", "demo", "--batch-size", "3")
    status, out = call(reference, other, "--exact", "--max-loss")
    assert status == 0 and out.count(": 0 of ") == 4 and "PASS" in out
    assert out.count("signatures are equal") == 4 and "p (Holm)" in out
    # five segments a direction have no interval, which a gate says; it is no proof that nothing was lost
    assert "not judged, with too few independent items for an interval: wmt22 bleu en-zh, wmt22 bleu zh-en" in out
    status, out = call(reference, other, "--non-inferior", "25")
    failed = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert (
        status == compare.REGRESSION
        and len(failed) == 2
        and all("wmt22" in line and "nan" not in line for line in failed)
    )


def test_a_planted_regression_is_caught(reference: Path, tmp_path: Path, call: Compare) -> None:
    """The same checkpoint with noise on its weights."""
    noisy = tmp_path / "noisy"
    shutil.copytree(demo.checkpoint(), noisy)
    tensors = load_file(noisy / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, value in tensors.items():
        tensors[name] = value + 0.5 * value.std() * torch.randn(value.shape, generator=generator)
    save_file(tensors, noisy / "model.safetensors", metadata={"format": "pt"})
    other = measure(tmp_path / "results", "-c", str(noisy), benchmarks=("mmlu", "long_ppl"))
    for benchmark in ("mmlu", "long_ppl"):
        files = sample_file(reference, benchmark), sample_file(other, benchmark)
        for gate in (["--exact"], ["--max-loss"], ["--max-loss", "2"], ["--non-inferior", "2"]):
            status, out = call(*files, *gate)
            assert status == compare.REGRESSION and "FAIL" in out, (benchmark, gate)
        assert call(*files)[0] == 0  # without a gate it is reported, not judged
        assert call(*reversed(files), "--max-loss")[0] == 0  # the other way round nothing was lost


def edited(path: Path, folder: Path, change: Callable[[dict], dict | None]) -> Path:
    """A copy of a sample file with its manifest, every row as `change` makes it (None: left out)."""
    folder.mkdir(exist_ok=True)
    shutil.copy(path.with_suffix(".json"), folder)
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    made = folder / path.name
    made.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))
    return made


def test_only_ties_may_flip(reference: Path, tmp_path: Path, call: Compare) -> None:
    """One item answered differently fails, unless its two best options are within 1e-5."""
    path = sample_file(reference, "mmlu")
    first = json.loads(path.read_text().splitlines()[0])

    def flipped(tie: float) -> Callable[[dict], dict]:
        wrong = next(letter for letter in "ABCD" if letter != first["answer"])

        def change(row: dict) -> dict:
            if row["id"] != first["id"]:
                return row
            return {
                **row,
                "answer": wrong,
                "stats": {**row["stats"], "correct": float(wrong == row["target"]), "tie": tie},
            }

        return change

    sure, tie = edited(path, tmp_path / "sure", flipped(0.0)), edited(path, tmp_path / "tie", flipped(1.0))
    status, out = call(path, sure, "--exact")
    assert status == 3 and f"1 items came out differently: {first['id']}" in out
    status, out = call(path, tie, "--exact")
    assert status == 0 and "1 of 120 items came out differently, 1 of them ties" in out
    assert call(path, sure, "--max-loss")[0] == 0  # one item is within chance


def test_items_that_are_missing_or_differ_are_counted_and_fail_a_gate(
    reference: Path, tmp_path: Path, call: Compare
) -> None:
    path = sample_file(reference, "mmlu")
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]

    def change(row: dict) -> dict | None:
        return None if row["id"] in ids[:3] else {**row, "target": "?"} if row["id"] == ids[5] else row

    other = edited(path, tmp_path / "other", change)
    status, out = call(path, other, "--non-inferior", "50")
    assert status == 3 and "116 items joined; 3 only in A" in out and "1 another gold answer" in out
    assert "lacks 4 of the 120 items" in out
    status, out = call(other, path, "--exact")
    assert status == 3 and "has 3 items that" in out


def test_a_run_that_was_stopped_can_be_compared(reference: Path, tmp_path: Path, call: Compare) -> None:
    """No manifest, and a torn last line."""
    path = sample_file(reference, "mmlu")
    half = tmp_path / path.name
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    status, out = call(path, half)
    assert status == 0 and "not finished" in out and "only in A" in out


def test_signatures_and_the_first_item_that_differs_are_shown(reference: Path, tmp_path: Path, call: Compare) -> None:
    """Another number of shots; another extraction from the same replies (recipe qwen2023, from the stored replies)."""
    other = measure(tmp_path, "-c", "demo", "--shots", "2", benchmarks=("mmlu",))
    status, out = call(sample_file(reference, "mmlu"), sample_file(other, "mmlu"), "--explain")
    assert status == 0 and "signatures differ in shots: 5 in A, 2 in B" in out
    assert "prompt: 120 of 120 items, first " in out and "shots_used" in out and "extraction: none" in out

    stored = sample_file(reference, "gsm8k")
    shutil.copytree(reference / "samples", tmp_path / "again" / "samples")
    words = ["-c", "demo", "-o", tmp_path / "again", "--quiet", "--limit", LIMITS["gsm8k"]]
    work("gsm8k", *words, "--rescore", stored.stem, "--recipe", "qwen2023")
    (scored,) = (tmp_path / "again" / "samples").glob("gsm8k-qwen2023-*.jsonl")
    rows = [json.loads(line) for line in scored.read_text().splitlines()]

    def mistaken(row: dict) -> dict:
        """A reply from which the two recipes read different numbers."""
        reply = {**row["response"], "texts": ["\x1b[2JIt is 3.5"]}
        return {**row, "response": reply}

    def read_as(answer: str) -> Callable[[dict], dict]:
        return lambda row: {**mistaken(row), "answer": answer} if row["id"] == rows[0]["id"] else row

    one, two = edited(stored, tmp_path / "one", read_as("3.5")), edited(scored, tmp_path / "two", read_as("5"))
    status, out = call(one, two, "--explain")
    assert "signatures differ in recipe: default in A, qwen2023 in B" in out
    assert "\x1b" not in out and "\\u001b[2J" in out  # a reply that would clear the screen is text
    assert "prompt: none" in out and "response: none" in out
    assert f"extraction: 1 of 15 items, first {rows[0]['id']}" in out and "was read as 3.5 in A and 5 in B" in out


def test_the_committed_baseline_is_complete_and_of_every_kind(call: Compare) -> None:
    """`make gate` compares with it; prompts are hashes."""
    baseline = demo.FOLDER / "baseline"
    found = {run.benchmark: run for run in find.find(str(baseline), baseline)}
    assert set(found) == {"mmlu", "ceval", "gsm8k", "wmt22", "long_ppl"}
    for run in found.values():
        assert run.finished and len(run.rows) == int(run.fields["n"]) and run.fields["data"].startswith("demo-")
    assert len({run.fingerprint for run in found.values()}) == 1
    status, out = call(baseline, baseline, "--exact")
    assert status == 0 and out.count("signatures are equal") == 5


def test_runs_are_found_by_id_and_by_model(reference: Path, call: Compare) -> None:
    name = sample_file(reference, "mmlu").stem
    assert call(name, name, "--results", reference, "--exact")[0] == 0
    assert call("demo", reference, "--results", reference, "--exact")[0] == 0
    status, out = call("demo", "nothing", "--results", reference)
    assert status == 2 and len(out.strip().splitlines()) == 1 and name in out
    status, out = call(sample_file(reference, "mmlu"), sample_file(reference, "gsm8k"))
    assert status == 2 and "name two runs of one benchmark" in out
    status, out = call(name, Path(__file__), "--results", reference)
    assert status == 2 and "neither in this harness's format nor in a known other one" in out
    status, out = call(name, name, "--results", reference, "-c", "demo", "--dtype", "float32")
    assert status == 2 and "for another harness's samples" in out


@pytest.mark.parametrize("words", [["a"], ["a", "b", "--max-loss", "-1"], ["a", "b", "--non-inferior", "x"]])
def test_bad_usage_is_a_one_line_error(words: list[str], call: Compare) -> None:
    status, out = call(*words)
    assert status == 2 and len(out.strip().splitlines()) == 1


def test_macro_benchmarks_are_compared_by_their_own_average(tmp_path: Path) -> None:
    """Two subjects of 1 and 3 items: one item lost in the small one is half of everything."""
    sides = []
    for side, correct in (("a", (1, 1, 1, 0)), ("b", (0, 1, 1, 0))):
        rows = [
            {"id": f"{group}/{index}", "group": group, "prompt": "q", "response": {"kind": "chosen", "logprobs": [0, -1]},
             "answer": "A", "target": "A", "stats": {"correct": float(flag), "tie": 0.0}}
            for index, (group, flag) in enumerate(zip("xyyy", correct, strict=True))
        ]  # fmt: skip
        path = tmp_path / f"ceval-{side}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sides.append(find.Run(path, {"benchmark": "ceval", "avg": "macro"}))
    (result,) = comparison.compare(comparison.join(*sides), load.official()["ceval"].facts()).values()
    assert isinstance(result, paired.Result)
    assert (result.a, result.b, result.loss) == pytest.approx((500 / 6, 100 / 3, 50)) and result.worse == 1
