"""How long a benchmark will take: how much it has to compute, and how fast this model was in earlier runs.

Rough on purpose: tokens are estimated from bytes, and every reply is taken at its maximum length. It is meant to tell an hour
from a week.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen_eval.schema import Choose, Measure
from qwen_eval.tasks.benchmark import Benchmark

BYTES_PER_TOKEN = 3.5  # English has about four; a Chinese character is three bytes
ASSUMED = {"read": 2000.0, "write": 200.0}  # tokens per second where nothing was measured


@dataclass(frozen=True)
class Work:
    """The number of items, of tokens to read (shared prefixes counted once) and of tokens to generate (at most)."""

    items: int
    read: int
    written: int


def work(benchmark: Benchmark) -> Work:
    """The work of a benchmark, estimated from its prompts."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    size, written = 0, 0
    for sample in benchmark.asked:
        request = sample.request
        if isinstance(request, Measure):
            size += sum(map(_bytes, request.documents))
            continue
        if (request.header, request.shots) not in seen:
            seen.add((request.header, request.shots))
            size += _bytes(request.header) + sum(map(_bytes, request.shots))
        if isinstance(request, Choose):
            size += _bytes(request.question) + sum(map(_bytes, request.options))
        else:
            turns = (
                [request.prompt] if isinstance(request.prompt, str) else [turn["content"] for turn in request.prompt]
            )
            size += sum(map(_bytes, turns))
            written += request.samples * request.max_tokens
    return Work(len(benchmark.asked), round(size / BYTES_PER_TOKEN), written)


def speeds(
    results: Mapping[str, Sequence[Mapping[str, str]]], writes: Mapping[str, Sequence[str]], model: str
) -> dict[str, float]:
    """Tokens per second over a model's runs, by kind: "read" (choices and perplexity), "write" (generated texts). A kind
    without a run is left out. results: rows by benchmark. writes: by benchmark the modes whose answers are texts."""
    tokens: dict[str, dict[str, tuple[float, float]]] = {"read": {}, "write": {}}
    for name, rows in results.items():
        for row in rows:
            reads = row["mode"] not in writes[name]
            if row["model"] == model and float(row["seconds"]) > 0:
                tokens["read" if reads else "write"][row["run_id"]] = float(row["tokens"]), float(row["seconds"])
    found = {}
    for kind, runs in tokens.items():
        if runs:
            found[kind] = sum(count for count, _ in runs.values()) / sum(seconds for _, seconds in runs.values())
    return {kind: speed for kind, speed in found.items() if speed > 0}


def seconds(todo: Work, speed: Mapping[str, float]) -> float:
    """Seconds that the work takes at these speeds, in tokens per second."""
    return todo.read / speed["read"] + todo.written / speed["write"]


def duration(seconds: float) -> str:
    """Seconds as `40 s`, `12 min`, `3.5 h` or `2.1 d`."""
    for unit, size in (("d", 86400), ("h", 3600)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
