"""GSM8K: prompts by their recorded hashes, replies as the 2023 code wrote them, end to end on a tiny checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import gsm8k
import tiny
from qwen_eval import data
from qwen_eval.data import MathProblem, Source
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.runs import results as results_csv
from qwen_eval.runs import run as runner
from qwen_eval.schema import Generated, InputError, ModelSpec, Sample
from shared import shared


def options(*words: str):
    return gsm8k.parser().parse_args([*words])


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_shots_have_the_recorded_hashes() -> None:
    recorded = json.loads(shared("golden/gsm8k_prompt_sha256.json").read_text())
    problems = data.gsm8k(Source(shared("data/gsm8k")))
    base = gsm8k.base(options(), problems)(problems.test[0])
    text = base.text()
    assert isinstance(text, str)
    question = f"\nQuestion: {problems.test[0].question}\nLet's think step by step\n"
    eight = text.removesuffix(question)
    assert text.endswith(question) and len(eight) == recorded["base_8shot_chars"]
    assert digest(eight) == recorded["base_8shot_sha256"]
    chat = gsm8k.chat(options("--chat", "--shots", "4"), problems)(MathProblem(0, "QQQ", "#### 1"))
    assert digest(chat.prompt[-1]["content"]) == recorded["chat_4shot_with_question_QQQ_sha256"]  # type: ignore[index]


def test_a_shot_by_hand() -> None:
    problem = MathProblem(0, "How many?", "He has 2+3=<<2+3=5>>5.\nSo 5.\n#### 1,005")
    assert gsm8k.worked(problem) == (
        "Question: How many?\nLet's think step by step\nHe has 2+3=5.\nSo 5.\nThe answer is 1,005\n"
    )


def test_without_shots_the_question_stands_alone() -> None:
    problems = data.Gsm8k((), (MathProblem(0, "How many?", "#### 1"),))
    assert (
        gsm8k.base(options("--shots", "0"), problems)(problems.test[0]).text()
        == "Question: How many?\nLet's think step by step\n"
    )
    assert options("--chat").shots == 0
    assert gsm8k.chat(options("--chat"), problems)(problems.test[0]).prompt[-1]["content"] == "How many?"  # type: ignore[index]
    with pytest.raises(InputError, match="more than the 8"):
        gsm8k.shots([problems.test[0]] * 10, gsm8k.BASE_SHOTS, 9)


@pytest.mark.parametrize("size", [None, 5])
def test_the_2023_code_s_own_completions(size: int | None, record_property: Callable[[str, object], None]) -> None:
    """24 greedy completions of the original code with a cache, NTK and LogN on, recorded on qwen1-tiny."""
    recorded = json.loads(shared("golden/gsm8k_generation.json").read_text())[: None if size is None else 6]
    record_property("items", len(recorded))
    problems = data.gsm8k(Source(shared("data/gsm8k")))
    ask = gsm8k.base(options("--recipe", "qwen2023", "--max-new-tokens", "256"), problems)
    engine = HFEngine(ModelSpec(str(shared("checkpoints/qwen1-tiny"))), batch_size=size)
    answers = engine.generate([ask(problems.test[row["row"]]) for row in recorded], lambda *_: None)
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
    """Gold 1080.5: the 2023 rule loses commas' numbers and decimals."""
    sample = Sample("0", None, "...\n#### 1080.5")  # type: ignore[arg-type]
    scored = gsm8k.score(recipe, "base")(sample, Generated((reply,), ("",), ("eos",)))
    assert scored.answer == answer
    assert (scored.stats["correct"], scored.stats["strict"]) == (correct, strict)
    assert scored.stats["invalid"] == (answer is None)


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
    runner.run(options(*common), gsm8k.build)
    table = capsys.readouterr().out
    assert "were cut by their length" in table and "|shots:8|max:8|" in table
    runner.run(options(*common, "--chat"), gsm8k.build)
    assert "|chat|shots:0|max:8|system:own|thinking:auto|" in capsys.readouterr().out
    results = results_csv.read_results(tmp_path / "out" / "gsm8k.csv")
    assert {(row["mode"], row["metric"]) for row in results} == {
        (mode, metric) for mode in ("base", "chat") for metric in ("acc", "acc_strict", "invalid", "cut_by_length")
    }
    # the stored replies again, without a model, under the other recipe
    run_id = next(row["run_id"] for row in results if row["mode"] == "base")
    runner.run(
        options(
            "-d",
            str(folder),
            "-o",
            str(tmp_path / "out"),
            "--quiet",
            "--recipe",
            "qwen2023",
            "--rescore",
            run_id,
            "--max-new-tokens",
            "8",
        ),
        gsm8k.build,
    )
    again = results_csv.read_results(tmp_path / "out" / "gsm8k.csv")[len(results) :]
    assert {row["recipe"] for row in again} == {"qwen2023"} and f"replies:{run_id}" in again[0]["signature"]
    assert again[0]["model"] == "model"


def test_rescoring_what_is_not_there_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs"):
        runner.run(options("-o", str(tmp_path), "--rescore", "nothing", "-d", str(shared("data/gsm8k"))), gsm8k.build)
