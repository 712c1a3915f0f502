"""What cluster an item is in: named when it is stored, and used by every figure and comparison, with or without its prompt."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from known import benchmark_of, run_script
from plugin_eval import OWN_SET
from qwen_eval.compare import pairs
from qwen_eval.data.files import content_hash
from qwen_eval.data.passages import passages
from qwen_eval.runs import find, kept, samples
from qwen_eval.tasks import load
from qwen_eval.tasks.choice import Question

PASSAGE = "This question refers to the following text. {}" + "It was a long day at the harbour. " * 8
CHINESE = (
    "男性，{}岁。上腹部被汽车撞伤两小时，剧烈腹痛，伴恶心呕吐，神志淡漠。"
    "查体：脉搏每分钟一百三十五次，血压七十五比四十五，全腹有压痛、反跳痛，肠鸣音消失。"
)


def test_passages_are_long_common_beginnings() -> None:
    first, second = PASSAGE.format("One. "), PASSAGE.format("Two. ")
    names = passages(
        [f"{first}Who?", "Short?", f"{second}Who?", f"{first}Why?", f"{second}Why?", f"{PASSAGE.format('3')}?"]
    )
    assert names[0] == names[3] != names[2] == names[4] and all(names[index] for index in (0, 2))
    assert names[1] == names[5] == ""  # short; a passage with one question
    assert passages([]) == [] and passages([f"{first}Who?"]) == [""]
    assert len(set(passages([CHINESE.format(age) + end for age in (35, 55) for end in ("诊断？", "处理？")]))) == 2
    assert passages([text[:199] for text in (first, first)]) == ["", ""] and all(passages([first[:201], first[:201]]))


def test_an_instruction_that_most_questions_share_is_no_passage() -> None:
    """As of MMLU's moral scenarios; one question that does not begin with it changes nothing."""
    asked = [PASSAGE.format("") + f"Scenario {number}" for number in range(60)]
    assert set(passages(asked)) == set(passages([*asked, "Another question?"])) == {""}
    # behind it passages are found all the same
    told = [PASSAGE.format("") + PASSAGE.format(f"{number // 3} ") + str(number) for number in range(60)]
    assert len(set(passages(told))) == 20
    # 25 questions of each of four passages are about passages
    assert len(set(passages([PASSAGE.format(f"{n % 4} ") + str(n) for n in range(100)]))) == 4


def write_history(folder: Path, count: int = 6, each: int = 3) -> Path:
    """An MMLU subject in the official layout: `count` passages with `each` questions, ten questions by themselves."""
    rows = [[PASSAGE.format(f"{unit}. ") + f"Who was {question}?", "a", "b", "c", "d", "A"]
            for unit in range(count) for question in range(each)]  # fmt: skip
    rows += [[f"Question {number}?", "a", "b", "c", "d", "B"] for number in range(10)]
    for split, part in (("dev", rows[-5:]), ("test", rows)):
        path = folder / split / f"high_school_us_history_{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(part)
    return folder


Runs = Callable[..., tuple[find.Run, find.Run]]


@pytest.fixture
def two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    """A run of the demonstration model on the subject, and one in which the 18 questions of six passages were lost."""

    def make(*words: str, change: Callable[[dict], dict] = lambda row: row) -> tuple[find.Run, find.Run]:
        data = write_history(tmp_path / "data")
        run = run_script(
            "mmlu", ["-c", "demo", "-d", data, "--subjects", "high_school_us_history", *words], tmp_path / "a", capsys
        )
        assert run.status == 0, run.err
        (path,) = (tmp_path / "a" / "samples").glob("*.jsonl")
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        sides = []
        for side, lost in (("x", ()), ("y", range(18))):
            folder = tmp_path / side / "samples"
            folder.mkdir(parents=True)
            for row in rows:
                row["stats"]["correct"] = float(int(row["id"].rpartition("/")[2]) not in lost)
            text = "".join(json.dumps(change(row)) + "\n" for row in rows)
            (folder / path.name).write_text(text, encoding="utf-8")
            (folder / path.with_suffix(".json").name).write_bytes(path.with_suffix(".json").read_bytes())
            sides.append(find.open_run(folder / path.name))
        return sides[0], sides[1]

    return make


def compared(runs: tuple[find.Run, find.Run]) -> tuple[float, str]:
    (result,) = pairs.compare(pairs.join(*runs), load.official()["mmlu"].facts()).values()
    return result.p, result.method


CHAT = ("--chat", "--max-new-tokens", "4")


