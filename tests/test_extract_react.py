"""ReAct fields and the reasoning of reasoning models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from examples import examples
from extraction import LENGTHS, golden, long_texts, quick, texts
from qwen_eval.engines.reasoning import TAGS, opens_reasoning, split_reasoning
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
    "{a: 1}", "[1,", "]", "<think>", "</think>", "[THINK]", "NaN", "<|channel|>final<|message|>", "<|START_RESPONSE|>",
    "analysis", "assistantfinal", "```", "<|end|>", "'", '"',
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
        ("Thought: x\nAction:search", "search"),
        ("Thought: x\n  Action:  search\n", "search"),
        ("Action:\n\n  search\nAction Input: {}", "search"),
        ("Thought: x\n**Action:** search\n**Action Input:** {}", "search"),
        ("Action：search", "search"),
        ("Action: `search`", "search"),
        ("Action: [search]", "search"),
        ("Action: search Action Input: {}", "search"),
        ("Question: a?\nThought: b\nAction: search\n", "search"),
        ("Action: search<|im_end|>\n", "search"),
        ("I follow the format.\n\nQuestion: a?\nThought: b\nAction: search\n", "search"),
        ("Final Answer: 3\n\nQuestion: b?\nThought: c\nAction: search\n", None),
        ("It is 3.<|im_end|>\n<|im_start|>user\nAction: search\n", None),
        ("It is 3.\nHuman: b?\nAction: search\n", None),
        ("Action: None\nThought: hm\nAction: search\nAction Input: {}", "search"),
        ("Action:\nAction Input: {}", ""),
        ("Thought: Action plan: search", None),
        ("Action Input: {}", None),
        ("Actions: search", None),
        ("I could use Action: search", None),
        ("Final Answer: 3", None),
        ("", None),
        ("Thought: none of the tools help.\nFinal Answer: 3", None),
    ],
)
def test_a_tool_is_called_on_a_line_of_its_own(reply: str, action: str | None) -> None:
    assert react(reply).action == action
    assert names_action(reply) == (action is not None)


@pytest.mark.parametrize(
    "name",
    [
        "None", "none.", "无", "无需使用工具", "无合适的工具", "N/A", "n/a (no tool)", "NA", "No tool needed", "no",
        "not applicable", "null", "None of the tools", "不需要", "没有合适的工具", "-", "(none)", "`None`",
        "No action required", "Nothing",
    ],
)  # fmt: skip
@pytest.mark.parametrize("marker", ["Action: ", "Action:", "Action:\n", "Thought: x\n Action: "])
def test_a_name_for_no_tool_is_no_call(name: str, marker: str) -> None:
    call = react(f"{marker}{name}\nFinal Answer: hi")
    assert (call.action, call.actions, call.final_answer) == (None, 0, "hi")


@pytest.mark.parametrize(
    "name", ["none_tool", "无人机查询", "notebook", "nothing_search", "number", "null_check", "nofly"]
)
def test_a_tool_whose_name_begins_like_none_is_called(name: str) -> None:
    assert react(f"Action: {name}\nAction Input: {{}}").action == name


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('\n```\n{"a": 1}\n```', '{"a": 1}'),
        ('```json\n{"a": 1}', '{"a": 1}'),
        ('```{"a": 1}```', '{"a": 1}'),
        ('```json\n{"a": 1}\n```\nObserv', '{"a": 1}'),
        ("```python\nprint(1)\n```\nThat is it", "print(1)"),
        ('{"a": 1}\nObserv', '{"a": 1}'),
        ('{"a": 1}\nO', '{"a": 1}'),
        ('{"a": 1}\nThought', '{"a": 1}'),
        ("print(1)\nObse", "print(1)"),
        ("a\nT", "a\nT"),
        ('{"a": 1}<|im_end|>', '{"a": 1}'),
        ('{"a": 1}\nQuestion: next', '{"a": 1}'),
    ],
)
def test_an_input_in_a_fence_or_before_a_cut_marker(written: str, text: str) -> None:
    call = react(f"Thought: t\nAction: s\nAction Input: {written}")
    assert call.input == text
    assert call.valid_json == text.startswith("{")


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


ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"
COMMENTARY = "<|start|>assistant<|channel|>commentary"


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
        (
            f"{ANALYSIS}A? 5<|end|>{FINAL}The answer is B.<|return|>",
            "A? 5",
            "The answer is B.",
        ),
        (f"{ANALYSIS}A? 5<|end|>{FINAL}B", "A? 5", "B"),
        (f"{ANALYSIS}A? 5", "A? 5", ""),
        ("<|channel|>analysis", "", ""),
        ("<|channel|>final<|message|>B<|return|>", "", "B"),
        (
            f"<|start|>assistant{ANALYSIS}A<|end|>{COMMENTARY} to=functions.x <|constrain|>json<|message|>{{}}<|call|>",
            "A{}",
            "",
        ),
        (
            f"{ANALYSIS}A<|end|>{COMMENTARY}<|message|>I will.<|end|>{FINAL}B",
            "AI will.",
            "B",
        ),
        (
            f"{ANALYSIS}A? 5<|end|>{FINAL}The answer is B.<|return|><|start|>user<|message|>7?<|end|>{FINAL}C",
            "A? 5",
            "The answer is B.",
        ),
        (f"A? 5<|end|>{FINAL}B", "A? 5", "B"),
        ("analysisWe need A? 5.assistantfinalThe answer is B.", "We need A? 5.", "The answer is B."),
        ("analysisWe need A? 5", "We need A? 5", ""),
        ("analysis\n\nOk.assistantfinal\n\nB", "Ok.", "\n\nB"),
        ("analysis我们assistantfinalB", "我们", "B"),
        ("analysisA.assistantcommentaryI will.assistantfinalB", "A.assistantcommentaryI will.", "B"),
        ("assistantanalysisA.assistantfinalB", "A.", "B"),
        ("finalThe answer is B.", "", "The answer is B."),
        ("assistantfinalB", "", "B"),
        ("analysis of the options: B", "", "analysis of the options: B"),
        ("analysis: B", "", "analysis: B"),
        ("Analysis: B", "", "Analysis: B"),
        ("finally, B", "", "finally, B"),
        ("final answer: B", "", "final answer: B"),
        ("final = 3", "", "final = 3"),
        ("The final is B; the assistant was wrong", "", "The final is B; the assistant was wrong"),
        (
            "<|START_THINKING|>A?<|END_THINKING|><|START_RESPONSE|>The answer is B.<|END_RESPONSE|>",
            "A?",
            "The answer is B.",
        ),
        ("<|START_THINKING|>A?<|END_THINKING|>B", "A?", "B"),
        ("<|START_THINKING|>A?", "A?", ""),
        ("A?<|START_RESPONSE|>B", "A?", "B"),
        (
            "<seed:think>A?<seed:cot_budget_reflect>x</seed:cot_budget_reflect></seed:think>B",
            "A?<seed:cot_budget_reflect>x</seed:cot_budget_reflect>",
            "B",
        ),
        ("<seed:think>A?", "A?", ""),
        ("[THINK]A?", "A?", ""),
        ("A?[/THINK]B", "A?", "B"),
        ("<|channel>thought\nA?<channel|>B", "A?", "B"),
        ("<|begin_of_thought|>A?<|end_of_thought|>\n\n<|begin_of_solution|>B<|end_of_solution|>", "A?", "B"),
        ("", "", ""),
    ],
)
def test_reasoning_is_kept_apart(text: str, reasoning: str, reply: str) -> None:
    assert split_reasoning(text) == (reasoning, reply)


def test_a_prompt_that_opens_the_reasoning_makes_all_of_it_reasoning() -> None:
    assert split_reasoning("The answer may be A", opened=True) == ("The answer may be A", "")
    assert split_reasoning("A?</think>B", opened=True) == ("A?", "B")
    assert split_reasoning("A<|end|><|start|>assistant<|channel|>final<|message|>B", opened=True) == ("A", "B")
    for end in ("<think>\n", "[THINK]", "<|START_THINKING|>", "<|channel|>analysis<|message|>", "<|channel>thought\n"):
        assert opens_reasoning(end)
    for end in (
        "<|START_THINKING|><|END_THINKING|>",
        "<think>\n\n</think>\n\n",
        "<|channel|>final<|message|>",
        "assistant\n",
    ):
        assert not opens_reasoning(end)


def test_marks_of_ones_own() -> None:
    marks = ("<r>", "</r>")
    assert split_reasoning("<r>A?</r>B", marks=marks) == ("A?", "B")
    assert split_reasoning("A?</r>B", marks=marks) == ("A?", "B")
    assert split_reasoning("<r>A?", marks=marks) == ("A?", "")
    assert split_reasoning("<think>A?</think>B", marks=marks) == ("A?", "B")
    assert split_reasoning("<r>A?</r>B") == ("", "<r>A?</r>B")
    assert opens_reasoning("<r>\n", marks) and not opens_reasoning("<r>\n")


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
