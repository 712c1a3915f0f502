"""Tests that are scripts: verdicts as one plain process gives them, unsuitable tests, and limits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from qwen_eval.sandbox import Program, Sandbox, Verdict
from sandboxes import opened
from scripts import TASKS, Task


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with opened(workers=1) as pool:
        yield pool


def judge(sandbox: Sandbox, source: str, test: str, setup: str = "", overrides: tuple[str, ...] = ()) -> Verdict:
    (verdict,) = sandbox.check([Program(source, test, context=setup, overrides=overrides)])
    return verdict


def passes_plainly(source: str, task: Task) -> bool:
    """Whether the test passes in one process with the solution."""
    text = "\n".join((source, task.setup, task.test))
    return subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_verdict_is_that_of_one_plain_process(sandbox: Sandbox, task: Task) -> None:
    assert (passes_plainly(task.right, task), passes_plainly(task.wrong, task)) == (True, False)
    right, wrong, empty = sandbox.check(
        [Program(source, task.test, context=task.setup) for source in (task.right, task.wrong, "")]
    )
    assert (right.status, right.detail) == ("passed", "")
    assert wrong.status == "failed", wrong
    assert empty.status == "failed"
    assert "unittest.main" in task.test or empty.detail.startswith("NameError: name ")


# whose fault it is


@pytest.mark.parametrize(
    ("test", "setup", "detail"),
    [
        ("assert f(1) ==", "", "the test itself: SyntaxError"),
        ("import nowhere\nassert f(1) == 1", "", "the test itself: ModuleNotFoundError"),
        ("assert f(1) == 1", "1 / 0", "the test itself: ZeroDivisionError"),
        ("class Own: pass\nf(Own())", "", "the test passes a value of type Own, which cannot cross"),
        ("class Own(C): pass", "", "the test derives the class Own from one of the candidate's"),
        ("class Own(E): pass", "", "the test derives the class Own from one of the candidate's"),
        ("import dataclasses\nassert dataclasses.asdict(D(1)) == {'x': 1}", "", "the test takes a dataclass"),
        ("import pickle\npickle.dumps(C())", "", "the test pickles an object"),
        ("import asyncio\nassert asyncio.run(wait()) == 1", "", "the test awaits what runs"),
        ("try:\n    f(object())\nexcept:\n    pass", "", "the test passes a value of type object"),
        ("import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): f(1)", "", "the test uses redirect_stdout"),
        ("import io, sys\nsys.stdout = io.StringIO()\nf(1)", "", "the test uses sys.stdout"),
        ("import itertools\nf(itertools.count())", "", "the test passes an iterator of more than"),
        (
            "assert call(lambda: object) is object\ncall(lambda: type('T', (), {}))",
            "",
            "a function of the test returns",
        ),
    ],
)  # fmt: skip
def test_what_a_test_cannot_do_is_no_verdict_on_the_candidate(
    sandbox: Sandbox, test: str, setup: str, detail: str
) -> None:
    source = """
from dataclasses import dataclass
@dataclass
class D:
    x: int
