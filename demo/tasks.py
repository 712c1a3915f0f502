"""The other synthetic tasks: word problems, one-line functions, translations, and the same questions as chat turns."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from random import Random

from corpus import CONTEXT, TEACH, Document, draw_item, held_out, options_text
from facts import CEVAL, CMMLU, MMLU

SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Problem:
    """A word problem: the solution carries <<sum=value>> notes, as the official file does, and no `####` line."""

    question: str
    solution: str
    answer: int

    def plain(self) -> str:
        """The solution as the few-shot prompt shows it: without notes, with the closing sentence."""
        return re.sub("<<.*?>>", "", self.solution) + f"\nThe answer is {self.answer}"


EVENTS = (("buys", 1), ("finds", 1), ("sells", -1), ("loses", -1))


def draw_problem(rng: Random, test: bool) -> Problem:
    """One or two steps of addition or subtraction with one-digit numbers; held out is the whole question."""
    while True:
        name, thing = rng.choice(("Tom", "Ann", "Sam", "Mia")), rng.choice(("apples", "cards", "eggs", "books"))
        total = rng.randint(1, 9)
        question, steps = f"{name} has {total} {thing}.", []
        for _ in range(rng.choice((1, 1, 2))):
            verb, sign = rng.choice(EVENTS)
            change = rng.randint(1, 9 - total if sign > 0 else total) if 0 < total < 9 else 0
            question += f" {name} {verb} {change}{' more' if sign > 0 else ''}."
            work = f"{total}{'+' if sign > 0 else '-'}{change}="
            total += sign * change
            steps.append(f"{name} has {work}<<{work}{total}>>{total} {thing}.")
        question += f" How many {thing} does {name} have now?"
        if " 0" not in question and held_out(question) == test:
            return Problem(question, "\n".join(steps), total)


def solved(problem: Problem) -> Document:
    """A problem in the form of the few-shot prompt."""
    asked = f"Question: {problem.question}\nLet's think step by step\n"
    return [(asked, CONTEXT), (problem.plain(), TEACH)]


def word_problems(rng: Random, count: int) -> Document:
    """The base prompt of GSM8K with every problem solved."""
    document: Document = []
    for _ in range(count):
        document += [*solved(draw_problem(rng, test=False)), ("\n\n", TEACH)]
    return document


@dataclass(frozen=True)
class Function:
    """A function of one line: its docstring, body and the assertions that decide."""

    name: str
    doc: str
    body: str
    checks: tuple[str, ...]

    @property
    def prompt(self) -> str:
        return f'def {self.name}(x):\n    """{self.doc}"""\n'

    def test(self) -> str:
        asserts = "".join(f"    assert candidate({check}\n" for check in self.checks)
        return f"\n\nMETADATA = {{}}\n\n\ndef check(candidate):\n{asserts}"


FIXED = (  # name, task, body, assertions
    ("double", "Return x doubled", "x * 2", ("3) == 6", "0) == 0")),
    ("square", "Return x squared", "x * x", ("3) == 9", "-2) == 4")),
    ("negate", "Return x negated", "-x", ("3) == -3", "0) == 0")),
    ("is_even", "Return whether x is even", "x % 2 == 0", ("4) is True", "3) is False")),
    ("is_odd", "Return whether x is odd", "x % 2 == 1", ("4) is False", "3) is True")),
    ("size", "Return the size of x", "len(x)", ("[1, 2]) == 2", "'') == 0")),
    ("first", "Return the first of x", "x[0]", ("[1, 2]) == 1", "'ab') == 'a'")),
    ("last", "Return the last of x", "x[-1]", ("[1, 2]) == 2", "'ab') == 'b'")),
)
BY_NUMBER = (  # name, task, sign, what it does
    ("add", "Return x plus {}", "+", operator.add),
    ("sub", "Return x minus {}", "-", operator.sub),
    ("mul", "Return x times {}", "*", operator.mul),
)


def fixed_functions() -> list[Function]:
    """The eight functions that the training text shows as they stand."""
    return [Function(name, f"{task}.", f"    return {body}\n", checks) for name, task, body, checks in FIXED]


def number_functions(test: bool) -> list[Function]:
    """Functions with a number in them; three numbers in nine of every kind are in no training text."""
    found = []
    for index, (name, task, sign, apply) in enumerate(BY_NUMBER):
        for number in range(1, 10):
            if ((number + index) % 3 == 0) == test:
                full = f"{name}_{number}"
                body = f"x {sign} {number}"
                checks = tuple(f"{x}) == {apply(x, number)}" for x in (1, 5))
                found.append(Function(full, f"{task.format(number)}.", f"    return {body}\n", checks))
    return found


def code(rng: Random, count: int) -> Document:
    """Functions one after the other."""
    document: Document = []
    for function in rng.choices(fixed_functions() + number_functions(test=False), k=count):
        document += [(function.prompt, CONTEXT), (function.body, TEACH), ("\n\n", TEACH)]
    return document


NOUNS = (("cat", "猫"), ("dog", "狗"), ("cow", "牛"), ("bird", "鸟"), ("fish", "鱼"))
VERBS = (("sees", "看见"), ("likes", "喜欢"), ("eats", "吃"), ("finds", "找到"))
ADJECTIVES = (("big", "大"), ("small", "小"), ("red", "红"), ("black", "黑"), ("old", "老"))


def draw_pair(rng: Random, test: bool) -> tuple[str, str]:
    """The same sentence in English and Chinese."""
    while True:
        (a, a_zh), (b, b_zh), (verb, verb_zh) = rng.choice(NOUNS), rng.choice(NOUNS), rng.choice(VERBS)
        (how, how_zh), (other, other_zh) = rng.choice(ADJECTIVES), rng.choice(ADJECTIVES)
        if held_out(a, b, verb, how, other) == test:
            return f"The {how} {a} {verb} the {other} {b}.", f"{how_zh}{a_zh}{verb_zh}{other_zh}{b_zh}。"


def translations(rng: Random, count: int) -> Document:
    """Pairs in one direction, one line a side."""
    into_chinese = rng.random() < 0.5
    languages = ("English", "Chinese") if into_chinese else ("Chinese", "English")
    document: Document = [("Translate the following sentences from {} into {}.\n\n".format(*languages), CONTEXT)]
    for _ in range(count):
        english, chinese = draw_pair(rng, test=False)
        source, target = ("English", english), ("Chinese", chinese)
        if not into_chinese:
            source, target = target, source
        document += [(f"{source[0]}: {source[1]}\n{target[0]}:", CONTEXT), (f" {target[1]}", TEACH), ("\n\n", CONTEXT)]
    return document


SYSTEM_TURN = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"


def turn(user: str, reply: str, before: str = SYSTEM_TURN) -> Document:
    """One exchange in ChatML, after the system's turn or what else is before it; the markers are special tokens."""
    return [
        (f"{before}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n", CONTEXT),
        (f"{reply}<|im_end|>", TEACH),
    ]


