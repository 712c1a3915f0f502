"""Perplexity but for the model: documents cut into chunks of tokens, and the chunks' losses summed by document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import DataError, Measure, Measured, OnResponse


@dataclass(frozen=True, eq=False)
class Chunk:
    """ids: int32 [length], what is read; the last `scored` of them are scored. document: index of the one it is from."""

    ids: np.ndarray
    scored: int
    document: int


def measure(
    requests: Sequence[Measure],
    tokenizer: TextTokenizer,
    losses: Callable[[Measure, Sequence[Chunk]], Sequence[float]],
    done: OnResponse,
) -> list[Measured]:
    """Measures every request; `done(index, measured)` is called as each is ready. Raises DataError as `chunked` does.

    losses: the summed negative log-likelihood (natural log) of every chunk's scored tokens.
    """
    measured: list[Measured] = []
    for index, (chunks, short) in enumerate(chunked(requests, tokenizer)):
        measured.append(summed(tokenizer, chunks, losses(requests[index], chunks), short))
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
    """The chunks of a request, in order, until max_tokens are scored. documents: int32 ids of each.

    Consecutive chunks (docs/long-context.md, Chunks) of `length` tokens, the first token context only, a short remainder
    dropped; with `same_as`, only documents at least that long, cropped to a multiple of it. With a stride, windows of
    `length` tokens every `stride`, of which only the last `stride` tokens are scored (all but the first token of the first).
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
        for column, value in enumerate((loss, chunk.scored, len(tokenizer.token_bytes(scored)), 1)):
            row[column] += value
    columns = list(zip(*table.values(), strict=True))
    return Measured(
        nll=tuple(columns[0]),
        tokens=tuple(int(value) for value in columns[1]),
        bytes=tuple(int(value) for value in columns[2]),
        chunks=tuple(int(value) for value in columns[3]),
        dropped=short,
    )