@pytest.mark.parametrize("words", [(), ("--no-prompts",), CHAT, (*CHAT, "--no-prompts")])
def test_the_p_value_counts_passages_whatever_was_stored(two_runs: Runs, words: tuple[str, ...]) -> None:
    """Six passages lost: 2 / 2^6 = 0.031. Without prompts and in chat it was 2 / 2^18 = 7.6e-6, without a word."""
    p, method = compared(two_runs(*words))
    assert p == pytest.approx(2 / 2**6) and "16 clusters" in method and "independent" not in method


def without_cluster(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "cluster"}


@pytest.mark.parametrize("words", [(), CHAT])
def test_rows_from_before_there_were_clusters_go_by_their_prompts(two_runs: Runs, words: tuple[str, ...]) -> None:
    p, method = compared(two_runs(*words, change=without_cluster))
    assert p == pytest.approx(2 / 2**6) and "16 clusters" in method and "independent" not in method


def test_where_nothing_was_kept_the_output_says_so(two_runs: Runs) -> None:
    p, method = compared(two_runs("--no-prompts", change=without_cluster))
    assert p == pytest.approx(2 / 2**18, rel=1e-6)
    assert "28 of 28 items taken as independent (what belongs together was not stored)" in method


def test_one_side_that_knows_is_enough(two_runs: Runs) -> None:
    one, other = two_runs("--no-prompts")
    for row in other.rows.values():
        del row["cluster"]
    assert compared((one, other))[0] == pytest.approx(2 / 2**6) == compared((other, one))[0]


def test_a_run_kept_in_little_space_keeps_clusters(two_runs: Runs) -> None:
    """Of a run from before there were any, too: they are named while the prompts are there."""
    packed = []
    for run in two_runs(change=without_cluster):
        path = kept.keep(run.path.parents[1], run.name)
        run.path.unlink()
        packed.append(find.open_run(path))
    p, method = compared((packed[0], packed[1]))
    assert p == pytest.approx(2 / 2**6) and "independent" not in method


def test_a_run_fills_clusters_in_under_its_old_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Repeated, with nothing to be asked, and rescored."""
    data, words = (
        write_history(tmp_path / "data"),
        ["-c", "demo", "--subjects", "high_school_us_history", "--no-prompts"],
    )
    first = run_script("mmlu", [*words, "-d", data], tmp_path, capsys)
    (path,) = (tmp_path / "samples").glob("*.jsonl")
    rows = samples.read_samples(path)
    assert len({row["cluster"] for row in rows.values()}) == 7 and first.status == 0
    path.write_text("".join(json.dumps(without_cluster(row)) + "\n" for row in rows.values()), encoding="utf-8")
    again = run_script("mmlu", [*words, "-d", data], tmp_path, capsys)
    assert samples.read_samples(path) == rows and again.signature == first.signature
    path.write_text("".join(json.dumps(without_cluster(row)) + "\n" for row in rows.values()), encoding="utf-8")
    rescored = run_script("mmlu", ["-d", data, *words[2:], "--rescore", path.stem], tmp_path, capsys)
    assert rescored.status == 0, rescored.err
    assert {name: row["cluster"] for name, row in rescored.samples.items()} == {
        name: row["cluster"] for name, row in rows.items()
    }


def test_the_interval_of_accuracy_counts_passages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same questions with and without a passage before them."""
    widths = []
    for folder, each in (("passages", 3), ("apart", 1)):
        data = write_history(tmp_path / folder, 18 // each, each)
        run = run_script(
            "mmlu",
            ["-c", "demo", "-d", data, "--subjects", "high_school_us_history"],
            tmp_path / f"{folder}-out",
            capsys,
        )
        row = next(row for row in run.rows if (row["metric"], row["group"]) == ("acc", "all"))
        widths.append(float(row["ci_high"]) - float(row["ci_low"]))
    assert widths[0] > widths[1] > 0


def test_an_own_question_names_its_cluster_outside_of_the_datas_hash() -> None:
    plain, named = Question("Who?", ("a", "b"), "A"), Question("Who?", ("a", "b"), "A", cluster="p")
    assert content_hash([plain]) == content_hash([named])


def test_instructions_of_one_problem_are_a_cluster(tmp_path: Path) -> None:
    """Of our own set with the first problem in other words, too."""
    lines = OWN_SET.read_text(encoding="utf-8").splitlines()
    number = next(number for number, line in enumerate(lines) if "instructions" in line)
    problem = json.loads(lines[number])
    problem["instructions"].append("The same in other words, please.")
    lines[number] = json.dumps(problem)
    (tmp_path / "hfagent.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = [sample.cluster for sample in benchmark_of("plugin", "--hfagent", tmp_path / "hfagent.jsonl").asked]
    assert names[0] == names[1] != names[2] and len(set(names)) == len(names) - 1


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "ceval"])
def test_other_demonstrations_have_items_by_themselves(name: str) -> None:
    assert {sample.cluster for sample in benchmark_of(name, "-d", "demo").asked} == {""}
