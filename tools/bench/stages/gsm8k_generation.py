"""GSM8K, 8-shot: lm-evaluation-harness, transformers' generate and its continuous batching, each at the batch size that
suits it best, on the same weights and prompts. All write the same number of tokens, greedily."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from bench import lm_eval_side, workload
from bench.contest import Contest, timed
from bench.settings import Settings
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import Generate, ModelSpec

BATCHES, PROBLEMS, NEW_TOKENS = (1, 8, 24), 24, 256
PAGE = 32  # tokens a block of continuous batching's cache


class Task:
    """Prompts for one loaded model."""

    def __init__(self, settings: Settings) -> None:
        width, layers = settings.shaped(512, 8)
        self.name = f"{width} x {layers}, vocabulary {workload.SMALL_VOCABULARY}, float32"
        self.engine = HFEngine(ModelSpec(str(workload.write_qwen2(settings, width, layers)), device="cpu"))
        self.requests: list[Generate]
        self.requests, self.origin = workload.gsm8k_requests(settings, settings.items or PROBLEMS, NEW_TOKENS)
        self.model, self._tokenizer = self.engine.checkpoint.load(), self.engine.checkpoint.tokenizer
        self.hub_tokenizer = self._tokenizer.tok

    def ours(self) -> list[str]:
        return [item.texts[0] for item in self.engine.generate(self.requests, lambda *_: None)]

    def prompts(self) -> list[list[int]]:
        return self._tokenizer.encode_batch([str(request.text()) for request in self.requests])

    def generate(self, batch: int) -> list[str]:
        """transformers' generate: prompts padded on the left, longest together, a cache a batch."""
        prompts = self.prompts()
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        texts = [""] * len(prompts)
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            longest = max(len(prompts[place]) for place in places)
            ids = torch.zeros(len(places), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, place in enumerate(places):
                ids[row, longest - len(prompts[place]) :] = torch.tensor(prompts[place])
                mask[row, longest - len(prompts[place]) :] = 1
            out = self.model.generate(
                ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
            )
            for row, place in enumerate(places):
                texts[place] = self._tokenizer.decode(out[row, longest:].tolist(), skip_special=True)
        return texts

    def continuous(self) -> list[str]:
        """transformers' continuous batching, with room for all prompts at once."""
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        prompts = self.prompts()
        config = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
        batching = ContinuousBatchingConfig(
            num_blocks=sum(-(-(len(prompt) + NEW_TOKENS) // PAGE) + 1 for prompt in prompts),
            page_size=PAGE,
            max_batch_tokens=2048,
            max_requests_per_batch=len(prompts),
            auto_switch_to_flash=False,
        )
        out = self.model.generate_batch(prompts, generation_config=config, continuous_batching_config=batching)
        by_prompt = {tuple(item.prompt_ids): item.generated_tokens for item in out.values()}
        return [self._tokenizer.decode(by_prompt[tuple(prompt)], skip_special=True) for prompt in prompts]


def contests(settings: Settings) -> Iterator[Contest]:
    task = Task(settings)
    sizes = sorted({min(size, len(task.requests)) for size in BATCHES})
    lm_eval = {size: lm_eval_side.hf(task.model, task.hub_tokenizer, size) for size in sizes}
    yield Contest(
        stage=f"GSM8K 8-shot, {NEW_TOKENS} new tokens, {task.origin}",
        model=task.name,
        items=len(task.requests),
        ours=timed(task.ours, workload.token_counter(task.engine)),
        baselines={
            **{
                f"lm-eval HF, batch {size}": timed(partial(lm_eval_side.generate, lm_eval[size], task.requests))
                for size in sizes
            },
            **{f"transformers generate, batch {size}": timed(partial(task.generate, size)) for size in sizes},
            "transformers continuous batching": timed(task.continuous),
        },
        apart=workload.same_texts,
    )
