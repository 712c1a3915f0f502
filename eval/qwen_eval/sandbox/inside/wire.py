"""Plain values as bytes, and messages on a pipe.

Whatever a candidate sends is read here, in the checker's process, so reading builds nothing but plain values of exact
types, and is bounded in bytes and depth. pickle and marshal would run or crash on bytes from an attacker.
"""

from __future__ import annotations

import os
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

Made = TypeVar("Made")

MAX_BYTES = 16 << 20
MAX_DEPTH = 100
MAX_DRAINED = 1_000_000  # items taken from a generator before it counts as endless
_LENGTH = struct.Struct("<I")
_DOUBLE = struct.Struct("<d")

# compared as their plain value is: the order of an OrderedDict and a Counter's zeros count only among themselves
_ALIKE = (Counter, OrderedDict)
_BASES = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)


class WireError(Exception):
    """A value that cannot cross, or invalid bytes."""


# writes a value by itself and says so, or leaves it to the rules for plain values: what a protocol has beyond them
Special = Callable[[Any, bytearray, int], bool]


def pack(value: Any, special: Special | None = None) -> bytes:
    """The bytes of a plain value: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set,
    frozenset, range, Fraction, Decimal, and what is compared as one of them (numpy scalars as .item(), subclasses that
    keep their base's comparison). An iterator of the language (generator, map, zip) goes as the items it yields.

    special: called first for every value, at every level, other than None, bool, numbers, text and bytes; the reader must
    know the tags it writes. WireError for anything else, for more than MAX_DEPTH levels, or more than MAX_BYTES bytes.
    """
    out = bytearray()
    pack_into(value, out, 0, special)
    if len(out) > MAX_BYTES:
        raise WireError(f"a value of more than {MAX_BYTES} bytes")
    return bytes(out)


def pack_into(value: Any, out: bytearray, depth: int, special: Special | None = None) -> None:
    """Appends to `out` what `pack` gives for a value that lies `depth` levels deep. WireError as there."""
    if depth > MAX_DEPTH:
        raise WireError(f"a value nested more than {MAX_DEPTH} deep")
    if len(out) > MAX_BYTES:
        raise WireError(f"a value of more than {MAX_BYTES} bytes")
    kind = type(value)
    if value is None or kind is bool:
        out += {None: b"N", True: b"T", False: b"F"}[value]
    elif kind is int:
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        _sized(b"i", raw, out)
    elif kind is float:
        out += b"f" + _DOUBLE.pack(value)
    elif kind is complex:
        out += b"c" + _DOUBLE.pack(value.real) + _DOUBLE.pack(value.imag)
    elif kind is str:
        _sized(b"s", value.encode("utf-8", "surrogatepass"), out)
    elif kind is bytes or (kind is bytearray and special is None):
        _sized(b"b" if kind is bytes else b"a", bytes(value), out)
    elif special is not None and special(value, out, depth):
        return
    elif kind in _CONTAINERS:
        out += _CONTAINERS[kind] + _LENGTH.pack(len(value))
        for item in value:
            pack_into(item, out, depth + 1, special)
    elif kind is dict:
        out += b"d" + _LENGTH.pack(len(value))
        for key, item in value.items():
            pack_into(key, out, depth + 1, special)
            pack_into(item, out, depth + 1, special)
    elif kind is range:
        out += b"r"
        for part in (value.start, value.stop, value.step):
            pack_into(part, out, depth + 1, special)
    else:
        tag, plain = _plain(value)
        out += tag
        pack_into(plain, out, depth + 1, special)


_CONTAINERS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}


def _sized(tag: bytes, raw: bytes, out: bytearray) -> None:
    if len(raw) > MAX_BYTES:
        raise WireError(f"a value of more than {MAX_BYTES} bytes")
    out += tag + _LENGTH.pack(len(raw)) + raw


def _plain(value: Any) -> tuple[bytes, Any]:
    """A tag ("" for none) and the plain value that stands for a value of another type; WireError if none does."""
    kind = type(value)
    module = kind.__module__
    if module == "numpy" and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        plain = value.item()
        if type(plain) is not kind:
            return b"", plain
    if module == "fractions" and kind.__name__ == "Fraction":
        return b"q", (value.numerator, value.denominator)
    if module == "decimal" and kind.__name__ == "Decimal":
        return b"D", str(value)
    if isinstance(value, Iterator) and module in ("builtins", "itertools"):
        items = []
        for item in value:
            items.append(item)
            if len(items) > MAX_DRAINED:
                raise WireError(f"an iterator of more than {MAX_DRAINED} items")
        return b"I", items
    for base in _BASES:
        if issubclass(kind, base) and (kind in _ALIKE or (kind.__eq__, kind.__ne__) == (base.__eq__, base.__ne__)):
            return b"", base_value(base, value)
    raise WireError(f"a value of type {kind.__name__}")


def base_value(base: Any, value: Any) -> Any:
    """The plain value inside an instance of a subclass, without asking the subclass."""
    if base is int:
        return int.__int__(value)
    if base is float:
        return float.__float__(value)
    if base is complex:
        return complex(float(value.real), float(value.imag))
    if base is str:
        return str.__str__(value)
    if base is dict:
        return dict(dict.items(value))
    return base(base.__iter__(value))


Readers: TypeAlias = "Mapping[bytes, Callable[[Reader, int], Any]]"


