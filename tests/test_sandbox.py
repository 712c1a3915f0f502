"""The sandbox as its callers see it: verdicts, limits, order, values that cross, and a clean end."""

from __future__ import annotations

import os
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_eval.sandbox import Outcome, Program, Sandbox, Snippet, Verdict, pool, run_code
from qwen_eval.sandbox.inside.settings import Budget
from sandboxes import linux, opened, processes_of
from shared import humaneval


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with opened(workers=2) as pool:
        yield pool


def check_of(body: str) -> str:
    """A test whose check has this body."""
    return "def check(candidate):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


def judge(sandbox: Sandbox, source: str, body: str, context: str = "") -> Verdict:
    """The verdict on a module with a function `f` under a check with this body."""
    (verdict,) = sandbox.check([Program(textwrap.dedent(source), check_of(body), "f", context)])
    return verdict


def canonical(rows: list[dict[str, str]]) -> list[Program]:
    return [Program(r["prompt"] + r["canonical_solution"], r["test"], r["entry_point"], r["prompt"]) for r in rows]


# verdicts


def test_all_canonical_solutions_of_humaneval_pass(sandbox: Sandbox) -> None:
    rows = humaneval()
    verdicts = sandbox.check(canonical(rows))
    assert [(r["task_id"], v) for r, v in zip(rows, verdicts, strict=True) if v.status != "passed"] == []
    assert len(verdicts) == 164


@pytest.mark.parametrize(
    "other", ["user-namespaces+seccomp", "landlock+seccomp", pytest.param("bubblewrap+seccomp", marks=pytest.mark.slow)]
)
def test_canonical_solutions_pass_in_the_other_tiers(other: str) -> None:
    rows = humaneval() if other.startswith("bubblewrap") else humaneval()[::8]
    with opened(workers=2, only=[other]) as pool:
        assert {verdict.status for verdict in pool.check(canonical(rows))} == {"passed"}


def test_a_solution_that_returns_nothing_fails_every_task_of_humaneval(sandbox: Sandbox) -> None:
    rows = humaneval()
    empty = [
        Program(f"def {r['entry_point']}(*a): return None", r["test"], r["entry_point"], r["prompt"]) for r in rows
    ]
    assert {verdict.status for verdict in sandbox.check(empty)} == {"failed"}


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("def f(x): return x + 2", "AssertionError at: assert candidate(1) == 2"),
        ("def f(x): return [][x]", "IndexError: list index out of range at: assert candidate(1) == 2"),
        ("def f(x): return {}['key']", "KeyError: 'key' at: assert candidate(1) == 2"),
        ("class Own(Exception): pass\ndef f(x): raise Own('why')", "Own: why at: assert candidate(1) == 2"),
        ("def f(x) return x", "SyntaxError: expected ':' (<solution>, line 1)"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1", "NameError: name 'f' is not defined"),
        ("f = 1", "TypeError: 'int' object is not callable at: assert candidate(1) == 2"),
        (
            "def f(x, y): return x",
            "TypeError: f() missing 1 required positional argument: 'y' at: assert candidate(1) == 2",
        ),
        ("raise ValueError('x' * 10_000)", "ValueError: " + "x" * 500),
    ],
)
def test_a_failure_says_why(sandbox: Sandbox, source: str, detail: str) -> None:
    verdict = judge(sandbox, source, "assert candidate(1) == 2")
    assert (verdict.status, verdict.detail) == ("failed", detail)


def test_the_task_at_fault_is_no_verdict_on_the_candidate(sandbox: Sandbox) -> None:
    right = "def f(x): return x"
    for test, context, detail in [
        ("def check(candidate) pass", "", "the test itself: SyntaxError"),
        ("x = 1", "", "the test itself: KeyError"),
        ("def check(candidate): pass", "1 / 0", "the test itself: ZeroDivisionError"),
        (check_of("candidate(lambda: 1)"), "", "the test passes a value of type function"),
    ]:
        (verdict,) = sandbox.check([Program(right, test, "f", context)])
        assert verdict.status == "infrastructure"
        assert verdict.detail.startswith(detail)


