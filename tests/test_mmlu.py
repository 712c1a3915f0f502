"""MMLU: prompts by hand, recorded answers of the 2023 script, checkpoints whose accuracy is known beforehand."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import tiny
from known import Run, answers_as_in_2023, benchmark_of, coverage, run_script, write_preferring, write_random
from qwen_eval.data import catalogue
from qwen_eval.schema import InputError, Sample
from shared import shared

LETTERS = "ABCD"
HARBOUR = [f"Which lamp is lit at hour {hour}?,the red,the blue,None,0.50,{'ABCD'[hour % 4]}" for hour in range(7)]
SUBJECTS = ("anatomy", "high_school_european_history", "virology")  # short, long and middling prompts


def write_harbour(folder: Path, subjects: Sequence[str] = ("anatomy", "virology")) -> Path:
    """Our own questions in MMLU's files: five development rows, then seven test rows."""
    for subject in subjects:
        for split, rows in (("dev", HARBOUR[:5]), ("test", HARBOUR)):
            path = folder / split / f"{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return folder


def samples(*words: object) -> list[Sample]:
    """The samples that the script makes of a command line."""
    return list(benchmark_of("mmlu", *words).asked)


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_harbour(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_qwen1(tmp_path_factory.mktemp("checkpoint"), hidden=32, layers=1, positions=4096)


# ------------------------------------------------------------------------------------------------------- prompts
def test_the_prompt_of_one_question_by_hand(harbour: Path) -> None:
    """Every character, written out from docs/mmlu.md: header, shots, question, options, and the option strings."""
    request = samples("-d", harbour, "--shots", 2, "--subjects", "virology")[3].request
    assert request.prompt() == (
        "The following are multiple choice questions (with answers) about virology.\n"
        "\n"
        "Question: Which lamp is lit at hour 0?\n"
        "A. the red\n"
        "B. the blue\n"
        "C. None\n"
        "D. 0.50\n"
        "Answer: A\n"
        "\n"
        "Question: Which lamp is lit at hour 1?\n"
        "A. the red\n"
        "B. the blue\n"
        "C. None\n"
        "D. 0.50\n"
        "Answer: B\n"
        "\n"
        "Question: Which lamp is lit at hour 3?\n"
        "A. the red\n"
        "B. the blue\n"
        "C. None\n"
        "D. 0.50\n"
        "Answer:"
    )
    assert request.options == (" A", " B", " C", " D")


def test_a_subject_s_name_is_written_with_spaces(tmp_path: Path) -> None:
    write_harbour(tmp_path, ["high_school_us_history"])
    first = samples("-d", tmp_path, "--subjects", "high_school_us_history")[0]
    assert first.request.prompt().startswith(
        "The following are multiple choice questions (with answers) about high school us history.\n\nQuestion: "
    )
    assert (first.id, first.group, first.target) == ("high_school_us_history/0", "high_school_us_history", "A")


def test_the_recipes_differ_in_what_happens_to_options_and_long_prompts(harbour: Path) -> None:
    ours, old = (
        samples("-d", harbour, "--subjects", "anatomy", "--recipe", r)[0].request for r in ("default", "qwen2023")
    )
    assert ours.prompt() == old.prompt()
    assert (ours.overflow, ours.limit, ours.scoring) == ("drop_shots", None, "context")
    assert (old.overflow, old.limit, old.scoring) == ("keep_last", 2047, "isolated")


def test_without_shots_the_header_stays(harbour: Path) -> None:
    request = samples("-d", harbour, "--shots", 0, "--subjects", "anatomy")[0].request
    assert request.prompt() == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "Question: Which lamp is lit at hour 0?\nA. the red\nB. the blue\nC. None\nD. 0.50\nAnswer:"
    )


def test_more_shots_than_development_rows_and_unknown_subjects_are_refused(harbour: Path) -> None:
    with pytest.raises(InputError, match="--shots 6 is more than the 5 development rows of anatomy"):
        samples("-d", harbour, "--shots", 6, "--subjects", "anatomy")
    with pytest.raises(InputError, match="unknown mmlu subject 'anatomie': did you mean anatomy"):
        samples("-d", harbour, "--subjects", "anatomie")


