"""What leaves the sandbox for the harness itself: small plain values, read in linear time whatever the bytes are.

The form of wire.py with fewer kinds and tighter limits. The process that reads it has no limits of its own, so nothing is
here whose reading, comparison or printing can take long or raise: no sets and no keys but texts (many of one hash make
them quadratic), no large integers (nor have fractions any), no signalling NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from .wire import READERS, Reader, WireError, pack, unpack, unpack_from

VALUE_BYTES, MESSAGE_BYTES = 256 << 10, 1 << 20
INTEGER_BYTES = 256  # 617 digits: any setting of Python prints them
DECIMAL_CHARACTERS = 1000
DEPTH = 50


def pack_plain(value: Any) -> bytes:
    """The bytes of a plain value: None, bool, int, float, complex, str, bytes, list, tuple, dict with texts for keys, range,
    Fraction, Decimal, and what is compared as one of them. WireError for anything else and for what exceeds a limit."""
    try:
        data = pack(value, _refuse)
    except WireError:
        raise
    except BaseException as error:  # of the value's own code
        raise WireError(f"a value whose code raises {type(error).__name__}") from error
    unpack_plain(data)
    return data


def _refuse(value: Any, out: bytearray, depth: int) -> bool:
    """Raises WireError for what needs not be looked into."""
    if isinstance(value, Iterator | Set):  # an iterator is not the items it might give
        raise WireError(f"a value of type {type(value).__name__}")
    if len(out) > VALUE_BYTES or depth > DEPTH:
        raise WireError(f"a value of more than {VALUE_BYTES} bytes or {DEPTH} levels")
    return False


def unpack_plain(data: bytes, limit: int = VALUE_BYTES) -> Any:
    """The value that `pack_plain` gave these bytes for. WireError for all other bytes, and for more than `limit`."""
    if len(data) > limit:
        raise WireError(f"a value of more than {limit} bytes")
    return unpack(data, _READERS, DEPTH)


def _integer(reader: Reader, depth: int) -> int:
    count = reader.count()
    if count > INTEGER_BYTES:
        raise WireError(f"an integer of more than {8 * INTEGER_BYTES} bits")
    return int.from_bytes(reader.take(count), "little", signed=True)


def _dict(reader: Reader, depth: int) -> dict[str, Any]:
    found = {}
    for _ in range(reader.count()):  # each takes bytes of the message, which end
        key = unpack_from(reader, depth)
        if type(key) is not str:
            raise WireError("a dictionary with keys that are not texts")
        found[key] = unpack_from(reader, depth)
    return found


def _decimal(reader: Reader, depth: int) -> Any:
    start = reader.at
    value = READERS[b"D"](reader, depth)
    if reader.at - start > DECIMAL_CHARACTERS or value.is_snan():
        raise WireError("a Decimal that is long or a signalling NaN")
    return value


_READERS = {
    **{tag: READERS[tag] for tag in (b"N", b"T", b"F", b"f", b"c", b"s", b"b", b"l", b"t", b"r", b"q")},
    b"i": _integer,
    b"d": _dict,
    b"D": _decimal,
}