def test_the_test_uses_the_context_and_not_the_candidates_version_of_it(sandbox: Sandbox) -> None:
    context = "def helper(x): return x + 1\ndef f(x):\n    '''to be written'''\n"
    body = "assert candidate(helper(1)) == 2\nassert f(5) == 5"
    assert judge(sandbox, "def helper(x): return 0\ndef f(x): return x", body, context).status == "passed"
    assert judge(sandbox, "def helper(x): return 0\ndef f(x): return 2", body, context).status == "failed"


# values that cross


@pytest.mark.parametrize(
    "value",
    ["None", "True", "0", "-(10**30)", "0.1", "float('inf')", "-0.0", "1j", "'é\\ud800\\0'", "b'\\0\\xff'", "bytearray(b'x')",
     "[1, [2, (3,)]]", "{1: {'a': {2, 3}}}", "frozenset({1})", "()", "range(1, 10, 2)"],
)  # fmt: skip
def test_plain_values_cross_with_their_types(sandbox: Sandbox, value: str) -> None:
    body = f"value = {value}\nback = candidate(value)\nassert repr(back) == repr(value) and type(back) is type(value)"
    assert judge(sandbox, "def f(x): return x", body) == Verdict("passed", "", pytest.approx(0, abs=0.5))


def test_not_a_number_and_keywords_cross(sandbox: Sandbox) -> None:
    body = "import math\nassert math.isnan(candidate(x=float('nan')))\nassert candidate(x=(1, y := 2), y=y) == 2"
    assert judge(sandbox, "def f(x, y=None): return y or x", body).status == "passed"


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("__import__('collections').Counter('aab')", "{'a': 2, 'b': 1}"),
        ("__import__('collections').OrderedDict(a=1)", "{'a': 1}"),
        ("__import__('collections').namedtuple('P', 'x y')(1, 2)", "(1, 2)"),
        ("__import__('fractions').Fraction(1, 2)", "0.5"),
        ("__import__('decimal').Decimal('0.5')", "0.5"),
        ("__import__('enum').IntEnum('E', 'a').a", "1"),
        ("type('S', (str,), {})('x')", "'x'"),
    ],
)
def test_what_compares_as_a_plain_value_crosses_as_one(sandbox: Sandbox, returned: str, expected: str) -> None:
    assert judge(sandbox, f"def f(): return {returned}", f"assert candidate() == {expected}").status == "passed"


def test_an_iterator_is_its_items_and_not_equal_to_a_list_of_them(sandbox: Sandbox) -> None:
    source = "def f(): return map(int, '12')"
    assert judge(sandbox, source, "assert tuple(candidate()) == (1, 2)").status == "passed"
    assert judge(sandbox, source, "assert candidate() == [1, 2]").status == "failed"


def test_numpy_can_be_used_and_its_numbers_cross(sandbox: Sandbox) -> None:
    numpy = pytest.importorskip("numpy")
    above = Path(numpy.__file__).resolve().parents
    if sandbox.tier.startswith("landlock") and os.geteuid() == 0 and any(not path.stat().st_mode & 1 for path in above):
        pytest.skip("numpy lies below a folder that no other user may look into, and nothing can be mounted here")
    source = "import numpy as np\ndef f(x): return np.mean(x), np.int64(2), np.bool_(True), np.array(x)[0]"
    assert judge(sandbox, source, "assert candidate([1, 2]) == (1.5, 2, True, 1)").status == "passed"


def test_the_test_sees_its_arguments_changed(sandbox: Sandbox) -> None:
    source = """
    def f(numbers, table, both):
        numbers.sort(); numbers.append(9); table["new"] = [table.pop("old")]; both[0].add(1); both[1][0][:] = [7]
    """
    body = """
    numbers, table, inner = [3, 1], {"old": 1, "kept": 2}, [0]
    both = (set(), [inner])
    assert candidate(numbers, table, both) is None
    assert numbers == [1, 3, 9] and table == {"new": [1], "kept": 2} and both == ({1}, [[7]])
    assert inner == [7] and both[1][0] is inner
    """
    assert judge(sandbox, source, body).status == "passed"
    untouched = "numbers = [2, 1]\ncandidate(numbers, {'old': 1}, (set(), [[0]]))\nassert numbers == [2, 1]"
    assert judge(sandbox, source, untouched).status == "failed"


