"""C-Eval on its own files, on files of our own and on other Chinese questions laid out as C-Eval.

Prompts by hand, every average computed again from the stored samples, the answers of the script of 2023, and the submission
file of the test split.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import tiny
from known import Run, answers_as_in_2023, benchmark_of, options_of, run_script
from qwen_eval.data.catalogue import subjects
from qwen_eval.schema import Generated, Scored
from qwen_eval.tasks import load
from shared import shared

HEAD = ["id", "question", "A", "B", "C", "D", "answer", "explanation"]
# C-Eval subject -> the CMMLU subject whose rows stand in for it; two of the Hard ones, and every category
STAND_INS = {
    "computer_network": "computer_science",
    "college_physics": "college_medicine",
    "advanced_mathematics": "college_mathematics",
    "marxism": "marxist_theory",
    "art_studies": "arts",
    "law": "college_law",
    "physician": "clinical_knowledge",
}
CATEGORIES = {
    "STEM": ["computer_network", "college_physics", "advanced_mathematics"],
    "Social Science": ["marxism"],
    "Humanities": ["art_studies", "law"],
    "Other": ["physician"],
    "Hard": ["college_physics", "advanced_mathematics"],
}
ROWS = [[str(7 * row), f"第{row}盏灯是什么颜色？", "红", "蓝", "None", "0.50", "ABCD"[row % 4]] for row in range(1, 9)]


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_ceval(folder: Path, tables: dict[str, tuple[list[list[str]], list[list[str]]]]) -> Path:
    """C-Eval's folder from (development rows, other rows) per subject: dev with explanations, val with answers, test
    without."""
    for subject, (dev, rest) in tables.items():
        write_table(folder / f"dev/{subject}_dev.csv", [HEAD, *([*row, "见上文"] for row in dev)])
        write_table(folder / f"val/{subject}_val.csv", [HEAD[:7], *rest])
        write_table(folder / f"test/{subject}_test.csv", [HEAD[:6], *(row[:6] for row in rest)])
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    return tiny.write_qwen1(folder, hidden=32, layers=1, positions=8192, spread=0.5, seed=1)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ceval(tmp_path_factory.mktemp("data"), {"logic": (ROWS[:5], ROWS[5:]), "law": (ROWS[3:], ROWS[:3])})


def real_tables(count: int) -> dict[str, tuple[list[list[str]], list[list[str]]]]:
    """Rows of CMMLU by C-Eval subject, subject number k with count + 2k rows so that micro and macro averages differ."""
    tables = {}
    for number, (subject, source) in enumerate(STAND_INS.items()):
        parts = []
        for split, rows in (("dev", 5), ("test", count + 2 * number)):
            with shared(f"data/cmmlu/{split}/{source}.csv").open(newline="", encoding="utf-8-sig") as file:
                parts.append(list(csv.reader(file))[1 : rows + 1])
        tables[subject] = (parts[0], parts[1])
    return tables


def test_the_prompt_of_one_question_by_hand(ours: Path) -> None:
    """No header line, no space after the full-width colons, explanations left out, cells verbatim."""
    sample = benchmark_of("ceval", "-d", ours, "--shots", 1, "--subjects", "logic").asked[2]
    assert sample.request.prompt() == (
        "问题：第1盏灯是什么颜色？\nA. 红\nB. 蓝\nC. None\nD. 0.50\n答案：B\n\n"
        "问题：第8盏灯是什么颜色？\nA. 红\nB. 蓝\nC. None\nD. 0.50\n答案："
    )
    assert sample.request.options == ("A", "B", "C", "D")
    assert (sample.id, sample.file_id, sample.target) == ("logic/2", "56", "A")


def test_every_average_equals_hand_computation(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Macro (the headline), micro, categories and Hard, from nothing but the letters in the stored samples."""
    tables = real_tables(8)
    data = write_ceval(tmp_path / "data", tables)
    run = run_script("ceval", ["-c", small, "-d", data, "--subjects", ",".join(STAND_INS)], tmp_path, capsys)
    right: dict[str, list[float]] = defaultdict(list)
    for key, sample in run.samples.items():
        subject, row = key.split("/")
        assert sample["target"] == tables[subject][1][int(row)][6]
        right[subject].append(float(sample["answer"] == sample["target"]))
    assert {subject: len(flags) for subject, flags in right.items()} == {
        subject: 8 + 2 * number for number, subject in enumerate(STAND_INS)
    }
    shares = {subject: float(np.mean(flags)) for subject, flags in right.items()}
    for group, members in {"all": list(STAND_INS), **CATEGORIES}.items():
        macro = 100 * float(np.mean([shares[subject] for subject in members]))
        micro = 100 * float(np.mean([flag for subject in members for flag in right[subject]]))
        assert run.figure("acc", group) == run.figure("acc_macro", group) == pytest.approx(macro, abs=1e-6), group
        assert run.figure("acc_micro", group) == pytest.approx(micro, abs=1e-6), group
    for subject, share in shares.items():
        assert run.figure("acc", subject) == pytest.approx(100 * share, abs=1e-6)
    assert run.figure("acc_macro", "all") != run.figure("acc_micro", "all")
    assert len(set(shares.values())) > 2 and 0 < sum(map(sum, right.values())) < 98


