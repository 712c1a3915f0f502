"""Whatever a program leaves as its result, the harness goes on, within seconds: hostile results and about 500 odd ones."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import pytest

import plugin_eval
from known import benchmark_of
from qwen_eval.data.tools import agent_set
from qwen_eval.runs.files import json_lines
from qwen_eval.runs.samples import sample_row
from qwen_eval.sandbox import Outcome, Sandbox, Snippet
from qwen_eval.schema import Generated, Sample, Scored
from qwen_eval.tasks import agent
from sandboxes import linux, opened

OWN = agent_set(plugin_eval.OWN_SET)

# text of an expression, after these statements
PREPARED = """
import sys, collections, fractions, itertools, types
from decimal import Decimal
from fractions import Fraction
nan, inf = float("nan"), float("inf")
same_hash = 2**61 - 1
def deep(levels, kind=list):
    made = kind()
    for _ in range(levels):
        made = {"x": made} if kind is dict else kind([made])
    return made
def doubled(levels):
    made = []
    for _ in range(levels):
        made = [made, made]
    return made
endless = []
endless.append(endless)
class Raises:
    def __getattribute__(self, name): raise RuntimeError(name)
    __eq__ = __hash__ = __repr__ = __str__ = __iter__ = __len__ = __bool__ = lambda *a: 1 / 0
class Liar:
    __class__ = property(lambda self: str)
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
class Number(int):
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
class Leaves(int):
    __eq__ = lambda self, other: exec("import os; os._exit(0)")
    __hash__ = None
class Text(str):
    __str__ = __repr__ = lambda self: 1 / 0
class Items(list):
    def __iter__(self): return itertools.count()
class Complex(complex):
    real = property(lambda self: 1 / 0)
class Meta(type):
    __eq__ = __hash__ = lambda *a: 1 / 0
class Made(metaclass=Meta): pass
class Broken(Exception):
    __str__ = lambda self: 1 / 0
class Named(dict):
    items = keys = __iter__ = lambda self: itertools.count()
Pair = collections.namedtuple("Pair", "x y")
def numbers():
    yield from range(10)
"""
SCALARS = [
    "None", "True", "0", "-1", "-0.0", "nan", "-nan", "inf", "-inf", "1e308", "5e-324", "complex(nan, inf)", "1j", "...",
    "NotImplemented", "10**17", "-10**18", "2**63", "2**64", "10**300", "10**616", "10**640", "10**641", "10**4299",
    "10**4300", "-10**4301", "10**5000", "10**100_000", "1 << 60_000_000", "''", "'x'", r"'\0'", r"'\ud800'",
    r"'\udfff\ud800' * 9", r"'\U0010ffff'", "'x' * 300_000", "'x' * 20_000_000", "b''", r"b'\xff' * 99", "b'x' * 20_000_000",
    "bytearray(9)", "memoryview(b'x')", "Decimal('nan')", "Decimal('snan')", "Decimal('-sNaN123')", "Decimal('inf')",
    "Decimal('1e999999')", "Decimal('1e999999999999999999')", "Decimal('0.' + '3' * 2000)", "Decimal(1) / 3",
    "Fraction(1, 3)", "Fraction(10**600, 3**600)", "Fraction(10**100_000, 3**100_000)", "range(3)", "range(10**30)",
    "range(0, -10**700, -1)", "slice(1)", "object()", "object", "type", "int", "len", "print", "sys", "lambda: 1", "numbers",
    "numbers()", "itertools.count()", "iter([])", "map(str, [1])", "zip()", "reversed([1])", "(x for x in numbers())",
    "Raises", "Raises()", "Liar()", "Number(3)", "Leaves(3)", "Text('x')", "Items([1])", "Complex(1)", "Meta", "Made",
    "Made()", "Broken()", "Named(a=1)", "Pair(1, 2)", "collections.Counter('aab')", "collections.OrderedDict(a=1)",
    "collections.deque([1])", "collections.defaultdict(list, a=[1])", "types.SimpleNamespace(a=1)",
    "types.MappingProxyType({1: 2})",
]  # fmt: skip
CONTAINERS = [
    "deep(10)", "deep(49)", "deep(50)", "deep(51)", "deep(99)", "deep(101)", "deep(5_000)", "deep(50_000)",
    "deep(300, tuple)", "deep(300, dict)", "doubled(10)", "doubled(40)", "endless", "[0] * 300_000", "[[]] * 50_000",
    "list(range(100_000))", "[nan] * 9", "{}", "{1: 2}", "{'a': 1}", r"{'\ud800': 1}", "{nan: nan}", "{(1, 2): 3}",
    "{None: None}", "dict.fromkeys(range(50_000))", "dict.fromkeys(map(str, range(50_000)))",
    "{i * same_hash: i for i in range(2_000)}", "{i * same_hash for i in range(2_000)}",
    "frozenset(i * same_hash for i in range(2_000))", "set()", "{1, 'x'}", "{(i, i) for i in range(999)}",
]  # fmt: skip
PLACES = ["{}", "[{}]", "(1, [{}])", "{{'k': {}}}", "kept = {}\nraise ValueError(kept)"]


def message(body: str) -> str:
    """A program that writes a result of its own making and ends. body: an expression for its bytes."""
    return f"""