def test_the_standard_library_is_there_and_state_is_kept_between_calls(sandbox: Sandbox) -> None:
    names = "math, typing, collections, itertools, functools, re, heapq, hashlib, string, random, statistics, json"
    names += ", xml.dom.minidom"
    source = f"import {names}\ncalls = []\ndef f(x):\n    calls.append(x)\n    return calls"
    assert judge(sandbox, source, "candidate(1)\nassert candidate(2) == [1, 2]").status == "passed"


# limits


def test_cpu_time_is_what_counts_and_start_up_is_not_counted() -> None:
    with opened(workers=1, cpu_seconds=0.3, wall_seconds=60) as sandbox:
        waits = judge(sandbox, "import time\ntime.sleep(0.6)\ndef f(): return 1", "assert candidate() == 1")
        burns = judge(sandbox, "def f():\n    while True: pass", "assert candidate() == 1")
        asleep = judge(sandbox, "def f(): return 1", "assert candidate() == 1")
    assert waits.status == "passed"
    assert waits.cpu_seconds < 0.1
    assert asleep.cpu_seconds < 0.05
    assert burns.status == "timeout"
    assert burns.detail == "more than 0.3 s of CPU time"
    assert 0.3 <= burns.cpu_seconds < 1.0


def test_a_program_that_only_waits_is_ended_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "busy", lambda: False)
    with opened(workers=1, wall_seconds=0.5) as sandbox:
        verdict = judge(sandbox, "import time\ntime.sleep(1e6)", "pass")
    assert (verdict.status, verdict.detail) == ("timeout", "more than 0.5 s of wall time")


