"""`default` reads a real model's chat replies as a person does; labels given without sight of what it reads (labelled.py)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

import labelled
from known import benchmark_of
from qwen_eval.schema import Generated
from qwen_eval.tasks.benchmark import Benchmark
from shared import shared

# what the label stands for; the options are those of the run that the replies were taken from (`make real`)
SETS = {"mmlu": ("data/mmlu", "5", 150), "gsm8k": ("data/gsm8k", "100", 100)}
AGREEMENT = 0.98


def prompt_of(sample: Any) -> str:
    return labelled.prompt_text(sample.request.prompt)


def reading(benchmark: Benchmark, row: dict[str, Any]) -> str | None:
    """What the harness reads in a labelled reply."""
    (sample,) = [sample for sample in benchmark.asked if sample.id == row["id"]]
    text = labelled.whole(row["reply"], prompt_of(sample))
    answer = benchmark.score(sample, Generated((text,), ("",), (row["end"],))).answer
    return answer or None


@pytest.mark.parametrize("name", SETS)
def test_replies_of_a_real_model_are_read_as_a_person_reads_them(name: str) -> None:
    data, limit, least = SETS[name]
    benchmark = benchmark_of(name, "--chat", "-d", shared(data), "--limit", limit)
    every = labelled.read(name)
    rows = [row for row in every if row["label"] != labelled.UNCLEAR]
    assert len(rows) >= AGREEMENT * len(every)
    assert len({row["id"] for row in rows}) == len(rows) >= least
    read = {row["id"]: (reading(benchmark, row), row["label"]) for row in rows}
    other = {key: pair for key, pair in read.items() if not same(*pair)}
    guessed = [key for key, (answer, label) in other.items() if label is None]
    print(f"{name}: {len(rows) - len(other)} of {len(rows)} as labelled; read, label: {other}")
    assert not guessed, f"read where a person sees no answer: {[(key, read[key][0]) for key in guessed]}"
    assert len(other) <= (1 - AGREEMENT) * len(rows), other


def same(answer: str | None, label: str | None) -> bool:
    """Whether an answer is the labelled one; numbers by their value."""
    if answer is None or label is None:
        return answer is label
    try:
        return float(Fraction(answer)) == pytest.approx(float(Fraction(label)))
    except ValueError:
        return answer == label


PROMPT = "Which of these four metals is drawn into the longest wires?\nA. lead\nB. gold\nC. iron\nD. tin"


@pytest.mark.parametrize(
    ("reply", "pieces"),
    [
        ("B", ["B"]),
        (PROMPT, [[0, len(PROMPT)]]),
        (f"Well: {PROMPT[:30]}! So B.", ["Well: ", [0, 30], "! So B."]),
        ("A. lead\nB. gold\nC. iron\nD. tin\n\nB", [[len(PROMPT) - 30, 30], "\n\nB"]),
        (PROMPT[5:40] + PROMPT[2:30], [[5, 35], [2, 28]]),
        (PROMPT[:23], [PROMPT[:23]]),  # too short for a quotation
    ],
)
def test_what_a_reply_quotes_is_not_kept_and_comes_back(reply: str, pieces: labelled.Pieces) -> None:
    assert labelled.cut(reply, PROMPT) == pieces
    assert labelled.whole(pieces, PROMPT) == reply
