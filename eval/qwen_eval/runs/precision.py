"""Labels of precisions, and what a precision costs: the accuracy of a run minus that of the BF16 run, paired by item."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from qwen_eval.runs import samples, signature
from qwen_eval.schema import EngineInfo, Metric, Scored
from qwen_eval.stats import intervals, paired
from qwen_eval.tasks.benchmark import Benchmark

METRIC = "acc_minus_bf16"


def computed_in(precision: str) -> str:
    """What a model is computed in by its label. A GGUF file's is float32 unless it holds 16-bit numbers or the label says more:
    gguf:Q4_1 -> fp32, gguf:F16 -> fp16, gguf:Q4_1+bf16 -> bf16."""
    first, *more = precision.split("+")
    if more or not first.startswith("gguf:"):
        return more[-1] if more else precision
    return {"gguf:F16": "fp16", "gguf:BF16": "bf16"}.get(first, "fp32")


def reference(precision: str) -> str:
    """The label of the run that one of this precision is held against: bf16, of a GGUF file's the same file's in bf16."""
    first = precision.split("+")[0]
    if not first.startswith("gguf:"):
        return "bf16"
    return first if first == "gguf:BF16" else f"{first}+bf16"


def against_bf16(benchmark: Benchmark, info: EngineInfo, scored: Sequence[Scored], output: Path) -> list[Metric]:
    """The difference in points with its 95% interval, negative where this run is worse. Empty for BF16 itself, for benchmarks
    whose items are not right or wrong, and where no BF16 run of the same checkpoint answered the same items."""
    wanted = reference(info.precision)
    if info.precision == wanted or any("correct" not in item.score.stats for item in scored) or not scored:
        return []
    run = signature.run_id(benchmark, dataclasses.replace(info, precision=wanted))
    path = samples.stored_path(output, run)
    known = samples.read_samples(path) if path.exists() else {}
    if any(item.sample.id not in known for item in scored):
        return []
    wide = [float(known[item.sample.id]["stats"]["correct"]) for item in scored]
    own = [item.score.stats["correct"] for item in scored]
    average = benchmark.signature.get("avg", "micro")
    groups = [item.sample.group for item in scored]
    result = paired.shares(wide, own, groups, average, intervals.clusters_of(scored))
    low, high = result.bounds(paired.LEVEL)
    return [Metric(METRIC, "all", 0.0 - result.loss, 0.0 - high, 0.0 - low, len(scored))]
