"""Multiple choice: the log-probabilities of options, every distinct token computed once.

Prompts that begin alike are nodes of a trie (trie.py), packed without padding and computed parents before children
(cascade.py). Models whose attention the cascade cannot compute are run in plain padded batches of whole prompts; so is
everything without `share`, which is the cross-check.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines import plan
from qwen_eval.engines.local import trie
from qwen_eval.engines.local.cascade import Ancestor, Cascade
from qwen_eval.engines.local.rules import Unsupported
from qwen_eval.engines.local.runtime import Runtime, Table
from qwen_eval.engines.local.trie import Node, Schedule
from qwen_eval.engines.plan import Encoded, Row
from qwen_eval.schema import Choose, Chosen, OnResponse

RowScores: TypeAlias = tuple[Row, np.ndarray]  # a row and its log-probabilities, float64 [positions, targets]
KeysValues: TypeAlias = dict[int, tuple[Tensor, Tensor]]  # by layer, [1, kv heads, tokens, d] each


def choose(runtime: Runtime, requests: Sequence[Choose], done: OnResponse, share: bool = True) -> list[Chosen]:
    """Scores the options of every request. `done(index, chosen)` is called as each is ready, in no fixed order."""
    checkpoint = runtime.checkpoint
    encoded = runtime.while_loading(
        lambda: plan.encode_requests(requests, checkpoint.tokenizer, checkpoint.context_limit)
    )
    rows = [row for item in encoded for row in item.rows]
    runtime.tokens_in_prompts += sum(len(row.ids) for row in rows)
    answers = _Answers(requests, encoded, done)
    with torch.inference_mode():
        for row, scores in row_scores(runtime, rows, [request.scoring != "isolated" for request in requests], share):
            answers.add(row, scores)
    return answers.chosen()


def row_scores(runtime: Runtime, rows: Sequence[Row], precise: Sequence[bool], share: bool) -> Iterator[RowScores]:
    """Yields every row with its log-probabilities. precise: by request, float32 or the model's own precision."""
    left = dict.fromkeys(rows)
    if share:
        try:
            with runtime.cascade_attention():
                roots = trie.build(rows, lambda row: runtime.table(len(row.ids)))
                for table in dict.fromkeys(root.key for root in roots):
                    trees = [root for root in roots if root.key == table]
                    for row, scores in _Pass(runtime, table, precise).run(trees):
                        del left[row]
                        yield row, scores
        except Unsupported as reason:
            runtime.notes.append(f"every prompt was computed whole, this model cannot share prefixes: {reason}")
    yield from _score_plain(runtime, sorted(left, key=lambda row: -len(row.ids)), precise)


class _Pass:
    """Computes trees that are rotated alike, and holds the keys and values of nodes until their children are done."""

    def __init__(self, runtime: Runtime, table: Table, precise: Sequence[bool]) -> None:
        self._runtime, self._table, self._precise = runtime, table, precise
        self._held: dict[Node, KeysValues] = {}
        self._children_left: dict[Node, int] = {}
        # On a GPU the results of a pack are read once the next one is queued, so that the device never waits.
        self._ahead = 1 if runtime.model.device.type == "cuda" else 0

    def run(self, roots: Sequence[Node]) -> Iterator[RowScores]:
        """Yields the rows of the trees with their log-probabilities. Raises Unsupported."""
        schedule = Schedule(roots)
        unread: deque[tuple[list[Row], Tensor]] = deque()
        while schedule:
            pack = schedule.take(self._runtime.max_rows, self._runtime.max_tokens)
            scores = self._runtime.halving(pack, self._compute)
            if scores is None:
                schedule.put_back(pack)
                continue
            schedule.done(pack)
            self._release(pack)
            unread.append(([node.row for node in pack if node.row is not None], scores))
            if len(unread) > self._ahead:
                yield from split_scores(*unread.popleft(), self._precise)
        for rows, scores in unread:
            yield from split_scores(rows, scores, self._precise)

    def _compute(self, pack: Sequence[Node]) -> Tensor:
        """One forward pass over nodes in order; see score_rows for what it returns."""
        ends = np.cumsum([len(node.ids) for node in pack]).tolist()
        spans = {node: (end - len(node.ids), end) for node, end in zip(pack, ends, strict=True)}
        found: dict[Node, KeysValues] = {node: {} for node in pack if node.children}

        def keep(layer: int, key: Tensor, value: Tensor) -> None:
            for node, stored in found.items():
                part = slice(*spans[node])
                stored[layer] = key[:, :, part].clone(), value[:, :, part].clone()

        rows = [node.row for node in pack if node.row is not None]
        scored = [index for node in pack if node.row for index in range(*spans[node])[-len(node.row.targets) :]]
        logits = self._runtime.forward_packed(
            [node.ids for node in pack],
            self._table,
            Cascade(
                [len(node.ids) for node in pack],
                self._ancestors(spans),
                keep if found else None,
                starts=[node.start for node in pack],
            ),
            scored or [ends[-1] - 1],  # a pack that scores nothing is computed for its keys and values
        )
        self._held.update(found)
        self._children_left.update((node, len(node.children)) for node in found)
        return score_rows(rows, logits, self._precise) if rows else logits[:0]

    def _ancestors(self, spans: dict[Node, tuple[int, int]]) -> list[Ancestor]:
        """Every ancestor of a pack with the span of the packed row that descends from it, shallow ones first."""
        bounds: dict[Node, tuple[int, int]] = {}
        for node, (first, last) in spans.items():
            for above in node.ancestors():
                bounds[above] = bounds.get(above, (first, last))[0], last
        in_order = sorted(bounds, key=lambda node: node.order)
        return [Ancestor(self._held[node], *bounds[node], node.start) for node in in_order]

    def _release(self, pack: Sequence[Node]) -> None:
        """Drops the keys and values that no node needs any more: those of nodes whose descendants are all done."""
        for node in pack:
            done: Node | None = node
            while done is not None and not self._children_left.get(done, 0):
                self._held.pop(done, None)
                done = done.parent
                if done is not None:
                    self._children_left[done] -= 1


