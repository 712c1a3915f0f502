"""An attacker's bytes become plain values or an error, and nothing else."""

from __future__ import annotations

import contextlib
import os
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from qwen_eval.sandbox.inside.wire import MAX_DEPTH, WireError, pack, read_message, unpack, write_message

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.binary()
    | st.text(st.characters(exclude_categories=()))
)
keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
few = examples(60)
values = st.recursive(
    scalars | st.sets(keys) | st.frozensets(keys),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)


def alike(value: Any) -> Any:
    """A text that is the same for equal values of equal types, whatever order a set gives."""
    if isinstance(value, set | frozenset):
        return f"{type(value)} {sorted(map(repr, value))}"
    if isinstance(value, list | tuple):
        return f"{type(value)} {[alike(item) for item in value]}"
    if isinstance(value, dict):
        return f"{type(value)} {[(repr(key), alike(item)) for key, item in value.items()]}"
    return repr(value)


@few
@given(values)
def test_a_plain_value_comes_back_as_it_was(value: Any) -> None:
    assert alike(unpack(pack(value))) == alike(value)


@few
@given(st.binary(max_size=200))
def test_any_bytes_are_a_plain_value_or_an_error(data: bytes) -> None:
    try:
        value = unpack(data)
    except WireError:
        return
    assert type(value).__module__ in ("builtins", "fractions", "decimal")


@few
@given(values, st.randoms())
def test_damaged_bytes_are_a_plain_value_or_an_error(value: Any, chance: random.Random) -> None:
    data = bytearray(pack(value))
    for _ in range(3):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with contextlib.suppress(WireError):
        unpack(bytes(data[: chance.randrange(len(data)) + 1]))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"?", b"NN", b"l\xff\xff\xff\xff", b"s\xff\xff\xff\x7fabc", b"i\x00", b"s\x01\x00\x00\x00\xff",
        b"S\x01\x00\x00\x00l\x00\x00\x00\x00", b"d\x01\x00\x00\x00l\x00\x00\x00\x00N", b"rNNN",
        b"r" + pack(0) * 3, b"q" + pack((1, 0)), b"q" + pack([1, 2]), b"D" + pack("x"), b"D" + pack(1), b"I" + pack(1),
        b"l\x01\x00\x00\x00" * 200 + b"N",
    ],
)  # fmt: skip
def test_bytes_that_are_not_a_value(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack(data)


def test_depth_is_bounded_on_both_sides() -> None:
    deep: Any = None
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert unpack(pack(deep)) == deep
    with pytest.raises(WireError, match="deep"):
        pack([deep])


def test_messages_go_over_a_pipe_one_by_one() -> None:
    out, into = os.pipe()
    write_message(into, b"one")
    write_message(into, b"")
    os.write(into, struct.pack("<I", 5) + b"cut")
    os.close(into)
    assert [read_message(out) for _ in range(3)] == [b"one", b"", None]
    os.close(out)


def test_a_message_that_claims_too_much_is_refused() -> None:
    out, into = os.pipe()
    os.write(into, struct.pack("<I", 1 << 31))
    with pytest.raises(WireError, match="a message of 2147483648 bytes"):
        read_message(out)
    os.close(out)
    os.close(into)
