"""The candidate's end of a script test: performs the test's operations on the candidate's objects. Untrusted.

Whatever this process holds can be patched by the candidate; the checker relies on none of it (proxies.py).
"""

from __future__ import annotations

import _thread
import copy
import importlib
import operator
import types
from collections.abc import Callable, Mapping
from typing import Any

from .exchange import EXCEPTIONS, End
from .role import describe
from .settings import INPUT, OUTPUT
from .wire import WireError, base_value, pack, read_message, write_message

# special methods that are looked for in a class
_BINARY = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and", "xor", "or",
)  # fmt: skip
OPERATORS = tuple(f"__{prefix}{name}__" for name in _BINARY for prefix in ("", "r", "i"))
COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
ASKED = (
    "__call__", "__len__", "__length_hint__", "__getitem__", "__setitem__", "__delitem__", "__iter__", "__next__",
    "__reversed__", "__bool__", "__int__", "__float__", "__complex__", "__index__", "__bytes__", "__str__", "__repr__",
    "__format__", "__round__", "__trunc__", "__floor__", "__ceil__", "__abs__", "__neg__", "__pos__", "__invert__",
    "__enter__", "__exit__",
)  # fmt: skip
SPECIAL = (*ASKED, *OPERATORS, *COMPARISONS, "__contains__", "__hash__")
VALUES: tuple[type, ...] = (int, float, complex, str, bytes, tuple, frozenset)  # a subclass's instance is one, for good
_LISTS: tuple[type, ...] = (list, dict, set, bytearray)
_VIEWS = ("dict_keys", "dict_items")


class CandidateEnd(End):
    """Describes the candidate's objects: each by its class, and each class by the special methods it supports."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(1)
        self._names = names
        self._lock = _thread.RLock()  # threads of the candidate may call the test's functions

    def key(self, value: Any) -> Any:
        """A bound method is a new object at each access; those of one object and function count as one."""
        if type(value) is types.MethodType:
            return ("method", id(value.__self__), id(value.__func__))
        if type(value) is types.BuiltinMethodType and not isinstance(value.__self__, types.ModuleType):
            return ("method", id(value.__self__), value.__name__)
        return id(value)

    def description(self, value: Any) -> Any:
        """("class", name, bases, special methods, form, base), ("object", class), ("value", class, plain value) or
        ("exception", class, arguments, text, cause)."""
        kind = type(value)
        if issubclass(kind, type):
            return _class(value)
        if issubclass(kind, BaseException):
            return ("exception", kind, tuple(value.args), describe(value)[1], value.__cause__)
        base = _base(kind, VALUES)
        return ("object", kind) if base is None else ("value", kind, base_value(base, value))

    def make_proxy(self, told: Any) -> Any:
        """An exception like the test's, or a function that calls the test's."""
        if told[0] == "exception":
            return _exception(*told[1:])

        def function(*args: Any, **kwargs: Any) -> Any:
            return self._call_back(function, args, kwargs)

        function.__name__ = function.__qualname__ = told[1]
        return function

    def find(self, name: tuple[Any, ...]) -> Any:
        """Also anything of a module: ("module", "qualified.name")."""
        if len(name) == 1:
            return super().find(name)
        found: Any = importlib.import_module(name[0])
        for part in name[1].split(".") if name[1] else ():
            found = getattr(found, part)
        return found

    def _call_back(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._lock:
            write_message(OUTPUT, self.message(("call", function, args, tuple(kwargs.items()))))
            answer = self.serve()
        if answer is None:
            raise SystemExit
        if answer[0] == "value":
            return answer[1]
        raise answer[1]

    def serve(self) -> tuple[Any, ...] | None:
        """Answers requests until the pipe is closed (None), or until the result of a call of the test's function arrives."""
        while (data := read_message(INPUT)) is not None:
            body = self.receive(data)
            if body[0] in ("value", "raised"):
                return body
            reply = self._answer(body)
            del body
            try:
                message = self.message(reply)
            except WireError as error:
                message = pack(((), (), ("unfit", str(error))))
            except BaseException as error:
                message = pack(((), (), ("unfit", "a value that raises {}: {}".format(*describe(error)))))
            del reply
            write_message(OUTPUT, message)
        return None

    def _answer(self, body: tuple[Any, ...]) -> tuple[Any, ...]:
        what, *parts = body
        try:
            if what == "name":
                if parts[0] not in self._names:
                    return ("missing",)
                return ("value", self._names[parts[0]])
            return ("value", _ACTIONS[what](*parts))
        except BaseException as error:
            error.__traceback__ = None  # it would keep the arguments
            return ("raised", error)