def chat(rng: Random) -> Document:
    """A question of any kind as the chat protocols ask it."""
    kind = rng.choice(("mmlu", "mmlu", "mmlu", "ceval", "gsm8k", "gsm8k", "humaneval"))
    if kind == "humaneval":
        function = rng.choice(fixed_functions() + number_functions(test=False))
        return turn(humaneval_turn(function), f"```python\n{function.prompt}{function.body}```")
    if kind == "gsm8k":
        problem = draw_problem(rng, test=False)
        if rng.random() < 0.5:
            return turn(problem.question, problem.plain())
        shots = "".join(text for text, _ in word_problems(rng, 4))
        return turn(f"{shots}Question: {problem.question}\nLet's think step by step", problem.plain())
    tables = MMLU if kind == "mmlu" else rng.choice((CEVAL, CMMLU))
    item = draw_item(rng, rng.choice(list(tables.values())), test=False)
    if kind == "mmlu":
        return turn(mmlu_turn(item.question, options_text(item)), f"The answer is {item.answer}.")
    return turn(f"{item.question}\n\n{options_text(item)}", f"答案是{item.answer}。")


def mmlu_turn(question: str, options: str) -> str:
    """The user's turn of MMLU's chat protocol."""
    return (
        "The following is a multiple-choice question. Please choose the most suitable one among A, B, C and D as the "
        f"answer to this question.\n\n{question}\n{options}"
    )


def humaneval_turn(function: Function) -> str:
    """The user's turn of HumanEval's chat protocol."""
    task = f"Write a Python function `{function.name}(x)` to solve the following problem:"
    return f"{task}\n{function.doc}\n{function.prompt}"
