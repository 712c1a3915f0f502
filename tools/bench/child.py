"""Work in a process of its own: its peak memory is then its own, and its start is part of what is timed.

python -m bench.child perplexity ours|naive CHECKPOINT TEXT_FILE LENGTH     prints a Timing as JSON
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.contest import Timing

ROOT = Path(__file__).resolve().parents[2]
STATUS = Path("/proc/self/status")


def spawn(words: Sequence[str]) -> Timing:
    """Runs a command to its end; its CPU seconds and wall time, and its last line as the answers. Raises SystemExit where
    it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    paths = os.pathsep.join(str(ROOT / name) for name in ("tools", "eval"))
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise SystemExit(f"bench: {' '.join(words[1:3])} ended with status {done.returncode}: {last}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(cpu, wall, done.stdout.strip().splitlines()[-1:])


def perplexity(side: str, checkpoint: Path, text: Path, length: int) -> Timing:
    """One chunk of `length` tokens in a process of its own. side: "ours" or "naive". The times leave loading out."""
    words = [sys.executable, "-m", "bench.child", "perplexity", side, str(checkpoint), str(text), str(length)]
    return Timing(**json.loads(spawn(words).answers[0]))


def main(side: str, checkpoint: str, text_file: str, length: int) -> None:
    import torch

    from qwen_eval.engines.local.engine import HFEngine
    from qwen_eval.models import memory
    from qwen_eval.schema import Measure, ModelSpec

    text = Path(text_file).read_text(encoding="utf-8")
    engine = HFEngine(ModelSpec(checkpoint, device="cpu"))
    model = engine.runtime.model if side == "ours" else engine.checkpoint.load()
    tokenizer = engine.checkpoint.tokenizer

    def ours(tokens: int) -> float:
        (cell,) = engine.measure([Measure((text,), tokens, max_tokens=1)], lambda *_: None)
        return sum(cell.nll) / sum(cell.tokens)

    def naive(tokens: int) -> float:
        """All logits of one forward pass, and the model's own loss."""
        ids = torch.tensor([tokenizer.encode(text)[:tokens]])
        with torch.inference_mode():
            return float(model(input_ids=ids, labels=ids, use_cache=False).loss)

    run: Callable[[int], float] = {"ours": ours, "naive": naive}[side]
    run(128)  # the first pass allocates what stays
    with torch.inference_mode():
        sum(float(weight.sum()) for weight in model.parameters())  # every weight is resident
    weights = memory.resident("cpu")  # without what the first pass freed and kept for the next one
    reset_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    answer = run(length)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps(vars(Timing(cpu, wall, [answer], peak=(peak_resident() - weights) / 2**30))))


def peak_resident() -> int:
    """The most bytes that this process had in memory since reset_peak. Linux."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """Resets peak_resident. Linux."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
