"""The checker's end of a script test: classes and objects that are proxies for the candidate's.

For each class of the candidate that turns up there is a real class here, with as many of the language's special methods
as the candidate's has, so that isinstance, type, except, callable and the like need no answer from the candidate.
A proxy passes on what is done to it and gets a plain value or another object back.

What decides a test is decided here:

- A candidate's object is never equal to a plain value by its own word. An instance of a subclass of int, float, complex,
  str, bytes, tuple or frozenset that keeps its base's comparison is here an instance of such a subclass, with a value of
  the exact type inside, compared by this process. Other objects are unequal to every plain value; a subclass of list,
  dict, set or bytearray is asked for the plain value inside, without being told what it is compared with.
- An operator between an object and a plain value (`x - 1`, `x < 1`, `1 in x`), from which an object could learn the
  expected value and answer accordingly, goes to the object only in a test that deals with objects (script.py) and only
  for a class that the test refers to by name. Elsewhere the result is the one that `object()` or the plain base class
  would give.
- Where a comparison or an operator was answered here in place of a method of the candidate's class, the method is called
  once the test is over (`overruled`): by then the answer cannot help. If the test could have ended otherwise with it
  (`Money(5) == 5`), the verdict is "infrastructure", neither passed nor failed.
- What two objects of the candidate's are to each other (`Point(1) == Point(1)`), what its methods return, and what it
  does with a container that the test has passed to it is up to the candidate. A test of that alone can be passed by
  a class that always agrees, as in a single process. So can a test that uses a name which it neither defines nor imports.

What cannot cross: objects of the test's own classes, classes derived from the candidate's, pickles, coroutines to
await, dataclasses whose fields are listed: each raises Unsuited. Known differences: isinstance by way of ABC.register or
a Protocol is False; an iterator of the test's is exhausted when it is passed; nested calls to and fro are limited to
about a hundred.
"""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, NoReturn

from .answers import ASKED, COMPARISONS, OPERATORS, SPECIAL, VALUES
from .exchange import CONTAINERS, EXCEPTIONS, End
from .faults import CandidateError, Gone, Unfit, Unsuited
from .role import TEXT
from .settings import INPUT, OUTPUT
from .wire import MAX_BYTES, MAX_DRAINED, WireError, read_message, write_message

MAX_MESSAGES = 2_000_000  # the candidate's, in one test
MAX_RECEIVED = 16 * MAX_BYTES
MAX_ANSWERED = 1000  # the last answers given in place of the candidate's are verified when the test is over
_NATIVE_TYPES: tuple[Any, ...] = (
    types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.GeneratorType, types.CoroutineType,
    types.AsyncGeneratorType, types.ModuleType, property, map, zip, filter, enumerate, reversed, memoryview, slice,
    type({}.keys()), type({}.values()), type({}.items()), types.MappingProxyType,
)  # fmt: skip
_NATIVE = {kind.__name__: kind for kind in _NATIVE_TYPES}
_VALUES = {kind.__name__: kind for kind in VALUES}
_COMPARED_AS: dict[str, Any] = {kind.__name__: kind for kind in (*CONTAINERS, frozenset)}
_LOCAL = frozenset({"__class__", "__copy__", "__deepcopy__", "__reduce_ex__", "__reduce__"})
_OF_EXCEPTIONS = frozenset({"args", "with_traceback", "add_note"})
# what says which value an object is: of a class derived from int or str its base's
_OF_VALUES = frozenset({"__eq__", "__ne__", "__hash__"})
_TEXTS = frozenset({"__str__", "__repr__", "__format__"})


