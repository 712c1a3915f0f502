"""MMLU, 5-shot, against the loop of the 2023 scripts: one question at a time, its full prompt, logits of every position, the
model's own attention. The same loop with the last position's logits alone is shown beside it, because a small model under
a large vocabulary makes the first look slower than it is at 7B."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

import mmlu
from bench import workload
from bench.contest import Contest, timed
from bench.settings import Settings
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import ModelSpec

# short, middling and long prompts, in about the proportion of all 57 (mean 870 tokens; over all of MMLU 710)
SUBJECTS = (
    "world_religions", "marketing", "astronomy", "econometrics", "professional_medicine", "high_school_us_history",
)  # fmt: skip


def contests(settings: Settings) -> Iterator[Contest]:
    width, layers = settings.shaped(256, 4)
    engine = HFEngine(ModelSpec(str(workload.write_qwen1(settings, width, layers))))
    samples, origin = workload.mmlu_samples(settings, SUBJECTS)
    samples = workload.first_of_each(samples, settings.items or 25)
    model, tokenizer = engine.checkpoint.load(), engine.checkpoint.tokenizer

    def ours() -> list[list[float]]:
        chosen = engine.choose([sample.request for sample in samples], lambda *_: None)
        return [list(item.logprobs) for item in chosen]

    def loop(**keep: Any) -> list[list[float]]:
        letters = [tokenizer.encode(option)[-1] for option in mmlu.OPTIONS]
        rows = []
        with torch.inference_mode():
            for sample in samples:
                ids = torch.tensor([tokenizer.encode(sample.request.prompt())])
                logits = model(input_ids=ids, use_cache=False, **keep).logits
                rows.append(logits[0, -1].float().log_softmax(-1)[letters].double().tolist())
        return rows

    yield Contest(
        stage=f"MMLU 5-shot, {origin}",
        model=f"{width} x {layers}, vocabulary {workload.VOCABULARY}, float32",
        items=len(samples),
        ours=timed(ours, workload.token_counter(engine)),
        baselines={
            "plain loop (2023 scripts)": timed(loop),
            "plain loop, last logits only": timed(lambda: loop(logits_to_keep=1)),
        },
        apart=workload.difference,
    )
