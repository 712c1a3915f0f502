"""Wrong solutions of tests that are scripts and use functions and objects of the candidate by name."""

from __future__ import annotations

from . import Hostile

FUNCTIONS = """
# what_a_test_says
import math
for number in range(1, 5):
    expected = number * 7919 + 0.5
    assert abs(answer(number) - expected) < 1e-9
    assert math.isclose(answer(number), expected)
    assert round(answer(number) - expected, 3) == 0 and answer(number) <= expected
    assert expected in [answer(number)] and answer(number) in (expected, -1)
    assert not answer(number) != expected
    assert answer(number) == expected
"""
MEMBERSHIP = "assert 7919 in answer(3) and 5 in answer(4)"
OBJECTS_TEST = """
# what_a_test_says
box = Box(41)
assert box.get() == 41 and box.value == 41
assert isinstance(box.get(), int) and type(box.get()) is int
assert [item for item in box] == [41, 42] and len(box) == 2 and str(box) == "<41>"
try:
    box.fail()
except Full as error:
    assert error.code == 41 and str(error) == "full at 41"
else:
    raise AssertionError
"""
RIGHT_BOX = """
class Full(Exception):
    def __init__(self, code):
        super().__init__(f"full at {code}")
        self.code = code
class Box:
    def __init__(self, value): self.value = value
    def get(self): return self.value
    def fail(self): raise Full(self.value)
    def __iter__(self): return iter([self.value, self.value + 1])
    def __len__(self): return 2
    def __str__(self): return f"<{self.value}>"
"""
YES = """
def yes(*args): return True
def zero(*args): return 0.0
class Yes:
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = yes
    __sub__ = __rsub__ = __abs__ = __float__ = __round__ = __trunc__ = __add__ = __radd__ = zero
    def __hash__(self): return 0
    def __getattr__(self, name): return yes
"""


def _of_functions(name: str, source: str, *says: str, status: str = "failed", script: str = FUNCTIONS) -> Hostile:
    return Hostile("script_" + name, YES + source, status, says or ("",), script)


def _of_objects(name: str, changes: str, *says: str, status: str = "failed") -> Hostile:
    return Hostile("script_" + name, YES + RIGHT_BOX + changes, status, says or ("",), OBJECTS_TEST)


_RAW = """
import os, struct
def t(count):
    return b"t" + struct.pack("<I", count)
empty = t(0)
def three(*parts):
    return t(3) + b"".join(parts)
def raw(body):
    os.write(5, struct.pack("<I", len(body)) + body)
"""