def _exception(kind: type[BaseException], args: tuple[Any, ...], name: str) -> BaseException:
    if name != kind.__name__:  # a class of the test's
        kind = type(name, (kind,), {})
    error = kind.__new__(kind)
    error.args = args
    return error


def _special(target: Any, name: str, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...] = ()) -> Any:
    kind = type(target)
    if issubclass(kind, type) and name == "__getitem__":
        return target[args[0]]
    if name in _WHOLE:
        return _WHOLE[name](target, *args)
    return getattr(kind, name)(target, *args, **dict(kwargs))


def _copy(target: Any, deep: bool) -> Any:
    return copy.deepcopy(target) if deep else copy.copy(target)


# through the language, which knows more than the method: defaults, and what a method must return
_WHOLE: Mapping[str, Callable[..., Any]] = {
    "__str__": str, "__repr__": repr, "__format__": format, "__iter__": iter, "__len__": len, "__bool__": bool,
    "__hash__": hash, "__contains__": operator.contains, "__dir__": dir,
}  # fmt: skip
_ACTIONS: Mapping[str, Callable[..., Any]] = {
    "call": lambda target, args, kwargs: target(*args, **dict(kwargs)),
    "get": getattr,
    "set": setattr,
    "delete": delattr,
    "special": _special,
    "plain": lambda target: _as_compared(target),
    "copy": _copy,
}


def _class(kind: type) -> tuple[Any, ...]:
    """The description of a class for the checker."""
    mro = type.mro(kind)
    base = _base(kind, VALUES)
    until: type
    if issubclass(kind, BaseException):
        form, until = "exception", next(each for each in mro if EXCEPTIONS.get(each.__name__) is each)
    elif base is not None:
        form, until = "value", base
    elif kind.__module__ in ("builtins", "types") and not _made(kind):
        form, until = "native", object
    else:
        form, until = "opaque", object
    own = mro[: mro.index(until)]
    special = [name for name in SPECIAL if any(name in vars(each) for each in own)]
    if kind.__hash__ is None:
        special.append("unhashable")
    compared = _base(kind, _LISTS)
    if kind.__name__ in _VIEWS:
        compared = frozenset
    bases = tuple(each for each in kind.__bases__ if each is not object and each not in _LISTS)
    if compared in _LISTS:
        own = mro[: mro.index(compared)]
        special += [f"own {name}" for name in OPERATORS if any(name in vars(each) for each in own)]
    named = (base or compared).__name__ if base or compared else ""
    return ("class", kind.__name__, bases, tuple(special), form, named)


def _made(kind: type) -> bool:
    """Whether a class was created at run time rather than built into the interpreter."""
    return bool(kind.__flags__ & (1 << 9))  # Py_TPFLAGS_HEAPTYPE


def _base(kind: type, bases: tuple[Any, ...]) -> Any:
    """The plain type whose comparison a class keeps, None where it has none or another comparison."""
    for base in bases:
        if issubclass(kind, base) and (kind.__eq__, kind.__ne__) == (base.__eq__, base.__ne__):
            return base
    return None


def _as_compared(target: Any) -> Any:
    kind = type(target)
    if kind.__name__ in _VIEWS:
        return frozenset(target)
    base = _base(kind, _LISTS)
    return None if base is None else base_value(base, target)
