"""Multiple choice: the log-probabilities of options, shared prefixes computed once.

Rows that share a prefix are grouped (plan.py), the prefix is computed once and the rest is packed without padding
(cascade.py). Models whose attention the cascade cannot compute are run in plain padded batches of whole prompts; so is
everything when `share` is off, which is the cross-check.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from harness.engines import plan
from harness.engines.cascade import Cascade, Unsupported
from harness.engines.plan import Encoded, Group, Row
from harness.engines.runtime import Runtime
from harness.schema import Choose, Chosen, OnResponse

RowScores: TypeAlias = tuple[Row, np.ndarray]  # a row and its log-probabilities, float64 [positions, targets]


def choose(runtime: Runtime, requests: Sequence[Choose], done: OnResponse, share: bool = True) -> list[Chosen]:
    """Scores the options of every request. `done(index, chosen)` is called as each is ready, in no fixed order."""
    encoded = plan.encode_requests(requests, runtime.checkpoint.tokenizer, runtime.checkpoint.context_limit)
    rows = [row for item in encoded for row in item.rows]
    runtime.tokens_in_prompts += sum(len(row.ids) for row in rows)
    answers = _Answers(requests, encoded, done)
    with torch.inference_mode():
        for row, scores in _score_rows(runtime, rows, [request.scoring == "context" for request in requests], share):
            answers.add(row, scores)
    return answers.chosen()


def _score_rows(runtime: Runtime, rows: Sequence[Row], precise: Sequence[bool], share: bool) -> Iterator[RowScores]:
    """Yields every row with its log-probabilities. precise: by request, float32 or the model's own precision."""
    if not share:
        yield from _score_plain(runtime, plan.longest_first(rows), precise)
        return
    groups = deque(plan.group_rows(rows, lambda row: runtime.checkpoint.context.alpha(len(row.ids))))
    try:
        with runtime.cascade_attention():
            while groups:
                yield from _score_group(runtime, groups[0], precise)
                groups.popleft()
    except Unsupported as reason:
        runtime.notes.append(f"every prompt was computed whole, this model cannot share prefixes: {reason}")
        yield from _score_plain(runtime, [row for group in groups for row in group.rows], precise)


def _score_group(runtime: Runtime, group: Group, precise: Sequence[bool]) -> Iterator[RowScores]:
    """Computes the group's prefix, then its rows in packs."""
    shared: dict[int, tuple[Tensor, Tensor]] = {}
    if group.prefix:
        ids = group.rows[0].ids[: group.prefix]
        state = Cascade([group.prefix], prefix=shared, capture=True)
        runtime.halving([ids], lambda one: runtime.forward_packed(one, 0, group.key, state, keep=[group.prefix - 1]))

    def run(pack: Sequence[Row]) -> list[RowScores]:
        own = [row.ids[group.prefix :] for row in pack]
        keep: list[int] = []
        end = 0
        for row, ids in zip(pack, own, strict=True):
            end += len(ids)
            keep += range(end - len(row.targets), end)
        state = Cascade([len(ids) for ids in own], prefix=shared)
        logits = runtime.forward_packed(own, group.prefix, group.key, state, keep)
        return list(read_rows(pack, logits, precise))

    yield from _in_packs(runtime, group.rows, group.prefix, run)


def _score_plain(runtime: Runtime, rows: Sequence[Row], precise: Sequence[bool]) -> Iterator[RowScores]:
    """Whole prompts in right-padded batches through the model's own attention."""

    def run(pack: Sequence[Row]) -> list[RowScores]:
        where = [range(len(row.ids) - len(row.targets), len(row.ids)) for row in pack]
        keep = sorted({position for positions in where for position in positions})
        logits = runtime.forward_padded([row.ids for row in pack], keep)
        batch = [index for index, positions in enumerate(where) for _ in positions]
        place = [keep.index(position) for positions in where for position in positions]
        return list(read_rows(pack, logits[batch, place], precise))

    yield from _in_packs(runtime, rows, 0, run)


def _in_packs(
    runtime: Runtime, rows: Sequence[Row], prefix: int, run: Callable[[Sequence[Row]], list[RowScores]]
) -> Iterator[RowScores]:
    """Runs the rows in packs of the current size; a pack that does not fit in memory is halved and run again."""
    start = 0
    while start < len(rows):
        pack = plan.take_pack(rows, start, prefix, runtime.max_rows, runtime.max_tokens)
        scores = runtime.halving(pack, run)
        if scores is not None:
            start += len(pack)
            yield from scores


class _Answers:
    """Collects the rows' scores until a request is complete."""

    def __init__(self, requests: Sequence[Choose], encoded: Sequence[Encoded], done: OnResponse) -> None:
        self._encoded = encoded
        self._done = done
        self._scores = [np.full(len(request.options), np.nan) for request in requests]
        self._missing = [len(request.options) for request in requests]
        self._chosen: list[Chosen | None] = [None] * len(requests)

    def add(self, row: Row, scores: np.ndarray) -> None:
        """scores: [positions, targets]: summed over positions, one value an option the row answers."""
        index = row.request
        self._scores[index][list(row.options)] = scores.sum(0)
        self._missing[index] -= len(row.options)
        if not self._missing[index]:
            item = self._encoded[index]
            logprobs = tuple(float(value) for value in self._scores[index])
            chosen = Chosen(logprobs, item.shots_used, item.prompt_tokens, item.truncated)
            self._chosen[index] = chosen
            self._done(index, chosen)

    def chosen(self) -> list[Chosen]:
        return [item for item in self._chosen if item is not None]


def read_rows(pack: Sequence[Row], logits: Tensor, precise: Sequence[bool]) -> Iterator[RowScores]:
    """Log-probabilities of each row's targets. logits: [all scored positions of the pack, vocabulary], rows in order.

    precise rows compare float32 log-softmax; the others take the softmax in the model's own precision, as the 2023 code
    did (PROTOCOLS, MMLU: in bf16 this makes ties).
    """
    places = [place for place, row in enumerate(pack) for _ in row.targets]
    wanted = [targets for row in pack for targets in row.targets]
    index = torch.tensor([targets + targets[:1] * (max(map(len, wanted)) - len(targets)) for targets in wanted])
    index = index.to(logits.device)
    fine = torch.tensor([precise[pack[place].request] for place in places], device=logits.device)[:, None]
    exact = logits.float().log_softmax(-1).gather(1, index).double()
    if not all(precise[row.request] for row in pack):
        exact = torch.where(fine, exact, logits.softmax(-1).gather(1, index).double().log())
    values = exact.cpu().numpy()
    start = 0
    for row in pack:
        stop = start + len(row.targets)
        yield row, values[start:stop, : len(row.targets[0])]
        start = stop
