"""Generation: shared prompt prefixes computed once, finished texts leave the batch and waiting ones enter it.

Prompts that share a long prefix (the shots of GSM8K) form a group; its keys and values are computed once and every text's
queries attend to them in one product (cascade.py). A text's own tokens live in a slot (slots.py). Models whose attention
cannot be computed that way are run by transformers' generate, prompts of equal length together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines import plan
from qwen_eval.engines.local import trie
from qwen_eval.engines.local.cascade import Ancestor, Cascade
from qwen_eval.engines.local.plain import Plain
from qwen_eval.engines.local.rules import Unsupported
from qwen_eval.engines.local.runtime import Runtime, Table
from qwen_eval.engines.local.sampling import Choice, Reply, choose_tokens, stream
from qwen_eval.engines.local.slots import Slots, Step
from qwen_eval.engines.prompting import Completion, answer, encode_prompt, kept_tokens
from qwen_eval.models.memory import free_bytes
from qwen_eval.schema import Generate, Generated, OnResponse

MIN_SAVING = 2048  # tokens that a shared prefix must save: its group cannot be in one batch with the others
# Tokens generated before the device is asked for them: it does not wait for us, but tokens after an end are discarded.
BURST = {"cuda": 8}
AUTO_SLOTS = {"cpu": 32, "cuda": 256, "mps": 32}


def generate(
    runtime: Runtime, requests: Sequence[Generate], done: OnResponse, seed: int, share: bool = True
) -> list[Generated]:
    """Answers every request. `done(index, generated)` is called as each is complete, in no fixed order."""
    collected = _Collected(runtime, requests, done)
    replies = [reply for index in range(len(requests)) for reply in collected.replies(index, seed)]
    runtime.tokens_in_prompts += sum(len(reply.prompt) for reply in replies)
    with torch.inference_mode():
        for reply in run_replies(runtime, replies, share):
            collected.add(reply)
    return collected.generated()


def run_replies(
    runtime: Runtime,
    replies: Sequence[Reply],
    share: bool,
    choose: Choice | None = None,
    min_saving: int | None = None,
) -> Iterator[Reply]:
    """Yields every reply once it has ended. choose: who chooses the next tokens in place of choose_tokens. min_saving: in
    place of MIN_SAVING."""
    left = list(replies)
    if share:
        try:
            with runtime.cascade_attention():
                steady = [reply for reply in replies if _steady(runtime, reply)]
                for prefix, table, group in _groups(runtime, steady, MIN_SAVING if min_saving is None else min_saving):
                    for reply in _Batch(runtime, group, prefix, table, choose).run():
                        left.remove(reply)
                        yield reply
        except Unsupported as reason:
            runtime.notes.append(
                f"texts were generated without shared prefixes, this model cannot share them: {reason}"
            )
    yield from _run_plain(runtime, left, choose or choose_tokens)


def _steady(runtime: Runtime, reply: Reply) -> bool:
    """Whether a rotation that follows the length stays the same while a text is written (NTK's factor is kept by itself). What
    crosses a border is left to the model's own code."""
    longest = len(reply.prompt) + reply.max_tokens
    return runtime.rotation.table(len(reply.prompt)) == runtime.rotation.table(longest)


def _groups(runtime: Runtime, replies: Sequence[Reply], min_saving: int) -> list[tuple[int, Table, list[Reply]]]:
    """(prefix length, rotation, replies): groups whose shared prefix pays, and the rest without a prefix."""
    rows = [plan.Row(reply.prompt, ((0,),), index, ()) for index, reply in enumerate(replies)]
    groups: list[tuple[int, Table, list[Reply]]] = []
    alone: dict[Table, list[Reply]] = {}
    roots = trie.build(rows, lambda row: runtime.table(len(row.ids)))
    for table in dict.fromkeys(root.key for root in roots):
        for prefix, members in trie.best_groups([root for root in roots if root.key == table]):
            texts = [replies[row.request] for row in members]
            if prefix * (len(texts) - 1) >= min_saving:
                groups.append((prefix, table, texts))
            else:
                alone.setdefault(table, []).extend(texts)
    return groups + [(0, table, members) for table, members in alone.items()]


class _Batch:
    """The live texts of one group."""

    def __init__(
        self, runtime: Runtime, replies: Sequence[Reply], prefix: int, table: Table, choose: Choice | None = None
    ) -> None:
        self.runtime, self.prefix_length, self.table = runtime, prefix, table
        self.waiting = deque(sorted(replies, key=lambda reply: -(len(reply.prompt) + reply.max_tokens)))
        self.prefix: dict[int, tuple[Tensor, Tensor]] = {}
        self.live: list[Reply] = []  # the reply in slot i
        self.choose = choose or choose_tokens
        self.burst = 1 if choose else BURST.get(runtime.model.device.type, 1)
        # a text may end within a burst, and its slot is written to until the burst does
        self.capacity = max(len(reply.prompt) - prefix + reply.max_tokens for reply in replies) + self.burst - 1
        count = min(len(replies), runtime.max_rows, AUTO_SLOTS.get(runtime.model.device.type, 32))
        self.slots = Slots(max(1, min(count, _affordable(runtime, self.capacity))), self.capacity)

    def run(self) -> Iterator[Reply]:
        """Yields the replies as they end. When memory runs out, the live texts go back into the queue and there are half as
        many slots from then on (their tokens are generated again, the same)."""
        if self.prefix_length:
            ids = self.waiting[0].prompt[: self.prefix_length]
            state = Cascade([len(ids)], keep=lambda layer, *found: self.prefix.update({layer: found}))
            self.runtime.halving([ids], lambda one: self.runtime.forward_packed(one, self.table, state, [len(ids) - 1]))
        while self.waiting or self.live:
            ended = self.runtime.halving(range(self.slots.count), lambda _: self._advance())
            if ended is None:
                self._start_over(self.slots.count // 2)
            else:
                yield from ended

    def _advance(self) -> list[Reply]:
        """The next pass: over waiting prompts when a quarter of the slots is free (enough prompts for a pass of their own),
        else over one token of every live text. Returns the replies that ended."""
        free = self.slots.count - len(self.live)
        if self.waiting and (not self.live or free >= max(1, self.slots.count // 4)):
            return self._fill()
        return self._step()

    def _fill(self) -> list[Reply]:
        """Computes the prompts of waiting texts into free slots, and their first tokens."""
        first = len(self.live)
        new: list[Reply] = []
        own: list[np.ndarray] = []
        for reply in list(self.waiting)[: self.slots.count - first]:
            own.append(reply.prompt[self.prefix_length :])
            if new and sum(map(len, own)) > self.runtime.max_tokens:
                own.pop()
                break
            new.append(reply)
        lengths = [len(ids) for ids in own]

        def keep(layer: int, key: Tensor, value: Tensor) -> None:
            self.slots.write_packed(first, lengths, layer, key, value)

        ancestors = [Ancestor(self.prefix, 0, sum(lengths))] if self.prefix else []
        state = Cascade(lengths, ancestors, keep, starts=[self.prefix_length] * len(own))
        ends = (np.cumsum(lengths) - 1).tolist()
        logits = self.runtime.forward_packed(own, self.table, state, ends)
        for _ in new:
            self.waiting.popleft()
        self.live += new
        return self._take([[token] for token in self.choose(logits, new)], first)

    def _step(self) -> list[Reply]:
        """The next tokens of every live text: as many as are computed before the device is asked for them."""
        # the newest token of each text is not in its slot yet: this pass writes it
        held = [len(reply.prompt) - self.prefix_length + len(reply.tokens) - 1 for reply in self.live]
        greedy = all(reply.stream is None for reply in self.live)
        tokens = torch.tensor([reply.tokens[-1] for reply in self.live], device=self.runtime.model.device)
        if not greedy or self.burst == 1:
            return self._take([[token] for token in self.choose(self._next(tokens, held), self.live)], 0)
        written = []
        for ahead in range(self.burst):
            tokens = self._next(tokens, [length + ahead for length in held]).argmax(-1)
            written.append(tokens)
        return self._take(torch.stack(written, 1).tolist(), 0)

    def _next(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """The logits after one more token of every live text. lengths: own tokens its slot holds before."""
        state = Step(self.slots, lengths, prefix=self.prefix)
        positions = [self.prefix_length + length for length in lengths]
        return self.runtime.forward_step(tokens, positions, self.table, state)

    def _take(self, tokens: Sequence[Sequence[int]], first: int) -> list[Reply]:
        """Adds the chosen tokens to the texts from slot `first` until they end; those that end leave, the last ones fill
        their slots."""
        tokenizer = self.runtime.checkpoint.tokenizer
        over = [
            slot
            for slot, own in enumerate(tokens, first)
            if any(self.live[slot].add(token, tokenizer) for token in own)
        ]
        ended = [self.live[slot] for slot in over]
        for slot in reversed(over):
            last = self.live.pop()
            if slot < len(self.live):
                self.live[slot] = last
                length = len(last.prompt) - self.prefix_length + len(last.tokens) - 1
                self.slots.move(len(self.live), slot, length)
        return ended

    def _start_over(self, count: int) -> None:
        for reply in reversed(self.live):
            reply.restart()
            self.waiting.appendleft(reply)
        self.live = []
        self.slots = Slots(max(1, count), self.capacity)


def _affordable(runtime: Runtime, capacity: int) -> int:
    """Slots that fit in half of the free memory (at most 1 GiB on a CPU, where the processor's caches matter more)."""
    room = free_bytes(runtime.model.device) / 2
    if runtime.model.device.type == "cpu":
        room = min(room, 2**30)
    return int(room // (runtime.features.numbers * runtime.model.dtype.itemsize * capacity))


def _run_plain(runtime: Runtime, replies: Sequence[Reply], choose: Choice) -> Iterator[Reply]:
    """transformers' own generate, prompts of equal length in one batch (no padding); our choice of tokens."""
    by_length: dict[int, list[Reply]] = {}
    for reply in replies:
        by_length.setdefault(len(reply.prompt), []).append(reply)
    writer = Plain(runtime, choose)
    for length in sorted(by_length, reverse=True):
        same = by_length[length]
        while same:
            ended = runtime.halving(same[: min(runtime.max_rows, 16)], writer.write)
            if ended is not None:
                del same[: len(ended)]
                yield from ended


class _Collected:
    """Requests in tokens, and their replies until each request is complete."""

    def __init__(self, runtime: Runtime, requests: Sequence[Generate], done: OnResponse) -> None:
        self._requests, self._done = requests, done
        self._tokenizer = runtime.checkpoint.tokenizer
        limit = runtime.checkpoint.context_limit
        self._prompts = [encode_prompt(request, self._tokenizer, limit) for request in requests]
        self._ended: list[dict[int, Reply]] = [{} for _ in requests]
        self._generated: list[Generated | None] = [None] * len(requests)

    def replies(self, index: int, seed: int) -> Iterator[Reply]:
        """The texts to be generated for a request."""
        request = self._requests[index]
        tokenizer = self._tokenizer
        chat = not isinstance(request.prompt, str)
        ends = frozenset(tokenizer.stop_ids if chat else tokenizer.eos_ids)
        kept = kept_tokens(request, tokenizer)
        prompt = np.array(self._prompts[index][0], dtype=np.int32)
        for sample in range(request.samples):
            yield Reply(
                index,
                sample,
                prompt,
                request.max_tokens,
                request.stop,
                ends,
                request.temperature,
                partial(stream, seed, request, sample),
                kept,
            )

    def add(self, reply: Reply) -> None:
        """Takes a finished reply, and the request is answered when it was the last one."""
        index = reply.request
        self._ended[index][reply.sample] = reply
        if len(self._ended[index]) == self._requests[index].samples:
            replies = [self._ended[index][sample] for sample in range(len(self._ended[index]))]
            texts = [Completion(item.text, item.reason, len(item.tokens)) for item in replies]
            generated = answer(self._requests[index], self._prompts[index][1], texts)
            self._generated[index] = generated
            self._done(index, generated)

    def generated(self) -> list[Generated]:
        return [generated for generated in self._generated if generated is not None]