def submission(run: Run, output: Path) -> dict[str, dict[str, str]]:
    """The submission file that the table names."""
    (line,) = [line for line in run.out.splitlines() if line.startswith("submission file ")]
    path = Path(line.removeprefix("submission file "))
    assert path.parent == output / "submissions"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_test_split_gives_a_submission_and_no_figure(
    ours: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """{subject: {the file's own id: letter}}; the CSV of an earlier val run is unchanged."""
    common = ["-c", small, "-d", ours, "--shots", 3, "--subjects", "logic,law"]
    alone = run_script("ceval", [*common, "--split", "test"], tmp_path / "alone", capsys)
    assert alone.status == 0 and not (tmp_path / "alone/ceval.csv").exists()
    letters = submission(alone, tmp_path / "alone")
    assert {subject: list(ids) for subject, ids in letters.items()} == {
        "law": ["7", "14", "21"],
        "logic": ["42", "49", "56"],
    }
    for subject, answers in letters.items():
        stored = [sample for sample in alone.samples.values() if sample["group"] == subject]
        assert list(answers.values()) == ["ABCD"[int(np.argmax(s["response"]["logprobs"]))] for s in stored]

    validated = run_script("ceval", common, tmp_path / "both", capsys)
    before = (tmp_path / "both/ceval.csv").read_bytes()
    tested = run_script("ceval", [*common, "--split", "test"], tmp_path / "both", capsys)
    assert (tmp_path / "both/ceval.csv").read_bytes() == before and validated.rows and not tested.rows
    assert submission(tested, tmp_path / "both") == letters
    assert "acc" not in tested.out.split("signature")[0]


def test_val_and_test_are_never_mixed_even_when_their_rows_are_the_same(
    ours: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test answers were released later: a test file equal to the val file, byte for byte, still is another run."""
    data = write_ceval(tmp_path / "data", {"logic": (ROWS[:5], ROWS[5:])})
    (data / "test/logic_test.csv").write_bytes((data / "val/logic_val.csv").read_bytes())
    common = ["-c", small, "-d", data, "--subjects", "logic"]
    runs = {split: run_script("ceval", [*common, "--split", split], tmp_path, capsys) for split in ("val", "test")}
    assert runs["val"].signature.replace("|split:val|", "|split:test|") == runs["test"].signature
    assert runs["val"].signature != runs["test"].signature
    assert len(list((tmp_path / "samples").glob("*.jsonl"))) == 2
    assert {row["signature"] for row in runs["val"].rows} == {runs["val"].signature} and not runs["test"].rows


def test_a_split_that_is_not_there_is_a_one_line_error(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_script("ceval", ["-c", "nowhere", "-d", ours, "--split", "dev"], tmp_path, capsys)
    assert run.status == 2 and len(run.err.splitlines()) == 1 and "--split" in run.err


RECORDED = sorted(subjects("ceval"))[::2]  # the others are kept aside


the_2023_answers = partial(answers_as_in_2023, "ceval", cut=lambda answer: False)


def test_qwen2023_answers_as_the_original_script_on_some_rows() -> None:
    the_2023_answers(["law", "accountant"], step=12)


@pytest.mark.slow
@pytest.mark.parametrize("subject", RECORDED)
def test_qwen2023_answers_as_the_original_script(subject: str, record_property: Callable[[str, object], None]) -> None:
    identical, asked = the_2023_answers([subject], step=1)
    record_property("items", identical)
    record_property("of", asked)


def test_a_question_without_an_answer_is_left_out_of_the_submission(tmp_path: Path) -> None:
    """It was null. The format has letters only; a part of the questions is told by the file's name."""
    data = write_ceval(tmp_path / "data", dict.fromkeys(subjects("ceval"), (ROWS[:5], ROWS[5:])))
    for more, name in (
        ((), "run.json"),
        (("--limit", "1"), "run.partial.json"),
        (("--subjects", "law"), "run.partial.json"),
    ):
        words = ["-d", data, "--chat", "--split", "test", "-o", tmp_path / "-".join(more), *more]
        made = load.official()["ceval"](options_of("ceval", *words))
        replies = [("The answer is C.", "")[index % 2] for index in range(len(made.asked))]
        scored = []
        for sample, text in zip(made.asked, replies, strict=True):
            reply = Generated((text,), ("",), ("eos",), 1, (1,))
            scored.append(Scored(sample, reply, made.score(sample, reply)))
        lines = made.finish("run", scored)
        (path,) = (tmp_path / "-".join(more) / "submissions").iterdir()
        assert path.name == name and lines[0] == f"submission file {path}"
        answered = [sample for sample, text in zip(made.asked, replies, strict=True) if text]
        expected = {sample.group: {} for sample in made.asked}
        for sample in answered:
            expected[sample.group][sample.file_id] = "C"
        assert json.loads(path.read_text()) == expected
        left = len(made.asked) - len(answered)
        assert any(f"{left} of {len(made.asked)} questions have no answer" in line for line in lines) == (left > 0)
        assert any("a part of the questions" in line for line in lines) == bool(more)
