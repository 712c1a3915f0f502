"""WMT22: prompts by hand, figures equal to sacrebleu's own command line, translations from files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tiny
import wmt22
from known import benchmark_of, work
from qwen_eval import schema
from qwen_eval.data import translation
from qwen_eval.runs import results
from qwen_eval.schema import DataError, InputError
from qwen_eval.stats import intervals, scores
from shared import shared

SOURCES = {
    "en": ["One boat sails.", "Two lamps burn at dusk.", "The keeper sleeps."],
    "zh": ["一条船在航行。", "黄昏时两盏灯亮着。", "守灯人在睡觉。"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "wmt"
    root.mkdir()
    for first, second in (("en", "zh"), ("zh", "en")):
        stem = f"generaltest2022.{first}-{second}"
        (root / f"{stem}.src.{first}").write_text("\n".join(SOURCES[first]) + "\n", encoding="utf-8")
        for ref in "AB":
            lines = [line + ("" if ref == "A" else "!") for line in SOURCES[second]]
            (root / f"{stem}.ref.{ref}.{second}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_the_prompt_by_hand(folder: Path) -> None:
    sample = benchmark_of("wmt22", "--shots", 1, "-d", folder, "--direction", "en-zh").asked[1]
    shot = translation.translation_shots(wmt22.SHOTS)[0]
    assert sample.request.text() == (
        "Translate the following sentences from English into Chinese.\n\n"
        f"English: {shot.source}\nChinese: {shot.target}\n\n"
        "English: Two lamps burn at dusk.\nChinese:"
    )
    assert sample.id == "en-zh/1" and sample.target == ["黄昏时两盏灯亮着。"] and sample.request.stop == ("\n",)


def test_our_shots_are_five_per_direction_and_in_no_test_set() -> None:
    shots = translation.translation_shots(wmt22.SHOTS)
    assert [shot.direction for shot in shots] == ["en-zh"] * 5 + ["zh-en"] * 5
    text = "".join(path.read_text(encoding="utf-8") for path in shared("data/wmt22").iterdir())
    assert not any(shot.source in text or shot.target in text for shot in shots)


@pytest.mark.parametrize(("direction", "ref"), [("en-zh", "A"), ("zh-en", "B"), ("en-zh", "both")])
def test_figures_equal_sacrebleu_s_command_line(
    direction: str, ref: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Reference B of the real set, worsened, as hypotheses: the same BLEU and chrF to the last digit it prints."""
    second = direction.split("-")[1]
    stem = shared("data/wmt22") / f"generaltest2022.{direction}"
    lines = Path(f"{stem}.ref.B.{second}").read_text(encoding="utf-8").splitlines()
    # every third line loses its end, so that no figure is 100
    worse = [line[: len(line) * 2 // 3] if index % 3 == 0 else line for index, line in enumerate(lines)]
    hypotheses = tmp_path / "hyp.txt"
    hypotheses.write_text("\n".join(worse) + "\n", encoding="utf-8")
    references = [f"{stem}.ref.{name}.{second}" for name in wmt22.REFERENCES[ref]]
    tokenize = wmt22.TOKENIZE[second]
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        *references,
        "-i",
        str(hypotheses),
        "-m",
        "bleu",
        "chrf",
        "--tokenize",
        tokenize,
        "-w",
        "6",
    ]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    words = ["--hypotheses", hypotheses, "--direction", direction, "--ref", ref, "-d", shared("data/wmt22")]
    work("wmt22", *words, "-o", tmp_path, "--quiet")
    ours = {row["metric"]: row for row in results.read_results(tmp_path / "wmt22.csv")}
    record_property("items", len(theirs))
    for row in theirs:
        figure = ours["bleu" if row["name"] == "BLEU" else "chrf2"]
        assert f"{float(figure['value']):.6f}" == f"{row['score']:.6f}"
        assert float(figure["ci_low"]) < row["score"] < float(figure["ci_high"])


def halves(direction: str, count: int) -> tuple[list[str], list[str]]:
    """References of the real set, and hypotheses of which every second has lost its end."""
    path = shared("data/wmt22") / f"generaltest2022.{direction}.ref.A.{direction.split('-')[1]}"
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    return lines, [line[: len(line) * 2 // 3] if index % 2 else line for index, line in enumerate(lines)]


def test_the_jackknife_agrees_with_sacrebleu_s_bootstrap() -> None:
    """Over many independent segments both estimate the same width."""
    from sacrebleu.metrics import BLEU

    lines, worse = halves("zh-en", 300)
    ours, _ = scores.bleu("zh-en", worse, [lines], "13a")
    theirs = BLEU(tokenize="13a").corpus_score(worse, [lines], n_bootstrap=1000)
    assert (ours.ci_high - ours.ci_low) / 2 == pytest.approx(theirs._ci, rel=0.15)


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_the_jackknife_by_hand(metric: str) -> None:
    """Each document left out in turn, scored by sacrebleu; equal documents have the t distribution with K - 1."""
    from sacrebleu.metrics import BLEU, CHRF
    from scipy.stats import t

    lines, worse = halves("zh-en", 60)
    lines = [line[:40].ljust(40, ".") for line in lines]  # every document weighs the same
    names = [f"d{index // 6}" for index in range(60)]
    score = BLEU(tokenize="13a") if metric == "bleu" else CHRF()
    whole = score.corpus_score(worse, [lines]).score
    left = []
    for name in dict.fromkeys(names):
        kept = [index for index in range(60) if names[index] != name]
        left.append(score.corpus_score([worse[i] for i in kept], [[lines[i] for i in kept]]).score)
    error = np.sqrt(9 / 10 * np.sum((np.array(left) - np.mean(left)) ** 2))
    factor = np.exp(t.ppf(0.975, 9) * error / whole)
    extra = ("13a",) if metric == "bleu" else ()
    figure, _ = getattr(scores, metric)("zh-en", worse, [lines], *extra, names)
    assert (figure.value, figure.ci_low, figure.ci_high) == pytest.approx(
        (whole, whole / factor, whole * factor), rel=1e-6
    )


def test_too_few_segments_or_documents_and_worthless_translations_have_no_interval() -> None:
    lines, worse = halves("zh-en", 40)
    twenty, _ = scores.bleu("zh-en", worse[:20], [lines[:20]], "13a")
    fewer, _ = scores.bleu("zh-en", worse[:19], [lines[:19]], "13a")
    assert not np.isnan(twenty.ci_low) and np.isnan(fewer.ci_low) and np.isnan(fewer.ci_high)
    for count, known in ((4, False), (5, True)):
        names = [str(index % count) for index in range(40)]
        figure, _ = scores.bleu("zh-en", worse, [lines], "13a", names)
        assert np.isnan(figure.ci_low) != known
    nothing, _ = scores.chrf("en-zh", ["x"] * 30, [["一"] * 30])
    assert nothing.value == 0 and np.isnan(nothing.ci_low)
    perfect, _ = scores.chrf("zh-en", lines, [lines])
    assert perfect.value == pytest.approx(100) and np.isnan(perfect.ci_high)  # before: 100 to 100


def test_documents_are_read_stored_and_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a file beside the lines; the run keeps its name, and its rows say which document each segment is in."""
    plain = benchmark_of("wmt22", "-d", folder, "--direction", "en-zh")
    assert [sample.cluster for sample in plain.asked] == [None] * 3
    hypotheses = tmp_path / "hyp.txt"
    hypotheses.write_text("\n".join(SOURCES["zh"]) + "\n", encoding="utf-8")
    words = ["--hypotheses", hypotheses, "--direction", "en-zh", "-d", folder, "-o", tmp_path, "--quiet"]
    work("wmt22", *words)
    out = capsys.readouterr().out
    assert "the documents of en-zh are not known" in out and "generaltest2022.en-zh.docid" in out
    (path,) = (tmp_path / "samples").glob("*.jsonl")
    assert [json.loads(line)["cluster"] for line in path.read_text().splitlines()] == [None] * 3
    (folder / "generaltest2022.en-zh.docid").write_text("news.1\nnews.1\nnews.2\n")
    named = benchmark_of("wmt22", "-d", folder, "--direction", "en-zh")
    assert [sample.cluster for sample in named.asked] == ["news.1", "news.1", "news.2"]
    assert named.signature == plain.signature
    work("wmt22", *words)
    out = capsys.readouterr().out
    assert "are not known" not in out and list((tmp_path / "samples").glob("*.jsonl")) == [path]
    assert [json.loads(line)["cluster"] for line in path.read_text().splitlines()] == ["news.1", "news.1", "news.2"]


def test_a_document_file_of_another_length_is_an_error(folder: Path) -> None:
    (folder / "generaltest2022.en-zh.docid").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"en-zh\.docid has 2 lines; give it one line for each of the 3 segments"):
        benchmark_of("wmt22", "-d", folder, "--direction", "en-zh")


def test_the_mean_of_two_directions() -> None:
    parts = [schema.Metric("bleu", "a", 20, 18, 23, 10), schema.Metric("bleu", "b", 30, 26, 34, 10)]
    mean = intervals.mean_of("all", parts)
    assert (mean.value, mean.n) == (25, 20)
    assert (mean.ci_low, mean.ci_high) == pytest.approx((25 - np.hypot(2, 4) / 2, 25 + np.hypot(3, 4) / 2))


def test_the_translation_is_the_first_line_and_a_run_ends_to_end(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny.write_qwen1(tmp_path / "model", positions=4096)
    work("wmt22", "-c", checkpoint, "-d", folder, "-o", tmp_path, "--quiet", "--max-new-tokens", 8)
    assert "tok:zh" in capsys.readouterr().out
    rows = {(row["metric"], row["group"]): row for row in results.read_results(tmp_path / "wmt22.csv")}
    assert rows["bleu", "all"]["n"] == "6" and ("chrf2", "en-zh") in rows
    assert float(rows["bleu", "all"]["value"]) == pytest.approx(
        (float(rows["bleu", "en-zh"]["value"]) + float(rows["bleu", "zh-en"]["value"])) / 2, abs=1e-5
    )


def test_wrong_files_are_named(folder: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("only one\n")
    common = ["--hypotheses", short, "-d", folder, "-o", tmp_path, "--quiet"]
    with pytest.raises(DataError, match=r"short\.txt: 1 texts for 3 items"):
        work("wmt22", *common, "--direction", "en-zh")
    with pytest.raises(InputError, match="--direction"):
        work("wmt22", *common)
    broken = tmp_path / "shots.jsonl"
    broken.write_text('{"direction": "en-zh", "source": "x"}\n')
    with pytest.raises(DataError, match=r"shots\.jsonl:1"):
        benchmark_of("wmt22", "--shots-file", broken, "-d", folder)
    with pytest.raises(InputError, match="at most 5"):
        benchmark_of("wmt22", "--shots", 6, "-d", folder)


@pytest.mark.parametrize("short", [False, True])
def test_hypotheses_of_a_limited_run_are_the_first_of_each_file(short: bool, folder: Path, tmp_path: Path) -> None:
    """It was `6 texts for 4 items`. The file may hold all segments of a direction, or just the first ones that are asked."""
    paths = []
    for direction in wmt22.DIRECTIONS:
        lines = [f"{direction} {number}" for number in range(2 if short else 3)]
        paths.append(tmp_path / f"{direction}.txt")
        paths[-1].write_text("\n".join(lines) + "\n")
    work("wmt22", "--hypotheses", *paths, "-d", folder, "-o", tmp_path, "--limit", 2, "--quiet")
    (samples,) = (tmp_path / "samples").glob("*.jsonl")
    answers = {row["id"]: row["answer"] for row in map(json.loads, samples.read_text().splitlines())}
    assert answers == {f"{name}/{number}": f"{name} {number}" for name in wmt22.DIRECTIONS for number in range(2)}
    paths[1].write_text("one\n")
    with pytest.raises(
        DataError, match=r"zh-en\.txt: 1 texts for 3 items of zh-en; give one for each, or for the first 2"
    ):
        work("wmt22", "--hypotheses", *paths, "-d", folder, "-o", tmp_path, "--limit", 2, "--quiet")
