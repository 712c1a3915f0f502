"""Rows of tokens as a trie: a prefix of several rows is a node of its own and computed once. No model here.

Few-shot prompts share the shots of their subject, and within a subject questions share passages. Nodes are computed a pack
at a time, parents before children; the children's tokens attend to the keys and values of their ancestors.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from qwen_eval.engines.plan import Row, common_prefix

# The cost of a node beside its tokens, in tokens: kernel launches of its own, and one more merge for every token of its
# descendants. Measured roughly on models of 256 to 512 units; it decides only which of the shortest prefixes are shared.
NODE_COST = 16
MERGE_COST = 1 / 128


@dataclass(eq=False)
class Node:
    """path: int32 [end], all tokens from the beginning of the rows; `start` of them belong to the ancestors. row: the row
    that ends here, None where rows branch. key: what its rows have in common beside tokens. order: its index in a walk of
    the trie that visits parents before children, so that the descendants of a node are a range. depth: number of ancestors."""

    path: np.ndarray
    row: Row | None
    children: list[Node] = field(default_factory=list)
    key: Any = None
    parent: Node | None = None
    start: int = 0
    order: int = 0
    depth: int = 0
    below: int = 0  # tokens of its descendants

    @property
    def ids(self) -> np.ndarray:
        """Its own tokens, int32 [end - start]."""
        return self.path[self.start :]

    @property
    def longest(self) -> int:
        """Tokens of the longest row through this node."""
        return max((child.longest for child in self.children), default=len(self.path))

    def walk(self) -> Iterator[Node]:
        """This node and its descendants, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def ancestors(self) -> Iterator[Node]:
        """Its parent, the parent's parent, ..."""
        above = self.parent
        while above is not None:
            yield above
            above = above.parent


def build(rows: Sequence[Row], key: Callable[[Row], Any] = lambda row: None) -> list[Node]:
    """The rows as a forest, the tree with the longest row first; every leaf holds one row and every row has a leaf.

    A leaf keeps at least the positions its row is scored at. Rows of different `key` share nothing (dynamic NTK rotates by
    the prompt's length, so that a prefix may be shared only among rows of equal factor). Shared prefixes that would cost more
    than they save are left in their rows.
    """
    buckets: dict[Any, list[Row]] = {}
    for row in rows:
        buckets.setdefault(key(row), []).append(row)
    roots = [root for value, bucket in buckets.items() for root in _forest(bucket, value)]
    roots.sort(key=lambda root: -root.longest)
    order = 0
    for root in roots:
        for node in root.walk():
            node.order = order
            order += 1
            node.children.sort(key=lambda child: -len(child.path))
            for child in node.children:
                child.parent, child.start, child.depth = node, len(node.path), node.depth + 1
    return roots


def _forest(rows: list[Row], key: Any) -> list[Node]:
    """The trees of rows of one key. In sorted order the common prefixes of neighbours are the inner nodes; they are visited
    bottom up, and one that does not pay gives its children to the node above it."""
    rows = sorted(rows, key=lambda row: row.ids.astype(">i4").tobytes())
    own = [len(row.ids) - len(row.targets) for row in rows]
    shared = [min(common_prefix(a.ids, b.ids), own[i], own[i + 1]) for i, (a, b) in enumerate(pairwise(rows))]
    stack: list[tuple[int, list[Node]]] = [(0, [])]  # the open nodes above the current row: tokens, children so far
    for row, depth in zip(rows, [*shared, 0], strict=True):  # depth: tokens shared with the next row
        leaf = Node(row.ids, row, key=key)
        if depth > stack[-1][0]:
            stack.append((depth, [leaf]))
        else:
            stack[-1][1].append(leaf)
        while stack[-1][0] > depth:
            end, children = stack.pop()
            above = max(depth, stack[-1][0])
            below = sum(len(child.path) - end + child.below for child in children)
            if (len(children) - 1) * (end - above) > NODE_COST + MERGE_COST * below:
                children = [Node(children[0].path[:end], None, children, key, below=below)]
            if stack[-1][0] == above:
                stack[-1][1].extend(children)
            else:
                stack.append((above, children))
    return stack[0][1]


def best_groups(roots: Sequence[Node]) -> list[tuple[int, list[Row]]]:
    """(prefix length, rows) that cover all rows, where a row can share one prefix and no more (a text that is being
    generated): of every tree the cut that saves most tokens. Rows that share nothing are groups of one, without prefix."""
    return [group for root in roots for group in _best_cut(root)[1]]


def _best_cut(node: Node) -> tuple[int, list[tuple[int, list[Row]]]]:
    """The tokens saved by the best cut of a tree, and its groups."""
    if node.row is not None:
        return 0, [(0, [node.row])]
    cuts = [_best_cut(child) for child in node.children]
    rows = [leaf.row for leaf in node.walk() if leaf.row is not None]
    saved = (len(rows) - 1) * len(node.path)
    deeper = sum(saving for saving, _ in cuts)
    if saved >= deeper:
        return saved, [(len(node.path), rows)]
    return deeper, [group for _, groups in cuts for group in groups]


class Schedule:
    """Which nodes are computed next: the deepest of those whose parents are done, so that few keys and values are held."""

    def __init__(self, roots: Sequence[Node]) -> None:
        self._ready = [(0, root.order, root) for root in roots]
        heapq.heapify(self._ready)

    def __bool__(self) -> bool:
        return bool(self._ready)

    def take(self, max_nodes: int, max_tokens: int) -> list[Node]:
        """The next nodes, in `order`: at most max_nodes and about max_tokens own tokens, but at least one node."""
        pack: list[Node] = []
        tokens = 0
        while self._ready and len(pack) < max_nodes:
            tokens += len(self._ready[0][2].ids)
            if pack and tokens > max_tokens:
                break
            pack.append(heapq.heappop(self._ready)[2])
        return sorted(pack, key=lambda node: node.order)

    def put_back(self, pack: Sequence[Node]) -> None:
        """A pack that was taken could not be computed: its nodes are ready again."""
        for node in pack:
            heapq.heappush(self._ready, (-node.depth, node.order, node))

    def done(self, pack: Sequence[Node]) -> None:
        """A pack that was taken is computed: the children of its nodes are ready."""
        self.put_back([child for node in pack for child in node.children])
