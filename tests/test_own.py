"""Custom benchmarks: the examples, run from a folder outside the repository, and what is refused before a model is
asked."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from qwen_eval import options
from qwen_eval.main import console
from qwen_eval.runs.results import read_results
from qwen_eval.runs.run import prepare
from qwen_eval.runs.samples import read_samples
from qwen_eval.schema import InputError
from qwen_eval.tasks import facts, load
from shared import REPOSITORY


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, copied to a folder that knows nothing of the repository."""
    return Path(shutil.copytree(REPOSITORY / "examples", tmp_path_factory.mktemp("mine") / "examples"))


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def fresh(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """`qwen-eval WORDS` in the folder, in a process of its own, as an installed package gives it."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "eval")}
    given = [sys.executable, "-c", "from qwen_eval.main import console; console()", *map(str, words)]
    return subprocess.run(given, cwd=folder, env=env, capture_output=True, text=True, check=False)


def command(folder: Path, *words: object) -> Done:
    """The same in this process, which has torch already."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["qwen-eval", *map(str, words)])
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(options, "program", None)
        with pytest.raises(SystemExit) as stop:
            console()
    return Done(int(stop.value.code or 0), out.getvalue(), err.getvalue())


def run(folder: Path, *words: object) -> tuple[str, str]:
    """What a run prints, and its id. The run has to succeed."""
    done = command(folder, "run", *words, "--quiet")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("samples in ")]
    return done.stdout, Path(line.removeprefix("samples in ")).stem


def signature(out: str) -> dict[str, str]:
    (line,) = [line for line in out.splitlines() if line.startswith("signature ")]
    return dict(part.split(":", 1) for part in line.split("|") if ":" in part)


@pytest.fixture(scope="module")
def runs(outside: Path) -> dict[str, tuple[str, str]]:
    """Runs of both examples on the demonstration: base, other options, chat, and the reference solutions."""
    common = ("-c", "demo", "-o", "out")
    return {
        "texts": run(outside, "arc.py", *common),
        "letters": run(outside, "arc.py", *common, "--select", "letters", "--shots", 5),
        "arc chat": run(outside, "arc.py", *common, "--chat", "--max-new-tokens", 16),
        "mbpp": run(outside, "mbpp.py", *common, "--max-new-tokens", 32),
        "mbpp chat": run(outside, "mbpp.py", *common, "--chat", "--max-new-tokens", 32),
        "solutions": run(outside, "mbpp.py", *common, "--solutions"),
    }


def test_the_signature_of_a_custom_benchmark_has_more_fields(runs: dict[str, tuple[str, str]]) -> None:
    fields = {name: signature(out) for name, (out, _) in runs.items()}
    assert fields["texts"]["scoring"].startswith("context+") and fields["texts"]["select"] == "text-logprob"
    assert fields["letters"]["select"] == "logprob"
    assert fields["mbpp"]["stop"] == '["[DONE]"]'
    assert all(len(found["frame"]) == 8 for found in fields.values())
    assert fields["texts"]["frame"] != fields["letters"]["frame"] != fields["arc chat"]["frame"]
    assert fields["mbpp"]["frame"] == fields["solutions"]["frame"]
    assert all(found["data"].startswith("demo-") for found in fields.values())


def test_every_reference_solution_passes(outside: Path, runs: dict[str, tuple[str, str]]) -> None:
    samples = read_samples(outside / "out/samples" / f"{runs['solutions'][1]}.jsonl")
    assert len(samples) == 8
    assert [row["answer"][0]["verdict"] for row in samples.values()] == ["passed"] * 8
    rows = [row for row in read_results(outside / "out/mbpp.csv") if row["run_id"] == runs["solutions"][1]]
    assert [row["value"] for row in rows if row["metric"] == "pass@1"] == ["100.000000"]


