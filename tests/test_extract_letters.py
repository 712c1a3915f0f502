"""Letters of multiple-choice replies: the recorded answers of 2023, our hand-labelled replies, and adversarial texts.

The label of a row is the letter that a careful reader says the reply gives as its answer: by letter, or by an option's own
words where the reply is or states just these. Rows marked `missed` need more than reading (which of several statements
fits the question): the extractor may leave them unanswered, but must not answer them wrongly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from extraction import LENGTHS, corpus, golden, label, long_texts, quick, texts
from qwen_eval.tasks.extract.letter_tokens import LETTERS, MAX_OPTIONS
from qwen_eval.tasks.extract.letters import ceval_2023, letter, mmlu_2023

RECIPES_2023 = {"chat_mmlu": mmlu_2023, "chat_ceval": ceval_2023}
ROWS = {name: corpus(name) for name in ("mmlu_chat", "ceval_chat")}
ALL_ROWS = [row for rows in ROWS.values() for row in rows]

pieces = texts(
    *"ABCDabcd", "A.", "(B)", " ", "\n", ", ", "。", "the answer is ", "答案是", "选", "not ", "不是", "correct", "正确",
    "and ", "cat", "猫", "$\\boxed{", "}", "**", "Ａ", "or ", "option ", "选项", "so ", "?", "if ", "I choose ", "_",
    "｡", "\ue001",
)  # fmt: skip
four_options = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(["cat", "a", "B", "", "The answer", "猫", "12"])),
                        min_size=4, max_size=4)  # fmt: skip


@pytest.mark.parametrize("name", RECIPES_2023)
def test_2023_answers_every_recorded_row(name: str, record_property: Callable[[str, object], None]) -> None:
    rows = golden(name)
    record_property("items", len(rows))
    answers = [RECIPES_2023[name](row["response"], row["question"], [row[key] for key in "ABCD"]) for row in rows]
    wrong = [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer != row["choice"]]
    assert not wrong
    assert len(rows) >= 400


def test_2023_substitutes_inside_words_and_answers_an_empty_reply() -> None:
    options = ["dog", "19", "bird", "fish"]
    assert mmlu_2023("It was in 2019.", "", options) == "B"  # 20B
    assert letter("It was in 2019.", options) is None
    assert mmlu_2023("", "", options) == "A"
    assert ceval_2023("", "", options) == "A"


def test_2023_gives_what_thefuzz_gives_for_a_reply_without_letters() -> None:
    from thefuzz import process

    options = ["the moon", "a red planet", "the sun", "a comet"]
    for reply in ("it is the red planet Mars", "sunlight", "...", "comets and moons", "你好"):
        best = process.extractOne(reply, options)
        assert best is not None
        assert mmlu_2023(reply, "", options) == "ABCD"[options.index(best[0])]


def test_2023_ceval_reads_the_stem_of_the_question() -> None:
    options = ["洛阳", "长安", "开封", "南京"]
    assert ceval_2023("唐朝的都城位于B", "唐朝的都城位于____", options) == "B"
    assert ceval_2023("A说：唐朝的都城位于：B。", "唐朝的都城位于____", options) == "B"


@pytest.mark.parametrize("row", ALL_ROWS, ids=label)
def test_default_agrees_with_the_hand_labels(row: dict[str, Any]) -> None:
    answer = letter(row["reply"], row["options"])
    assert answer == row["letter"] or (row.get("missed") and answer is None)


def test_the_corpora_are_large_and_varied() -> None:
    for rows in ROWS.values():
        assert len(rows) >= 150
        assert len({(row["reply"], *row["options"]) for row in rows}) == len(rows)
        letters = Counter(row["letter"] for row in rows)
        assert letters[None] >= 40
        assert all(letters[option] >= 10 for option in "ABCD")
        assert sum(bool(row.get("missed")) for row in rows) <= 2


def test_an_option_counts_only_by_its_whole_words() -> None:
    options = ["art", "rap", "jazz", "folk"]
    assert letter("The answer is partial to therapy.", options) is None
    assert letter("The answer is art.", options) == "A"


def test_equal_options_are_distinguished_by_letter_only() -> None:
    options = ["3", "3", "4", "5"]
    assert letter("3", options) is None
    assert letter("The answer is B) 3", options) == "B"


def test_letters_beyond_the_options_are_no_answer() -> None:
    assert letter("The answer is E.", ["1", "2", "3", "4"]) is None
    assert letter("The answer is D.", ["1", "2", "3"]) is None
    assert letter("The answer is E.", ["1", "2", "3", "4", "5"]) == "E"


TEN = ["iron", "gold", "zinc", "lead", "neon", "argon", "radon", "xenon", "boron", "helium"]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The answer is J.", "J"),
        ("The answer is I.", "I"),
        ("The answer is (I).", "I"),
        ("Answer: I", "I"),
        ("I", "I"),
        ("i", "I"),
        ("I. boron", "I"),
        ("I) boron", "I"),
        ("**I**", "I"),
        ("I is correct.", "I"),
        ("Option I is correct.", "I"),
        ("The answer is I because boron is light.", "I"),
        ("The answer is I, as boron is light.", "I"),
        ("I think the answer is I.", "I"),
        ("$\\boxed{J}$", "J"),
        ("答案是J", "J"),
        ("故选I。", "I"),
        ("I think the answer is C.", "C"),
        ("I think it is C", "C"),
        ("I would choose J", "J"),
        ("I choose B.", "B"),
        ("I, like most, choose B.", "B"),
        ("B, I think.", "B"),
        ("C is correct, I believe.", "C"),
        ("I'd go with D", "D"),
        ("I'm sure it is E.", "E"),
        ("I am not sure, but the answer is H.", "H"),
        ("i think d", "D"),
        ("(i) Zinc is a metal. (ii) Neon is a gas. The answer is E.", "E"),
        ("The answer is boron.", "I"),
        ("helium", "J"),
        ("I do not know.", None),
        ("I cannot answer that.", None),
        ("I am sorry.", None),
        ("I, as a language model, cannot say.", None),
        ("The answer is I or J.", None),
        ("The answer is K.", None),
        ("J is wrong.", None),
    ],
)
def test_a_reply_to_a_question_with_ten_options(reply: str, answer: str | None) -> None:
    assert letter(reply, TEN) == answer


@pytest.mark.parametrize("count", [9, 10, 17, MAX_OPTIONS])
@pytest.mark.parametrize(
    "form",
    ["{}", "({})", "The answer is {}.", "{} is correct.", "答案：{}", "\\boxed{{{}}}", "Answer: **{}**", "选{}", "option {}"],
)  # fmt: skip
def test_every_letter_can_be_named(form: str, count: int) -> None:
    options = [f"thing {number}" for number in range(count)]
    named = LETTERS[:count]
    assert "".join(letter(form.format(each), options) or "-" for each in named) == named


@pytest.mark.parametrize("name", ROWS)
def test_more_options_change_few_answers(name: str) -> None:
    more = [f"another thing {number}" for number in range(6)]
    answered = [(row, letter(row["reply"], [*row["options"], *more])) for row in ROWS[name]]
    other = [row["reply"] for row, answer in answered if answer != letter(row["reply"], row["options"])]
    # a letter beyond the previous options is now one of them
    assert [reply for reply in other if not re.search("[E-J]", reply)] == []
    assert len(other) <= 5


def test_a_letter_is_read_as_before_with_eight_options_or_fewer() -> None:
    assert letter("K", ["Na", "K", "Ca"]) == "B"
    assert letter("The answer is J.", TEN[:8]) is None


@examples(300)
@given(reply=pieces, question=pieces, options=four_options)
def test_any_reply_gives_a_letter_or_none(reply: str, question: str, options: list[str]) -> None:
    assert letter(reply, options) in {"A", "B", "C", "D", None}
    assert mmlu_2023(reply, question, options) in set("ABCD")
    assert ceval_2023(reply, question, options) in set("ABCD")


@examples(200)
@given(reply=pieces)
def test_without_any_letter_or_option_there_is_no_answer(reply: str) -> None:
    bare = "".join(character for character in reply if character.casefold() not in "abcdefghａｂｃｄｅｆｇｈ")
    assert letter(bare, ["quail", "lynx", "newt", "moth"]) is None


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("option", ["cat", "a" * 300 + "b"])
def test_long_texts_take_linear_time(option: str, length: int) -> None:
    for text in long_texts(length):
        assert quick(letter, text, [option, "", "the answer is", "A and"]) in {"A", "B", "C", "D", None}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("recipe", RECIPES_2023)
def test_long_texts_take_linear_time_in_the_rules_of_2023(recipe: str, length: int) -> None:
    for text in long_texts(length):
        assert quick(RECIPES_2023[recipe], text, "question____", ["cat", "dog", "", "bird"]) in set("ABCD")
