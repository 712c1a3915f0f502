"""Perplexity: negative log-likelihoods of long texts, with neither L x vocabulary logits nor L x L scores in memory.

The body of the model runs over a chunk; logits are made of a few hundred positions at a time. A chunk that would not fit in
memory is read in pieces that attend to the keys and values of those before them (cascade.py), by a model whose attention is
replaced: the size of a piece follows from what is free, or from the limit that the request gives, and is halved when memory
runs out all the same. Other models' caches do not all hold what a piece needs; they read whole chunks only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.chunks import Chunk
from qwen_eval.engines.local.budget import piece_that_fits, token_bytes
from qwen_eval.engines.local.cascade import Ancestor, Cascade
from qwen_eval.engines.local.runtime import Runtime, out_of_memory
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
        return list(_measure_chunks(runtime, chunks, room, bool(request.max_memory)))


def _measure_chunks(runtime: Runtime, chunks: Sequence[Chunk], room: float, asked: bool) -> Iterator[float]:
    """Yields the loss of every chunk. room: bytes that may be taken beyond the weights; asked: whether the user gave them."""
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
            features = runtime.features
            least = min(SMALLEST_PIECE, length) if features.replaced else length
            of_token = token_bytes(config, size), token_bytes(config, size, in_pieces=True), features.numbers * size
            fits = piece_that_fits(*of_token, length, room)
            if fits < length and asked and not features.replaced:
                raise InputError(
                    f"{length} tokens take more than the memory that --max-memory allows, and this model cannot read them in "
                    f"pieces: {features.reason}; allow more, or use shorter --lengths"
                )
            batch_losses = _one_by_one(runtime, batch[0], max(least, fits), slices, least)
        else:
            batch_losses = runtime.halving(batch, lambda part: _losses(runtime, part, slices))
        if batch_losses is not None:
            start = stop
            yield from batch_losses


def _one_by_one(runtime: Runtime, chunk: Chunk, piece: int, slices: int, least: int) -> list[float]:
    """The loss of a single chunk in pieces of `piece` tokens, then in ever smaller ones down to `least`. Raises InputError when
    none fits."""
    length = len(chunk.ids)
    while True:
        if piece < length and runtime.no_pieces:
            raise InputError(f"{runtime.no_pieces}; use shorter --lengths, a larger --max-memory or another --device")
        try:
            return [_in_pieces(runtime, chunk, slices, piece)] if piece < length else _losses(runtime, [chunk], slices)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if piece <= least:
                raise InputError(
                    f"{length} tokens do not fit the memory of {runtime.checkpoint.device}; use shorter --lengths, "
                    "--quantize or another --device"
                ) from error
        piece = max(least, piece // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _losses(runtime: Runtime, batch: Sequence[Chunk], slices: int) -> list[float]:
    """One forward pass over chunks of equal length. float64 sums. slices: logits at a time."""
    ids = torch.from_numpy(np.stack([chunk.ids for chunk in batch]).astype(np.int64)).to(runtime.model.device)
    length = ids.shape[1]
    # a model whose attention is its own counts its positions itself, from wherever it does
    counted = runtime.features.replaced
    positions = torch.arange(length, device=ids.device).expand(len(batch), -1) if counted else None
    with runtime.rotated(runtime.table(length)):
        hidden = runtime.head.hidden(ids, positions)
    runtime.tokens_computed += ids.numel()
    runtime.tokens_in_prompts += ids.numel()
    return [
        _scored(runtime, chunk, states, own, 0, slices) for chunk, states, own in zip(batch, hidden, ids, strict=True)
    ]


def _in_pieces(runtime: Runtime, chunk: Chunk, slices: int, piece: int) -> float:
    """The loss of a chunk, a pass per piece."""
    length = len(chunk.ids)
    ids = torch.from_numpy(chunk.ids.astype(np.int64)).to(runtime.model.device)
    table = runtime.table(length)
    held: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values of the whole chunk, by layer
    total = 0.0
    assert runtime.head  # found while the model's attention is its own
    with runtime.cascade_attention(prune=False):
        for start in range(0, length, piece):
            own = chunk.ids[start : start + piece]

            def keep(layer: int, *new: Tensor, part: slice = slice(start, start + piece)) -> None:
                if layer not in held:
                    key, value = (tensor.new_empty(*tensor.shape[:2], length, tensor.shape[3]) for tensor in new)
                    held[layer] = key, value
                for store, tensor in zip(held[layer], new, strict=True):
                    store[:, :, part] = tensor

            before = {layer: (key[:, :, :start], value[:, :, :start]) for layer, (key, value) in held.items()}
            ancestors = [Ancestor(before, 0, len(own))] if start else []
            state = Cascade([len(own)], ancestors, keep, starts=[start])
            hidden = runtime.hidden_packed(own, table, state)
            total += _scored(runtime, chunk, hidden, ids, start, slices)
    runtime.tokens_computed += length
    runtime.tokens_in_prompts += length
    return total


def _scored(runtime: Runtime, chunk: Chunk, hidden: Tensor, ids: Tensor, start: int, slices: int) -> float:
    """The loss of those of a chunk's scored tokens that hidden states [n, width], from position `start` on, predict. ids:
    [length], the chunk's tokens."""
    # the state at position p predicts p + 1; scored are the last `scored` tokens of the chunk
    first = max(start, len(ids) - chunk.scored - 1)
    last = min(start + len(hidden), len(ids) - 1)
    return (
        _loss(runtime, hidden[first - start : last - start], ids[first + 1 : last + 1], slices) if first < last else 0.0
    )


def _loss(runtime: Runtime, hidden: Tensor, targets: Tensor, slices: int) -> float:
    """The summed loss of hidden states [n, width] against the next tokens [n], `slices` logits at a time."""
    rows = max(1, slices // runtime.model.config.get_text_config().vocab_size)
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(targets), rows):
        logits = runtime.head.logits(hidden[start : start + rows]).float()
        wanted = logits.gather(1, targets[start : start + rows, None])[:, 0]
        total += (logits.logsumexp(-1) - wanted).double().sum().cpu()
    return float(total)
