"""Perplexity: negative log-likelihoods of long texts, with neither L x vocabulary logits nor L x L scores in memory.

The body of the model runs over a chunk; the output matrix is applied to a few hundred positions at a time. A chunk that would
not fit in memory is read in pieces behind a cache of keys and values: the size of a piece follows from what is free, or from
the limit that the request gives, and is halved where memory runs out all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.local.budget import free_bytes, piece_that_fits, token_bytes
from qwen_eval.engines.local.runtime import Runtime, out_of_memory
from qwen_eval.models import caches
from qwen_eval.models.context import installed
from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import DataError, InputError, Measure, Measured, OnResponse

LOGITS = 2**25  # logits computed at a time: 128 MiB in float32
LOGIT_BYTES = 12  # of one: in the model's precision, in float32, and exponentiated
SMALLEST_PIECE = 256  # tokens
SHARE_OF_FREE = 0.8  # of free memory that a forward pass may take, which is estimated


@dataclass(frozen=True, eq=False)
class Chunk:
    """ids: int32 [length], what is read; the last `scored` of them are scored. document: which one it is of."""

    ids: np.ndarray
    scored: int
    document: int


def measure(runtime: Runtime, requests: Sequence[Measure], done: OnResponse) -> list[Measured]:
    """Measures every request, one cell of the table each. `done(index, measured)` is called as each is ready."""
    measured: list[Measured] = []
    tokenizer = runtime.checkpoint.tokenizer
    for index, (chunks, short) in enumerate(chunked(requests, tokenizer)):
        room = requests[index].max_memory * 2**30
        with torch.inference_mode():
            nll = list(_measure_chunks(runtime, chunks, room or SHARE_OF_FREE * free_bytes(runtime.model.device)))
        measured.append(summed(tokenizer, chunks, nll, short))
        done(index, measured[-1])
    return measured


def chunked(requests: Sequence[Measure], tokenizer: TextTokenizer) -> Iterator[tuple[list[Chunk], int]]:
    """The chunks of every request, and how many of its documents are too short. Raises DataError when all are."""
    encoded: dict[tuple[str, ...], list[np.ndarray]] = {}
    for request in requests:
        if request.documents not in encoded:
            texts = tokenizer.encode_batch(request.documents)
            encoded[request.documents] = [np.array(ids, dtype=np.int32) for ids in texts]
        documents = encoded[request.documents]
        chunks = list(cut(request, documents))
        needed = request.same_as or request.length
        if not chunks:
            longest = max(map(len, documents), default=0)
            raise DataError(
                f"no document has {needed} tokens (the longest of {len(documents)} has {longest}); give longer documents "
                "or shorter --lengths"
            )
        yield chunks, sum(len(ids) < needed for ids in documents)


def cut(request: Measure, documents: Sequence[np.ndarray]) -> Iterator[Chunk]:
    """The chunks of a request, in order, until max_tokens are scored.

    docs/long-context.md, Chunks: consecutive chunks of `length` tokens, the first token context only, a short rest dropped;
    with `same_as`, only documents at least that long, cropped to a multiple of it. With a stride, windows of `length`
    tokens every `stride`, of which only the last `stride` tokens are scored (all but the first token of the first one).
    """
    left = request.max_tokens if request.max_tokens else float("inf")
    for index, ids in enumerate(documents):
        end = len(ids)
        if request.same_as:
            end -= end % request.same_as
        for start in range(0, end - request.length + 1, request.stride or request.length):
            if left <= 0:
                return
            scored = request.stride if request.stride and start else request.length - 1
            left -= scored
            yield Chunk(ids[start : start + request.length], scored, index)


def summed(tokenizer: TextTokenizer, chunks: Sequence[Chunk], nll: Sequence[float], short: int) -> Measured:
    """Sums by document. nll: each chunk's summed loss. short: documents too short for the request."""
    table: dict[int, list[float]] = {}
    for chunk, loss in zip(chunks, nll, strict=True):
        row = table.setdefault(chunk.document, [0.0, 0, 0, 0])
        scored = [int(token) for token in chunk.ids[-chunk.scored :]]
        for place, value in enumerate((loss, chunk.scored, len(tokenizer.token_bytes(scored)), 1)):
            row[place] += value
    columns = list(zip(*table.values(), strict=True))
    return Measured(
        nll=tuple(columns[0]),
        tokens=tuple(int(value) for value in columns[1]),
        bytes=tuple(int(value) for value in columns[2]),
        chunks=tuple(int(value) for value in columns[3]),
        dropped=short,
    )


