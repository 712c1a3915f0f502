"""Programs of HumanEval replies: the recorded answers of 2023, the real problems, our hand-labelled replies.

A row of the corpus holds the code that a careful reader would run (its lines, blank ones aside); with a prompt, the code is
the problem's text and the body in the reply. Rows of kind "base" hold the exact completion that is kept.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from examples import examples
from extraction import LENGTHS, corpus, golden, label, long_texts, quick, texts
from qwen_eval.tasks.extract.code import (
    builtin_overrides,
    docstring,
    docstring_2023,
    humaneval_base,
    humaneval_base_2023,
    humaneval_chat,
    humaneval_chat_2023,
    program,
    signature,
)
from shared import humaneval

ROWS = corpus("humaneval")
OTHER_DOCSTRING = {10, 32, 38, 50, 64}  # tasks whose first triple-quoted text is not the entry point's

pieces = texts(
    "```", "```python", "\n", "\n\n", "def f(x):", "def ", "    return x", "    ", "\t", "import math", "f = ", "class A:",
    "'''", '"""', "(", ")", "[", "# ", "print(", "@a", "~~~", "from __future__ import annotations", ":", "'", "\r\n",
    "return 1", "````", "`````", "<|im_end|>", "\nUser: ", "> ", "global f",
)  # fmt: skip


def lines(code: str | None) -> list[str] | None:
    """The lines that matter when two programs are compared."""
    if code is None:
        return None
    return [line.rstrip() for line in textwrap.dedent(code.replace("\r", "")).split("\n") if line.strip()]


def test_2023_answers_every_recorded_row(record_property: Callable[[str, object], None]) -> None:
    rows = golden("humaneval")
    record_property("items", len(rows))
    for row in rows:
        if "response" in row:
            assert humaneval_chat_2023(row["response"], row["entry_point"]) == row["chat_code"], row
        else:
            assert humaneval_base_2023(row["completion"]) == row["base_code"], row
    assert len(rows) >= 400


def test_the_canonical_solutions_survive_the_default_and_127_survive_2023() -> None:
    solutions = [problem["canonical_solution"] for problem in humaneval()]
    assert all(humaneval_base(solution) == solution for solution in solutions)
    assert sum(humaneval_base_2023(solution).rstrip() == solution.rstrip() for solution in solutions) == 127


def test_the_parts_of_every_real_prompt() -> None:
    differing = set()
    for index, problem in enumerate(humaneval()):
        prompt, entry_point = problem["prompt"], problem["entry_point"]
        header = signature(prompt, entry_point)
        assert header.startswith(entry_point + "(")
        assert f"def {header}:" in prompt
        assert header.count("(") == header.count(")")
        assert docstring(prompt, entry_point).strip()
        assert all(line == line.strip() for line in docstring(prompt, entry_point).split("\n"))
        if docstring_2023(prompt) != docstring(prompt, entry_point):
            differing.add(index)
    assert differing == OTHER_DOCSTRING


def test_the_docstring_may_follow_an_import() -> None:
    prompt = 'def f(x: int = (1),\n      y="a:b"):\n    import math\n    """Do it.\n      Now. """\n'
    assert signature(prompt, "f") == 'f(x: int = (1),\n      y="a:b")'
    assert docstring(prompt, "f") == "Do it.\nNow."
    assert docstring("def f(x):\n    pass\n", "f") == ""
    assert signature("x = 1\n", "f") == ""


@pytest.mark.parametrize("style", ["fence", "prose", "body", "fenced body"])
def test_every_canonical_solution_is_found_in_a_reply(style: str) -> None:
    for problem in humaneval():
        prompt, body, entry_point = problem["prompt"], problem["canonical_solution"], problem["entry_point"]
        whole = f"{prompt}{body}"
        reply = {
            "fence": f"Sure!\n```python\n{whole}\n```\nHope this helps.",
            "prose": f"Here is the function.\n\n{whole}\n\nIt works because of the loop.\n",
            "body": body,
            "fenced body": f"```\n{body}```",
        }[style]
        program = humaneval_chat(reply, entry_point, prompt)
        assert program is not None
        if "body" in style:
            assert lines(program) == lines(whole)
        else:  # after the prompt's imports and helpers, repeated
            assert "\n".join(lines(program) or []).endswith("\n".join(lines(whole) or []))


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_default_takes_the_code_a_careful_reader_would_run(row: dict[str, Any]) -> None:
    if row["kind"] == "base":
        assert humaneval_base(row["reply"]) == row["code"]
    else:
        assert lines(humaneval_chat(row["reply"], row["entry_point"], row["prompt"])) == lines(row["code"])


