"""Shared containers stay in sync at both ends, and an attacker's bytes become a value or a known error."""

from __future__ import annotations

import os
import random
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from qwen_eval.sandbox.inside import proxies
from qwen_eval.sandbox.inside.answers import CandidateEnd
from qwen_eval.sandbox.inside.exchange import End
from qwen_eval.sandbox.inside.faults import CandidateError, Gone, Unfit
from qwen_eval.sandbox.inside.proxies import CheckerEnd
from qwen_eval.sandbox.inside.wire import WireError


def ends() -> tuple[End, End]:
    return CheckerEnd({"__name__": "test"}), CandidateEnd({})


def change(chance: random.Random, container: Any, others: list[Any]) -> None:
    """Does something to a container."""
    item: Any = chance.choice([chance.randrange(5), str(chance.randrange(5)), chance.choice(others)])
    key = chance.randrange(5)
    if isinstance(container, Counter):
        container[key] += 1
    elif isinstance(container, dict):
        chance.choice([lambda: container.update({key: item}), lambda: container.pop(key, None), container.clear])()
    elif isinstance(container, set):
        chance.choice([lambda: container.add(key), lambda: container.discard(key)])()
    elif isinstance(container, bytearray):
        container.append(key)
    else:
        acts = [lambda: container.append(item), lambda: container.pop() if container else None, container.reverse]
        chance.choice(acts)()


def look(value: Any, seen: tuple[int, ...] = ()) -> str:
    """A text that is the same for equal containers, also with cycles."""
    if id(value) in seen:
        return f"cycle {len(seen) - seen.index(id(value))}"
    inner = (*seen, id(value))
    name = type(value).__name__
    if isinstance(value, dict):
        return f"{name}({[(key, look(item, inner)) for key, item in value.items()]})"
    if isinstance(value, list | deque):
        return f"{name}({[look(item, inner) for item in value]})"
    return f"{name}({sorted(value) if isinstance(value, set) else value!r})"


@examples(60)
@given(st.randoms(use_true_random=False))
def test_shared_containers_stay_in_sync_whoever_changes_them(chance: random.Random) -> None:
    here, there = ends()
    mine: list[Any] = [[], {}, set(), bytearray(), Counter(), OrderedDict(), defaultdict(list), deque(maxlen=3)]
    (theirs,) = there.receive(here.message((mine,)))
    for _ in range(12):
        for _ in range(chance.randrange(4)):
            change(chance, chance.choice(mine), mine)
        there.receive(here.message(()))
        assert look(mine) == look(theirs)
        for _ in range(chance.randrange(4)):
            change(chance, chance.choice(theirs), theirs)
        (back,) = here.receive(there.message((theirs,)))
        assert back is mine
        assert look(mine) == look(theirs)


def test_a_container_that_one_end_has_dropped_is_forgotten() -> None:
    here, there = ends()
    kept: list[Any] = [1]
    there.receive(here.message(([2], kept)))  # the other end keeps neither
    here.receive(there.message(()))
    there.receive(here.message(()))
    assert here._shared == there._shared == {}
    assert here._shared_numbers == there._shared_numbers == {}


def test_a_message_that_cannot_cross_has_changed_nothing() -> None:
    here, there = ends()
    values: list[Any] = [1]
    (other,) = there.receive(here.message((values,)))
    values += [here, []]
    with pytest.raises(WireError, match="a value of type CheckerEnd"):
        here.message((values,))
    del values[1]
    there.receive(here.message(()))
    assert other == [1, []]
    other[1].append(5)
    here.receive(there.message(()))
    assert values == [1, [5]]


class Thing:
    def __len__(self) -> int:
        return 3


class Fault(ValueError):
    pass


@examples(300)
@given(st.randoms(use_true_random=False))
def test_damaged_messages_are_values_or_known_errors(chance: random.Random) -> None:
    """The resulting values are inspected, too; questions to the candidate get no answer here."""
    out, into = os.pipe()
    os.close(into)
    checker, candidate = CheckerEnd({"__name__": "test"}), CandidateEnd({})
    body = ("value", [Thing(), {Thing(): (1, Fault("x"))}, deque([1], 3), int, frozenset([2]), defaultdict(int), len])
    data = bytearray(candidate.message(body))
    for _ in range(chance.randrange(4)):
        data[chance.randrange(len(data))] = chance.choice([*b"WMHOPGEtslidSN", chance.randrange(256), 0, 1])
    patch = pytest.MonkeyPatch()
    try:
        patch.setattr(proxies, "INPUT", out)
        patch.setattr(proxies, "OUTPUT", out)
        repr(checker.receive(bytes(data[: chance.randrange(len(data)) + 1] if chance.random() < 0.1 else data)))
    except (WireError, Gone, Unfit, CandidateError, RecursionError):
        pass
    finally:
        patch.undo()
        os.close(out)
