"""Values, objects and shared containers between a test's process and a candidate's: what both ends share.

A plain value crosses as itself (wire.py). An object that has no plain form stays where it is and is known to the other
end by a number. A list, dict, set, bytearray, Counter, OrderedDict, defaultdict or deque is copied and, as long as both
ends refer to it, kept in sync: each message carries what has changed in it since the previous one. So a test can append to
`node.children`, and a candidate can sort the list that it was given.

Messages alternate strictly: an end that has sent one reads before it sends again.
"""

from __future__ import annotations

import builtins
import operator
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from itertools import chain
from typing import Any

from .wire import READERS, Reader, WireError, pack, pack_into, unpack, unpack_from

MAX_OBJECTS = 100_000  # that one end knows of the other's, and containers that are shared at a time

CONTAINERS: tuple[Any, ...] = (list, dict, set, bytearray, Counter, OrderedDict, defaultdict, deque)
_NUMBER_OF_KIND = {kind: number for number, kind in enumerate(CONTAINERS)}
_FLAT = frozenset({type(None), bool, int, float, complex, str, bytes, tuple, frozenset, range})
_DATES: dict[str, tuple[str, ...]] = {
    "date": ("year", "month", "day"),
    "datetime": ("year", "month", "day", "hour", "minute", "second", "microsecond"),
    "time": ("hour", "minute", "second", "microsecond"),
    "timedelta": ("days", "seconds", "microseconds"),
}
# what a candidate may refer to by name instead of sending it; none of it does harm when it is called
TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, type(None))
}
TYPES |= {function.__name__: function for function in (abs, all, any, len, max, min, pow, repr, round, sorted, sum)}
TYPES |= {"object": object, "NotImplemented": NotImplemented, "Ellipsis": Ellipsis}
EXCEPTIONS: dict[str, type[BaseException]] = {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
}
_NAMED = {id(value): name for name, value in (TYPES | EXCEPTIONS).items()}


class Shared:
    """A container that both ends hold. seen: its items when it last crossed, None until it is filled."""

    __slots__ = ("seen", "value")

    def __init__(self, value: Any, seen: tuple[Any, ...] | None = None) -> None:
        self.value = value
        self.seen = seen

    def now(self) -> tuple[Any, ...]:
        """Its items, those of a dict as key, value, key, value."""
        kind = type(self.value)
        if kind is bytearray:
            return (bytes(self.value),)
        if issubclass(kind, dict):
            return tuple(chain.from_iterable(self.value.items()))
        return tuple(self.value)

    def change(self, now: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]] | None:
        """How many of the items with which it crossed are still its first ones (all or none), and those that follow;
        None where nothing has changed. Compared by identity, so that no object's code runs."""
        seen = self.seen
        if seen is None:
            return None
        if type(self.value) is bytearray:
            return None if seen == now else (0, now)
        if len(now) < len(seen) or not all(map(operator.is_, seen, now)):
            return 0, now
        return (len(seen), now[len(seen) :]) if len(now) > len(seen) else None

    def fill(self, items: tuple[Any, ...], kept: int = 0) -> None:
        """Replaces the items after the first `kept` (all or none of the present ones). Raises WireError for items that
        its kind cannot hold."""
        value = self.value
        kind = type(value)
        if kept and kept != len(self.seen or ()):
            raise WireError("a malformed change")
        try:
            if kind is bytearray:
                (raw,) = items
                value[:] = raw if type(raw) is bytes else _refuse("invalid bytes")
                kept = 1
            if not kept:
                value.clear()
            if issubclass(kind, dict):
                if len(items) % 2:
                    _refuse("a key without a value")
                for key, item in zip(items[::2], items[1::2], strict=True):
                    value[key] = item
            elif kind is not bytearray:
                (value.update if kind is set else value.extend)(items)
        except (TypeError, ValueError) as error:
            raise WireError("items that a container cannot have") from error
        self.seen = self.now()

    def alone(self) -> int:
        """How many references to the container there are, as this interpreter counts them."""
        return sys.getrefcount(self.value)


_ALONE = Shared([]).alone()  # where nothing but the table holds it