def test_the_corpus_is_large_and_varied() -> None:
    assert len(ROWS) >= 150
    assert len({(row["kind"], row["reply"]) for row in ROWS}) == len(ROWS)
    assert sum(row["code"] is None for row in ROWS) >= 10


def test_a_program_comes_after_the_helpers_of_the_prompt() -> None:
    prompt = 'import math\n\n\ndef helper(x):\n    return x\n\n\ndef f(x):\n    """Do it."""\n'
    reply = "```python\nfrom __future__ import annotations\ndef f(x):\n    return helper(x)\n```"
    program = humaneval_chat(reply, "f", prompt)
    assert program is not None
    scope: dict[str, Any] = {}
    exec(compile(program, "program", "exec"), scope)
    assert scope["f"](3) == 3
    assert program.startswith("from __future__ import annotations\n")


@examples(400)
@given(text=pieces)
def test_any_text_is_read(text: str) -> None:
    prompt = 'def f(x):\n    """Do it."""\n'
    program = humaneval_chat(text, "f", prompt)
    assert program is None or isinstance(program, str)
    assert isinstance(humaneval_chat_2023(text, "f"), str)
    assert text.startswith(humaneval_base(text))
    assert text.startswith(humaneval_base_2023(text))
    assert isinstance(docstring_2023(text), str)
    assert signature(text, "f") in text
    assert isinstance(docstring(text, "f"), str)


@pytest.mark.parametrize("length", LENGTHS)
def test_long_texts_take_linear_time(length: int) -> None:
    for text in long_texts(length):
        for read in (humaneval_base, humaneval_base_2023, docstring_2023, program):
            quick(read, text)
        for read in (humaneval_chat, humaneval_chat_2023, signature, docstring):
            quick(read, text, "f")
        quick(humaneval_chat, text, "f", 'def f(x):\n    """Do it."""\n')


def test_a_program_of_any_name_has_what_it_uses_of_other_blocks() -> None:
    use = "def f(n):\n    return isqrt(n)"
    blocks = ("from math import isqrt", "from math import floor", use, "print(f(4))", "def g(n):\n    return f(n)")
    reply = "\n".join(f"```python\n{block}\n```" for block in blocks)
    assert lines(program(f"{reply}<|im_end|>")) == lines(f"from math import isqrt\n{use}\ndef g(n):\n    return f(n)")
    assert lines(program("```\nprint(1)\n```")) == ["print(1)"]
    assert program("no code") == ""


@pytest.mark.parametrize(
    ("solution", "names"),
    [
        ("def sum(a, b):\n    return a + b\n", ("sum",)),
        (
            "async def next(x): ...\nclass list: pass\nmax = min = None\nid: int = 5",
            ("id", "list", "max", "min", "next"),
        ),
        ("def f():\n    sum = 1\n    def max(): pass\nf.len = 2\nx[abs] = 3\nround(1)", ()),
        ("(pow, (a, [*hash])), any = b", ("any", "hash", "pow")),
        ("from math import pow, sin as abs\nimport math", ()),
        ("__doc__ = 'x'\ndef __import__(): pass", ()),
        ("def sum(a, b) return", ()),
        ("def sum(): '\\d'\n", ("sum",)),
        ("x = '\0'", ()),
        ("(" * 10_000, ()),
        ("", ()),
    ],
)
def test_the_builtins_that_a_reference_solution_defines(solution: str, names: tuple[str, ...]) -> None:
    assert builtin_overrides(solution) == names
