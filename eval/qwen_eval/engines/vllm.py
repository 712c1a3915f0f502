"""The engine that runs vLLM in this process: its scheduler, its prefix cache, its tensor parallelism.

Prompts go as token ids of our tokenizer. Log-probabilities are vLLM's raw ones, of the distribution before any mask or
temperature: those of the options are asked for by token id, so that none has to be among the most likely.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from qwen_eval.engines import plan
from qwen_eval.engines.local import measuring
from qwen_eval.engines.prompting import encode_prompt, split_reply
from qwen_eval.models import memory, versions
from qwen_eval.models.checkpoint import Checkpoint, open_checkpoint
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

CHUNK = 512  # requests handed over at once: what is answered is stored after each


class VLLMEngine:
    """Answers requests with vLLM. The model is loaded at the first question that needs it.

    tensor_parallel: GPUs that each hold a part of every matrix. seed: names the random streams. Raises InputError where
    vLLM is not installed, CheckpointError for a checkpoint or a setting that it does not have.
    """

    def __init__(self, spec: ModelSpec, tensor_parallel: int = 1, seed: int = 1234) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise InputError("--engine vllm needs vLLM; run: pip install -e '.[vllm]' (Linux with a GPU)")
        _refuse_settings(spec)
        self.checkpoint: Checkpoint = open_checkpoint(spec)
        if self.checkpoint.qwen1:
            raise CheckpointError(
                f"vLLM has no Qwen-1; write {self.checkpoint.name} in Qwen2's format with --export DIR, and take that: -c DIR"
            )
        self.notes: list[str] = versions.untried(("transformers",))  # it tokenizes
        self.cached = 0  # tokens of prompts that the prefix cache had
        self._tensor_parallel, self._seed = tensor_parallel, seed
        self._computed = self._asked = 0

    def describe(self) -> EngineInfo:
        """What defines the answers of this engine, and where it runs."""
        import vllm

        checkpoint = self.checkpoint
        return EngineInfo(
            model=checkpoint.name,
            revision=checkpoint.revision,
            fingerprint=checkpoint.fingerprint,
            context_limit=checkpoint.context_limit,
            precision=checkpoint.precision,
            context="none",
            engine="vllm",
            device=f"tensor parallel {self._tensor_parallel}",
            chat_template=checkpoint.template_hash,
            versions={"vllm": vllm.__version__},
        )

    def usage(self) -> Mapping[str, float]:
        """Tokens computed (those of the prefix cache left out), tokens in the prompts, and this process's peak memory in
        GB; the workers' is theirs."""
        peak = memory.peak("cpu") / 1e9
        return {"tokens": self._computed, "prompt_tokens": self._asked, "peak_memory_gb": peak}

    def token_texts(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text as the texts of its tokens."""
        return self.checkpoint.tokenizer.split_texts(texts)

    def extend(self, spec: ModelSpec) -> None:
        """Raises InputError for any context extension: vLLM has none of these."""
        _refuse_settings(spec)

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
        """Scores the options of every request, those of one token behind a prompt that is computed once."""
        # vLLM leaves room for a token of its own
        encoded = plan.encode_requests(requests, self.checkpoint.tokenizer, self.checkpoint.context_limit - 1)
        # prompts that share their beginning one after the other, so that the cache has it
        order = sorted(range(len(requests)), key=lambda index: encoded[index].rows[0].ids.tolist())
        made: dict[int, Chosen] = {}
        for part in _parts(order):
            rows = [row for index in part for row in encoded[index].rows]
            scores = iter(self._score(rows))
            for index in part:
                values: dict[int, list[float]] = {}
                for row in encoded[index].rows:
                    values |= zip(row.options, next(scores), strict=True)
                made[index] = encoded[index].chosen(values, requests[index].totals)
                done(index, made[index])
        return [made[index] for index in range(len(requests))]

    def _score(self, rows: Sequence[plan.Row]) -> list[list[list[float]]]:
        """The log-probabilities of each row's options, a list of its scored positions for each."""
        prompts, settings = [], []
        for row in rows:
            ids = [int(token) for token in row.ids]
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
        measured: list[Measured] = []
        for index, (chunks, short) in enumerate(measuring.chunked(requests, self.checkpoint.tokenizer)):
            losses: list[float] = []
            for part in _parts(chunks):
                prompts = [[int(token) for token in chunk.ids] for chunk in part]
                outputs = self._ask(prompts, [{"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}] * len(part))
                for chunk, ids, output in zip(part, prompts, outputs, strict=True):
                    losses.append(-sum(_prompt_values(output, ids)[-chunk.scored :]))
            measured.append(measuring.summed(self.checkpoint.tokenizer, chunks, losses, short))
            done(index, measured[-1])
        return measured

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        """Writes the replies to every request."""
        answers: list[Generated] = []
        tokenizer = self.checkpoint.tokenizer
        for part in _parts(range(len(requests))):
            encoded = [encode_prompt(requests[index], tokenizer, self.checkpoint.context_limit) for index in part]
            asked = [(place, sample) for place, index in enumerate(part) for sample in range(requests[index].samples)]
            settings = [self._writing(requests[part[place]], sample) for place, sample in asked]
            outputs = self._ask([encoded[place][0] for place, _ in asked], settings)
            replies: dict[int, list[Any]] = {}
            for (place, _), output in zip(asked, outputs, strict=True):
                replies.setdefault(place, []).append(output.outputs[0])
            for place, index in enumerate(part):
                ids, shots, truncated = encoded[place]
                end = tokenizer.decode(ids[-16:])
                thought = [split_reply(reply.text, requests[index], end) for reply in replies[place]]
                answers.append(
                    Generated(
                        texts=tuple(text for _, text in thought),
                        reasoning=tuple(reasoning for reasoning, _ in thought),
                        end_reasons=tuple(_end_reason(reply) for reply in replies[place]),
                        prompt_tokens=len(ids),
                        new_tokens=tuple(_length(reply) for reply in replies[place]),
                        shots_used=shots,
                        truncated=truncated,
                    )
                )
                done(index, answers[-1])
        return answers

    def _writing(self, request: Generate, sample: int) -> dict[str, Any]:
        """How a text is written: ends as the other engines end it."""
        tokenizer = self.checkpoint.tokenizer
        ends = tokenizer.eos_ids if isinstance(request.prompt, str) else tokenizer.stop_ids
        settings: dict[str, Any] = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stop": list(request.stop),
            "stop_token_ids": list(ends),
            "ignore_eos": True,
        }
        if request.temperature > 0:
            name = hashlib.sha256(f"{self._seed}/{request.key}/{sample}".encode()).digest()
            settings["seed"] = int.from_bytes(name[:4], "big") >> 1
        return settings

    def _ask(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> list[Any]:
        """vLLM's outputs, one a prompt, in order."""
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


def _end_reason(reply: Any) -> str:
    """ "length"; "stop" for a stop string; "eos" for a token that ends the text."""
    if reply.finish_reason == "length":
        return "length"
    return "stop" if isinstance(reply.stop_reason, str) else "eos"


def _length(reply: Any) -> int:
    """New tokens without the one that ended the text."""
    return len(reply.token_ids) - (_end_reason(reply) == "eos")


def _refuse_settings(spec: ModelSpec) -> None:
    """What vLLM does not have: InputError names the first setting that was given."""
    given = {
        "--quantize": spec.quantize != "none",
        "--dynamic-ntk": spec.dynamic_ntk == "on",
        "--logn": spec.logn == "on",
        "--window": spec.window != "off",
    }
    for option, on in given.items():
        if on:
            raise InputError(f"{option} is not for --engine vllm; use --engine hf")