def test_a_wrong_solution_fails(outside: Path, tmp_path: Path) -> None:
    tasks = [json.loads(line) for line in (outside / "mbpp/test.jsonl").read_text().splitlines()]
    wrong = [{"task_id": str(task["task_id"]), "completion": "def nothing():\n    pass\n"} for task in tasks]
    (tmp_path / "wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong))
    out, _ = run(outside, "mbpp.py", "-c", "demo", "-o", tmp_path, "--completions", tmp_path / "wrong.jsonl")
    assert "all  8    0.00" in out and "infrastructure 0.00" in " ".join(out.split())


def test_limit_resume_and_rescore(outside: Path, runs: dict[str, tuple[str, str]]) -> None:
    out, name = run(outside, "arc.py", "-c", "demo", "-o", "out", "--limit", 7)
    assert "(partial)" in out and signature(out)["n"] == "7"
    assert len(read_samples(outside / "out/samples" / f"{name}.jsonl")) == 7
    again, _ = run(outside, "arc.py", "-c", "demo", "-o", "out")
    assert f"already in {Path('out/arc_challenge.csv')}" in again  # nothing was asked twice
    rescored, _ = run(outside, "arc.py", "-c", "demo", "-o", "out", "--rescore", runs["texts"][1])
    figures = [line for line in runs["texts"][0].splitlines() if line.startswith(("all ", "acc_norm"))]
    assert figures == [line for line in rescored.splitlines() if line.startswith(("all ", "acc_norm"))]


def test_two_runs_are_compared(outside: Path, runs: dict[str, tuple[str, str]]) -> None:
    words = ("compare", runs["texts"][1], runs["letters"][1], "--results", "out")
    done = command(outside, *words, "--explain")
    assert done.returncode == 0 and "arc_challenge acc" in done.stdout, done.stderr
    assert "signatures differ in select: text-logprob in A, logprob in B" in done.stdout
    done = command(outside, "compare", runs["mbpp"][1], runs["solutions"][1], "--results", "out", "--max-loss")
    assert done.returncode == 0 and "mbpp pass@1" in done.stdout and "PASS" in done.stdout
    done = command(outside, "compare", runs["solutions"][1], runs["mbpp"][1], "--results", "out", "--max-loss")
    assert done.returncode == 3 and "FAIL mbpp pass@1" in done.stdout


def test_it_is_compared_with_another_harness(outside: Path, runs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    """lm-evaluation-harness's samples of the same questions are joined, though our prompt does not list the options; the steps
    from our figure to theirs add up."""
    rows = [json.loads(line) for line in (outside / "arc/test.jsonl").read_text().splitlines()]
    mine = read_samples(outside / "out/samples" / f"{runs['texts'][1]}.jsonl")
    lines = []
    for index, row in enumerate(rows):
        texts, sample = row["choices"]["text"], mine[str(index)]
        gold = row["choices"]["label"].index(row["answerKey"])
        scores = list(sample["response"]["totals"])
        if index == 3:
            scores[gold] = min(scores) - 1  # one item that theirs has wrong
        lines.append(
            {
                "doc_id": index, "doc": row, "target": gold, "filter": "none", "metrics": ["acc"],
                "arguments": {
                    f"gen_args_{i}": {"arg_0": sample["prompt"], "arg_1": f" {text}"} for i, text in enumerate(texts)
                },
                "resps": [[[str(score), "False"]] for score in scores],
                "filtered_resps": [[str(score), "False"] for score in scores],
                "acc": float(max(range(len(scores)), key=scores.__getitem__) == gold),
            }
        )  # fmt: skip
    path = tmp_path / "samples_arc_challenge_2026-01-01T00-00-00.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("compare", runs["texts"][1], path, "--results", "out")
    done = command(outside, *words)
    assert done.returncode == 0 and "40 items joined; 0 only ours, 0 only theirs" in done.stdout, done.stderr
    done = command(outside, *words, "--explain", "--own", "arc.py", "-d", "demo")
    assert done.returncode == 0 and "the sum of the steps" in done.stdout, done.stderr
    # ours names options by their letters, theirs by their texts: they differ in one item only
    assert "  gold: none\n" in done.stdout and "  answer: 1 of 40 items, first 3 " in done.stdout
    done = command(outside, *words, "--explain", "-d", "demo")
    assert done.returncode == 2 and "name its file with --own FILE" in done.stderr


def test_options_compared_by_length_are_held_against_ours_by_length(
    outside: Path, runs: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    """lm-evaluation-harness's acc_norm, worked out here: the log-probability of the whole option by the characters of its text.
    It was held against our accuracy without length, and the difference told as one of extraction."""
    rows = [json.loads(line) for line in (outside / "arc/test.jsonl").read_text().splitlines()]
    name = runs["texts"][1]
    results = shutil.copytree(outside / "out", tmp_path / "results")
    mine = read_samples(results / "samples" / f"{name}.jsonl")
    lines, plain, normed = [], 0, 0
    for index, row in enumerate(rows):
        texts, sample = row["choices"]["text"], mine[str(index)]
        gold = row["choices"]["label"].index(row["answerKey"])
        longest = max(range(len(texts)), key=lambda option: len(texts[option]))
        scores = [-100.0] * len(texts)  # the gold option is the likeliest, by length the longest one is
        scores[gold], scores[longest] = -10.0, -10.0 - (longest != gold) / 100
        by_length = float(all(len(text) <= len(texts[gold]) for text in texts))
        plain, normed = plain + 1, normed + by_length
        sample["response"] |= {"logprobs": scores, "totals": scores}
        sample["answer"] = row["answerKey"]
        sample["stats"] |= {"correct": 1.0, "correct_norm": by_length}
        lines.append(
            {
                "doc_id": index, "doc": row, "target": gold, "filter": "none", "metrics": ["acc", "acc_norm"],
                "arguments": {
                    f"gen_args_{i}": {"arg_0": sample["prompt"], "arg_1": f" {text}"} for i, text in enumerate(texts)
                },
                "resps": [[[str(score), "False"]] for score in scores],
                "filtered_resps": [[str(score), "False"] for score in scores], "acc": 1.0, "acc_norm": by_length,
            }
        )  # fmt: skip
    assert 0 < normed < plain == 40
    (results / "samples" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine.values()))
    path = tmp_path / "samples_arc_challenge_2026-01-01T00-00-00.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("compare", name, path, "--results", results, "--explain", "--own", "arc.py", "-d", "demo")
    for metric, count in (("acc", plain), ("acc_norm", normed)):
        done = command(outside, *words, "--metric", metric)
        assert done.returncode == 0, done.stderr
        for side in ("ours", "theirs"):
            assert f"\n{side:8}{100 * count / 40:8.3f}" in f"\n{done.stdout}"
        assert "0 joined items score differently" in done.stdout and "  answer: none\n" in done.stdout
        assert "gap +0.000" in done.stdout


def test_report_and_page_need_no_code(outside: Path, runs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    """Title, columns and headline come from the manifest: the files of the benchmarks are gone."""
    results = shutil.copytree(outside / "out", tmp_path / "results")
    for table, heads in {
        "own": "| Model | ARC-Challenge | MBPP |",
        "own_chat": "| Model | ARC-Challenge | MBPP |",
    }.items():
        done = command(tmp_path, "report", "--results", results, "--show", table)
        assert done.returncode == 0 and done.stdout.startswith(heads), done.stderr
        assert "‡ demonstration data" in done.stdout
    done = command(tmp_path, "report", "--results", results, "--html", "page.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert "Benchmarks of your own" in page and "自定义基准" in page and "ARC-Challenge" in page


def test_the_suite_asks_it_too(outside: Path, tmp_path: Path) -> None:
    words = ("suite", "-c", "demo", "--own", "arc.py", "--own", "mbpp.py", "--precisions", "none", "--dry-run")
    done = command(outside, *words)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:3] for line in done.stdout.splitlines()]
    for mode in (["arc_challenge", "base", "25-shot"], ["arc_challenge", "chat", "0-shot"], ["mbpp", "base", "3-shot"]):
        assert mode in lines


def test_on_a_llama(outside: Path, tmp_path: Path) -> None:
    """The whole log-probability of every option is that of transformers' own forward pass of prompt and option, alone."""
    folder = tiny.write_llama(tmp_path / "llama")
    data = shutil.copytree(outside / "arc", tmp_path / "data")  # the same rows, and not the demonstration's folder
    words = ("-d", data, "-o", tmp_path, "--shots", 2, "--limit", 12, "--batch-size", 5)
    out, name = run(outside, "arc.py", "-c", folder, *words)
    assert signature(out)["data"].startswith("unverified-") and "no official checksums" in out
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = {row["id"]: row for row in map(json.loads, (outside / "arc/test.jsonl").read_text().splitlines())}
    for sample in read_samples(tmp_path / "samples" / f"{name}.jsonl").values():
        row = list(rows.values())[int(sample["id"])]
        totals = [whole(model, tokenizer, sample["prompt"], f" {text}") for text in row["choices"]["text"]]
        assert sample["response"]["totals"] == pytest.approx(totals, abs=1e-4)
        best = max(range(len(totals)), key=totals.__getitem__)
        assert sample["answer"] == row["choices"]["label"][best]
        each = [total / len(text) for total, text in zip(totals, row["choices"]["text"], strict=True)]
        right = row["choices"]["label"][max(range(len(each)), key=each.__getitem__)] == row["answerKey"]
        assert sample["stats"]["correct_norm"] == float(right)


def whole(model: Any, tokenizer: Any, prompt: str, option: str) -> float:
    """Summed log-probability of the tokens that prompt + option has beyond the number that the prompt has."""
    known = len(tokenizer(prompt)["input_ids"])
    ids = tokenizer(prompt + option, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logprobs = model(ids).logits[0, :-1].double().log_softmax(-1)
    picked = logprobs.gather(1, ids[0, 1:, None])[:, 0]
    return float(picked[known - 1 :].sum())


# ------------------------------------------------------------------------------------------ refused before the work
HEAD = """
from qwen_eval.data.tables import Dataset
from qwen_eval.main import main
from qwen_eval.schema import Score
from qwen_eval.tasks.choice import MultipleChoice, Question
from qwen_eval.tasks.generation import Text, right_or_wrong
"""
TEXT = """
class Mine(Text):
    name = "mine"
    dataset = Dataset("", "", {"test": ""})
    def prompt(self, row):
        return row["q"]
    def target(self, row):
        return row["a"]
    def score(self, sample, reply):
        return right_or_wrong(reply, reply.texts[0].strip() or None, sample.target)
"""
SCORE = (
    TEXT.replace("{", "{{")
    .replace("}", "}}")
    .replace("right_or_wrong(reply, reply.texts[0].strip() or None, sample.target)", "{0}")
)
CHOICE = """
class Mine(MultipleChoice):
    name = "mine"
    shots = {"base": 0, "chat": 0}
    dataset = Dataset("", "", {"train": "", "test": ""})
    def item(self, row):
        return Question(row["q"], row["o"], row["a"], row.get("l", ()))
"""


WORDS = ("-c", "demo", "-o", "out", "--quiet", "--max-new-tokens", "8")


def write(folder: Path, code: str, rows: Sequence[dict[str, Any]]) -> Path:
    """The file of a benchmark of these lines, and these rows beside it."""
    (folder / "mine.py").write_text(HEAD + code)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "mine.py"


ITEMS = [{"q": "What is 1+1?", "a": "2"}, {"q": "What is 2+1?", "a": "3"}]
QUESTION = {"q": "Which?", "o": ["x", "y", "z"], "a": "B"}


def test_conversations_alone_need_no_flag(tmp_path: Path) -> None:
    code = TEXT + "    shots = {'chat': 0}\n    writes = ('chat',)\n"
    done = command(tmp_path, "run", write(tmp_path, code, ITEMS), "-d", tmp_path, *WORDS)
    assert done.returncode == 0 and "mine|v1|default|chat|" in done.stdout, done.stderr


def test_two_files_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = write(tmp_path, TEXT, ITEMS)
    second = write(tmp_path / "other", TEXT.replace('"mine"', '"other"').replace("strip()", "lower()"), ITEMS)
    kinds = load.known([first, second])
    made = [kinds[name](kinds[name].parser().parse_args(["-d", str(tmp_path), *WORDS])) for name in ("mine", "other")]
    assert made[0].signature["scoring"] != made[1].signature["scoring"]


def test_a_missing_file_or_folder_is_a_one_line_error(tmp_path: Path) -> None:
    for words, said in {
        ("run",): "name the file of a benchmark",
        ("run", "--help"): "name the file of a benchmark",
        ("run", "nothing.py"): "nothing.py is missing",
        ("nothing",): "there is no 'nothing'; usage: qwen-eval {ceval,",
        ("report", "--results", "nowhere", "--show", "main"): "nowhere is not a folder",
        ("suite", "-c", "demo", "--own", "nothing.py"): "nothing.py is missing",
    }.items():
        done = command(tmp_path, *words)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_twenty_lines_suffice(tmp_path: Path) -> None:
    done = fresh(tmp_path, "run", write(tmp_path, TEXT, ITEMS), "-d", tmp_path, *WORDS)
    assert done.returncode == 0 and "mine|v1|default|base|" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("code", "rows", "said"),
    [
        (TEXT.replace('"mine"', '"My Bench"'), ITEMS, "the name 'My Bench' has to be small letters"),
        (TEXT.replace('"mine"', '"gsm8k"'), ITEMS, "there is a benchmark 'gsm8k' already"),
        (TEXT.replace('row["q"]', 'row["question"]'), ITEMS, "row 0 from 0: no item of mine (KeyError: 'question')"),
        (TEXT.replace("reply.texts[0]", "reply.text"), ITEMS, "'Generated' object has no attribute 'text'"),
        (TEXT + '    headline = ("accuracy", "all")\n', ITEMS, "the headline accuracy all is not one of its figures (acc all"),
        (TEXT + "    def metrics(self, scored):\n        return 1 / 0\n", ITEMS, "mine.py:18: ZeroDivisionError"),
        (TEXT + "    metrics = lambda self, scored: [('acc', 1.0)]\n", ITEMS, "metrics has to return Metric records"),
        (TEXT + "    shots = {'few': 3}\n", ITEMS, "it names the modes base and chat"),
        (TEXT + "    def identifier(self, row, index):\n        return 'same'\n", ITEMS, "the id 'same' is there twice"),
        (TEXT + "    def group(self, row):\n        return [][0]\n", ITEMS, "no item of mine (IndexError"),
        (TEXT + "    def samples(self):\n        return 1 / 0\n", ITEMS, "mine.py:18: ZeroDivisionError"),
        (TEXT + "    version = 'two|three'\n", ITEMS, "the version 'two|three' has to be a whole number"),
        (TEXT + "    writes = ()\n", ITEMS, "writes has to name base, chat"),
        (TEXT + "    writes = ('base', 'spoken')\n", ITEMS, "it names modes that shots has"),
        (SCORE.format("Score({'correct': 1.0}, 'x')"), ITEMS, "its score has no statistic 'cut'"),
        (SCORE.format("Score({'correct': 'yes'}, 'x')"), ITEMS, "a Score with numbers as statistics"),
        (SCORE.format("1.0"), ITEMS, "score has to return a Score"),
        (SCORE.format("right_or_wrong(reply, {1}, 1)"), ITEMS, "the answer or target of 0 cannot be stored as JSON"),
        (SCORE.format("right_or_wrong(reply, int(reply.texts[0] or 0), 1)"), ITEMS, "ValueError in score: invalid literal"),
        (TEXT, [], "test.jsonl is empty"),
        ("x = = 1\n", ITEMS, "mine.py:7: SyntaxError"),
        ("import nothing_of_this_name\n", ITEMS, "mine.py:7: ModuleNotFoundError"),
        ("x = 1\n", ITEMS, "mine.py defines no benchmark"),
        (CHOICE, [{**QUESTION, "a": "D"}], "the answer 'D' is none of A, B, C"),
        (CHOICE, [{**QUESTION, "l": ["1", "1", "2"]}], "3 options with the labels 1, 1, 2"),
        (CHOICE, [{**QUESTION, "o": ["x"]}], "1 options"),
        (CHOICE, [{**QUESTION, "o": ["x", " ", "z"]}], "an empty question or option"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_a_one_line_error_before_a_model_is_asked(
    code: str, rows: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, code, rows)
    with pytest.raises(InputError) as refused:
        (kind,) = load.load(path)
        prepare(kind(kind.parser().parse_args(["-d", str(tmp_path), *WORDS])))
    assert said in str(refused.value)


def test_a_refusal_is_a_one_line_error_and_status_2(tmp_path: Path) -> None:
    done = fresh(tmp_path, "run", write(tmp_path, "x = = 1\n", ITEMS), *WORDS)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "mine.py:7: SyntaxError" in done.stderr
    path = write(tmp_path, TEXT.replace("reply.texts", "reply.text"), ITEMS)
    done = command(tmp_path, "run", path, "-d", tmp_path, *WORDS)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "has no attribute 'text'" in done.stderr
    assert not (tmp_path / "out/samples").exists()  # nothing was asked


def test_another_way_of_scoring_is_another_signature(tmp_path: Path) -> None:
    """But a comment, a docstring or a title is not."""

    def scoring(name: str, code: str) -> str:
        (tmp_path / name).mkdir()
        (kind,) = load.load(write(tmp_path / name, code, ITEMS))
        return kind(kind.parser().parse_args(["-d", str(tmp_path / name), *WORDS])).signature["scoring"]

    first = scoring("first", TEXT)
    assert len(first) == 8
    title = TEXT.replace('    name = "mine"\n', '    name = "mine"  # a remark\n    title = "My bench"\n')
    said = title.replace(
        "    def score(self, sample, reply):\n", '    def score(self, sample, reply):\n        """Says."""\n'
    )
    assert scoring("said", said) == first
    assert scoring("other", TEXT.replace("strip()", "split()[0]")) != first
    assert scoring("helper", TEXT + "\n\ndef helper(text):\n    return text\n") != first


def test_any_number_of_options_and_any_labels(tmp_path: Path) -> None:
    rows = [
        {"q": "Which?", "o": list("uvwxyz"), "a": "vi", "l": ["i", "ii", "iii", "iv", "v", "vi"]},
        {"q": "Which?", "o": ["x", "y"], "a": "2", "l": ["1", "2"]},
        {"q": "Which?", "o": [f"option {n}" for n in range(30)], "a": "AD"},
    ]
    done = command(tmp_path, "run", write(tmp_path, CHOICE, rows), "-d", tmp_path, *WORDS)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out/samples").glob("*.jsonl")
    assert {row["id"]: row["target"] for row in read_samples(path).values()} == {"0": "vi", "1": "2", "2": "AD"}


# ---------------------------------------------------------------------------------------------- what others may say
def test_facts_survive_a_manifest() -> None:
    for kind in load.official().values():
        content = json.loads(json.dumps(kind.facts().as_json()))
        if not set(content["columns"]) <= set(facts.OWN_TABLES.values()):
            with pytest.raises(InputError, match="does not describe its benchmark"):
                facts.from_json(content, "manifest.json")  # no file adds to the tables of the eight built-in ones
    own = facts.Facts(
        "mine", "Mine", views=(facts.View("acc", "correct"),), columns={"own": (facts.Column("M", ("a", "b")),)}
    )
    assert facts.from_json(json.loads(json.dumps(own.as_json())), "manifest.json") == own


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../etc/passwd"}, {"name": 5}, {"columns": {"main": []}}, {"columns": [1]}, {"views": [{"metric": 5}]},
        {"columns": {"own": [{"head": "x", "ours": "y", "nobody": 1}]}}, {"title": ["a"]}, {"order": "first"},
    ],
)  # fmt: skip
def test_a_manifest_that_says_something_else_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    content = {**facts.Facts("mine").as_json(), **change}
    with pytest.raises(InputError, match=r"manifest\.json does not describe its benchmark"):
        facts.from_json(content, "manifest.json")


def test_what_a_file_names_is_never_imported(outside: Path, runs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    results = Path(shutil.copytree(outside / "out", tmp_path / "results"))
    (tmp_path / "os_of_mine.py").write_text("raise SystemExit('imported')\n")
    manifest = results / "samples" / f"{runs['texts'][1]}.json"
    content = json.loads(manifest.read_text())
    content["benchmark"]["name"] = "os_of_mine"
    content["signature"] = content["signature"].replace("arc_challenge", "os_of_mine")
    manifest.write_text(json.dumps(content))
    shown, compared = ("report", "--show", "own"), ("compare", manifest.stem, manifest.stem)
    for words in ((*shown, "--results", results), (*compared, "--results", results)):
        done = command(tmp_path, *words)
        assert done.returncode == 0 and "imported" not in done.stdout + done.stderr, done.stderr
