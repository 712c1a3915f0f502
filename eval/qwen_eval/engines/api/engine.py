"""The engine that asks an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted one.

Prompts go as token ids, so that our tokenizer and chat template decide, where the checkpoint is known here (-c); without
one, texts and conversations go as they are and only scripts that generate text run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from threading import Lock
from typing import Any, TypeVar

import requests as http

from qwen_eval.engines import chunks, plan
from qwen_eval.engines.api import abilities, completions
from qwen_eval.engines.api.abilities import Abilities
from qwen_eval.engines.api.server import Refused, Server
from qwen_eval.engines.base import BaseEngine
from qwen_eval.engines.prompting import Prompt, answer, encode_prompt, stream_seed
from qwen_eval.models import versions
from qwen_eval.models.checkpoint import open_checkpoint
from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import (
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

STOPS = 4  # stop strings that the protocol allows in a request; texts are cut here before the others

Answer = TypeVar("Answer")


class APIEngine(BaseEngine):
    """Answers requests through a server. Its abilities are probed at the first question that needs one.

    spec: the checkpoint that the server runs, for its tokenizer and context limit; None for a model of which only the
    server knows. served: the model's name there, None for the only one it lists. concurrency: requests in flight at
    once. seed: names the random streams. Raises CheckpointError, and InputError for a server that does not answer.
    """

    name, spare, rigid = "api", 1, True
    refused = (
        frozenset({"--quantize", "--dtype", "--dynamic-ntk", "--logn", "--window", "--attn"}),
        "is the server's own setting; start the server with it, or use --engine hf",
    )

    def __init__(
        self, spec: ModelSpec | None, server: Server, served: str | None = None, concurrency: int = 8, seed: int = 1234
    ) -> None:
        super().__init__(versions.untried(("transformers",)) if spec else [])  # it tokenizes
        if spec:
            self.refuse(spec)
            self.checkpoint = open_checkpoint(spec)
        self._server, self._concurrency, self._seed = server, concurrency, seed
        self._model, self._limit = abilities.served_model(server, served)
        if self.checkpoint and self.checkpoint.context.label != "none":
            label = self.checkpoint.context.label
            self.notes.append(f"{label}, which the checkpoint's config asks for, is up to the server")
        self._counting = Lock()

    def describe(self) -> EngineInfo:
        """The checkpoint as far as it is known here, and the server with the model's name there."""
        checkpoint = self.checkpoint
        tokenizer = checkpoint.tokenizer.fingerprint if checkpoint else ""
        identity = "\n".join([self._server.url, self._model, tokenizer])
        return EngineInfo(
            model=checkpoint.name if checkpoint else self._model,
            revision=checkpoint.revision if checkpoint else "server",
            fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:16],
            context_limit=self.context_limit,
            precision="server",
            context="none",
            engine=self.name,
            device=self._server.host,
            chat_template=checkpoint.template_hash if checkpoint else "server",
            versions={"served model": self._model, "requests": http.__version__},
        )

    @property
    def context_limit(self) -> int:
        """In tokens; 0 where neither the checkpoint nor the server gives one."""
        limits = [self.checkpoint.context_limit if self.checkpoint else 0, self._limit]
        return min(filter(None, limits), default=0)

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        """Scores the options of every request. An option of one token is looked up among the most likely next tokens,
        where the server lists them; else the prompt is sent with the option after it."""
        # a server needs room for a token that it generates
        encoded = plan.encode_requests(requests, self.tokenizer, self.context_limit - 1)
        one_token = all(len(row.targets) == 1 for item in encoded for row in item.rows)
        self._abilities.require(one_token, self._server.url)
        unlisted: set[int] = set()

        def job(index: int) -> Chosen:
            scores: dict[int, list[float]] = {}
            for row in encoded[index].rows:
                values, listed = self._score(row)
                if not listed:
                    unlisted.add(index)
                scores |= zip(row.options, values, strict=True)
            return encoded[index].chosen(scores, requests[index].totals)

        chosen = self._each(len(requests), job, done)
        if unlisted:
            self.notes.append(
                f"{len(unlisted)} of {len(requests)} items have options that are not among the most likely tokens the server "
                "lists: the least of those stands for them, and where it stands for all, the first option was taken"
            )
        return chosen

    def _score(self, row: plan.Row) -> tuple[list[list[float]], bool]:
        """Log-probabilities by option of a row, a list over its scored positions each, and whether all are exact."""
        ids = row.ids.tolist()
        known = self._abilities
        if len(row.targets) > 1:
            full = [*ids, row.targets[-1][0]]
            return [self._prompt_values(full)[-len(row.targets) :]], True
        tokens = row.targets[0]
        found: dict[int, float] = {}
        least = 0.0
        if known.next is not None:
            listed = self._read(ids, known.next, completions.next_values)
            least = min(listed.values())
            texts = dict(zip(tokens, self.tokenizer.token_texts(tokens), strict=True))
            for token in tokens:
                name = token if token in listed else texts[token]
                if name in listed and list(texts.values()).count(texts[token]) == 1:
                    found[token] = listed[name]
        missing = [token for token in tokens if token not in found]
        if known.prompt is not None:
            found |= {token: self._prompt_values([*ids, token])[-1] for token in missing}
            missing = []
        return [[found.get(token, least)] for token in tokens], not missing

    def measure(self, requests: Sequence[Measure], done: OnResponse) -> list[Measured]:
        """Negative log-likelihoods of texts, one request per chunk."""
        self._abilities.require(False, self._server.url)

        def losses(request: Measure, parts: Sequence[chunks.Chunk]) -> list[float]:
            return self._each(len(parts), lambda index: self._loss(parts[index]), lambda index, loss: None)

        return chunks.measure(requests, self.tokenizer, losses, done)

    def _loss(self, chunk: chunks.Chunk) -> float:
        return -sum(self._prompt_values(chunk.ids.tolist())[-chunk.scored :])

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        """Generates the replies to every request: as completions of token ids, else of text, conversations through the
        server's own template."""
        by_ids = self.checkpoint is not None and self._abilities.ids
        if self.checkpoint and not by_ids and requests:
            self.notes.append("the server takes no token ids: its own tokenizer and chat template were used")
        if not self.checkpoint and requests:
            self.notes.append("without a tokenizer (-c) only the server knows whether a prompt fits its context")

        def job(index: int) -> Generated:
            request = requests[index]
            path, body = "/completions", dict[str, Any]()
            prompt = Prompt(0, "", len(request.shots))
            if self.checkpoint:
                ids, prompt = encode_prompt(request, self.tokenizer, self.context_limit)
                body = {"prompt": ids}
            if not by_ids:
                if isinstance(request.prompt, str):
                    body = {"prompt": request.text(len(request.shots) - prompt.shots_used)}
                else:
                    path, body = completions.conversation(request)
            replies = [self._reply(path, body, request, sample) for sample in range(request.samples)]
            if not by_ids:
                prompt = Prompt(replies[0][1].get("prompt_tokens", 0), "", prompt.shots_used)
            return answer(request, prompt, [completions.completion(reply, request) for reply in replies])

        return self._each(len(requests), job, done)

    def _reply(
        self, path: str, body: Mapping[str, Any], request: Generate, sample: int
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """One reply: its choice and its usage."""
        full: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            **body,
        }
        if request.stop:
            full["stop"] = list(request.stop[:STOPS])
        if request.temperature > 0:
            full["seed"] = stream_seed(self._seed, request, sample)
        try:
            reply = self._server.post(path, full)
        except Refused as error:  # what newer hosted models call it
            if "max_completion_tokens" not in str(error):
                raise
            full["max_completion_tokens"] = full.pop("max_tokens")
            reply = self._server.post(path, full)
        self._count(reply)
        try:
            return completions.first_choice(reply), reply.get("usage") or {}
        except completions.MISSING:
            raise InputError(f"{self._server.url}{path} answered without choices; is it OpenAI-compatible?") from None

    def _prompt_values(self, ids: Sequence[int]) -> list[float]:
        """Log-probabilities of ids[1:]."""
        assert self._abilities.prompt is not None
        return self._read(ids, self._abilities.prompt, lambda choice: completions.prompt_values(choice, ids))

    def _read(
        self, ids: Sequence[int], fields: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Answer]
    ) -> Answer:
        """What `read` finds in the answer to a prompt. Raises InputError when the server answers otherwise than it did
        when it was first asked, or counts other tokens than were sent."""
        reply = self._server.post("/completions", {"model": self._model, "prompt": list(ids), **fields})
        self._count(reply)
        if completions.prompt_tokens(reply) not in (None, len(ids)):
            counted = completions.prompt_tokens(reply)
            raise InputError(f"the server at {self._server.url} read {counted} tokens where {len(ids)} were sent")
        try:
            return read(completions.first_choice(reply))
        except completions.MISSING as error:
            raise InputError(f"the server at {self._server.url} left log-probabilities out ({error!r})") from None

    def _count(self, reply: Mapping[str, Any]) -> None:
        usage = reply.get("usage") or {}
        prompt = usage.get("prompt_tokens") or 0
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        with self._counting:
            self._asked += prompt
            self._computed += prompt - cached + (usage.get("completion_tokens") or 0)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the checkpoint. Raises InputError without one."""
        if self.checkpoint is None:
            raise InputError(
                "log-probabilities need the tokenizer of the model that the server runs; name its checkpoint with -c "
                f"(without one, {abilities.STILL_RUN})"
            )
        return self.checkpoint.tokenizer

    @cached_property
    def _abilities(self) -> Abilities:
        ids = self.tokenizer.encode("The answer is the number")
        return abilities.find(self._server, self._model, ids)

    def _each(self, count: int, job: Callable[[int], Answer], done: OnResponse) -> list[Answer]:
        """job(index) for every index, a few at a time; `done` is called in this thread, as answers arrive. The first failure
        ends it; `done` was called with the answers until then."""
        answers: dict[int, Answer] = {}
        self._server.open()
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            waiting = {pool.submit(job, index): index for index in range(count)}
            for future in as_completed(waiting):
                index = waiting[future]
                answers[index] = future.result()
                done(index, answers[index])
        finally:
            if len(answers) < count:
                self._server.close()
            pool.shutdown(cancel_futures=True)
        return [answers[index] for index in range(count)]