@pytest.mark.parametrize(
    ("loaded", "by_clock", "repeated"), [(True, True, 2), (True, False, 0), (False, True, 0), (False, False, 0)]
)
def test_what_is_run_again(loaded: bool, by_clock: bool, repeated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of CPU time is final; by the clock a busy machine alone counts, and at most one program of twenty."""
    tried: list[tuple[str, float]] = []
    monkeypatch.setattr(pool, "busy", lambda: loaded)
    with opened(workers=2, wall_seconds=7.0) as sandbox:

        def timed_out(slot: int, program: Program, budget: Budget) -> Verdict:
            tried.append((program.context, budget.wall_seconds))
            again = budget.wall_seconds > 7.0
            return Verdict("passed") if again else Verdict("timeout", "too long", by_clock=by_clock)

        monkeypatch.setattr(sandbox, "_check", timed_out)
        programs = [Program("", "", "f", str(index)) for index in range(40)]
        seen: list[tuple[int, str]] = []
        verdicts = sandbox.check(programs, lambda index, verdict: seen.append((index, verdict.status)))
    assert sorted(seen) == [(index, verdict.status) for index, verdict in enumerate(verdicts)]
    assert [verdict.status for verdict in verdicts].count("passed") == repeated
    assert [wall for _, wall in tried] == [7.0] * 40 + [21.0] * repeated


def test_sleepers_take_the_limit_by_the_clock_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "busy", lambda: False)
    with opened(workers=4, wall_seconds=0.5) as sandbox:
        started = time.monotonic()
        sleeper = Program("import time\ntime.sleep(60)", "def check(candidate): pass", "f")
        verdicts = sandbox.check([sleeper] * 16)
        assert time.monotonic() - started < 30
    assert {(verdict.status, verdict.by_clock) for verdict in verdicts} == {("timeout", True)}


def test_the_limit_by_the_clock_follows_that_of_cpu_time() -> None:
    with opened(workers=1) as usual, opened(workers=1, cpu_seconds=60.0) as long:
        assert (usual.budget.wall_seconds, long.budget.wall_seconds) == (10.0, 120.0)


# the pool


def test_verdicts_are_in_order_and_handed_over_as_they_come(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    test = check_of("assert not candidate()")
    programs = [Program(f"def f(): return {i % 3}", test, "f") for i in range(12)]
    seen: list[int] = []
    main, another, original = threading.current_thread(), threading.Event(), sandbox._check

    def first_one_waits(slot: int, program: Program, budget: Budget) -> Verdict:
        assert program is not programs[0] or another.wait(60)
        return original(slot, program, budget)

    def done(index: int, verdict: Verdict) -> None:
        assert threading.current_thread() is main
        seen.append(index)
        another.set()

    monkeypatch.setattr(sandbox, "_check", first_one_waits)
    verdicts = sandbox.check(programs, done)
    assert [verdict.status == "passed" for verdict in verdicts] == [i % 3 == 0 for i in range(12)]
    assert sorted(seen) == list(range(12))
    assert seen[0] != 0
    assert sandbox.check([]) == []


def test_a_lost_process_of_the_pool_is_replaced(sandbox: Sandbox) -> None:
    program = Program("def f(): return 1", check_of("assert candidate() == 1"), "f")
    sandbox.check([program] * 4)
    for zygote in list(sandbox._zygotes.values()):
        zygote.process.kill()
        zygote.process.wait()
    assert [verdict.status for verdict in sandbox.check([program] * 4)] == ["passed"] * 4


@linux
def test_an_error_of_the_caller_and_closing_twice_leave_nothing_behind() -> None:
    endless = Program("while True: pass", check_of("pass"), "f")
    quick = Program("def f(): return 1", check_of("assert candidate() == 1"), "f")

    def fails(index: int, verdict: Verdict) -> None:
        raise LookupError("of the caller")

    known = processes_of(os.getpid(), patience=0)
    sandbox = opened(workers=2, cpu_seconds=600, wall_seconds=600)
    started = time.monotonic()
    with pytest.raises(LookupError):
        sandbox.check([endless, quick, endless], fails)
    sandbox.close()
    assert time.monotonic() - started < 200
    assert processes_of(os.getpid(), known=known) == []
    with pytest.raises(RuntimeError, match="closed"):
        sandbox.check([quick])


# snippets


def test_a_snippet_gives_its_value_and_its_variables(sandbox: Sandbox) -> None:
    setup = "def tool(x): return 'tool ' + x\ngiven = 'text'"
    cases = {
        "a = tool(given)\ntool(a)": Outcome("ok", "tool tool text", {"given": "text", "a": "tool text"}),
        "a = b = [1]": Outcome("ok", [1], {"given": "text", "a": [1], "b": [1]}),
        "a = 1\na += 1": Outcome("ok", 2, {"given": "text", "a": 2}),
        "for i in range(3):\n    if i == 1:\n        tool(str(i))": Outcome("ok", "tool 1", {"given": "text", "i": 2}),
        "def g():\n    7\n'last'\ng()": Outcome("ok", None, {"given": "text"}),
        "a = 1\n1 / 0": Outcome("raised", 1, {"given": "text", "a": 1}, "ZeroDivisionError: division by zero"),
        "a = (": Outcome("raised", None, {"given": "text"}, "SyntaxError: '(' was never closed (<snippet>, line 1)"),
        "import math\n_hidden = 1\nmath": Outcome(
            "ok", None, {"given": "text"}, "its last statement gave a value of type module"
        ),
    }
    seen: list[int] = []
    outcomes = sandbox.run([Snippet(source, setup) for source in cases], lambda index, outcome: seen.append(index))
    for outcome, expected in zip(outcomes, cases.values(), strict=True):
        assert outcome == Outcome(expected.status, expected.value, expected.state, expected.detail, outcome.cpu_seconds)
    assert sorted(seen) == list(range(len(cases)))


def test_snippets_that_end_badly() -> None:
    with opened(workers=2, cpu_seconds=0.3, wall_seconds=20) as sandbox:
        exits, loops, forged, broken, large = sandbox.run(
            [
                Snippet("import os\nos._exit(3)"),
                Snippet("while True: pass"),
                Snippet("import os\nos.write(7, b'nonsense')\nos._exit(0)"),
                Snippet("1", "1 / 0"),
                Snippet("'x' * 20_000_000"),
            ]
        )
    assert (exits.status, exits.detail) == ("died", "the program exited with status 3")
    assert loops.status == "timeout"
    assert forged.status == "died"
    assert (broken.status, broken.detail) == ("infrastructure", "the setup raised ZeroDivisionError: division by zero")
    assert (large.status, large.value) == ("ok", None)


def test_one_snippet_by_itself(sandbox: Sandbox) -> None:
    assert run_code("x + 1", "x = 1").value == 2