class CheckerEnd(End):
    """Sends requests to the candidate, and answers its calls of the test's functions. names: the test's own."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(0)
        self._names = names
        self._received = self._messages = 0
        self.exits: list[SystemExit] = []  # those that the candidate raised: none is the test's own end
        self.asked = False  # whether the candidate had any part in what has happened so far
        self.fault: BaseException | None = None  # what stopped the test: no test can go on after it
        self.named: set[type] = set()  # classes of the candidate that the test asked for by name
        self.uses_objects = False
        # answers given here in place of a candidate's class: object, special method, arguments, answer
        self._answered: deque[tuple[Any, str, tuple[Any, ...], Any]] = deque(maxlen=MAX_ANSWERED)
        self.awaits = False  # whether the test has anything to do with coroutines

    def ask(self, *request: Any) -> Any:
        """The candidate's answer: a value. Raises what the candidate raised; Gone, Unfit, Unsuited."""
        if self.fault is not None:
            raise self.fault
        self.asked = True
        try:
            return self._ask(_settled(request))
        except (Gone, Unfit, Unsuited) as fault:
            self.stop(fault)

    def stop(self, fault: BaseException) -> NoReturn:
        """Aborts the test, whatever it catches."""
        self.fault = self.fault or fault
        raise self.fault

    def _ask(self, request: tuple[Any, ...]) -> Any:
        self._send(request, "the test passes {}, which cannot cross to the candidate's process")
        while True:
            reply = self._next()
            what = reply[0] if reply and type(reply[0]) is str else ""
            if what == "value" and len(reply) == 2:
                return reply[1]
            if what == "raised" and len(reply) == 2:
                error = _raisable(reply[1])
                if isinstance(error, SystemExit):
                    self.exits.append(error)
                raise error
            if what == "missing" and request[0] == "name":
                raise KeyError(request[1])
            if what == "unfit" and len(reply) == 2 and type(reply[1]) is str:
                raise Unfit(f"the candidate returned {reply[1][:TEXT]}")
            if what == "call" and [type(part) for part in reply[2:]] == [tuple, tuple]:
                self._be_called(*reply[1:])
            else:
                raise Unfit("a malformed answer")

    def _be_called(self, function: Any, args: tuple[Any, ...], kwargs: tuple[Any, ...]) -> None:
        if self._own_numbers.get(id(function)) is None or isinstance(function, BaseException):
            raise Unfit("a call of what the test did not pass")
        try:
            answer: tuple[Any, ...] = ("value", function(*args, **dict(kwargs)))
        except (Gone, Unfit, Unsuited):
            raise
        except BaseException as error:
            answer = ("raised", error)
        self._send(answer, "a function of the test returns {}, which cannot cross to the candidate's process")

    def _send(self, body: tuple[Any, ...], complaint: str) -> None:
        try:
            data = self.message(body)
        except WireError as error:
            raise Unsuited(complaint.format(error)) from error
        try:
            write_message(OUTPUT, data)
        except OSError as error:
            raise Gone from error

    def _next(self) -> tuple[Any, ...]:
        try:
            data = read_message(INPUT)
            if data is None:
                raise Gone
            self._messages += 1
            self._received += len(data)
            if self._messages > MAX_MESSAGES or self._received > MAX_RECEIVED:
                raise Unfit("the candidate sent more than a test may take")
            return self.receive(data)
        except WireError as error:
            raise Unfit(f"the candidate sent {error}") from error
        except OSError as error:
            raise Gone from error

    def may_answer(self, value: Any) -> bool:
        """Whether an object may answer an operator that tells it a plain value of the test's."""
        return self.uses_objects and not self.named.isdisjoint(type(value).__mro__)

    def answer_for(self, value: Any, name: str, args: tuple[Any, ...], answer: Callable[[], Any]) -> Any:
        """The answer computed here in place of a special method of the candidate's class, which is called later."""
        try:
            said = answer()
        except Exception:
            self._answered.append((value, name, args, NotImplemented))
            raise
        self._answered.append((value, name, args, said))
        return said

    def overruled(self, passed: bool) -> str:
        """The special method ("Class.name") with which the test could have ended otherwise than with what `answer_for`
        gave, "" if there is none. For the end of a test, when its objects may learn what they were compared with."""
        for value, name, args, said in tuple(self._answered):
            try:
                same = _agree(name, self._ask(_settled(("special", value, name, args))), said, passed)
            except Unsuited:  # its arguments cannot cross
                same = passed
            except (Gone, Unfit) as fault:
                self.fault = fault
                same = not passed
            except BaseException:
                same = not passed  # with what it raises the test fails, too
            if not same:
                return f"{type(value).__name__}.{name}"
            if self.fault is not None:
                break
        return ""

    # the test's objects, for the candidate

    def name(self, value: Any) -> tuple[str, ...] | None:
        """Also that of a library's class or function, for which the candidate has its own."""
        found = super().name(value)
        if found is not None or isinstance(value, types.ModuleType):
            return found or (value.__name__, "")
        if not isinstance(value, type | types.BuiltinFunctionType | types.FunctionType | types.MethodDescriptorType):
            return None
        owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
        module = getattr(value, "__module__", None) or getattr(owner, "__module__", None)
        name = value.__qualname__
        thing: Any = None if module == self._names["__name__"] else _loaded(module)
        for part in name.split("."):
            thing = getattr(thing, part, None)
        return (module, name) if type(module) is str and (thing is value or _same_method(thing, value)) else None

    def description(self, value: Any) -> Any:
        """("exception", built-in class, arguments, name) or ("function", name); WireError for all else."""
        if isinstance(value, BaseException):
            kind = next(each for each in type(value).__mro__ if EXCEPTIONS.get(each.__name__) is each)
            return ("exception", kind, value.args, type(value).__name__)
        function = value.__func__ if type(value) is types.MethodType else value
        if type(function) is types.FunctionType and function.__globals__ is self._names:
            return ("function", function.__name__)
        raise WireError(f"a value of type {type(value).__name__}")

    def _write_object(self, value: Any, out: bytearray, depth: int) -> bool:
        if isinstance(value, types.TracebackType):  # what __exit__ is given
            out += b"N"
            return True
        if _is_iterator(value):  # goes as its items; not while a message is being written, if it runs the test's code
            if isinstance(value, types.GeneratorType | map | filter):
                raise WireError(f"a {type(value).__name__} inside another value")
            return False
        return super()._write_object(value, out, depth)

    # the candidate's objects, for the test

    def make_proxy(self, told: Any) -> Any:
        """A class, or an object of one."""
        try:
            what, *parts = told
            if what == "class":
                return self._class(*parts)
            kind, *parts = parts
            if what == "object" and kind is object:
                return object()
            if type(kind) is not RemoteType and kind not in EXCEPTIONS.values():
                raise WireError("an object of no class")
            if what == "exception" and issubclass(kind, BaseException):
                return _exception(kind, *parts)
            if what == "object" and kind.__new__ is object.__new__:
                return object.__new__(kind)
            if what == "value":
                base = next(each for each in kind.__mro__ if each in VALUES)
                if type(parts[0]) is base:
                    return base.__new__(kind, parts[0])
        except (TypeError, ValueError, StopIteration, UnicodeError) as error:
            raise WireError("a malformed object") from error
        raise WireError("a malformed object")

    def _class(self, name: str, bases: tuple[Any, ...], special: tuple[str, ...], form: str, base: str) -> type:
        if [type(part) for part in (name, bases, special, form, base)] != [str, tuple, tuple, str, str]:
            raise WireError("a malformed class")
        names = _members(self, name, frozenset(special), form, base)
        if "unhashable" in special and form == "opaque":
            names["__hash__"] = None
        kept = tuple(each for each in bases if type(each) is RemoteType or each in VALUES)
        if form != "value":  # a class with a comparison of its own has no value that could be compared here
            kept = tuple(each for each in kept if not issubclass(each, VALUES))
        if form == "exception":
            kept = tuple(each for each in bases if type(each) is RemoteType or each in EXCEPTIONS.values())
            if not any(type(each) is RemoteType for each in kept) and all(issubclass(each, Exception) for each in kept):
                kept = (CandidateError, *(each for each in kept if each is not Exception))
        names["__module__"] = "solution"
        names["_checker_end"] = self
        try:
            return _remote(name, kept, names)
        except TypeError:  # without some of its bases no order of them need be left
            return _remote(name, kept[:1], names)


