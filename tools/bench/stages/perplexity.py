"""Perplexity of one long chunk under a real vocabulary, beside one naive forward pass with all logits and the model's own
loss: time, and peak memory above the weights. Each side is a process of its own; loading is not timed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import child, workload
from bench.contest import Contest
from bench.settings import Settings

LENGTHS = (4096, 8192, 16384)
COPIES = 2.3  # of the logits in float32 that the naive pass holds at its peak, with its loss
TOLERANCE = 1e-5  # natural log a token


def contests(settings: Settings) -> Iterator[Contest]:
    if not child.STATUS.exists():
        print("perplexity: peak memory is read from /proc, which this system has not", file=sys.stderr)
        return
    width, layers = settings.shaped(256, 4)
    checkpoint = workload.write_qwen1(settings, width, layers)
    samples, origin = workload.mmlu_samples(settings)
    text = settings.folder / "text.txt"
    text.write_text("\n".join(sample.request.prompt() for sample in samples)[: 8 * max(LENGTHS)], encoding="utf-8")
    for length in LENGTHS:
        needed = COPIES * length * workload.VOCABULARY * 4 / 2**30
        fits = needed + 2 < available()
        yield Contest(
            stage=f"Perplexity, {length} tokens, {origin}",
            model=f"{width} x {layers}, vocabulary {workload.VOCABULARY}, float32",
            items=1,
            ours=partial(child.perplexity, "ours", checkpoint, text, length),
            baselines={"naive forward, all logits": partial(child.perplexity, "naive", checkpoint, text, length)}
            if fits
            else {},
            alone=f"nothing: a naive forward needs about {needed:.0f} GiB",
            apart=same_loss,
        )


def available() -> float:
    """GiB of memory free for use."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) / 2**20


def same_loss(name: str, ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How far apart two mean losses are. Raises SystemExit beyond the tolerance."""
    apart = abs(ours[0] - theirs[0])
    if apart > TOLERANCE * max(1.0, abs(theirs[0])):
        raise SystemExit(f"bench: ours and {name} do not measure the same (mean loss {apart:.1e} apart)")
    return apart