def _measure_chunks(runtime: Runtime, chunks: Sequence[Chunk], room: float) -> Iterator[float]:
    """The summed negative log-likelihood (natural log, float64) of every chunk's scored tokens. room: bytes beyond the
    weights."""
    config, size = runtime.model.config.get_text_config(), runtime.model.dtype.itemsize
    slices = int(min(LOGITS, room / 4 / LOGIT_BYTES))  # at most a quarter of the room for logits
    room -= slices * LOGIT_BYTES
    start = 0
    while start < len(chunks):
        length = len(chunks[start].ids)
        tokens = min(runtime.max_tokens, room / token_bytes(config, size))
        count = min(max(1, int(tokens // length)), runtime.max_rows)
        stop = start + 1
        while stop < min(len(chunks), start + count) and len(chunks[stop].ids) == length:
            stop += 1
        batch = chunks[start:stop]
        if len(batch) == 1:
            piece = max(min(SMALLEST_PIECE, length), piece_that_fits(config, size, length, room))
            losses = _one_by_one(runtime, batch, piece, slices)
        else:
            losses = runtime.halving(batch, lambda part: _losses(runtime, part, slices))
        if losses is not None:
            start = stop
            yield from losses


def _one_by_one(runtime: Runtime, batch: Sequence[Chunk], piece: int, slices: int) -> list[float]:
    """A single chunk in pieces of `piece` tokens, then in ever smaller ones. Raises InputError when none fits."""
    while True:
        try:
            return _losses(runtime, batch, slices, piece)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if piece <= SMALLEST_PIECE:
                raise InputError(
                    f"{len(batch[0].ids)} tokens do not fit the memory of {runtime.checkpoint.device}; use shorter --lengths, "
                    "--quantize or another --device"
                ) from error
        piece = max(SMALLEST_PIECE, piece // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _losses(runtime: Runtime, batch: Sequence[Chunk], slices: int, piece: int | None = None) -> list[float]:
    """One forward pass over chunks of equal length (or, for a single one, a pass a piece). float64 sums. slices: logits at a
    time."""
    model, device = runtime.model, runtime.model.device
    ids = torch.from_numpy(np.stack([chunk.ids for chunk in batch]).astype(np.int64)).to(device)
    length = ids.shape[1]
    sums = [0.0] * len(batch)
    extension = installed(model)
    cache: Any = None
    behind: dict[str, Any] = {}  # the keywords that hand over the cache
    step = piece or length
    if step < length:
        from transformers import DynamicCache

        cache = DynamicCache(config=model.config)
        behind = {caches.name_in(model.base_model.forward): cache}
    alpha = runtime.checkpoint.context.alpha(length)
    for start in range(0, length, step):
        part = ids[:, start : start + step]
        positions = torch.arange(start, start + part.shape[1], device=device).expand(len(batch), -1)
        with extension.alpha(alpha) if extension else nullcontext():
            hidden = model.base_model(
                input_ids=part, position_ids=positions, use_cache=cache is not None, **behind
            ).last_hidden_state
        caches.check_filled(cache, start + part.shape[1], model)
        for row, chunk in enumerate(batch):
            # the state at position p predicts p + 1; scored are the last `scored` tokens of the chunk
            first = max(start, length - chunk.scored - 1)
            last = min(start + part.shape[1], length - 1)
            if first < last:
                wanted = ids[row, first + 1 : last + 1]
                sums[row] += _loss(runtime, hidden[row, first - start : last - start], wanted, slices)
    runtime.tokens_computed += ids.numel()
    runtime.tokens_in_prompts += ids.numel()
    return sums


def _loss(runtime: Runtime, hidden: Tensor, targets: Tensor, slices: int) -> float:
    """The summed loss of hidden states [n, width] against the next tokens [n], `slices` logits at a time."""
    head = runtime.output_head()
    rows = max(1, slices // runtime.model.config.get_text_config().vocab_size)
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(targets), rows):
        logits = head(hidden[start : start + rows]).float()
        wanted = logits.gather(1, targets[start : start + rows, None])[:, 0]
        total += (logits.logsumexp(-1) - wanted).double().sum().cpu()
    return float(total)