class RemoteType(type):
    """The metaclass of proxies for the candidate's classes."""

    _checker_end: CheckerEnd

    def __new__(meta, name: str, bases: tuple[Any, ...], names: dict[str, Any], **_: Any) -> Any:
        """Unsuited: a test's own class below a candidate's cannot live in two processes."""
        end = next(each._checker_end for each in bases if isinstance(each, RemoteType))
        end.stop(Unsuited(f"the test derives the class {name} from one of the candidate's"))

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._checker_end.ask("call", cls, args, tuple(kwargs.items()))

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__doc__", "__annotations__", "__flags__"):  # every class has these of its own
            return cls._checker_end.ask("get", cls, name)
        return super().__getattribute__(name)

    def __getattr__(cls, name: str) -> Any:
        if name == "__dataclass_fields__":
            cls._checker_end.stop(Unsuited("the test takes a dataclass of the candidate's apart"))
        return cls._checker_end.ask("get", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._checker_end.ask("set", cls, name, value)

    def __delattr__(cls, name: str) -> None:
        cls._checker_end.ask("delete", cls, name)

    def __getitem__(cls, item: Any) -> Any:
        return cls._checker_end.ask("special", cls, "__getitem__", (item,))

    def __contains__(cls, item: Any) -> Any:
        return cls._checker_end.ask("special", cls, "__contains__", (item,))

    def __iter__(cls) -> Any:
        return cls._checker_end.ask("special", cls, "__iter__", ())

    def __len__(cls) -> Any:
        return cls._checker_end.ask("special", cls, "__len__", ())

    def __bool__(cls) -> bool:
        return True

    def __repr__(cls) -> str:
        return f"<class 'solution.{cls.__name__}'>"

    def __dir__(cls) -> Any:
        return cls._checker_end.ask("special", cls, "__dir__", ())


def _remote(name: str, bases: tuple[Any, ...], names: dict[str, Any]) -> type:
    """A class of RemoteType, made without its own `__new__`, which is for the test's."""
    made: type = type.__new__(RemoteType, name, bases, names)
    return made


def _members(end: CheckerEnd, name: str, told: frozenset[str], form: str, base: str) -> dict[str, Any]:
    """The members of a proxy class. told: the special methods that the candidate reported."""
    members: dict[str, Any] = {}
    special = told & frozenset(SPECIAL)
    if form == "value":
        special -= _OF_VALUES
    elif form != "exception":
        special |= {"__str__", "__repr__", "__format__"}
    owner = (_VALUES if form == "value" else _COMPARED_AS).get(base)
    inner = owner if form == "value" else None
    members |= {each: _asked(end, each, inner) for each in special & {*ASKED, "__hash__"}}
    for each in special & set(OPERATORS):
        members[each] = _operator(end, each, owner, form, own=form == "value" or owner is None or f"own {each}" in told)
    members |= {each: _comparison(end, each, owner, form) for each in special & set(COMPARISONS)}
    if "__contains__" in special:
        members["__contains__"] = _containment(end, inner)
    if "__eq__" in members and "__hash__" not in members:
        members["__hash__"] = object.__hash__
    members["__copy__"] = lambda self: end.ask("copy", self, False)
    members["__deepcopy__"] = lambda self, memo: end.ask("copy", self, True)
    if form == "exception":
        members["__str__"] = lambda self: object.__getattribute__(self, "__dict__")["_text"]
        members["__getattribute__"] = lambda self, name: (
            object.__getattribute__(self, name)
            if name.startswith("__") or name in _OF_EXCEPTIONS
            else end.ask("get", self, name)
        )
        return members

    def get(self: Any, name: str) -> Any:
        if name in _LOCAL or (form == "value" and name.startswith("__")):
            return object.__getattribute__(self, name)
        if name == "send" and end.awaits and type(self).__name__ == "coroutine":
            end.stop(Unsuited("the test awaits what runs in the candidate's process"))
        return end.ask("get", self, name)

    def reduce(self: Any, *_: Any) -> NoReturn:
        end.stop(Unsuited("the test pickles an object of the candidate's"))

    members["__getattribute__"] = get
    members["__setattr__"] = lambda self, name, value: end.ask("set", self, name, value)
    members["__delattr__"] = lambda self, name: end.ask("delete", self, name)
    members["__reduce_ex__"] = members["__reduce__"] = reduce
    if form != "value":
        members["__dir__"] = _asked(end, "__dir__", None)
        native = _NATIVE.get(name) if form == "native" else owner
        if native is not None:
            members["__class__"] = property(lambda self: _like(type(self), native))
    return members


_likes: dict[type, type] = {}


def _like(kind: type, native: type) -> type:
    """The `__class__` of a proxy whose class derives from a type that a proxy class cannot derive from."""
    if native in _NATIVE.values():
        return native
    return _likes.setdefault(kind, types.new_class(kind.__name__, (native,)))


def _asked(end: CheckerEnd, name: str, base: Any) -> Callable[..., Any]:
    """base: of a class derived from a plain type that type, whose own method counts where the class may not answer."""
    own = None if base is None or name in _TEXTS else getattr(base, name, None)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if own is not None and not end.may_answer(self):
            return end.answer_for(self, name, args, lambda: own(self, *args, **kwargs))
        return end.ask("special", self, name, args, tuple(kwargs.items()))

    return method


def _operator(end: CheckerEnd, name: str, owner: Any, form: str, own: bool) -> Callable[..., Any]:
    """own: whether the candidate's class has an operator that is not its plain type's."""

    def method(self: Any, other: Any, *more: Any) -> Any:
        if end.is_remote(other) or end.may_answer(self):
            return end.ask("special", self, name, (other, *more))

        def answer() -> Any:
            plain = getattr(owner, name, None)
            if plain is None:
                return NotImplemented
            return plain(self if form == "value" else _inside(end, self, owner), other, *more)

        return end.answer_for(self, name, (other, *more), answer) if own else answer()

    return method


def _comparison(end: CheckerEnd, name: str, owner: Any, form: str) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        if end.is_remote(other) or (name not in ("__eq__", "__ne__") and end.may_answer(self)):
            return end.ask("special", self, name, (other,))
        if owner is None:
            return end.answer_for(self, name, (other,), lambda: NotImplemented)
        if form == "value":
            return end.answer_for(self, name, (other,), lambda: getattr(owner, name)(self, other))
        return getattr(owner, name)(_inside(end, self, owner), other)

    return method


def _containment(end: CheckerEnd, base: Any) -> Callable[..., Any]:
    def method(self: Any, item: Any) -> Any:
        if end.is_remote(item) or end.may_answer(self) or (base is not None and not hasattr(base, "__contains__")):
            return end.ask("special", self, "__contains__", (item,))
        if base is not None:
            return end.answer_for(self, "__contains__", (item,), lambda: base.__contains__(self, item))
        return end.answer_for(self, "__contains__", (item,), lambda: any(each is item or each == item for each in self))

    return method


def _agree(name: str, theirs: Any, said: Any, passed: bool) -> bool:
    """Whether a test that has passed or failed would have done so with the candidate's own answer."""
    if name in COMPARISONS:
        if name in ("__eq__", "__ne__"):
            theirs, said = (name == "__ne__" if each is NotImplemented else each for each in (theirs, said))
        if said is NotImplemented or theirs is NotImplemented:
            return theirs is said
        return bool(theirs) == bool(said)
    if not passed and type(theirs) is not type(said):  # a float lacks the methods of a class derived from it
        return False
    return theirs is said or bool(theirs == said) or bool(theirs != theirs and said != said)


def _inside(end: CheckerEnd, value: Any, owner: Any) -> Any:
    """The plain value inside an object, which does not learn what for."""
    plain = end.ask("plain", value)
    if type(plain) is not owner:
        end.stop(Unfit("a malformed answer"))
    return plain


def _settled(value: Any) -> Any:
    """A request with the items of its iterators in place of them: taking them may run the test's code and ask more."""
    if type(value) is tuple:
        return tuple(map(_settled, value))
    if isinstance(value, types.GeneratorType | map | filter) and _is_iterator(value):
        items = list(islice(value, MAX_DRAINED + 1))
        if len(items) > MAX_DRAINED:
            raise Unsuited(f"the test passes an iterator of more than {MAX_DRAINED} items")
        return iter(items)
    return value


def _is_iterator(value: Any) -> bool:
    return type(value).__module__ in ("builtins", "itertools") and hasattr(value, "__next__")


def _exception(kind: Any, args: tuple[Any, ...], text: str, cause: BaseException | None) -> BaseException:
    if type(args) is not tuple or type(text) is not str:
        raise WireError("a malformed exception")
    error: BaseException = kind.__new__(kind)
    # its own classes set what str() and attributes show only when they are called
    if type(kind) is not RemoteType:
        try:
            error = kind(*args)
        except (TypeError, ValueError):
            error = CandidateError(f"{kind.__name__}: {text}")
    else:
        error.__dict__["_text"] = text[:TEXT]
        error.args = args
    error.__cause__ = cause
    return error


def _raisable(value: Any) -> BaseException:
    if not isinstance(value, BaseException) or isinstance(value, Gone | Unfit | Unsuited):
        raise Unfit("a malformed answer")
    return value


def _loaded(module: Any) -> Any:
    return sys.modules.get(module) if type(module) is str else None


def _same_method(one: Any, other: Any) -> bool:
    return type(one) is types.BuiltinFunctionType and type(other) is type(one) and one == other