def test_the_cells_that_pandas_would_lose_reach_the_prompt() -> None:
    """Ten cells of the real files say None, which pandas reads as a missing value: each is in its prompt as text.

    Which ten is asked of pandas itself, cell by cell, on the files as it reads them by default.
    """
    pandas = pytest.importorskip("pandas")
    folder = shared("data/mmlu")
    prompts = {sample.id: sample.request.prompt() for sample in samples("-d", folder)}
    lost = 0
    for path in sorted(folder.glob("*/*.csv")):
        subject, split = path.stem.rsplit("_", 1)
        missing = pandas.isna(pandas.read_csv(path, header=None)).to_numpy()
        for row, column in zip(*np.nonzero(missing), strict=True):
            lost += 1
            line = f"\n{' ABCD'[column]}. None\n"
            if split == "test":
                assert line in prompts[f"{subject}/{row}"].split("Question: ")[-1]
            else:
                assert line in prompts[f"{subject}/0"].split("Question: ")[1 + row]
    assert lost == 10


# ------------------------------------------------------------------------------------------------ the command line
def test_limit_shots_and_recipe_each_make_another_signature(
    harbour: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings that define the number are in the signature, so that no run inherits another's answers."""
    common = ["-c", small, "-d", harbour, "--subjects", "anatomy,virology"]
    changes = ([], ["--limit", 3], ["--shots", 0], ["--recipe", "qwen2023"], ["--max-seq-len", 512])
    runs = [run_script("mmlu", [*common, *change], tmp_path, capsys) for change in changes]
    assert [run.status for run in runs] == [0] * len(runs)
    assert len({run.signature for run in runs}) == len({run.rows[0]["run_id"] for run in runs}) == len(runs)
    assert [len(run.samples) for run in runs] == [14, 6, 14, 14, 14]
    assert set(runs[1].samples) == {f"{subject}/{row}" for subject in ("anatomy", "virology") for row in range(3)}
    assert runs[0].signature.startswith("mmlu|v1|default|base|shots:5|")
    assert runs[3].signature.startswith("mmlu|v1|qwen2023|base|shots:5|")
    assert all(row["partial"] == "1" for run in runs for row in run.rows)  # two subjects of 57


def test_another_rotation_or_tokenizer_is_another_run(
    harbour: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal weights under another config or tokenizer answer otherwise: they must not inherit stored answers."""
    checkpoint = tiny.write_qwen1(tmp_path / "ck", hidden=32, layers=1, positions=4096)
    words = ["-c", checkpoint, "-d", harbour, "--subjects", "anatomy"]
    runs = [run_script("mmlu", words, tmp_path, capsys)]
    config = checkpoint / "config.json"
    config.write_text(config.read_text().replace('"rotary_emb_base": 10000', '"rotary_emb_base": 500'))
    runs.append(run_script("mmlu", words, tmp_path, capsys))
    tiny.write_ranks(checkpoint / "qwen.tiktoken", [word for word in tiny.WORDS if word != ". "])
    runs.append(run_script("mmlu", words, tmp_path, capsys))
    assert len({run.rows[0]["run_id"] for run in runs}) == 3
    assert len({str([sample["response"] for sample in run.samples.values()]) for run in runs}) == 3


def test_a_run_on_every_subject_is_not_partial_until_limited(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_harbour(tmp_path / "data", list(catalogue.subjects("mmlu")))
    common = ["-c", small, "-d", tmp_path / "data", "--shots", 0]
    whole = run_script("mmlu", common, tmp_path, capsys)
    assert {row["partial"] for row in whole.rows} == {"0"} and whole.rows[0]["n"] == str(57 * 7)
    limited = run_script("mmlu", [*common, "--limit", 1], tmp_path, capsys)
    assert {row["partial"] for row in limited.rows} == {"1"} and limited.rows[0]["n"] == "57"
    assert "(partial)" in limited.out and "(partial)" not in whole.out


def test_averages_equal_hand_computation(harbour: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The headline is over questions, the macro average over subjects, on sets of unequal size."""
    write_harbour(tmp_path / "data", ["anatomy", "virology", "astronomy"])
    path = tmp_path / "data/test/astronomy_test.csv"
    path.write_text("".join(f"{row}\n" for row in HARBOUR[:3]), encoding="utf-8")
    checkpoint = tiny.write_qwen1(tmp_path / "ck", hidden=32, layers=1, positions=4096, spread=0.5, seed=3)
    run = run_script(
        "mmlu",
        ["-c", checkpoint, "-d", tmp_path / "data", "--subjects", "anatomy,virology,astronomy"],
        tmp_path,
        capsys,
    )
    right: dict[str, list[bool]] = {}
    for sample in run.samples.values():
        best = int(np.argmax(sample["response"]["logprobs"]))
        assert sample["answer"] == LETTERS[best]
        right.setdefault(sample["group"], []).append(LETTERS[best] == sample["target"])
    flags = [flag for group in right.values() for flag in group]
    assert len(flags) == 17 and 0 < sum(flags) < 17
    assert run.figure("acc", "all") == run.figure("acc_micro", "all") == pytest.approx(100 * np.mean(flags), abs=1e-6)
    macro = float(np.mean([np.mean(group) for group in right.values()]))
    assert run.figure("acc_macro", "all") == pytest.approx(100 * macro, abs=1e-6)
    assert run.figure("acc", "STEM") == pytest.approx(100 * np.mean(right["astronomy"] + right["anatomy"]), abs=1e-6)
    assert run.figure("acc", "Others") == pytest.approx(100 * np.mean(right["virology"]), abs=1e-6)


# -------------------------------------------------------------------------------------------- what 2023 answered
RECORDED = [
    "anatomy", "astronomy", "business_ethics", "college_chemistry", "formal_logic", "global_facts",
    "high_school_european_history", "high_school_statistics", "management", "moral_disputes", "us_foreign_policy",
    "world_religions",
]  # fmt: skip


the_2023_answers = partial(answers_as_in_2023, "mmlu", cut=lambda answer: answer.prompt_tokens > 2047)


def test_qwen2023_answers_as_the_original_script_on_some_rows() -> None:
    """Short prompts, prompts cut to their last 2,047 tokens, and lengths on both sides of a step of NTK's alpha."""
    the_2023_answers(["anatomy", "high_school_european_history", "world_religions"], step=8)


@pytest.mark.slow
@pytest.mark.parametrize("subject", RECORDED)
def test_qwen2023_answers_as_the_original_script(subject: str, record_property: Callable[[str, object], None]) -> None:
    identical, asked = the_2023_answers([subject], step=1)
    record_property("items", identical)
    record_property("of", asked)


# ------------------------------------------------------------------------------------------- answers known before
def gold_letters(subjects: Sequence[str]) -> Counter[str]:
    """How often each letter is the answer, from the files themselves by the csv module."""
    gold: Counter[str] = Counter()
    for subject in subjects:
        with shared(f"data/mmlu/test/{subject}_test.csv").open(newline="", encoding="utf-8") as file:
            gold.update(row[5] for row in csv.reader(file))
    return gold


def known_run(option: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Run, Counter[str]]:
    checkpoint = write_preferring(tmp_path / "checkpoint", option)
    words = ["-c", checkpoint, "-d", shared("data/mmlu"), "--subjects", ",".join(SUBJECTS)]
    run = run_script("mmlu", words, tmp_path, capsys)
    gold = gold_letters(SUBJECTS)
    assert run.status == 0 and len(run.samples) == gold.total() == 466
    return run, gold


@pytest.mark.parametrize("letter", LETTERS)
def test_a_checkpoint_that_prefers_a_letter_scores_that_letter_s_share(
    letter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, gold = known_run(f" {letter}", tmp_path, capsys)
    assert run.figure("acc", "all") == pytest.approx(100 * gold[letter] / gold.total(), abs=1e-6)
    assert {sample["answer"] for sample in run.samples.values()} == {letter}
    assert run.figure("ties", "all") == 0 and "ties, the earliest" not in run.out
    leads = {sample["response"]["logprobs"][LETTERS.index(letter)] for sample in run.samples.values()}
    assert len(leads) > 400  # the model does compute: it is surer of some questions than of others


def test_a_checkpoint_whose_logits_are_equal_ties_everywhere_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, gold = known_run(None, tmp_path, capsys)
    assert all(sample["stats"]["tie"] == 1 for sample in run.samples.values())
    assert run.figure("ties", "all") == 100
    assert "466 of 466 items have their two best options within 1e-05 of each other (ties" in run.out
    assert {sample["answer"] for sample in run.samples.values()} == {"A"}  # the earliest of equals
    assert run.figure("acc", "all") == pytest.approx(100 * gold["A"] / gold.total(), abs=1e-6)


def test_the_interval_covers_chance_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stored answers of a random checkpoint against the gold answers in 2,000 random orders: see known.coverage. The
    slow tests do the same with all 14,042 questions."""
    checkpoint = write_random(tmp_path / "checkpoint")
    words = ["-c", checkpoint, "-d", shared("data/mmlu"), "--subjects", ",".join(SUBJECTS)]
    run = run_script("mmlu", words, tmp_path, capsys)
    observed, expected = coverage(run.samples.values())
    assert 93 <= observed <= 97 and abs(observed - expected) < 1.5