def _score_plain(runtime: Runtime, rows: Sequence[Row], precise: Sequence[bool]) -> Iterator[RowScores]:
    """Whole prompts in batches through the model's own attention, in the order of the rows (longest first, so that memory runs
    out early and there is little padding). Batches shrink when memory runs out. Rows are padded on the right only where it is
    known that no token sees what follows it."""

    def run(pack: Sequence[Row]) -> list[RowScores]:
        where = [range(len(row.ids) - len(row.targets), len(row.ids)) for row in pack]
        keep = sorted({position for positions in where for position in positions})
        logits = runtime.forward_padded([row.ids for row in pack], keep)
        batch = [index for index, positions in enumerate(where) for _ in positions]
        kept = [keep.index(position) for positions in where for position in positions]
        return list(split_scores(pack, score_rows(pack, logits[batch, kept], precise), precise))

    start = 0
    while start < len(rows):
        pack = take_pack(rows, start, runtime.max_rows, runtime.max_tokens)
        own = len(pack[0].ids)
        padded = runtime.features.replaced
        alike = [
            row
            for row in pack
            if (runtime.table(len(row.ids)) == runtime.table(own) if padded else len(row.ids) == own)
        ]
        pack = pack[: len(alike)]  # the rows are sorted by length: those alike come first
        scores = runtime.halving(pack, run)
        if scores is not None:
            start += len(pack)
            yield from scores


def take_pack(rows: Sequence[Row], start: int, max_rows: int, max_tokens: int) -> Sequence[Row]:
    """The next rows from `start`: at most max_rows of them and about max_tokens tokens, but at least one row."""
    tokens = 0
    stop = start
    while stop < len(rows) and stop - start < max_rows:
        tokens += len(rows[stop].ids)
        if stop > start and tokens > max_tokens:
            break
        stop += 1
    return rows[start:stop]


class _Answers:
    """Collects the rows' scores until a request is complete."""

    def __init__(self, requests: Sequence[Choose], encoded: Sequence[Encoded], done: OnResponse) -> None:
        self._requests, self._encoded, self._done = requests, encoded, done
        self._scores: list[dict[int, Sequence[float]]] = [{} for _ in requests]
        self._chosen: list[Chosen | None] = [None] * len(requests)

    def add(self, row: Row, scores: np.ndarray) -> None:
        """scores: [positions, targets]: by position, one column per option that the row answers."""
        index = row.request
        for column, option in enumerate(row.options):
            self._scores[index][option] = scores[:, column].tolist()
        if len(self._scores[index]) == len(self._requests[index].options):
            chosen = self._encoded[index].chosen(self._scores[index], self._requests[index].totals)
            self._scores[index] = {}
            self._chosen[index] = chosen
            self._done(index, chosen)

    def chosen(self) -> list[Chosen]:
        return [item for item in self._chosen if item is not None]


def score_rows(rows: Sequence[Row], logits: Tensor, precise: Sequence[bool]) -> Tensor:
    """The scores in the logits [scored positions of all rows in order, vocabulary]: float32 [positions, targets], padded
    with the first target. Log-probabilities of precise rows (float32 log-softmax); of the others probabilities, by a softmax
    in the model's own precision, as the 2023 code did (docs/mmlu.md: in bf16 this makes ties)."""
    wanted = [targets for row in rows for targets in row.targets]
    most = max(map(len, wanted))
    index = torch.tensor([targets + targets[:1] * (most - len(targets)) for targets in wanted]).to(logits.device)
    fine = [precise[row.request] for row in rows for _ in row.targets]
    exact = logits.float().log_softmax(-1).gather(1, index)
    if all(fine):
        return exact
    coarse = logits.softmax(-1).gather(1, index).float()
    return torch.where(torch.tensor(fine, device=logits.device)[:, None], exact, coarse)


def split_scores(rows: Sequence[Row], scores: Tensor, precise: Sequence[bool]) -> Iterator[RowScores]:
    """Each row with its log-probabilities, from what score_rows gave."""
    values = scores.cpu().double().numpy()
    start = 0
    for row in rows:
        stop = start + len(row.targets)
        own = values[start:stop, : len(row.targets[0])]
        with np.errstate(divide="ignore"):
            yield row, own if precise[row.request] else np.log(own)
        start = stop
