"""The trie of prompts and the order it is computed in, against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.engines.local import trie
from qwen_eval.engines.local.trie import Node, Schedule
from qwen_eval.engines.plan import Row


def row(ids: Sequence[int], request: int = 0, positions: int = 1) -> Row:
    return Row(np.array(ids, dtype=np.int32), ((0,),) * positions, request, (0,))


def nodes(roots: Sequence[Node]) -> list[Node]:
    return [node for root in roots for node in root.walk()]


def tokens(roots: Sequence[Node]) -> int:
    return sum(len(node.ids) for node in nodes(roots))


def distinct(rows: Sequence[Sequence[int]]) -> int:
    """The prefixes of all rows, each counted once: the nodes of a trie of single tokens."""
    return len({tuple(ids[:length]) for ids in rows for length in range(1, len(ids) + 1)})


few_letters = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=14)


@settings(max_examples=300, deadline=None)
@given(few_letters, st.integers(1, 2))
def test_every_row_is_the_path_to_its_leaf(ids: list[list[int]], positions: int) -> None:
    rows = [row(own, index, min(positions, len(own))) for index, own in enumerate(ids)]
    roots = trie.build(rows)
    leaves = {node.row.request: node for node in nodes(roots) if node.row is not None}
    assert sorted(leaves) == list(range(len(rows)))
    for leaf in leaves.values():
        assert leaf.row is not None and len(leaf.ids) >= len(leaf.row.targets) and not leaf.children
        path = [*leaf.ids]
        for number, above in enumerate(leaf.ancestors(), 1):
            path = [*above.ids, *path]
            assert above.depth == leaf.depth - number and len(above.ids) > 0
        assert path == ids[leaf.row.request]


@settings(max_examples=300, deadline=None)
@given(few_letters)
def test_without_costs_every_distinct_token_is_computed_once(ids: list[list[int]]) -> None:
    """Rows differ in a last token of their own, so that leaves need nothing twice."""
    ids = [[*own, 100 + index] for index, own in enumerate(ids)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trie, "NODE_COST", 0)
        patch.setattr(trie, "MERGE_COST", 0)
        assert tokens(trie.build([row(own, index) for index, own in enumerate(ids)])) == distinct(ids)


def test_a_subject_its_passages_and_their_questions_make_three_levels() -> None:
    header, passages = list(range(1000)), [list(range(2000 + 100 * n, 2080 + 100 * n)) for n in range(4)]
    ids = [[*header, *passages[n // 3], 5000 + n, 6000 + n] for n in range(12)]
    roots = trie.build([row(own, index) for index, own in enumerate(ids)])
    assert [len(root.ids) for root in roots] == [1000]
    assert [len(child.ids) for child in roots[0].children] == [80] * 4
    assert all(len(child.children) == 3 for child in roots[0].children)
    assert tokens(roots) == distinct(ids)


def test_a_run_too_short_to_pay_stays_in_its_rows() -> None:
    ids = [[1, 2, 10 + n, *range(100 * n, 100 * n + 50)] for n in range(5)]
    roots = trie.build([row(own, index) for index, own in enumerate(ids)])
    assert len(roots) == 5 and all(root.row is not None for root in roots)


def test_rows_of_different_keys_share_nothing() -> None:
    rows = [row([*range(100), 200 + n], n) for n in range(6)]
    roots = trie.build(rows, key=lambda item: item.request % 2)
    assert sorted((root.key, len(root.ids), len(root.children)) for root in roots) == [(0, 100, 3), (1, 100, 3)]
    assert {node.key for root in roots for node in root.walk()} == {0, 1}


def test_a_shared_run_leaves_every_scored_position_to_its_row() -> None:
    shared = list(range(50))
    rows = [row([*shared, 7, 8], n, positions=3) for n in range(3)]
    assert [len(root.path) for root in trie.build(rows)] == [49]


@settings(max_examples=200, deadline=None)
@given(few_letters)
def test_the_best_cut_saves_at_least_as_much_as_any_single_prefix(ids: list[list[int]]) -> None:
    ids = [[*own, 100 + index] for index, own in enumerate(ids)]
    rows = [row(own, index) for index, own in enumerate(ids)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trie, "NODE_COST", 0)
        patch.setattr(trie, "MERGE_COST", 0)
        groups = trie.best_groups(trie.build(rows))
    assert sorted(item.request for _, members in groups for item in members) == list(range(len(rows)))
    for prefix, members in groups:
        assert len({tuple(item.ids[:prefix].tolist()) for item in members}) == 1
    saved = sum(prefix * (len(members) - 1) for prefix, members in groups)
    for length in range(1, 9):
        for prefix in {tuple(own[:length]) for own in ids}:
            sharing = [own for own in ids if tuple(own[:length]) == prefix and len(own) > length]
            assert saved >= (len(sharing) - 1) * length


@settings(max_examples=100, deadline=None)
@given(few_letters, st.integers(1, 4), st.integers(1, 12), st.integers(0, 99))
def test_packs_hold_every_node_once_after_its_parent(
    ids: list[list[int]], max_nodes: int, max_tokens: int, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trie, "NODE_COST", 0)
        patch.setattr(trie, "MERGE_COST", 0)
        roots = trie.build([row(own, index) for index, own in enumerate(ids)])
    schedule, seen, random = Schedule(roots), [], Random(seed)
    while schedule:
        pack = schedule.take(max_nodes, max_tokens)
        assert 1 <= len(pack) <= max_nodes
        assert len(pack) == 1 or sum(len(node.ids) for node in pack) <= max_tokens
        assert [node.order for node in pack] == sorted(node.order for node in pack)
        assert all(node.parent is None or node.parent in seen for node in pack)
        if random.random() < 0.3:
            schedule.put_back(pack)  # it did not fit in memory: it comes again
            continue
        schedule.done(pack)
        seen += pack
    assert sorted(node.order for node in seen) == list(range(len(nodes(roots))))


def test_a_node_and_its_descendants_are_a_range_of_the_order() -> None:
    header = list(range(100))
    ids = [[*header, *range(200 + 50 * (n % 3), 240 + 50 * (n % 3)), 900 + n] for n in range(9)]
    for node in nodes(trie.build([row(own, index) for index, own in enumerate(ids)])):
        orders = sorted(item.order for item in node.walk())
        assert orders == list(range(node.order, node.order + len(orders)))