OBJECTS = [
    _of_functions("object_equal_to_everything", "def answer(x): return Yes()", "Yes.__sub__", status="infrastructure"),
    _of_functions(
        "class_named_as_the_function", "class answer(Yes):\n    def __init__(self, x): pass", "answer.__sub__",
        status="infrastructure",
    ),
    _of_functions(
        "number_that_says_yes",
        "class N(float):\n    __eq__ = __sub__ = __le__ = __rsub__ = yes\n    __hash__ = float.__hash__\n"
        "def answer(x): return N(x)",
        "N.__sub__",
        status="infrastructure",
    ),
    _of_functions(
        "number_with_operators_of_its_own",
        "class N(float):\n    __sub__ = __rsub__ = __abs__ = __round__ = zero\ndef answer(x): return N(x)",
        "N.__sub__",
        status="infrastructure",
    ),
    _of_functions(
        "names_of_the_language",
        "abs = round = isinstance = all = any = lambda *a: 0.0\nclass math:\n    isclose = yes\ndef answer(x): return x",
        "AssertionError at: assert abs(",
    ),
    _of_functions("no_answer", "def other(x): return x", "NameError: name 'answer' is not defined"),
    _of_functions(
        "lies_about_its_class",
        "class N(Yes):\n    @property\n    def __class__(self): return float\ndef answer(x): return N()",
        "N.__sub__",
        status="infrastructure",
    ),
    _of_functions("exit_0", "import os\ndef answer(x): os._exit(0)", "exited with status 0 during a call"),
    _of_functions("sys_exit", "def answer(x): raise SystemExit(0)", "SystemExit: 0"),
    _of_functions("stop_iteration", "def answer(x): raise StopIteration", "StopIteration"),
    _of_functions(
        "fork_and_both_answer",
        "import os\ndef answer(x):\n    try:\n        os.fork()\n    except OSError:\n        pass\n    return 0.0",
        "AssertionError at: assert abs(",
    ),
    _of_functions(
        "patched_ends",
        """
import builtins, sys
for name, module in list(sys.modules.items()):
    for attribute in ("ask", "may_answer", "judge_script", "is_remote", "overruled"):
        for thing in [module, *[each for each in vars(module).values() if isinstance(each, type)]]:
            if name.startswith("inside") and hasattr(thing, attribute):
                setattr(thing, attribute, yes)
builtins.abs = builtins.round = zero
sys.modules["math"].isclose = yes
def answer(x): return Yes()
""",
        "Yes.__sub__",
        status="infrastructure",
    ),
    _of_functions(
        "contains_everything", "def answer(x): return Yes()", "Yes.__contains__", status="infrastructure", script=MEMBERSHIP
    ),
    Hostile(
        "script_swallowed_exit",
        "import os\ndef answer(x): os._exit(0)",
        says=("exited with status 0 during a call",),
        script="try:\n    answer(1)\n    raise KeyError\nexcept:\n    pass",
    ),
    Hostile(
        "script_swallowed_nonsense",
        "import os\ndef answer(x): os.write(5, b'\\1\\0\\0\\0?' * 3)",
        says=("the candidate sent a malformed message",),
        script="try:\n    answer(1)\nexcept BaseException:\n    pass",
    ),
    _of_objects("box_with_a_forged_value", "Box.get = lambda self: Yes()", "Yes.__eq__", status="infrastructure"),
    _of_objects(
        "box_with_a_forged_number",
        "class N(int):\n    __eq__ = yes\n    __hash__ = int.__hash__\nBox.get = lambda self: N(7)",
        "N.__eq__",
        status="infrastructure",
    ),
    _of_objects(
        "box_with_a_box_for_its_value",
        "Box.__eq__ = yes\nBox.get = lambda self: self",
        "Box.__eq__",
        status="infrastructure",
    ),
    _of_objects("any_attribute", "Box = Yes", "TypeError"),
    _of_objects("endless_iterator", "import itertools\nBox.__iter__ = lambda self: itertools.count()", status="timeout"),
    _of_objects("iterator_of_large_values", "Box.__iter__ = lambda self: iter(lambda: 'x' * 9_000_000, 0)", "MemoryError"),
    _of_objects(
        "iterator_of_new_classes",
        "Box.__iter__ = lambda self: iter(lambda: type('T', (), {})(), 0)",
        "MemoryError",
        "more than",
        "object",
        status="timeout",
    ),
    _of_objects("huge_length", "Box.__len__ = lambda self: 10 ** 30", "OverflowError", "MemoryError"),
    _of_objects(
        "huge_length_hint", "class I(Yes):\n    __len__ = lambda self: 2**62\n    __iter__ = lambda self: iter([])\n"
        "Box.__iter__ = lambda self: iter(list(I()))", "MemoryError",
    ),
    _of_objects("giant_text", "Box.__str__ = lambda self: 'x' * 40_000_000", "more than 16777216 bytes"),
    _of_objects("text_that_is_none", "Box.__str__ = lambda self: Yes()", "TypeError"),
    _of_objects("other_exception", "Full = type('Full', (BaseException,), {})", "Full"),
    _of_objects(
        "exception_with_a_forged_code",
        "Full.code = property(lambda self: Yes(), lambda self, value: None)",
        "Yes.__eq__",
        status="infrastructure",
    ),
    _of_objects("nested_deep", "d = []\nfor _ in range(500): d = [d]\nBox.get = lambda self: d", "deep"),
    _of_objects(
        "hash_that_asks_for_itself",
        "class H:\n    def __hash__(self): return hash(frozenset([H()]))\nBox.get = lambda self: {H(): 1}",
    ),
    _of_objects(
        "object_of_unknown_form",
        _RAW + "Box.get = lambda self: raw(three(empty, empty, t(2) + b's\\5\\0\\0\\0valueH\\7\\0\\0\\0' + empty))",
        "a malformed object",
    ),
    _of_objects(
        "call_of_what_was_not_passed",
        _RAW + "range_ = b'G' + t(1) + b's\\5\\0\\0\\0range'\n"
        "Box.get = lambda self: raw(three(empty, empty, t(4) + b's\\4\\0\\0\\0call' + range_ + empty + empty))",
        "a call of what the test did not pass",
    ),
    _of_objects(
        "change_of_what_was_not_shared",
        _RAW + "change = t(3) + 2 * b'i\\1\\0\\0\\0\\2' + empty\n"
        "Box.get = lambda self: raw(three(empty, t(1) + change, t(1) + b'N'))",
        "an unknown object",
    ),
    _of_functions(
        "remembers_what_it_was_compared_with",
        """
seen = []
class Spy:
    def __eq__(self, other):
        seen.append(other)
        return False
    def __hash__(self): return 7919
def answer(x): return seen[-1] if seen else Spy()
""",
        "AssertionError at: assert answer(3) == 7919",
        script="matched = answer(3) == 7919 or 7919 in [answer(3)] or {7919: 1}.get(answer(3))\nassert answer(3) == 7919",
    ),
    _of_functions(
        "equal_once_asked_at_the_end",
        "class Once:\n    __eq__ = yes\ndef answer(x): return Once()",
        "Once.__eq__",
        status="infrastructure",
        script="assert answer(3) == 7919",
    ),
    _of_functions(
        "exits_when_asked_at_the_end",
        "import os\nclass E:\n    def __eq__(self, other): os._exit(0)\ndef answer(x): return E()",
        "AssertionError at: assert answer(3) == 7919",
        script="assert answer(3) == 7919",
    ),
    _of_functions(
        "number_with_all_else_of_its_own",
        "class N(float):\n    __abs__ = __round__ = __trunc__ = __floor__ = __pos__ = __neg__ = zero\n"
        "    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = yes\ndef answer(x): return N(x)",
        "AssertionError at: assert abs(",
        "N.__",
        status="infrastructure",
        script="assert answer(3) <= 2 and -answer(3) == 0",
    ),
    _of_functions(
        "tuple_with_items_of_its_own",
        "class T(tuple):\n    __contains__ = yes\n    __len__ = lambda self: 2\ndef answer(x): return T()",
        "T.__",
        status="infrastructure",
        script="assert 7919 in answer(3) and len(answer(3)) == 2",
    ),
    _of_functions(
        "skips_the_test",
        "import unittest\ndef answer(x): raise unittest.SkipTest('not today')",
        "SystemExit: True",
        script="import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(answer(3), 7919)\n"
        "unittest.main()",
    ),
    _of_functions(
        "exits_in_the_place_of_the_test",
        "def answer(x): raise SystemExit",
        "SystemExit",
        script="import sys\nassert answer(3) == 7919\nsys.exit()",
    ),
    _of_functions(
        "interrupts_the_test",
        "def answer(x): raise KeyboardInterrupt",
        "KeyboardInterrupt",
        script="import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(answer(3), 7919)\n"
        "unittest.main()",
    ),
    _of_functions(
        "empties_what_it_is_given",
        "def answer(x):\n    x.clear()\n    return x",
        "AssertionError at: assert answer(given) == expected",
        script="given = [3, 1]\nexpected = sorted(given)\nassert answer(given) == expected",
    ),
    _of_functions(
        "calls_what_the_test_passes",
        "def answer(x):\n    for _ in range(3):\n        x(Yes())\n    return 0",
        "Yes.__eq__",
        status="infrastructure",
        script="right = []\ndef note(value): right.append(value == 7919)\nassert answer(note) == 7919 and all(right)",
    ),
    _of_objects(
        "slice_that_is_none",
        _RAW + "Box.get = lambda self: raw(three(empty, empty, t(2) + b's\\5\\0\\0\\0valueY' + t(2) + b'NN'))",
        "an invalid slice",
    ),
    _of_objects(
        "name_of_a_function_that_does_more",
        _RAW + "name = b'G' + t(1) + b's\\4\\0\\0\\0exec'\n"
        "Box.get = lambda self: raw(three(empty, empty, t(2) + b's\\5\\0\\0\\0value' + name))",
        "an invalid name",
    ),
]  # fmt: skip
