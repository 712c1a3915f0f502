"""Programs in MBPP's style with a right and a wrong solution each, and the script that tells them apart."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A script test, its setup, and two solutions."""

    name: str
    right: str
    wrong: str
    test: str
    setup: str = ""


def _task(name: str, right: str, change: tuple[str, str], test: str, setup: str = "") -> Task:
    """The wrong solution is the right one with one piece of text replaced."""
    right = textwrap.dedent(right).strip() + "\n"
    assert right.count(change[0]) == 1, name
    return Task(name, right, right.replace(*change), textwrap.dedent(test).strip() + "\n", setup)


TASKS = [
    _task(
        "tuples",
        "def similar(a, b): return tuple(sorted(set(a) & set(b)))",
        ("set(a) & set(b)", "set(a) | set(b)"),
        "assert similar((3, 4, 5, 6), (5, 7, 4, 10)) == (4, 5)\nassert similar((1, 2), (3,)) == ()",
    ),
    _task(
        "several_functions",
        "def double(x): return 2 * x\ndef square(x): return x * x",
        ("x * x", "x + x"),
        "assert double(3) == 6\nassert square(3) == 9\nassert double(square(2)) == square(double(1)) * 2",
    ),
    _task(
        "sets_and_dicts",
        """
        def letters(s): return set(s)
        def count(s): return {c: s.count(c) for c in s}
        def frozen(s): return frozenset(s)
        """,
        ("s.count(c)", "1"),
        """
        assert letters('aab') == {'a', 'b'} and count('aab') == {'a': 2, 'b': 1}
        assert {frozen('ab'): 1} == {frozenset('ab'): 1}
        """,
    ),
    _task(
        "numbers",
        """
        from decimal import Decimal
        from fractions import Fraction
        def area(r): return 3.141592653589793 * r * r
        def conjugate(z): return z.conjugate()
        def third(): return Fraction(1, 3)
        def cents(x): return Decimal(x) / 100
        """,
        ("r * r", "r"),
        """
        import math
        from decimal import Decimal
        assert math.isclose(area(2), 12.566370614359172, rel_tol=1e-9)
        assert abs(area(1) - 3.14159) < 1e-4 and round(area(2), 2) == 12.57
        assert conjugate(1 + 2j) == 1 - 2j
        assert third() * 3 == 1 and cents(5) == Decimal('0.05')
        """,
    ),
    _task(
        "bytes_and_none",
        "def flip(b): return bytes(reversed(b))\ndef nothing(): pass\ndef grow(b): b += b'!'",
        ("bytes(reversed(b))", "b"),
        "assert flip(b'ab') == b'ba'\nassert nothing() is None\nb = bytearray(b'x')\ngrow(b)\nassert b == b'x!'",
    ),
    _task(
        "module_not_imported_by_the_test",
        "import math\nfrom collections import Counter\ndef root(x): return math.sqrt(x)\ndef top(s): return Counter(s)",
        ("math.sqrt(x)", "x / 2"),
        "assert math.isclose(root(2), 1.4142135623730951)\nassert top('aab').most_common(1) == [('a', 2)]",
    ),
    _task(
        "constants",
        "LIMIT = 10\ncount = 0\ndef step():\n    global count\n    count += 1\n    return min(count, LIMIT)",
        ("count += 1", "count += 2"),
        "assert LIMIT == 10 and count == 0\nassert step() == 1 and step() == 2\nassert count == 2",
    ),
    _task(
        "argument_sorted_in_place",
        "def sort(a, log):\n    a.sort()\n    log['sorted'] = True",
        ("a.sort()", "a = sorted(a)"),
        "a = [3, 1, 2]\nlog = {}\nassert sort(a, log) is None\nassert a == [1, 2, 3] and log == {'sorted': True}",
    ),
    _task(
        "stack",
        """
        class Stack:
            def __init__(self): self.items = []
            def push(self, x): self.items.append(x)
            def pop(self): return self.items.pop()
            def __len__(self): return len(self.items)
            def __getitem__(self, i): return self.items[i]
            def __iter__(self): return iter(self.items)
            def __contains__(self, x): return x in self.items
            def __str__(self): return f"Stack({self.items})"
            def __bool__(self): return bool(self.items)
        """,
        ("self.items.pop()", "self.items.pop(0)"),
        """
        s = Stack()
        assert not s
        s.push(1)
        s.push(2)
        assert len(s) == 2 and s[0] == 1 and s[-1] == 2 and [x for x in s] == [1, 2] and 2 in s and 3 not in s
        assert str(s) == "Stack([1, 2])" and f"{s}" == str(s) and bool(s)
        assert s.pop() == 2
        assert s.items == [1]
        try:
            s[5]
            assert False
        except IndexError:
            pass
        """,
    ),
    _task(
        "tree",
        """
        class Node:
            def __init__(self, value): self.value, self.left, self.right, self.children = value, None, None, []
        def height(n): return 0 if n is None else 1 + max(height(n.left), height(n.right))
        def total(n): return n.value + sum(total(c) for c in n.children)
        def root_of(nodes): return nodes[0]
        """,
        ("1 + max", "1 + min"),
        """
        assert height(root) == 3 and height(None) == 0
        root.children.append(Node(5))
        root.children[0].children += [Node(7)]
        assert total(root) == 13
        assert root_of([root, root.left]) is root and root.left.left.value == 3
        assert isinstance(root, Node) and not isinstance(root, int) and type(root) is Node and type(root) == Node
        assert type(root).__name__ == "Node" and root.__class__ is Node
        del root.left.left
        assert not hasattr(root.left, "left") and hasattr(root, "left")
        """,
        "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)\n",
    ),
    _task(
        "shared_containers",
        """
        class Basket:
            def __init__(self, items, prices): self.items, self.prices, self.seen = items, prices, set()
            def sort(self): self.items.sort()
            def price(self, name): self.seen.add(name); return self.prices[name]
        """,
        ("self.items.sort()", "self.items = sorted(self.items)"),
        """
        items, prices = ["b", "a"], {"a": 1}
        basket = Basket(items, prices)
        basket.sort()
        assert items == ["a", "b"] and basket.items is items
        prices["c"] = 3
        assert basket.price("c") == 3
        seen = basket.seen
        seen.add("z")
        basket.price("a")
        assert seen == {"c", "z", "a"}
        basket.items = basket.items[::-1]
        assert basket.items == ["b", "a"] and items == ["a", "b"]
        """,
    ),
    _task(
        "dataclass",
        """
        from dataclasses import dataclass, field
        @dataclass(order=True, frozen=True)
        class Version:
            major: int
            minor: int = 0
            tags: tuple = field(default=(), compare=False)
        def newest(versions): return max(versions)
        """,
        ("max(versions)", "min(versions)"),
        """
        assert Version(1, 2) == Version(1, 2, ("x",)) and Version(1) != Version(2)
        assert newest([Version(1), Version(2, 1), Version(2)]) == Version(2, 1)
        assert sorted([Version(2), Version(1)])[0].major == 1 and Version(1) < Version(1, 1)
        assert repr(Version(1)) == "Version(major=1, minor=0, tags=())"
        assert len({Version(1), Version(1), Version(3)}) == 2
        try:
            Version(1).major = 3
        except AttributeError:
            pass
        else:
            raise AssertionError("it is frozen")
        """,
    ),
    _task(
        "namedtuple",
        """
        from collections import namedtuple
        Point = namedtuple("Point", "x y")
        def mirror(p): return Point(p.y, p.x)
        """,
        ("p.y, p.x", "p.x, p.y"),
        """
        p = mirror(Point(1, 2))
        assert p == (2, 1) and p == Point(2, 1) and p.x == 2 and p[1] == 1
        x, y = p
        assert (x, y) == (2, 1) and isinstance(p, tuple) and isinstance(p, Point) and str(p) == "Point(x=2, y=1)"
        assert p._replace(x=5) == (5, 1) and p._asdict() == {"x": 2, "y": 1} and {p: 1}[(2, 1)] == 1
        """,
    ),
    _task(
        "enums",
        """
        from enum import Enum, IntEnum
        class Color(Enum):
            RED = 1
            BLUE = 2
        class Level(IntEnum):
            LOW = 1
            HIGH = 2
        def other(c): return Color.BLUE if c is Color.RED else Color.RED
        def level(n): return Level(n)
        """,
        ("c is Color.RED", "c is not Color.RED"),
        """
        assert other(Color.RED) is Color.BLUE and other(Color.BLUE) == Color.RED and other(Color.RED) != Color.RED
        assert [c.name for c in Color] == ["RED", "BLUE"] and Color["RED"].value == 1 and len(Color) == 2
        assert {Color.RED: 1}[Color(1)] == 1 and Color.RED in Color and Color.RED != 1
        assert level(2) == 2 and level(1) is Level.LOW and Level.LOW < Level.HIGH and Level.HIGH.name == "HIGH"
        try:
            Color(3)
        except ValueError:
            pass
        else:
            assert False
        """,
    ),
    _task(
        "own_exceptions",
        """
        class BankError(Exception): pass
        class Insufficient(BankError, ValueError):
            def __init__(self, need):
                super().__init__(f"need {need}")
                self.need = need
        class Account:
            def __init__(self): self.balance = 0
            def withdraw(self, n):
                if n > self.balance: raise Insufficient(n - self.balance)
                self.balance -= n
        """,
        ("n > self.balance", "n >= 10 + self.balance"),
        """
        account = Account()
        account.balance = 5
        for kind in (Insufficient, BankError, ValueError, Exception):
            try:
                account.withdraw(8)
            except kind as error:
                assert error.need == 3 and str(error) == "need 3" and error.args == ("need 3",)
                assert type(error) is Insufficient and isinstance(error, BankError)
            else:
                raise AssertionError("nothing raised")
        assert issubclass(Insufficient, BankError) and not issubclass(BankError, ValueError)
        assert account.balance == 5
        """,
    ),
    _task(
        "builtin_exceptions",
        """
        def divide(a, b):
            if b == 0: raise ZeroDivisionError("no")
            return a / b
        def find(d, k): return d[k]
        """,
        ("raise ZeroDivisionError", "raise ValueError"),
        """
        import unittest
        case = unittest.TestCase()
        with case.assertRaises(ZeroDivisionError) as caught:
            divide(1, 0)
        assert str(caught.exception) == "no"
        with case.assertRaisesRegex(KeyError, "b"):
            find({"a": 1}, "b")
        case.assertEqual(divide(4, 2), 2)
        """,
    ),
    _task(
        "exceptions_as_values",
        """
        class Own(Exception): pass
        class Disk(OSError):
            def __init__(self, text): super().__init__(5, text)
        def make(text): return Own(text)
        def throw(error): raise error
        def wrapped():
            try: [][1]
            except IndexError as error: raise Own("outer") from error
        def caught(f):
            try: f()
            except Exception as error: return type(error).__name__, str(error)
        """,
        ("(5, text)", "(6, text)"),
        """
        error = make("x")
        assert isinstance(error, Own) and str(error) == "x" and repr(error) == "Own('x')" and Own("y").args == ("y",)
        for given in (error, ValueError("v"), FileNotFoundError(2, "gone"), KeyError("k")):
            try:
                throw(given)
            except Exception as raised:
                assert raised is given and str(raised) == str(given)
        try:
            wrapped()
        except Own as raised:
            assert isinstance(raised.__cause__, IndexError)
        try:
            throw(Disk("full"))
        except OSError as raised:
            assert raised.errno == 5 and str(raised) == "[Errno 5] full"
        class Mine(LookupError): pass
        def fail(): raise Mine("m")
        assert caught(fail) == ("Mine", "m") and caught(lambda: 1 / 0) == ("ZeroDivisionError", "division by zero")
        try:
            raise Own("raised by the test")
        except Own:
            pass
        """,
    ),
    _task(
        "inheritance",
        """
        from abc import ABC, abstractmethod
        class Shape(ABC):
            count = 0
            def __init__(self): Shape.count += 1
            @abstractmethod
            def area(self): ...
            @classmethod
            def unit(cls): return cls(1)
            @staticmethod
            def sides(): return 0
        class Square(Shape):
            def __init__(self, a):
                super().__init__()
                self.a = a
            def area(self): return self.a ** 2
            @property
            def side(self): return self.a
            @side.setter
            def side(self, a): self.a = a
        """,
        ("self.a ** 2", "self.a * 2"),
        """
        s = Square(3)
        assert s.area() == 9 and s.side == 3 and isinstance(s, Shape) and issubclass(Square, Shape)
        s.side = 4
        assert s.area() == 16 and Square.unit().area() == 1 and Square.sides() == 0 and Shape.count == 2
        Shape.count = 7
        assert Square.count == 7
        try:
            Shape()
        except TypeError:
            pass
        else:
            assert False
        """,
    ),
    _task(
        "vector",
        """
        class Vector:
            def __init__(self, *xs): self.xs = xs
            def __add__(self, o): return Vector(*(a + b for a, b in zip(self.xs, o.xs)))
            def __mul__(self, k): return Vector(*(a * k for a in self.xs)) if isinstance(k, (int, float)) else NotImplemented
            __rmul__ = __mul__
            def __matmul__(self, o): return sum(a * b for a, b in zip(self.xs, o.xs))
            def __neg__(self): return self * -1
            def __abs__(self): return (self @ self) ** 0.5
            def __eq__(self, o): return isinstance(o, Vector) and self.xs == o.xs
            def __hash__(self): return hash(self.xs)
            def __iadd__(self, o):
                self.xs = (self + o).xs
                return self
            def __call__(self, i): return self.xs[i]
        """,
        ("a * k for", "a + k for"),
        """
        v = Vector(3, 4)
        assert v + Vector(1, 1) == Vector(4, 5) and v * 2 == Vector(6, 8) and 2 * v == v * 2 and -v == Vector(-3, -4)
        assert v @ v == 25 and abs(v) == 5.0 and v(1) == 4 and v != (3, 4)
        w = v
        w += Vector(1, 0)
        assert w is v and v == Vector(4, 4)
        assert sum([Vector(1, 1), Vector(2, 2)], Vector(0, 0)) == Vector(3, 3)
        try:
            v * "x"
        except TypeError:
            pass
        else:
            assert False
        """,
    ),
    _task(
        "generators",
        """
        def countdown(n):
            while n:
                yield n
                n -= 1
        def naturals():
            n = 0
            while True:
                yield n
                n += 1
        def averages():
            total = count = 0
            value = None
            while True:
                value = yield value
                total, count = total + value, count + 1
                value = total / count
        def evens(xs): return filter(lambda x: x % 2 == 0, xs)
        """,
        ("n -= 1", "n -= 2 if n > 1 else 1"),
        """
        import itertools, types
        assert list(countdown(3)) == [3, 2, 1] and sum(countdown(4)) == 10 and countdown(1) != [1]
        numbers = naturals()
        assert next(numbers) == 0 and list(itertools.islice(numbers, 3)) == [1, 2, 3]
        assert isinstance(numbers, types.GeneratorType) and iter(numbers) is numbers
        g = averages()
        next(g)
        assert g.send(2) == 2 and g.send(4) == 3
        g.close()
        assert next(g, "end") == "end" and list(evens(range(5))) == [0, 2, 4] and 2 in countdown(2)
        """,
    ),
    _task(
        "closures_and_callbacks",
        """
        import functools
        def adder(n): return lambda x: x + n
        def compose(*fs): return lambda x: functools.reduce(lambda v, f: f(v), fs, x)
        def apply(f, *args, **kw): return f(*args, **kw)
        def group(xs, key):
            found = {}
            for x in xs: found.setdefault(key(x), []).append(x)
            return found
        """,
        ("x + n", "x - n"),
        """
        import math, operator
        seen = []
        def note(x, times=1):
            seen.append(x)
            return x * times
        assert adder(2)(3) == 5
        assert compose(lambda x: x + 1, adder(1), note, str)(1) == "3" and seen == [3]
        assert apply(note, "a", times=2) == "aa" and apply(max, 1, 2) == 2 and apply(math.gcd, 4, 6) == 2
        assert group(["a", "bb", "c"], len) == {1: ["a", "c"], 2: ["bb"]} and apply(str.upper, "x") == "X"
        assert apply(operator.add, 1, 2) == 3 and callable(adder(1)) and apply(lambda: note) is note
        def boom(): raise LookupError("mine")
        try:
            apply(boom)
        except LookupError as error:
            assert str(error) == "mine"
        else:
            assert False
        """,
    ),
    _task(
        "decorator",
        """
        def memo(f):
            known = {}
            def inner(n):
                if n not in known: known[n] = f(n)
                return known[n]
            inner.known = known
            return inner
        """,
        ("known[n] = f(n)", "known[n] = f(n) + 1"),
        """
        calls = []
        @memo
        def fib(n):
            calls.append(n)
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        assert fib(10) == 55 and len(calls) == 11 and fib.known[5] == 5
        """,
    ),
    _task(
        "context_manager",
        """
        from contextlib import contextmanager
        class Log:
            def __init__(self): self.lines = []
            def __enter__(self):
                self.lines.append("in")
                return self
            def __exit__(self, kind, error, trace):
                self.lines.append(kind.__name__ if kind else "out")
                return kind is KeyError
        @contextmanager
        def tag(name, out):
            out.append(f"<{name}>")
            yield name
            out.append(f"</{name}>")
        """,
        ("kind is KeyError", "False"),
        """
        log = Log()
        with log as same:
            assert same is log
        with log:
            raise KeyError("swallowed")
        assert log.lines == ["in", "out", "in", "KeyError"]
        out = []
        with tag("b", out) as name:
            out.append(name)
        assert out == ["<b>", "b", "</b>"]
        """,
    ),
    _task(
        "derived_from_plain_types",
        """
        class Celsius(float):
            def fahrenheit(self): return self * 9 / 5 + 32
        class Words(list):
            def longest(self): return max(self, key=len)
        class Table(dict):
            def __missing__(self, key): return 0
        def warm(): return Celsius(20.5)
        def words(s): return Words(s.split())
        """,
        ("key=len", "key=str"),
        """
        assert warm() == 20.5 and Celsius(100).fahrenheit() == 212 and isinstance(Celsius(1), float) and warm() + 1 == 21.5
        w = words("z aaa bb")
        assert w.longest() == "aaa" and w == ["z", "aaa", "bb"] and w[0] == "z" and len(w) == 3 and isinstance(w, list)
        w.append("c")
        assert w[-1] == "c" and w + ["d"] == ["z", "aaa", "bb", "c", "d"] and "c" in w and isinstance(w, Words)
        t = Table(a=1)
        assert t["a"] == 1 and t["b"] == 0 and t == {"a": 1} and dict(t) == {"a": 1} and sorted(t.items()) == [("a", 1)]
        """,
    ),
    _task(
        "library_types",
        """
        from collections import Counter, OrderedDict, defaultdict, deque
        from datetime import date, timedelta
        def count(s): return Counter(s)
        def ordered(): return OrderedDict([("b", 1), ("a", 2)])
        def grouped(xs):
            d = defaultdict(list)
            for k, v in xs: d[k].append(v)
            return d
        def window(xs): return deque(xs, maxlen=2)
        def later(d, n): return d + timedelta(days=n)
        """,
        ("maxlen=2", "maxlen=3"),
        """
        import datetime
        from collections import Counter, OrderedDict, deque
        assert count("aab") == Counter("aab") == {"a": 2, "b": 1} and count("aab")["z"] == 0
        assert count("ab") + count("a") == Counter("aab") and isinstance(count(""), Counter)
        assert list(ordered()) == ["b", "a"] and ordered() != OrderedDict(a=2, b=1)
        g = grouped([(1, "a"), (1, "b")])
        assert g == {1: ["a", "b"]} and g[5] == []
        assert window([1, 2, 3]) == deque([2, 3]) and window([]).maxlen == 2
        assert later(datetime.date(2020, 2, 28), 2) == datetime.date(2020, 3, 1)
        """,
    ),
    _task(
        "linked_list_and_iterator",
        """
        class Chain:
            class Link:
                def __init__(self, value, next=None): self.value, self.next = value, next
            def __init__(self, values=()):
                self.head = None
                for v in reversed(list(values)): self.head = Chain.Link(v, self.head)
            def __iter__(self):
                link = self.head
                while link:
                    yield link.value
                    link = link.next
            def __reversed__(self): return reversed(list(self))
            def reverse(self):
                self.head = Chain(reversed(self)).head
                return self
        """,
        ("Chain(reversed(self)).head", "Chain(self).head"),
        """
        import copy
        chain = Chain(x for x in (1, 2, 3))
        assert list(chain) == [1, 2, 3] and chain.head.next.value == 2 and isinstance(chain.head, Chain.Link)
        other = copy.deepcopy(chain)
        assert list(chain.reverse()) == [3, 2, 1] and list(reversed(chain)) == [1, 2, 3] and max(chain) == 3
        assert list(other) == [1, 2, 3] and chain.head.next.next.next is None and sorted(chain) == [1, 2, 3]
        first, *rest = chain
        assert first == 3 and rest == [2, 1] and dict(zip("ab", chain)) == {"a": 3, "b": 2}
        """,
    ),
    _task(
        "test_helpers",
        "def primes(n): return [p for p in range(2, n + 1) if all(p % q for q in range(2, p))]",
        ("n + 1", "n"),
        """
        def check(n, expected):
            found = primes(n)
            assert found == expected, f"{n}: {found}"
        class Case:
            few = primes(3)
            def run(self): check(7, [2, 3, 5, 7])
        assert Case.few == [2, 3]
        check(1, [])
        Case().run()
        for n, expected in [(2, [2]), (4, [2, 3])]:
            check(n, expected)
        assert [len(primes(n)) for n in range(3)] == [0, 0, 1]
        """,
    ),
    _task(
        "nested_results",
        """
        class Item:
            def __init__(self, name, price): self.name, self.price = name, price
            def __repr__(self): return f"Item({self.name!r})"
            def __lt__(self, other): return self.price < other.price
        def shop(): return {"items": [Item("b", 2), Item("a", 1)], "open": True, "at": (Item, [1, [2]])}
        def by_name(items): return {i.name: i for i in items}
        """,
        ("self.price < other.price", "self.price > other.price"),
        """
        s = shop()
        assert [i.name for i in sorted(s["items"])] == ["a", "b"] and min(s["items"]).price == 1 and s["open"] is True
        assert str(s["items"]) == "[Item('b'), Item('a')]" and s["at"][0] is Item and s["at"][1] == [1, [2]]
        named = by_name(s["items"])
        assert named["a"] is s["items"][1] and sorted(s["items"], key=lambda i: i.name)[0] is named["a"]
        assert vars(named["a"]) == {"name": "a", "price": 1} and getattr(named["a"], "none", 5) == 5
        """,
    ),
    _task(
        "slices_and_indices",
        """
        class Matrix:
            def __init__(self, rows): self.rows = rows
            def __getitem__(self, key):
                if isinstance(key, tuple): return self.rows[key[0]][key[1]]
                return Matrix(self.rows[key]) if isinstance(key, slice) else self.rows[key]
            def __setitem__(self, key, value): self.rows[key[0]][key[1]] = value
            def __eq__(self, other): return isinstance(other, Matrix) and self.rows == other.rows
            def __add__(self, other):
                return Matrix([[a + (other if isinstance(other, int) else 0) for a in row] for row in self.rows])
            __radd__ = __add__
            def cut(self, count): return slice(0, count)
        """,
        ("a + (", "a - ("),
        """
        m = Matrix([[1, 2], [3, 4]])
        assert m[0, 1] == 2 and m[1:] == Matrix([[3, 4]]) and m[::-1][0] == [3, 4] and m[0] == [1, 2]
        m[0, 0] = 9
        assert (m + 1).rows == [[10, 3], [4, 5]] and 1 + m == m + 1 and [1, 2, 3][m.cut(2)] == [1, 2]
        assert m != [[9, 2], [3, 4]] and m != None and not (m == 5)
        """,
    ),
    _task(
        "plain_types_by_way_of_a_function",
        """
        from enum import Enum, IntEnum, IntFlag
        from typing import NamedTuple
        class State(str, Enum):
            LOW = "low"
            HIGH = "high"
            def __lt__(self, other): return list(State).index(self) < list(State).index(other)
        class Level(IntEnum):
            LOW = 1
            HIGH = 2
        class Right(IntFlag):
            READ = 4
            WRITE = 2
        class Pair(NamedTuple):
            x: float
            y: float = 0
            def __neg__(self): return Pair(-self.x, -self.y)
            def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
        class Celsius(float):
            def fahrenheit(self): return self * 9 / 5 + 32
        def state(name): return State(name)
        def states(): return [State.HIGH, State.LOW]
        def level(number): return Level(number)
        def rights(): return Right.READ | Right.WRITE
        def pair(x, y): return Pair(x, y)
        def warm(): return Celsius(20.5)
        """,
        ("list(State).index(self) <", "list(State).index(self) >"),
        """
        assert state("low").name == "LOW" and state("low") == "low" and sorted(states()) == ["low", "high"]
        assert level(2).name == "HIGH" and level(2) > level(1) and level(2) > 1 and level(1) + 1 == 2
        assert rights() == 6 and rights() & 4 == 4 and abs(pair(3, 4)) == 5.0 and -pair(1, 2) == (-1, -2)
        assert pair(1, 2)._fields == ("x", "y") and warm().fahrenheit() == 68.9 and warm() - 20 == 0.5
        """,
    ),
    _task(
        "properties",
        """
        import inspect
        from abc import ABC, abstractmethod
        class Sensor(ABC):
            @abstractmethod
            def read(self): ...
        class Thermometer(Sensor):
            def __init__(self, celsius=0): self._celsius = celsius
            @property
            def celsius(self): return self._celsius
            @celsius.setter
            def celsius(self, value):
                if value < -273.15: raise ValueError("below absolute zero")
                self._celsius = value
            @celsius.deleter
            def celsius(self): self._celsius = 0
            @property
            def fahrenheit(self): return self._celsius * 9 / 5 + 32
            def read(self): return self.celsius
        """,
        ("value < -273.15", "value < -300"),
        """
        import inspect
        t = Thermometer(25)
        assert t.fahrenheit == 77.0 and t.read() == 25 and isinstance(Thermometer.celsius, property)
        t.celsius = 30
        assert abs(t.fahrenheit - 86) < 1e-9 and inspect.isabstract(Sensor) and not inspect.isabstract(Thermometer)
        try:
            t.celsius = -290
        except ValueError as error:
            assert "absolute" in str(error)
        else:
            assert False, "no error"
        del t.celsius
        assert t.celsius == 0
        try:
            t.fahrenheit = 3
        except AttributeError:
            pass
        else:
            assert False
        """,
    ),
    _task(
        "unittest_classes",
        """
        class Calculator:
            def add(self, a, b): return a + b
            def divide(self, a, b):
                if b == 0: raise ZeroDivisionError("by zero")
                return a / b
        def third(x): return x / 3
        """,
        ("x / 3", "x / 4"),
        """
        import unittest
        class TestCalculator(unittest.TestCase):
            def setUp(self): self.calculator = Calculator()
            def test_add(self):
                self.assertEqual(self.calculator.add(1, 2), 3)
                self.assertIsInstance(self.calculator, Calculator)
            def test_divide(self):
                with self.assertRaises(ZeroDivisionError): self.calculator.divide(1, 0)
                self.assertAlmostEqual(self.calculator.divide(1, 3), 0.33333, places=4)
            def test_third(self):
                for x in (3, 6):
                    with self.subTest(x=x): self.assertEqual(third(x), x // 3)
        if __name__ == "__main__":
            unittest.main()
        """,
    ),
    _task(
        "unittest_without_an_exit",
        "def add(a, b): return a + b",
        ("a + b", "a - b"),
        """
        import unittest
        class TestAdd(unittest.TestCase):
            def test_add(self): self.assertEqual(add(1, 2), 3)
        assert unittest.main(argv=[""], exit=False).result.wasSuccessful()
        """,
    ),
    _task(
        "an_exit_of_the_test",
        "def f(x): return x + 1",
        ("x + 1", "x"),
        "import sys\nassert f(1) == 2\nsys.exit(0)",
    ),
    _task(
        "defaults_that_remember",
        """
        def fib(n, known={}):
            if n not in known: known[n] = n if n < 2 else fib(n - 1) + fib(n - 2)
            return known[n]
        def gather(x, found=[]):
            found.append(x)
            return found
        square = lambda x: x * x
        OPERATIONS = {"+": lambda a, b: a + b, "max": max}
        """,
        ("found.append(x)", "found.insert(0, x)"),
        """
        assert fib(80) == 23416728348467685 and fib.__defaults__[0][10] == 55
        assert gather(1) == [1]
        assert gather(2) == [1, 2]
        assert square(3) == 9 and OPERATIONS["+"](1, 2) == 3 and OPERATIONS["max"](1, 5) == 5 and OPERATIONS["max"] is max
        """,
    ),
    _task(
        "sets_of_frozensets",
        """
        def parts(xs): return {frozenset(xs[:i]) for i in range(len(xs) + 1)}
        def groups(): return {frozenset({1}): {frozenset()}}
        def log(*args): print(*args, sep="-", end="")
        """,
        ("len(xs) + 1", "len(xs)"),
        """
        assert parts([1, 2]) == {frozenset(), frozenset({1}), frozenset({1, 2})} and frozenset({2, 1}) in parts([1, 2])
        assert groups() == {frozenset({1}): {frozenset()}} and parts([]) | {frozenset("a")} == {frozenset(), frozenset("a")}
        assert log(1, 2) is None and not log()
        print(log("x"))
        """,
    ),
    _task(
        "one_instance_and_caches",
        """
        import functools
        class Meta(type):
            made = {}
            def __call__(cls, *args):
                if cls not in cls.made: cls.made[cls] = super().__call__(*args)
                return cls.made[cls]
        class Settings(metaclass=Meta):
            def __init__(self): self.values = {}
        class Only:
            one = None
            def __new__(cls):
                if cls.one is None: cls.one = super().__new__(cls)
                return cls.one
        calls = []
        @functools.lru_cache(maxsize=None)
        def slow(n):
            calls.append(n)
            return n * 2
        double = functools.partial(lambda k, x: k * x, 2)
        """,
        ("if cls.one is None", "if True"),
        """
        assert Settings() is Settings() and Only() is Only()
        Settings().values["a"] = 1
        assert Settings().values == {"a": 1}
        assert slow(2) == 4 and slow(2) == 4 and calls == [2] and slow.cache_info().hits == 1 and double(4) == 8
        """,
    ),
    _task(
        "attributes_by_hand",
        """
        class Record:
            def __init__(self, **values): self.__dict__.update(values)
            def __getattr__(self, name): return f"<{name}>"
            def __getitem__(self, key): return self.__dict__[key]
            def __setitem__(self, key, value): self.__dict__[key] = value
            def __delitem__(self, key): del self.__dict__[key]
            def keys(self): return self.__dict__.keys()
        class Slots:
            __slots__ = ("x",)
        """,
        ("self.__dict__[key] = value", "self.__dict__.setdefault(key, value)"),
        """
        r = Record(a=1, b=[2])
        r["c"] = 3
        r["a"] = 5
        assert r.other == "<other>" and r["a"] == 5 and r.c == 3 and dict(r) == {"a": 5, "b": [2], "c": 3} and {**r}["c"] == 3
        del r["a"]
        assert sorted(r.keys()) == ["b", "c"] and vars(r) == {"b": [2], "c": 3}
        try:
            Slots().z = 1
        except AttributeError:
            pass
        else:
            assert False
        """,
    ),
    _task(
        "derived_values_used_as_plain_ones",
        """
        from enum import Enum, IntEnum
        class Name(str, Enum):
            A = "a"
        class Level(IntEnum):
            LOW = 1
            HIGH = 2
        class Number(float): pass
        class Raw(bytes): pass
        def name(): return Name.A
        def level(n): return Level(n)
        def number(x): return Number(x)
        def raw(): return Raw(b"ab")
        def table(): return {Name.A: Level.HIGH, Level.LOW: Number(2)}
        """,
        ("Number(2)", "Number(3)"),
        """
        import json, math, re
        assert json.dumps([name(), level(1), number(2.5)]) == '["a", 1, 2.5]' and re.match("a", name()) and name() in "xay"
        assert name() + "b" == "ab" and "b" + name() == "ba" and "".join([name(), "b"]) == "ab" and name().upper() == "A"
        assert hash(name()) == hash("a") and {"a": 1}[name()] == 1 and table()["a"] == 2 and table()[1] == 2.0
        assert list(range(level(2))) == [0, 1] and [5, 6, 7][level(2)] == 7 and -level(1) == -1 and 3 - level(1) == 2
        assert f"{level(1)}" == "1" and "%d" % level(2) == "2" and f"{number(2):.2f}" == "2.00" and level(1) is level(1)
        assert math.sqrt(number(4)) == 2 and abs(number(-2)) == 2 and round(number(2.567), 1) == 2.6 and raw()[0] == 97
        assert sorted([number(2), number(1)]) == [1, 2] and sum([level(1), level(2)]) == 3 and raw() == b"ab"
        """,
    ),
]
