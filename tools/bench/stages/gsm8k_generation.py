"""GSM8K, 8-shot, against transformers' generate at the same batch size: prompts padded on the left, a cache a batch. Both
write the same number of tokens, greedily."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench import workload
from bench.contest import Contest, timed
from bench.settings import Settings
from harness.engines.hf import HFEngine
from harness.schema import ModelSpec

BATCH, PROBLEMS, NEW_TOKENS = 8, 24, 64


def contests(settings: Settings) -> Iterator[Contest]:
    width, layers = settings.shaped(256, 4)
    engine = HFEngine(ModelSpec(str(workload.write_qwen1(settings, width, layers))), batch_size=BATCH)
    requests, origin = workload.gsm8k_requests(settings, PROBLEMS, NEW_TOKENS)
    model, tokenizer = engine.runtime.model, engine.checkpoint.tokenizer

    def ours() -> list[str]:
        return [item.texts[0] for item in engine.generate(requests, lambda *_: None)]

    def generate() -> list[str]:
        texts = []
        for start in range(0, len(requests), BATCH):
            prompts = [tokenizer.encode(str(request.text())) for request in requests[start : start + BATCH]]
            longest = max(map(len, prompts))
            ids = torch.zeros(len(prompts), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, prompt in enumerate(prompts):
                ids[row, longest - len(prompt) :] = torch.tensor(prompt)
                mask[row, longest - len(prompt) :] = 1
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
            )
            texts += [tokenizer.decode(row[longest:].tolist(), skip_special=True) for row in out]
        return texts

    yield Contest(
        stage=f"GSM8K 8-shot, {NEW_TOKENS} new tokens, {origin}",
        model=f"{width} x {layers}, vocabulary {workload.VOCABULARY}, float32",
        items=len(requests),
        ours=timed(ours, workload.token_counter(engine)),
        baselines={f"transformers generate, batch {BATCH}": timed(generate)},
        apart=workload.same_texts,
    )