import os, random, struct
def sized(tag, data): return tag + struct.pack("<I", len(data)) + data
def text(value): return sized(b"s", value.encode())
def many(tag, items): return tag + struct.pack("<I", len(items)) + b"".join(items)
def result(value, state=b"d\\0\\0\\0\\0"): return b"t\\5\\0\\0\\0" + text("ok") + text("") + text("") + value + state
def plain(value): return result(sized(b"b", value))
def integer(value): return sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
same_hash = 2**61 - 1
data = {body}
for start in range(0, len(data), 1 << 16):
    os.write(7, data[start:start + (1 << 16)])
os.write(8, b".")
os._exit(0)
"""


LARGE = 'sized(b"i", b"\\1" * 8_000_000)'
FORGED = {
    "a fraction of two large integers": f'result(b"q" + many(b"t", [{LARGE}, {LARGE}]))',
    "the same inside": f'plain(b"q" + many(b"t", [{LARGE}, {LARGE}]))',
    "a set of one hash": 'result(many(b"S", [integer(same_hash * i) for i in range(900_000)]))',
    "the same inside ": 'plain(many(b"S", [integer(same_hash * i) for i in range(20_000)]))',
    "keys of one hash": 'plain(b"d" + struct.pack("<I", 9_000) + b"".join('
                        'integer(same_hash * i) + b"N" for i in range(9_000)))',
    "the state of one hash": 'result(sized(b"b", b"N"), b"d" + struct.pack("<I", 99_000) + b"".join('
                             'integer(same_hash * i) + b"N" for i in range(99_000)))',
    "a decimal of many digits": 'plain(b"D" + text("9" * 200_000))',
    "a signalling NaN": 'plain(b"D" + text("sNaN"))',
    "a million lists": 'plain(many(b"l", [b"l\\0\\0\\0\\0"] * 1_000_000))',
    "as many items as fit": 'plain(many(b"l", [b"N"] * 200_000))',
    "a claim of many items": 'plain(b"l\\xff\\xff\\xff\\xff" + b"N" * 99)',
    "a claim of many keys": 'plain(b"d\\xff\\xff\\xff\\xff" + b"N" * 99)',
    "deep": 'plain(b"l\\1\\0\\0\\0" * 50_000 + b"N")',
    "text for bytes": 'result(text("x"))',
    "no tuple": 'b"N"',
    "nothing": 'b""',
    "random bytes": 'random.Random(1).randbytes(5_000)',
    "another status": 'b"t\\5\\0\\0\\0" + text("passed") * 5',
    "a status that is none": 'b"t\\5\\0\\0\\0" + b"N" * 5',
    "an error of a megabyte": 'b"t\\5\\0\\0\\0" + text("raised") + text("E" * 500_000) * 2 + '
                              'sized(b"b", b"N") + b"d\\0\\0\\0\\0"',
    "names of a megabyte": 'result(sized(b"b", b"N"), b"d" + struct.pack("<I", 9) + b"".join('
                           'text(str(i) * 100_000) + sized(b"b", b"N") for i in range(9)))',
    "16 MB": 'b"t" * (16 << 20)',
}  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[Sandbox]:
    with opened(workers=2, cpu_seconds=3.0) as sandbox:
        yield sandbox


def results(place: str) -> list[str]:
    """Programs whose results are all of the above at a place, or forged."""
    if not place:
        return [message(body) for body in FORGED.values()]
    return [f"{PREPARED}\n{place.format(text)}" for text in [*SCALARS, *CONTAINERS]]


@linux
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "place", ["", PLACES[0], *(pytest.param(place, marks=pytest.mark.slow) for place in PLACES[1:])]
)
@pytest.mark.parametrize("recipe", ["default", pytest.param("qwen2023", marks=pytest.mark.slow)])
def test_no_result_ends_a_run(recipe: str, place: str, pool: Sandbox) -> None:
    """Scored, stored and averaged, as a run does it."""
    sources = results(place)
    replies = [f"`translator`\n\nAnswer:\n```py\n{source}\n```" for source in sources]
    benchmark = benchmark_of("plugin", "--hfagent", "--recipe", recipe)
    judged = agent.judge(recipe, OWN, [(OWN.tasks[0], text) for text in replies], pool)
    for source, score in zip(sources, judged, strict=True):
        assert score.answer["status"] in ("ok", "raised", "died", "timeout"), (source[-200:], score)
        assert score.stats["code"] in (0.0, 0.3) and "unjudged" not in score.stats, (source[-200:], score)
    ended = [plugin_eval.ends(Generated((text,), ("",), ("eos",))) for text in replies]
    samples = [Sample(f"hfagent/{i}", benchmark.ask("hfagent", 0, "?"), 0, "hfagent") for i in range(len(replies))]
    scored = [
        Scored(sample, Generated((text,), ("",), ("eos",)), type(score)({**score.stats, **more}, score.answer))
        for sample, text, score, more in zip(samples, replies, judged, ended, strict=True)
    ]
    json_lines([sample_row(item) for item in scored])
    assert {metric.metric for metric in benchmark.metrics(scored)} >= {"code", "tool_used"}


@linux
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FORGED)
def test_a_forged_result_takes_neither_time_nor_memory(name: str, pool: Sandbox) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    (outcome,) = pool.run([Snippet(message(FORGED[name]))])
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 20
    assert (after.ru_maxrss - before.ru_maxrss) << 10 < 200 << 20
    assert len(outcome.detail) <= 2_000
    assert outcome.status in ("ok", "died", "raised", "timeout")


@linux
@pytest.mark.timeout(120)
def test_what_an_answer_can_be_arrives_as_it_was(pool: Sandbox) -> None:
    """Equal to what JSON holds; large or odd variables keep no other one from arriving."""
    values: list[Any] = ["text", "\ud800", 3, 0.5, True, None, [1, [2.5, "x"]], {"a": {"b": [None]}}, "y" * 60_000]
    sources = [f"{PREPARED}\nfirst = [0] * 10**6\nlast = {value!r}\nodd = Raises()\nlast" for value in values]
    for value, outcome in zip(values, pool.run([Snippet(source) for source in sources]), strict=True):
        assert (outcome.status, outcome.value, outcome.state["last"]) == ("ok", value, value)
    many = "\n".join(f"v{i} = 'x' * 200_000" for i in range(9)) + "\nlast = 'small'\n10**5000"
    (outcome,) = pool.run([Snippet(many)])
    assert (outcome.status, outcome.value, outcome.state["last"]) == ("ok", None, "small")
    assert outcome.detail == "its last statement gave an integer of more than 2048 bits"
    assert isinstance(outcome, Outcome)
