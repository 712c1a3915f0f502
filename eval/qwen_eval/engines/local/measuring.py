"""Perplexity: negative log-likelihoods of long texts, with neither L x vocabulary logits nor L x L scores in memory.

The body of the model runs over a chunk; the output matrix is applied to a few hundred positions at a time. A chunk that would
not fit in memory is read in pieces with a cache of keys and values: the size of a piece follows from what is free, or from
the limit that the request gives, and is halved when memory runs out all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.chunks import Chunk
from qwen_eval.engines.local.budget import piece_that_fits, token_bytes
from qwen_eval.engines.local.runtime import Runtime, out_of_memory
from qwen_eval.models import caches
from qwen_eval.models.context import installed
from qwen_eval.models.memory import free_bytes
from qwen_eval.schema import InputError, Measure

LOGITS = 2**25  # logits computed at a time: 128 MiB in float32
LOGIT_BYTES = 12  # of one: in the model's precision, in float32, and exponentiated
SMALLEST_PIECE = 256  # tokens
SHARE_OF_FREE = 0.8  # of free memory that a forward pass may take, which is estimated


def chunk_losses(runtime: Runtime, request: Measure, chunks: Sequence[Chunk]) -> list[float]:
    """The summed negative log-likelihood (natural log, float64) of every chunk's scored tokens. Raises InputError for a
    chunk that does not fit in memory however it is cut."""
    with torch.inference_mode():
        room = request.max_memory * 2**30 or SHARE_OF_FREE * free_bytes(runtime.model.device)
        return list(_measure_chunks(runtime, chunks, room))


def _measure_chunks(runtime: Runtime, chunks: Sequence[Chunk], room: float) -> Iterator[float]:
    """Yields the loss of every chunk. room: bytes that may be taken beyond the weights."""
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
            batch_losses = _one_by_one(runtime, batch, piece, slices)
        else:
            batch_losses = runtime.halving(batch, lambda part: _losses(runtime, part, slices))
        if batch_losses is not None:
            start = stop
            yield from batch_losses


def _one_by_one(runtime: Runtime, batch: Sequence[Chunk], piece: int, slices: int) -> list[float]:
    """The loss of a single chunk in pieces of `piece` tokens, then in ever smaller ones. Raises InputError when none fits."""
    while True:
        if piece < len(batch[0].ids) and runtime.no_pieces:
            raise InputError(f"{runtime.no_pieces}; use shorter --lengths, a larger --max-memory or another --device")
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
    """One forward pass over chunks of equal length (or, for a single one, one pass per piece). float64 sums. slices: logits
    at a time."""
    model, device = runtime.model, runtime.model.device
    ids = torch.from_numpy(np.stack([chunk.ids for chunk in batch]).astype(np.int64)).to(device)
    length = ids.shape[1]
    sums = [0.0] * len(batch)
    extension = installed(model)
    cache: Any = None
    cached: dict[str, Any] = {}  # the keyword argument that passes the cache
    step = piece or length
    if step < length:
        from transformers import DynamicCache

        cache = DynamicCache(config=model.config)
        cached = {caches.name_in(model.base_model.forward): cache}
    alpha = runtime.checkpoint.context.alpha(length)
    for start in range(0, length, step):
        part = ids[:, start : start + step]
        positions = torch.arange(start, start + part.shape[1], device=device).expand(len(batch), -1)
        with extension.alpha(alpha) if extension else nullcontext():
            hidden = model.base_model(
                input_ids=part, position_ids=positions, use_cache=cache is not None, **cached
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