class End:
    """One end. `first`: 0 or 1, the numbers of the containers it brings in are even or odd.

    A subclass defines how an object of this end is described (`description`) and how a proxy for one of the other end's is
    made (`make_proxy`).
    """

    def __init__(self, first: int) -> None:
        self._own: list[Any] = []
        self._own_numbers: dict[Any, int] = {}
        self._theirs: dict[int, Any] = {}
        self._their_numbers: dict[int, int] = {}
        self._shared: dict[int, Shared] = {}
        self._shared_numbers: dict[int, int] = {}
        self._parity = first
        self._following = first
        self._unfilled: list[tuple[Shared, tuple[Any, ...]]] = []
        self._readers: dict[bytes, Callable[[Reader, int], Any]] = {
            **READERS,
            b"W": self._read_new_container,
            b"M": lambda reader, depth: self._known(self._shared, reader.count()).value,
            b"H": self._read_new_object,
            b"O": lambda reader, depth: self._known(self._theirs, reader.count()),
            b"P": lambda reader, depth: self._mine(reader.count()),
            b"G": self._read_name,
            b"E": _read_date,
            b"Y": _read_slice,
        }

    def description(self, value: Any) -> Any:
        """The description of an object of this end, as a value that can cross. Raises WireError if it cannot."""
        raise NotImplementedError

    def make_proxy(self, told: Any) -> Any:
        """A proxy for an object of the other end, from its description. Raises WireError for an invalid one."""
        raise NotImplementedError

    def key(self, value: Any) -> Any:
        """The identity under which an object is numbered."""
        return id(value)

    def name(self, value: Any) -> tuple[str, ...] | None:
        """A name by which the other end finds the same object in its own process, or None."""
        found = _NAMED.get(id(value))
        return None if found is None else (found,)

    def find(self, name: tuple[Any, ...]) -> Any:
        """The object that a name refers to. Raises WireError for an unknown name."""
        if len(name) == 1 and type(name[0]) is str:
            for table in (TYPES, EXCEPTIONS):
                if name[0] in table:
                    return table[name[0]]
        raise WireError("an invalid name")

    def is_remote(self, value: Any) -> bool:
        """Whether a value is a proxy for an object of the other end."""
        return id(value) in self._their_numbers

    # sending

    def message(self, body: tuple[Any, ...]) -> bytes:
        """The bytes of a message that brings the shared containers up to date. WireError when it cannot cross; nothing
        has happened then."""
        current = {number: each.now() for number, each in self._shared.items()}
        changes = tuple(
            (number, *change) for number, now in current.items() if (change := self._shared[number].change(now))
        )
        dropped = tuple(number for number, each in self._shared.items() if each.alone() == _ALONE)
        known, kept, first = len(self._own), list(self._shared), self._following
        try:
            data = pack((dropped, changes, body), self._write)
        except BaseException:
            del self._own[known:]
            self._own_numbers = {key: number for key, number in self._own_numbers.items() if number < known}
            self._following = first
            for number in [number for number in self._shared if number not in set(kept)]:
                self._drop(number)
            raise
        for number, *_ in changes:
            self._shared[number].seen = current[number]
        for number in dropped:
            self._drop(number)
        return data

    def _write(self, value: Any, out: bytearray, depth: int) -> bool:
        """Writes what is no flat plain value."""
        kind = type(value)
        if kind in _FLAT:
            return False
        number = self._their_numbers.get(id(value))
        if number is not None:
            out += b"P" + _number(number)
        elif kind in _NUMBER_OF_KIND:
            self._write_container(value, out, depth)
        elif (name := self.name(value)) is not None:
            out += b"G"
            pack_into(name, out, depth + 1)
        elif _from_library(kind, "datetime", _DATES) and getattr(value, "tzinfo", None) is None:
            out += b"E"
            parts = tuple(getattr(value, part) for part in _DATES[kind.__name__])
            pack_into((kind.__name__, *parts), out, depth + 1)
        elif kind is slice:
            out += b"Y"
            pack_into((value.start, value.stop, value.step), out, depth + 1, self._write)
        else:
            return not _is_number(kind) and self._write_object(value, out, depth)
        return True

    def _write_container(self, value: Any, out: bytearray, depth: int) -> None:
        number = self._shared_numbers.get(id(value))
        if number is not None:
            out += b"M" + _number(number)
            return
        number, self._following = self._following, self._following + 2
        entry = self._share(number, value)
        entry.seen = entry.now()
        kind = type(value)
        more = value.default_factory if kind is defaultdict else value.maxlen if kind is deque else None
        out += b"W" + _number(number)
        for part in (_NUMBER_OF_KIND[kind], more, entry.seen):
            pack_into(part, out, depth + 1, self._write)

    def _write_object(self, value: Any, out: bytearray, depth: int) -> bool:
        key = self.key(value)
        number = self._own_numbers.get(key)
        if number is not None:
            out += b"O" + _number(number)
            return True
        told = self.description(value)
        number = len(self._own)
        if number >= MAX_OBJECTS:
            raise WireError(f"more than {MAX_OBJECTS} objects")
        self._own.append(value)
        self._own_numbers[key] = number
        out += b"H" + _number(number)
        pack_into(told, out, depth + 1, self._write)
        return True

    # receiving

    def receive(self, data: bytes) -> tuple[Any, ...]:
        """The body of a message, after the shared containers have been brought up to date. WireError for nonsense."""
        message = unpack(data, self._readers)
        # filled last: the hash of a stand-in may take messages of its own
        unfilled, self._unfilled = self._unfilled, []
        for entry, items in unfilled:
            entry.fill(items)
        if type(message) is not tuple or [type(part) for part in message] != [tuple, tuple, tuple]:
            raise WireError("a malformed message")
        dropped, changes, body = message
        assert type(body) is tuple
        for change in changes:
            if type(change) is not tuple or [type(part) for part in change] != [int, int, tuple]:
                raise WireError("a malformed message")
            self._known(self._shared, change[0]).fill(change[2], kept=change[1])
        for number in dropped:
            self._known(self._shared, number)
            self._drop(number)
        return body

    def _read_new_container(self, reader: Reader, depth: int) -> Any:
        number = reader.count()
        if number in self._shared or number % 2 == self._parity:
            raise WireError("a container with a number already in use")
        kind, more = unpack_from(reader, depth), unpack_from(reader, depth)
        if type(kind) is not int or not 0 <= kind < len(CONTAINERS):
            raise WireError("a container of an unknown kind")
        made = CONTAINERS[kind]
        try:
            value = made(more) if made is defaultdict else made(maxlen=more) if made is deque else made()
        except (TypeError, ValueError, OverflowError) as error:
            raise WireError("a container of an unknown kind") from error
        entry = self._share(number, value)
        items = unpack_from(reader, depth)
        if type(items) is not tuple:
            raise WireError("a container without items")
        self._unfilled.append((entry, items))
        return value

    def _read_new_object(self, reader: Reader, depth: int) -> Any:
        number = reader.count()
        if number in self._theirs or number >= MAX_OBJECTS:
            raise WireError("an object with a number already in use")
        value = self.make_proxy(unpack_from(reader, depth))
        if number in self._theirs:
            raise WireError("an object with a number already in use")
        self._theirs[number] = value
        self._their_numbers[id(value)] = number
        return value

    def _read_name(self, reader: Reader, depth: int) -> Any:
        name = unpack_from(reader, depth)
        return self.find(name if type(name) is tuple else ())

    def _mine(self, number: int) -> Any:
        if number >= len(self._own):
            raise WireError("an unknown object")
        return self._own[number]

    def _known(self, table: dict[int, Any], number: Any) -> Any:
        if type(number) is not int or number not in table:
            raise WireError("an unknown object")
        return table[number]

    def _share(self, number: int, value: Any) -> Shared:
        if len(self._shared) >= MAX_OBJECTS:
            raise WireError(f"more than {MAX_OBJECTS} containers")
        entry = self._shared[number] = Shared(value)
        self._shared_numbers[id(value)] = number
        return entry

    def _drop(self, number: int) -> None:
        del self._shared_numbers[id(self._shared.pop(number).value)]


