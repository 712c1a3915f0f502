"""The engine that runs vLLM in this process: its scheduler, its prefix cache, its tensor parallelism.

Prompts go as token ids of our tokenizer. Log-probabilities are vLLM's raw ones, of the distribution before any mask or
temperature: those of the options are asked for by token id, so that none has to be among the most likely.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from qwen_eval.engines import chunks, plan
from qwen_eval.engines.base import BaseEngine
from qwen_eval.engines.prompting import Completion, answer, encode_prompt, end_reason, kept_tokens, stream_seed
from qwen_eval.models import memory, versions
from qwen_eval.models.checkpoint import Checkpoint
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import (
    CheckpointError,
    Choose,
    Chosen,
    EngineInfo,
    Generate,
    Generated,
    InputError,
    Measure,
    Measured,
    ModelSpec,
    OnResponse,
)

CHUNK = 512  # requests per call of vLLM: answers are stored after each call


class VLLMEngine(BaseEngine):
    """Answers requests with vLLM. The model is loaded at the first question that needs it.

    tensor_parallel: GPUs that each hold a part of every matrix. seed: names the random streams. Raises InputError where
    vLLM is not installed or for a setting that it does not have, CheckpointError for a checkpoint.
    """

    name, spare, rigid = "vllm", 1, True
    refused = (
        frozenset({"--quantize", "--dynamic-ntk", "--logn", "--window", "--attn", "--adapter"}),
        "is not for --engine vllm; use --engine hf",
    )
    checkpoint: Checkpoint

    def __init__(self, spec: ModelSpec, tensor_parallel: int = 1, seed: int = 1234) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise InputError("--engine vllm needs vLLM; run: pip install -e '.[vllm]' (Linux with a GPU)")
        super().__init__(versions.untried(("transformers",)))  # it tokenizes
        self.refuse(spec)
        self.checkpoint = open_checkpoint(spec, runs=False)
        if self.checkpoint.header:
            raise CheckpointError(
                f"{self.checkpoint.header.path}: --engine vllm reads no GGUF files; use --engine hf, or serve the file and use "
                "--engine api"
            )
        if self.checkpoint.qwen1:
            raise CheckpointError(
                f"vLLM has no Qwen-1; write {self.checkpoint.name} in Qwen2's format with --export DIR, and take that: -c DIR"
            )
        if self.checkpoint.native:
            raise CheckpointError(
                f"{self.checkpoint.name}: --engine vllm was not tried with {self.checkpoint.config.model_type}; use --engine hf"
            )
        self.cached = 0  # tokens of prompts that were in the prefix cache
        self._tensor_parallel, self._seed = tensor_parallel, seed

    def describe(self) -> EngineInfo:
        """What defines the answers of this engine, and where it runs."""
        import vllm

        return self._described(self.checkpoint, f"tensor parallel {self._tensor_parallel}", {"vllm": vllm.__version__})

    def usage(self) -> Mapping[str, float]:
        """Tokens computed (without those of the prefix cache), tokens in the prompts, and this process's peak memory in
        GB, without that of vLLM's workers."""
        return {**super().usage(), "peak_memory_gb": memory.peak("cpu") / 1e9}

    @cached_property
    def _llm(self) -> Any:
        import torch
        import vllm

        return vllm.LLM(
            model=str(self.checkpoint.folder),
            dtype=str(self.checkpoint.dtype).removeprefix("torch."),
            tensor_parallel_size=self._tensor_parallel,
            max_model_len=self.checkpoint.context_limit,
            enable_prefix_caching=True,
            enforce_eager=not torch.cuda.is_available(),  # compiling pays on GPUs only
            trust_remote_code=self.checkpoint.spec.trust_remote_code,
            seed=self._seed,
        )

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        """Scores the options of every request; options of one token share one prompt."""
        # vLLM needs room for a token that it generates
        encoded = plan.encode_requests(requests, self.tokenizer, self.checkpoint.context_limit - 1)
        # prompts that begin alike one after the other, so that their beginning is still in the prefix cache
        order = sorted(range(len(requests)), key=lambda index: encoded[index].rows[0].ids.tolist())
        answers: dict[int, Chosen] = {}
        for part in _parts(order):
            rows = [row for index in part for row in encoded[index].rows]
            scores = iter(self._score(rows))
            for index in part:
                values: dict[int, list[float]] = {}
                for row in encoded[index].rows:
                    values |= zip(row.options, next(scores), strict=True)
                answers[index] = encoded[index].chosen(values, requests[index].totals)
                done(index, answers[index])
        return [answers[index] for index in range(len(requests))]

    def _score(self, rows: Sequence[plan.Row]) -> list[list[list[float]]]:
        """The log-probabilities of each row, by option a list over its scored positions."""
        prompts, settings = [], []
        for row in rows:
            ids = row.ids.tolist()
            if len(row.targets) == 1:
                wanted = list(dict.fromkeys(row.targets[0]))
                prompts.append(ids)
                settings.append({"max_tokens": 1, "temperature": 0.0, "logprob_token_ids": wanted})
            else:
                prompts.append([*ids, row.targets[-1][0]])
                settings.append({"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0})
        outputs = self._ask(prompts, settings)
        scores = []
        for row, ids, output in zip(rows, prompts, outputs, strict=True):
            if len(row.targets) == 1:
                found = output.outputs[0].logprobs[0]
                scores.append([[float(found[token].logprob)] for token in row.targets[0]])
            else:
                scores.append([_prompt_values(output, ids)[-len(row.targets) :]])
        return scores

    def measure(self, requests: Sequence[Measure], done: OnResponse) -> list[Measured]:
        """Negative log-likelihoods of texts."""

        def losses(request: Measure, parts: Sequence[chunks.Chunk]) -> list[float]:
            found: list[float] = []
            for part in _parts(parts):
                prompts = [chunk.ids.tolist() for chunk in part]
                outputs = self._ask(prompts, [{"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}] * len(part))
                for chunk, ids, output in zip(part, prompts, outputs, strict=True):
                    found.append(-sum(_prompt_values(output, ids)[-chunk.scored :]))
            return found

        return chunks.measure(requests, self.tokenizer, losses, done)

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        """Generates the replies to every request."""
        answers: list[Generated] = []
        for part in _parts(range(len(requests))):
            encoded = {
                index: encode_prompt(requests[index], self.tokenizer, self.checkpoint.context_limit) for index in part
            }
            asked = [(index, sample) for index in part for sample in range(requests[index].samples)]
            settings = [self._sampling(requests[index], sample) for index, sample in asked]
            outputs = self._ask([encoded[index][0] for index, _ in asked], settings)
            texts: dict[int, list[Completion]] = {index: [] for index in part}
            for (index, _), output in zip(asked, outputs, strict=True):
                texts[index].append(_completion(output.outputs[0]))
            for index in part:
                answers.append(answer(requests[index], encoded[index][1], texts[index]))
                done(index, answers[-1])
        return answers

    def _sampling(self, request: Generate, sample: int) -> dict[str, Any]:
        """The sampling parameters of a text, which end it as the other engines do."""
        ends = self.tokenizer.eos_ids if isinstance(request.prompt, str) else self.tokenizer.stop_ids
        settings: dict[str, Any] = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stop": list(request.stop),
            "stop_token_ids": list(ends),
            "ignore_eos": True,
        }
        if kept_tokens(request, self.tokenizer):
            settings["skip_special_tokens"] = False
        if request.temperature > 0:
            settings["seed"] = stream_seed(self._seed, request, sample)
        return settings

    def _ask(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> list[Any]:
        """vLLM's outputs, one per prompt, in order."""
        from vllm import SamplingParams

        given: Any = [{"prompt_token_ids": list(ids)} for ids in prompts]
        outputs: list[Any] = self._llm.generate(given, [SamplingParams(**one) for one in settings], use_tqdm=False)
        for output in outputs:
            cached = output.num_cached_tokens or 0
            self.cached += cached
            self._asked += len(output.prompt_token_ids)
            self._computed += len(output.prompt_token_ids) - cached + len(output.outputs[0].token_ids)
        return outputs


def _parts(items: Sequence[Any]) -> Iterator[Any]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _prompt_values(output: Any, ids: Sequence[int]) -> list[float]:
    """Log-probabilities of ids[1:]."""
    return [float(found[token].logprob) for token, found in zip(ids[1:], output.prompt_logprobs[1:], strict=True)]


def _completion(reply: Any) -> Completion:
    """One of vLLM's texts; a token that ended it does not count."""
    reason = end_reason(reply.finish_reason, reply.stop_reason)
    return Completion(reply.text, reason, len(reply.token_ids) - (reason == "eos"))