class C: pass
class E(Exception): pass
async def wait(): return 1
def f(x): return x
def call(g): return g()
"""
    verdict = judge(sandbox, source, test, setup)
    assert (verdict.status, verdict.detail[: len(detail)]) == ("infrastructure", detail)


@pytest.mark.parametrize(
    ("source", "test", "detail"),
    [
        ("def f(x): return x + 2", "assert f(1) == 2", "AssertionError at: assert f(1) == 2"),
        ("x = 1", "assert f(1) == 2", "NameError: name 'f' is not defined at: assert f(1) == 2"),
        ("def f(x) return x", "assert f(1) == 2", "SyntaxError: expected ':' (<solution>, line 1)"),
        ("class Own(Exception): pass\ndef f(x): raise Own('why')", "f(1)", "Own: why at: f(1)"),
        ("def f(x): return {}['key']", "f(1)", "KeyError: key at: f(1)"),
        ("class C:\n    def __init__(self): self.a = 1", "assert C().b == 1", "AttributeError: 'C' object has no attr"),
        ("def f(x): return [object() for _ in range(200_000)]", "f(1)", "the candidate returned more than 100000 objects"),
        ("def f(x): return [[] for _ in range(200_000)]", "f(1)", "the candidate returned more than 100000 containers"),
        ("def f():\n    while True: yield 'x' * 9_000_000", "for x in f(): pass", "the candidate sent more than"),
    ],
)  # fmt: skip
def test_a_failure_says_why(sandbox: Sandbox, source: str, test: str, detail: str) -> None:
    verdict = judge(sandbox, source, test)
    assert (verdict.status, verdict.detail[: len(detail)]) == ("failed", detail)


def test_a_name_of_the_language_is_the_candidates_where_the_task_says_so(sandbox: Sandbox) -> None:
    source = "def sum(a, b): return a + b"
    assert judge(sandbox, source, "assert sum(1, 2) == 3", overrides=("sum",)).status == "passed"
    assert judge(sandbox, source, "assert sum([1, 2]) == 3 and f() == 1").detail.startswith("NameError: name 'f'")
    unasked = judge(sandbox, source, "assert sum(1, 2) == 3")
    assert (unasked.status, unasked.detail[:27]) == ("infrastructure", "the test itself: TypeError:")


# where the candidate's own word would decide

OWN_WORD = """
from typing import NamedTuple
class Money:
    def __init__(self, n): self.n = n
    def __eq__(self, other): return self.n == (other.n if isinstance(other, Money) else other)
    def __lt__(self, other): return self.n < (other.n if isinstance(other, Money) else other)
    def __add__(self, other): return Money(self.n + other)
    def __contains__(self, other): return self.n == other
class Naive:
    def __eq__(self, other): return self.n == other.n
class Angle(float):
    def __add__(self, other): return Angle((float(self) + other) % 360)
class Row(list):
    def __add__(self, other): return Row([a + b for a, b in zip(self, other)])
class Word(str):
    def __eq__(self, other): return self.lower() == other.lower()
    def __hash__(self): return hash(self.lower())
class Sized(NamedTuple):
    x: int
    def __len__(self): return 7
def money(n): return Money(n)
def naive(): return Naive()
def angle(x): return Angle(x)
def row(*xs): return Row(xs)
def sized(): return Sized(1)
"""


@pytest.mark.parametrize(
    ("test", "method"),
    [
        ("assert Money(5) == 5", "Money.__eq__"),
        ("assert money(5) == 5", "Money.__eq__"),
        ("assert [money(5)] == [5] and 5 in [money(5)]", "Money.__eq__"),
        ("assert money(5) < 6", "Money.__lt__"),
        ("assert (money(5) + 1).n == 6", "Money.__add__"),
        ("assert 5 in money(5)", "Money.__contains__"),
        ("assert angle(350) + 20 == 10", "Angle.__add__"),
        ("assert row(1, 2) + [3, 4] == [4, 6]", "Row.__add__"),
        ("assert Word('Ab') == 'aB'", "Word.__eq__"),
        ("assert len(sized()) == 7", "Sized.__len__"),
        ("assert Money(5) != 5", "Money.__eq__"),  # passes here and not in one process
        ("assert naive() != 5", "Naive.__eq__"),
    ],
)
def test_a_verdict_that_hangs_on_a_class_s_own_word_is_neither_passed_nor_failed(
    sandbox: Sandbox, test: str, method: str
) -> None:
    verdict = judge(sandbox, OWN_WORD, test)
    assert (verdict.status, verdict.detail) == (
        "infrastructure",
        f"the verdict hangs on {method} of the candidate's, which is not trusted with the test's values",
    )


@pytest.mark.parametrize(
    ("test", "status"),
    [
        ("assert money(5) == 6", "failed"),
        ("assert money(5) != 6", "passed"),
        ("assert money(5).n == 5", "passed"),
        ("assert angle(10) + 20 == 30", "passed"),
        ("assert angle(10) + 20 == 31", "infrastructure"),  # an Angle with methods of its own where a float stood
        ("assert row(1, 2) * 2 == [1, 2, 1, 2]", "passed"),
        ("assert Money(5) + 1 == Money(6) and Money(5).n == 5", "passed"),
        ("def test():\n    assert money(5).n == 6", "infrastructure"),  # nothing is called
    ],
)
def test_a_class_s_own_word_counts_only_where_the_verdict_hangs_on_it(sandbox: Sandbox, test: str, status: str) -> None:
    assert judge(sandbox, OWN_WORD, test).status == status
