"""ReAct fields and the reasoning of reasoning models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from examples import examples
from extraction import LENGTHS, golden, long_texts, quick, texts
from qwen_eval.engines.reasoning import TAGS, split_reasoning
from qwen_eval.tasks.extract.react import (
    action_right,
    action_right_2023,
    arguments_equal,
    canonical,
    names_action,
    names_action_2023,
    react,
    react_2023,
)

pieces = texts(
    "Thought:", "Action:", "Action: search", "Action Input:", "Observation:", "Final Answer:", "\n", " ", '{"q": "a"}',
    "{a: 1}", "[1,", "]", "<think>", "</think>", "[THINK]", "NaN", "'", '"',
)  # fmt: skip

REPLY = 'Thought: I look it up.\nAction: search\nAction Input: {"q": "Paris", "n": 3}\n'
FULL = REPLY + "Observation: sunny\nThought: done\nFinal Answer: It is sunny."


def test_2023_answers_every_recorded_row(record_property: Callable[[str, object], None]) -> None:
    rows = golden("plugin")
    record_property("items", len(rows))
    for row in rows:
        assert react_2023(row["gen"])._asdict() == row["parsed"]
        assert react_2023(row["response"])._asdict() == row["gold_parsed"]
        assert action_right_2023(row["response"], row["gen"]) == row["action_right"]
        assert names_action_2023(row["gen"]) == row["false_positive"]
    assert len(rows) >= 70


def test_a_call_and_a_final_answer() -> None:
    call = react(FULL)
    assert (call.thought, call.action, call.actions) == ("I look it up.", "search", 1)
    assert (call.input, call.arguments, call.valid_json) == ('{"q": "Paris", "n": 3}', '{"n": 3, "q": "Paris"}', True)
    assert call.final_answer == "It is sunny."
    assert react(REPLY).final_answer is None


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        (REPLY, "search"),
        ("Action: search\nAction Input: {}", "search"),
        ("Action:search", "search"),
        ("Thought: x\nAction:search", None),
        ("I could use Action: search", None),
        ("Final Answer: 3", None),
        ("", None),
        ("Thought: none of the tools help.\nFinal Answer: 3", None),
    ],
)
def test_a_tool_is_called_on_a_line_of_its_own(reply: str, action: str | None) -> None:
    assert react(reply).action == action
    assert names_action(reply) == (action is not None)


def test_the_default_takes_a_reply_that_starts_with_its_action() -> None:
    assert not names_action_2023("Action: search\nAction Input: {}")
    assert names_action("Action: search\nAction Input: {}")
    assert action_right("Thought: x\nAction: Search\n", "Action: search \nAction Input: {}")
    assert not action_right("Thought: x\nAction: Search\n", "Thought: search")
    assert not action_right("no action", "no action")


@pytest.mark.parametrize(
    ("reply", "actions"),
    [(REPLY, 1), (REPLY + "\n" + REPLY, 2), ("Action: a\nAction: b\nAction: c", 3), ("", 0), ("Thought: x", 0)],
)
def test_calls_are_counted_and_the_first_one_counts(reply: str, actions: int) -> None:
    assert react(reply).actions == actions
    assert react("Action: a\nAction Input: 1\nAction: b\nAction Input: 2").input == "1"


@pytest.mark.parametrize(
    ("text", "form", "strict"),
    [
        ('{"b": 1, "a": "é"}', '{"a": "é", "b": 1}', True),
        ("{b: 1, 'a': 2,}", '{"a": 2, "b": 1}', False),
        ("[1, 2,]", "[1, 2]", False),
        ("3", "3", True),
        ("print('hi')", None, False),
        ('{"q": "a"', None, False),
        ("NaN", "NaN", False),
        ("[" * 5000, None, False),
    ],
)
def test_inputs_are_read_as_json5_and_distinguished_from_json(text: str, form: str | None, strict: bool) -> None:
    call = react(f"Action: a\nAction Input: {text}\nObservation: x")
    assert (call.input, call.arguments, call.valid_json) == (text, form, strict)
    assert canonical(text) == form


def test_an_input_may_span_lines_and_be_missing() -> None:
    assert react('Action: a\nAction Input: {\n  "x": 1\n}\nThought: b').arguments == '{"x": 1}'
    assert (react("Action: a\n").input, react("Action: a\n").arguments) == ("", "")
    assert react("Action: a\nAction Input:\nObservation: b").arguments == ""


@pytest.mark.parametrize(
    ("gold", "reply", "equal"),
    [
        ('{"a": 1, "b": 2}', "{b: 2, a: 1}", True),
        ('{"a": 1}', '{"a": "1"}', False),
        ('{"a": 1}', '{"a": true}', False),
        ("print('hi')", "print('hi')", True),
        ("print('hi')", "print('ho')", False),
        ("", "", True),
        ("", "print('hi')", False),
        ("{}", "", False),
    ],
)
def test_arguments_are_equal_as_values(gold: str, reply: str, equal: bool) -> None:
    calls = [react(f"Action: a\nAction Input: {text}") for text in (gold, reply)]
    assert arguments_equal(*calls) == equal


@pytest.mark.parametrize(
    ("text", "reasoning", "reply"),
    [
        ("The answer is B.", "", "The answer is B."),
        ("<think>A? No.</think>\n\nThe answer is B.", "A? No.", "The answer is B."),
        ("\n<think>\nA? No.\n</think>B", "A? No.", "B"),
        ("A? No.\n</think>\n\nB", "A? No.", "B"),
        ("<think>The answer is A, so", "The answer is A, so", ""),
        ("<think></think>B", "", "B"),
        ("<think>\n\n</think>\n\n    return x", "", "    return x"),
        ("<think>one</think>A<think>two</think>B", "oneAtwo", "B"),
        ("<think>one</think>B\n<think>two", "onetwo", "B\n"),
        ("[THINK]A?[/THINK]B", "A?", "B"),
        ("◁think▷A?◁/think▷B", "A?", "B"),
        ("", "", ""),
    ],
)
def test_reasoning_is_kept_apart(text: str, reasoning: str, reply: str) -> None:
    assert split_reasoning(text) == (reasoning, reply)


def test_a_prompt_that_opens_the_reasoning_makes_all_of_it_reasoning() -> None:
    assert split_reasoning("The answer may be A", opened=True) == ("The answer may be A", "")
    assert split_reasoning("A?</think>B", opened=True) == ("A?", "B")


@examples(300)
@given(text=pieces)
def test_any_text_is_read(text: str) -> None:
    call = react(text)
    assert names_action(text) == (call.action is not None) == (call.actions > 0)
    assert names_action(text) or not names_action_2023(text)
    assert all(isinstance(field, str) for field in react_2023(text))
    reasoning, reply = split_reasoning(text)
    assert not any(mark in reply for pair in TAGS for mark in pair)
    assert reply in text
    assert isinstance(reasoning, str)


@pytest.mark.parametrize("length", LENGTHS)
def test_long_texts_take_linear_time(length: int) -> None:
    for text in long_texts(length):
        for read in (react, react_2023, names_action, split_reasoning):
            quick(read, text)