class Reader:
    """A cursor over bytes that knows how much is left. readers: by tag. depth: how many levels a value may have."""

    def __init__(self, data: bytes, readers: Readers, depth: int) -> None:
        self.data = data
        self.at = 0
        self.readers = readers
        self.depth = depth

    def take(self, count: int) -> bytes:
        """The next `count` bytes; WireError when there are fewer."""
        end = self.at + count
        if end > len(self.data):
            raise WireError("a message that ends early")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def count(self) -> int:
        """The next number, of four bytes."""
        return int.from_bytes(self.take(4), "little")


def unpack(data: bytes, readers: Readers | None = None, depth: int = MAX_DEPTH) -> Any:
    """The plain value that `data` holds; WireError when it holds none or something after it, or more than `depth` levels.
    readers: by tag what reads the rest of a value, given the reader and the depth; READERS where not given, and with them
    those of what a `special` of `pack` has written."""
    reader = Reader(data, READERS if readers is None else readers, depth)
    value = unpack_from(reader, 0)
    if reader.at != len(data):
        raise WireError("bytes after the value")
    return value


def unpack_from(reader: Reader, depth: int) -> Any:
    """The next value of a reader; WireError when there is none."""
    if depth > reader.depth + 1:
        raise WireError("a message nested too deep")
    tag = reader.take(1)
    read = reader.readers.get(tag)
    if read is None:
        raise WireError("a malformed message")
    return read(reader, depth + 1)


def _text(reader: Reader, depth: int) -> str:
    try:
        return reader.take(reader.count()).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise WireError("text that is not UTF-8") from error


def _items(reader: Reader, depth: int) -> list[Any]:
    # no list is made for the count that is claimed: every item takes at least a byte of the message
    return [unpack_from(reader, depth) for _ in range(_claimed(reader))]


def _claimed(reader: Reader) -> int:
    count = reader.count()
    if count > len(reader.data) - reader.at:
        raise WireError("a message that ends early")
    return count


def _dict(reader: Reader, depth: int) -> dict[Any, Any]:
    pairs = [(unpack_from(reader, depth), unpack_from(reader, depth)) for _ in range(_claimed(reader))]
    return _hashed(dict, pairs)


def _hashed(kind: Callable[[Any], Made], items: Any) -> Made:
    try:
        return kind(items)
    except TypeError as error:
        raise WireError("an unhashable key") from error


def _range(reader: Reader, depth: int) -> range:
    parts = [unpack_from(reader, depth) for _ in range(3)]
    if any(type(part) is not int for part in parts) or parts[2] == 0:
        raise WireError("an invalid range")
    return range(*parts)


def _fraction(reader: Reader, depth: int) -> Any:
    from fractions import Fraction

    parts = unpack_from(reader, depth)
    if type(parts) is not tuple or [type(part) for part in parts] != [int, int] or parts[1] == 0:
        raise WireError("an invalid fraction")
    return Fraction(*parts)


def _decimal(reader: Reader, depth: int) -> Any:
    from decimal import Decimal, InvalidOperation

    text = unpack_from(reader, depth)
    if type(text) is not str:
        raise WireError("an invalid decimal")
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise WireError("an invalid decimal") from error


def _float(reader: Reader, depth: int) -> float:
    value: float = _DOUBLE.unpack(reader.take(8))[0]
    return value


READERS: Readers = {
    b"N": lambda reader, depth: None,
    b"T": lambda reader, depth: True,
    b"F": lambda reader, depth: False,
    b"i": lambda reader, depth: int.from_bytes(reader.take(reader.count()), "little", signed=True),
    b"f": _float,
    b"c": lambda reader, depth: complex(_float(reader, depth), _float(reader, depth)),
    b"s": _text,
    b"b": lambda reader, depth: reader.take(reader.count()),
    b"a": lambda reader, depth: bytearray(reader.take(reader.count())),
    b"l": _items,
    b"t": lambda reader, depth: tuple(_items(reader, depth)),
    b"S": lambda reader, depth: _hashed(set, _items(reader, depth)),
    b"Z": lambda reader, depth: _hashed(frozenset, _items(reader, depth)),
    b"d": _dict,
    b"r": _range,
    b"q": _fraction,
    b"D": _decimal,
    b"I": lambda reader, depth: iter(_typed(list, unpack_from(reader, depth))),
}


def _typed(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise WireError(f"an invalid {kind.__name__}")
    return value


def write_message(fd: int, data: bytes) -> None:
    """Writes one message to a pipe, all of it; OSError when the reading end is closed."""
    write_all(fd, _LENGTH.pack(len(data)) + data)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_message(fd: int, limit: int = MAX_BYTES + 4096) -> bytes | None:
    """The next message of a pipe, None when its writer has gone; WireError when it claims more than `limit` bytes."""
    head = _read_exactly(fd, _LENGTH.size)
    if head is None:
        return None
    size = _LENGTH.unpack(head)[0]
    if size > limit:
        raise WireError(f"a message of {size} bytes")
    return _read_exactly(fd, size)


def _read_exactly(fd: int, count: int) -> bytes | None:
    pieces = []
    while count:
        piece = os.read(fd, min(count, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def read_all(fd: int, limit: int = 2 * MAX_BYTES) -> bytes:
    """Everything up to the end of a file, at most `limit` bytes."""
    pieces = []
    while limit > 0 and (piece := os.read(fd, min(limit, 1 << 20))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)
