"""GSM8K: prompts by their recorded hashes, replies as the 2023 code wrote them, end to end on a tiny checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import gsm8k
import tiny
from known import benchmark_of, options_of, work
from qwen_eval.data.problems import Gsm8k, MathProblem
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.runs import results as results_csv
from qwen_eval.schema import Generated, InputError, ModelSpec, Sample
from shared import shared


def of_problems(problems: Sequence[MathProblem], *words: str) -> gsm8k.Gsm8k:
    """The benchmark on these problems, of which the first ones are the examples."""

    class Given(gsm8k.Gsm8k):
        name = "gsm8k"

        def read(self) -> Gsm8k:
            return Gsm8k(tuple(problems), tuple(problems))

    return Given(options_of("gsm8k", *words))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_shots_have_the_recorded_hashes() -> None:
    recorded = json.loads(shared("golden/gsm8k_prompt_sha256.json").read_text())
    folder = shared("data/gsm8k")
    base = benchmark_of("gsm8k", "-d", folder)
    text = base.asked[0].request.text()
    assert isinstance(text, str)
    question = f"\nQuestion: {base.data.test[0].question}\nLet's think step by step\n"
    eight = text.removesuffix(question)
    assert text.endswith(question) and len(eight) == recorded["base_8shot_chars"]
    assert digest(eight) == recorded["base_8shot_sha256"]
    chat = benchmark_of("gsm8k", "--chat", "--shots", 4, "-d", folder)
    request = chat.request(MathProblem(0, "QQQ", "#### 1"), (), "gsm8k/0")
    assert digest(request.prompt[-1]["content"]) == recorded["chat_4shot_with_question_QQQ_sha256"]


def test_a_shot_by_hand() -> None:
    problem = MathProblem(0, "How many?", "He has 2+3=<<2+3=5>>5.\nSo 5.\n#### 1,005")
    assert gsm8k.worked(problem) == (
        "Question: How many?\nLet's think step by step\nHe has 2+3=5.\nSo 5.\nThe answer is 1,005\n"
    )


def test_without_shots_the_question_stands_alone() -> None:
    problem = MathProblem(0, "How many?", "#### 1")
    (bare,) = of_problems([problem], "--shots", "0").asked
    assert bare.request.text() == "Question: How many?\nLet's think step by step\n"
    assert options_of("gsm8k", "--chat").shots == 0
    (turn,) = of_problems([problem], "--chat").asked
    assert turn.request.prompt[-1]["content"] == "How many?"
    with pytest.raises(InputError, match="more than the 8"):
        of_problems([problem] * 10, "--shots", "9")


@pytest.mark.parametrize("size", [None, 5])
def test_the_2023_code_s_own_completions(size: int | None, record_property: Callable[[str, object], None]) -> None:
    """24 greedy completions of the original code with a cache, NTK and LogN on, recorded on qwen1-tiny."""
    recorded = json.loads(shared("golden/gsm8k_generation.json").read_text())[: None if size is None else 6]
    record_property("items", len(recorded))
    words = ("--recipe", "qwen2023", "--max-new-tokens", 256, "-d", shared("data/gsm8k"))
    asked = benchmark_of("gsm8k", *words).asked
    engine = HFEngine(ModelSpec(str(shared("checkpoints/qwen1-tiny"))), batch_size=size)
    answers = engine.generate([asked[row["row"]].request for row in recorded], lambda *_: None)
    for row, answer in zip(recorded, answers, strict=True):
        assert (answer.prompt_tokens, answer.new_tokens[0]) == (row["prompt_tokens"], row["new_tokens"])
        assert answer.texts[0] == row["completion"]


@pytest.mark.parametrize(
    ("recipe", "reply", "answer", "correct", "strict"),
    [
        ("default", "She pays 5 + 4 = $1,080.50 in all. The answer is 1080.50", "1080.50", 1, 1),
        ("default", "The answer is 12.\nNo, 1,080.5", "1080.5", 1, 0),
        ("default", "I do not know.", None, 0, 0),
        ("qwen2023", "The answer is 1,080", None, 0, 0),
        ("qwen2023", "It is 1080", "1080", 0, 0),
    ],
)
def test_scores_by_hand(recipe: str, reply: str, answer: str | None, correct: int, strict: int) -> None:
    """Gold 1080.5: the 2023 rule loses numbers with commas, and decimals."""
    sample = Sample("0", None, "...\n#### 1080.5")  # type: ignore[arg-type]
    benchmark = benchmark_of("gsm8k", "-c", "demo", "--recipe", recipe)
    scored = benchmark.score(sample, Generated((reply,), ("",), ("eos",)))
    assert scored.answer == answer
    assert (scored.stats["correct"], scored.stats["strict"]) == (correct, strict)
    assert scored.stats["invalid"] == (answer is None)


@pytest.mark.parametrize(("reason", "answer"), [("eos", "24"), ("length", None)])
def test_a_reply_that_was_cut_within_a_sentence_is_invalid(reason: str, answer: str | None) -> None:
    sample = Sample("0", None, "#### 24")  # type: ignore[arg-type]
    reply = Generated(("So far it is 24 truck tires repaired +",), ("",), (reason,))
    scored = benchmark_of("gsm8k", "-c", "demo").score(sample, reply)
    assert (scored.answer, scored.stats["correct"], scored.stats["invalid"]) == (answer, answer == "24", answer is None)
    named = Generated(("The answer is 24.\nIt is 24 truck tires +",), ("",), (reason,))
    scored = benchmark_of("gsm8k", "-c", "demo").score(sample, named)
    assert (scored.answer, scored.stats["strict"]) == ("24", 1)


def test_reasoning_marks_are_part_of_the_request_and_of_the_signature() -> None:
    plain = benchmark_of("gsm8k", "-c", "demo", "--chat")
    given = benchmark_of("gsm8k", "-c", "demo", "--chat", "--reasoning-marks", "<r>, </r>")
    assert given.asked[0].request.reasoning_marks == ("<r>", "</r>") and plain.asked[0].request.reasoning_marks == ()
    digest = hashlib.sha256(b"<r>,</r>").hexdigest()[:8]
    assert given.fields()["marks"] == digest and "marks" not in plain.fields()
    assert benchmark_of("gsm8k", "-c", "demo").fields().keys() == plain.fields().keys() - {"system", "thinking"}


@pytest.mark.parametrize("marks", ["<r>", "<r>,", ",</r>", "<r>,<r>", "a,b,c", ""])
def test_reasoning_marks_are_two(marks: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark_of("gsm8k", "-c", "demo", "--chat", "--reasoning-marks", marks)
    assert ended.value.code == 2
    assert "is not an opening and a closing mark with a comma between them" in capsys.readouterr().err


def test_a_budget_that_ends_in_the_reasoning_is_no_answer(tmp_path: Path) -> None:
    """Stored replies of another version, which did not know the marks, are split when they are scored again."""
    work("gsm8k", "-c", "demo", "--chat", "-o", tmp_path, "--quiet", "--limit", 3)
    (stored,) = (tmp_path / "samples").glob("*.jsonl")
    rows = sorted((json.loads(line) for line in stored.read_text().splitlines()), key=lambda row: row["id"])
    texts = ["<r>2 + 2 = 5?</r>The answer is 4", "<r>The answer is 3.", "The answer is 2"]
    for row, text in zip(rows, texts, strict=True):
        row["response"]["texts"] = [text]
    stored.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--chat", "-d", "demo", "-o", tmp_path, "--quiet", "--limit", 3]
    for marks, answers in ([], ["4", "3", "2"]), (["--reasoning-marks", "<r>,</r>"], ["4", None, "2"]):
        before = set((tmp_path / "samples").glob("*.jsonl"))
        work("gsm8k", *words, *marks, "--rescore", stored.stem)
        (made,) = set((tmp_path / "samples").glob("*.jsonl")) - before
        again = [json.loads(line) for line in made.read_text().splitlines()]
        assert [row["answer"] for row in sorted(again, key=lambda row: row["id"])] == answers
        if marks:
            assert "2 + 2 = 5?" in [row["response"]["reasoning"][0] for row in again]


def test_end_to_end_base_and_chat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [
        {"question": f"What is {n} and {n}?", "answer": f"It is {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n}.\n#### {2 * n}"}
        for n in range(10)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text)
    (folder / "test.jsonl").write_text(text)
    checkpoint = tiny.write_qwen1(tmp_path / "model", positions=4096)
    common = ["-c", str(checkpoint), "-d", str(folder), "-o", str(tmp_path / "out"), "--quiet", "--max-new-tokens", "8"]
    work("gsm8k", *common)
    table = capsys.readouterr().out
    assert "were cut by their length" in table and "|shots:8|max:8|" in table
    work("gsm8k", *common, "--chat")
    assert "|chat|shots:0|max:8|system:own|thinking:auto|" in capsys.readouterr().out
    results = results_csv.read_results(tmp_path / "out" / "gsm8k.csv")
    assert {(row["mode"], row["metric"]) for row in results} == {
        (mode, metric) for mode in ("base", "chat") for metric in ("acc", "acc_strict", "invalid", "cut_by_length")
    }
    # the stored replies again, without a model, under the other recipe
    run_id = next(row["run_id"] for row in results if row["mode"] == "base")
    words = ["-d", folder, "-o", tmp_path / "out", "--quiet", "--recipe", "qwen2023", "--max-new-tokens", 8]
    work("gsm8k", *words, "--rescore", run_id)
    again = results_csv.read_results(tmp_path / "out" / "gsm8k.csv")[len(results) :]
    assert {row["recipe"] for row in again} == {"qwen2023"} and f"replies:{run_id}" in again[0]["signature"]
    assert again[0]["model"] == "model"


def test_rescoring_a_missing_run_lists_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs"):
        work("gsm8k", "-o", tmp_path, "--rescore", "nothing", "-d", shared("data/gsm8k"))
