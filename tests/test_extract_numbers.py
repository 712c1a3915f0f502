"""Numbers of GSM8K replies: the recorded answers of 2023, real labelled solutions, our hand-labelled replies.

The labels of a row: the number of the reply as a person would read it, and the one that it names as its answer. Rows with
"cut" were ended by their length.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from extraction import LENGTHS, corpus, golden, label, long_texts, quick, texts
from qwen_eval.schema import DataError
from qwen_eval.tasks.extract.numbers import (
    gold,
    gsm8k_2023,
    gsm8k_2023_correct,
    gsm8k_chat_2023,
    gsm8k_chat_2023_correct,
    number,
    strict_number,
)
from shared import shared

ROWS = corpus("gsm8k")

pieces = texts(
    *"0123456789.,-+/%$^ xX", "1,080", " ", "the answer is ", "答案是", "三", "十", "百", "万", "亿", "点", "分之", "两", "½",
    "\\frac{1}{2}", "\\boxed{", "}", "#### ", "<|im_end|>", "</s>", "\nHuman: ", "\nQ: ", ".\n",
    "\\fbox{", "thirty-", "six ", "hundred ", "and ", "million", "rd", "e5", "９", "٣", "第", "²", "−",
)  # fmt: skip


def test_2023_answers_every_recorded_row(record_property: Callable[[str, object], None]) -> None:
    rows = golden("gsm8k")
    record_property("items", len(rows))
    for row in rows:
        reply, answer = row["completion"], row["gold"]
        assert (gsm8k_2023(reply) or "[invalid]") == row["base_extracted"], row
        assert gsm8k_2023_correct(reply, answer) == row["base_correct"], row
        assert gsm8k_chat_2023(reply) == row["chat_extracted"], row
        assert gsm8k_chat_2023_correct(reply, answer) == row["chat_correct"], row
    assert len(rows) >= 1000


def test_default_agrees_with_every_label_of_the_real_solutions() -> None:
    rows = [row for row in golden("gsm8k") if "labelled_correct" in row]
    wrong = [row for row in rows if (number(row["completion"]) == gold(row["gold"])) != row["labelled_correct"]]
    assert not wrong
    assert len(rows) >= 800


def test_default_reads_the_gold_number_of_every_real_answer() -> None:
    for name in ("train", "test"):
        for line in shared(f"data/gsm8k/{name}.jsonl").read_text(encoding="utf-8").splitlines():
            answer = json.loads(line)["answer"]
            assert number(answer) == gold(answer), answer


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_default_agrees_with_the_hand_labels(row: dict[str, Any]) -> None:
    expected = {key: None if row[key] is None else Decimal(row[key]) for key in ("number", "strict")}
    cut = row.get("cut", False)
    assert {"number": number(row["reply"], cut), "strict": strict_number(row["reply"], cut)} == expected


def test_the_corpus_is_large_and_varied() -> None:
    assert len(ROWS) >= 150
    assert len({row["reply"] for row in ROWS}) == len(ROWS)
    assert sum(row["number"] is None for row in ROWS) >= 10
    assert len({row["about"] for row in ROWS}) >= 15


@pytest.mark.parametrize(
    ("answer", "value"), [("x\n#### 18", "18"), ("#### 1,080", "1080"), ("#### -5", "-5"), ("#### 3.5", "3.5")]
)
def test_gold_is_what_follows_the_hashes(answer: str, value: str) -> None:
    assert gold(answer) == Decimal(value)


@pytest.mark.parametrize("answer", ["", "18", "####", "#### x", "#### 018"])
def test_a_gold_text_without_a_number_is_bad_data(answer: str) -> None:
    with pytest.raises(DataError, match="####"):
        gold(answer)


def test_the_rules_of_2023_lose_what_the_default_keeps() -> None:
    reply = "The answer is -1,080.50"
    assert (gsm8k_2023(reply), gsm8k_chat_2023(reply), number(reply)) == ("50", "-1080.50", Decimal("-1080.5"))
    assert (gsm8k_2023("1,080"), gsm8k_chat_2023("10-15"), number("10-15")) == (None, "-15", 15)
    assert gsm8k_2023("007") is None
    assert gsm8k_2023("000") == "0"
    assert not gsm8k_chat_2023_correct("018", "#### 18")


def test_no_text_is_evaluated() -> None:
    """Each of these would raise, hang or take memory if it were run."""
    for reply in ("__import__('os').abort()", "9**9**9**9", "1/0", "0**-1", "1e999999999", "9" * 100_000):
        for read in (number, strict_number, gsm8k_2023, gsm8k_chat_2023):
            quick(read, reply)


LAMPS = "A keeper buys 18 lamps for $9 each. He opens at 7:30 and lights 4 lamps an hour for 3 days. How much?"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("So he saves $2.50 by buying 18 lamps.", "2.50"),
        ("Therefore he has 162 dollars to pay if he buys 18 lamps for $9 each.", "162"),
        ("So the room is 40 degrees warmer at 7:30.", "40"),
        ("So he lights 96 lamps in 3 days.", "96"),
        ("He needs 5 boxes of 4 lamps.", "5"),
        ("The price is $144 (with 18 lamps).", "144"),
        # what comes out may be a number of the question
        ("After 5 hours he has 18 lamps.", "18"),
        ("6 boxes of 3 lamps is 18 lamps.", "18"),
        ("6 x 3 = 18", "18"),
        ("With 5 more, the price comes to 9.", "9"),
        ("He needs 5 boxes and 4 lamps.", "4"),
        ("So he lights 4 lamps in 3 days.", "3"),  # both are given: the last, as ever
        ("That is 96. So it takes 3 days.", "3"),  # another sentence
        ("He lights 96 lamps in 12 days.", "12"),  # not of the question
        ("The answer is 18 of 20.", "20"),
        ("#### 18", "18"),
    ],
)
def test_what_the_last_sentence_repeats_of_the_question_is_not_its_answer(reply: str, expected: str) -> None:
    assert number(reply, question=LAMPS) == Decimal(expected)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("He has 30 lamps. The sum is the sum of lamps.\n\n", None),
        ("He has 30 lamps. The sum is 12 lamps.", "12"),
        ("The answer is 7. He has 30 lamps. The sum is the sum of lamps.", "7"),
        ("So 3 * 4 = 12 lamps.\nHe goes on and on", None),
    ],
)
def test_a_reply_cut_by_its_length_answers_with_its_last_sentence_alone(reply: str, expected: str | None) -> None:
    assert number(reply, cut=True) == (None if expected is None else Decimal(expected))


@examples(400)
@given(reply=pieces)
def test_any_reply_gives_a_finite_number_or_none(reply: str) -> None:
    for read in (number, strict_number):
        for cut in (False, True):
            value = read(reply, cut)
            assert value is None or value.is_finite()
    assert (gsm8k_2023(reply) or "0").isascii()
    gsm8k_2023_correct(reply, "#### 18")
    gsm8k_chat_2023_correct(reply, "#### 18")


@examples(300)
@given(
    value=st.decimals(min_value=-(10**12), max_value=10**12, places=2),
    form=st.sampled_from(
        ["{}", "{:,}", "${:,}.", "The answer is {:,}.", "**{:,}**", "so x = {} units", "$\\boxed{{{:,}}}$"]
    ),
)
def test_every_way_to_write_a_number_is_read(value: Decimal, form: str) -> None:
    assert number("It was 3 at first. " + form.format(value)) == value


@pytest.mark.parametrize("length", LENGTHS)
def test_long_texts_take_linear_time(length: int) -> None:
    for text in long_texts(length):
        for read in (number, strict_number, gsm8k_2023, gsm8k_chat_2023):
            quick(read, text)
        quick(number, text, True)
        quick(number, text, False, "There were 3 lamps, 18 keepers and 2 boats, 1 of them red.")
        quick(gsm8k_chat_2023_correct, text, "#### 18")
