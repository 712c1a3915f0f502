"""MMLU, 5-shot, on models whose layers attend within a window, with sinks or under a soft cap: prompts shared against the same
engine sharing nothing. A model with plain attention of the same shape stands beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import workload
from bench.contest import Contest, timed
from bench.settings import Settings
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import ModelSpec

SUBJECTS = ("world_religions", "marketing", "astronomy")  # short prompts, of which a window of 128 sees a part
WINDOW = 128
BAND, ALL = "sliding_attention", "full_attention"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "full attention": ("llama", {}),
    "window of 128 (as Mistral)": ("mistral", {"sliding_window": WINDOW}),
    "windows and sinks (as gpt-oss)": (
        "gpt_oss",
        {"sliding_window": WINDOW, "layer_types": [BAND, ALL] * 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "windows and soft cap (as Gemma 2)": (
        "gemma2",
        {"sliding_window": WINDOW, "layer_types": [BAND, ALL] * 2, "attn_logit_softcapping": 50.0},
    ),
}


def contests(settings: Settings) -> Iterator[Contest]:
    for name in KINDS:
        yield _contest(settings, name)


def _contest(settings: Settings, name: str) -> Contest:
    kind, more = KINDS[name]
    width, layers = settings.shaped(256, 4)
    samples, origin = workload.mmlu_samples(settings, SUBJECTS)
    requests = [sample.request for sample in workload.first_of_each(samples, settings.items or 25)]
    spec = ModelSpec(str(workload.write_model(settings, kind, width, layers, **more)), dtype="float32")
    shared, whole = HFEngine(spec), HFEngine(spec, share=False)

    def answers(engine: HFEngine) -> list[list[float]]:
        return [list(found.logprobs) for found in engine.choose(requests, lambda *_: None)]

    return Contest(
        stage=f"MMLU 5-shot, {name}, {origin}",
        model=f"{width} x {layers}, vocabulary {workload.SMALL_VOCABULARY}, float32",
        items=len(requests),
        ours=timed(lambda: answers(shared), workload.token_counter(shared)),
        baselines={"the same engine, nothing shared": timed(lambda: answers(whole))},
        apart=workload.difference,
    )