def _number(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _from_library(kind: type, module: str, names: Any) -> bool:
    """Whether a type is one of a module's own, which is then loaded."""
    return (
        kind.__module__ == module
        and kind.__name__ in names
        and getattr(sys.modules.get(module), kind.__name__, None) is kind
    )


def _is_number(kind: type) -> bool:
    """Whether a type is one of the numbers outside the language that are plain values."""
    if _from_library(kind, "fractions", ("Fraction",)) or _from_library(kind, "decimal", ("Decimal",)):
        return True
    return kind.__module__ == "numpy" and hasattr(kind, "item") and kind.__name__ != "ndarray"


def _read_date(reader: Reader, depth: int) -> Any:
    import datetime

    parts = unpack_from(reader, depth)
    if type(parts) is not tuple or not parts or parts[0] not in _DATES or any(type(p) is not int for p in parts[1:]):
        raise WireError("an invalid date")
    try:
        return getattr(datetime, parts[0])(*parts[1:])
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError("an invalid date") from error


def _read_slice(reader: Reader, depth: int) -> slice:
    parts = unpack_from(reader, depth)
    if type(parts) is not tuple or len(parts) != 3:
        raise WireError("an invalid slice")
    return slice(*parts)


def _refuse(what: str) -> Any:
    raise WireError(what)
