"""The engine that asks an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted one.

Prompts go as token ids, so that our tokenizer and chat template decide, where the checkpoint is known here (-c); without
one, texts and conversations go as they are and only scripts that generate text run.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from threading import Lock
from typing import Any, TypeVar

import requests as http

from qwen_eval.engines import chunks, plan
from qwen_eval.engines.api import abilities, completions, probe, rendering
from qwen_eval.engines.api import served as served_model
from qwen_eval.engines.api.abilities import Abilities
from qwen_eval.engines.api.server import Server
from qwen_eval.engines.base import BaseEngine
from qwen_eval.engines.prompting import Prompt, answer, encode_prompt, stream_seed
from qwen_eval.models import versions
from qwen_eval.models.opening import open_checkpoint
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
    Request,
)

STOPS = 4  # stop strings that the protocol allows in a request; texts are cut here before the others

SHOWN = 6  # facts of a served model in a note

Answer = TypeVar("Answer")


def _told(served: served_model.Served) -> str:
    """What is known of a served model, and what that leaves open, in one sentence."""
    facts = [f"{name} {served.facts[name]}" for name in served.by_weight()]
    more = f" and {len(facts) - SHOWN} more, in the manifest" if len(facts) > SHOWN else ""
    known = f"of the served model {served.name} is known: {', '.join(facts[:SHOWN]) or 'nothing but its name'}{more}"
    return f"{known}; {_OPEN[served.known_by]}"


_OPEN = {
    "content": "its precision and settings are the server's",
    "replies": "not known are its weights: one that replies alike would not be told apart",
    "entry": "not known are its weights: another one of the same description would not be told apart",
    "name": "another one under that name would not be told apart",
}


class APIEngine(BaseEngine):
    """Answers requests through a server. Its abilities are probed at the first question that needs one.

    spec: the checkpoint that the server runs, for its tokenizer and context limit; None for a model of which only the
    server knows. served: the model's name there, None for the only one it lists. concurrency: requests in flight at
    once. seed: names the random streams. Raises CheckpointError, and InputError for a server that does not answer.
    """

    name, spare, rigid = "api", 1, True
    refused = (
        frozenset({"--quantize", "--dtype", "--dynamic-ntk", "--logn", "--window", "--attn", "--adapter"}),
        "is the server's own setting; start the server with it, or use --engine hf",
    )

    def __init__(
        self, spec: ModelSpec | None, server: Server, served: str | None = None, concurrency: int = 8, seed: int = 1234
    ) -> None:
        super().__init__(versions.untried(("transformers",)) if spec else [])  # it tokenizes
        if spec:
            self.refuse(spec)
            self.checkpoint = open_checkpoint(spec, runs=False)
        self._server, self._concurrency, self._seed = server, concurrency, seed
        self._served = served_model.find(server, served)
        self._model = self._served.name
        if self.checkpoint and self.checkpoint.context.label != "none":
            label = self.checkpoint.context.label
            self.notes.append(f"{label}, which the checkpoint's config asks for, is up to the server")
        self._counting = Lock()

    def describe(self) -> EngineInfo:
        """The checkpoint as far as it is known here, the server with the model's name there, and what is known of that model,
        which is asked for its replies to a few prompts."""
        checkpoint = self.checkpoint
        served = self._probed
        tokenizer = checkpoint.tokenizer.fingerprint if checkpoint else ""
        facts = [f"{name}={value}" for name, value in sorted(served.facts.items())]
        identity = "\n".join([self._server.url, self._model, tokenizer, *facts])
        return EngineInfo(
            model=checkpoint.name if checkpoint else self._model,
            revision=checkpoint.revision if checkpoint else "server",
            fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:16],
            context_limit=self.context_limit,
            precision="server",
            context="none",
            engine=self.name,
            device=self._server.host,
            chat_template=checkpoint.template_label if checkpoint and self._renders else "server",
            versions={"served model": self._model, "requests": http.__version__},
            served=served.facts,
            known_by=served.known_by,
        )

    @cached_property
    def _probed(self) -> served_model.Served:
        """The served model with its replies to the probe."""
        replies, notes = probe.facts(self._server, self._model)
        served = dataclasses.replace(self._served, facts={**self._served.facts, **replies})
        self.notes += [_told(served), *notes]
        return served

    def exchanged(self) -> str:
        """How what is known of the served model now differs from what was when it was described. What is known only at one of
        the two times is no difference, nor is a system_fingerprint, which replies keep; a difference is looked at twice."""
        for _ in range(2):
            replies, _notes = probe.facts(self._server, self._model)
            now = {**served_model.find(self._server, self._model).facts, **replies}
            before = self._probed.facts
            both = [name for name in before if name in now and name != "replies.system_fingerprint"]
            changes = [f"{name} {before[name]}, now {now[name]}" for name in both if before[name] != now[name]]
            if not changes:
                return ""
        return "; ".join(changes)

    @property
    def _renders(self) -> bool:
        """Whether conversations are rendered here, and not by the server's own template."""
        return self.checkpoint is not None and self._abilities.ids

    def moves(self, requests: Sequence[Request]) -> bool:
        return self._renders and super().moves(requests)

    def prompt_text(self, request: Generate) -> str | None:
        """A conversation as the model reads it; where the server renders it, as the server shows it."""
        if isinstance(request.prompt, str) or self._renders:
            return super().prompt_text(request)
        self.notes.append(rendering.told(self._served.template))
        return rendering.prompt_text(self._server, self._model, request)

    @property
    def context_limit(self) -> int:
        """In tokens; 0 where neither the checkpoint nor the server gives one."""
        limits = [self.checkpoint.context_limit if self.checkpoint else 0, self._served.limit]
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
            prints: set[str] = set()
            for row in encoded[index].rows:
                values, listed = self._score(row, prints)
                if not listed:
                    unlisted.add(index)
                scores |= zip(row.options, values, strict=True)
            chosen = encoded[index].chosen(scores, requests[index].totals)
            return dataclasses.replace(chosen, system_fingerprints=tuple(sorted(prints)))

        chosen = self._each(len(requests), job, done)
        if unlisted:
            self.notes.append(
                f"{len(unlisted)} of {len(requests)} items have options that are not among the most likely tokens the server "
                "lists: the least of those stands for them, and where it stands for all, the first option was taken"
            )
        return chosen

    def _score(self, row: plan.Row, prints: set[str]) -> tuple[list[list[float]], bool]:
        """Log-probabilities by option of a row, a list over its scored positions each, and whether all are exact. prints: the
        system fingerprints of the replies are added to it."""
        ids = row.ids.tolist()
        known = self._abilities
        if len(row.targets) > 1:
            full = [*ids, row.targets[-1][0]]
            return [self._prompt_values(full, prints)[-len(row.targets) :]], True
        tokens = row.targets[0]
        found: dict[int, float] = {}
        least = 0.0
        if known.next is not None:
            listed = self._read(ids, known.next, completions.next_values, prints)
            least = min(listed.values())
            texts = dict(zip(tokens, self.tokenizer.token_texts(tokens), strict=True))
            for token in tokens:
                name = token if token in listed else texts[token]
                if name in listed and list(texts.values()).count(texts[token]) == 1:
                    found[token] = listed[name]
        missing = [token for token in tokens if token not in found]
        if known.prompt is not None:
            found |= {token: self._prompt_values([*ids, token], prints)[-1] for token in missing}
            missing = []
        return [[found.get(token, least)] for token in tokens], not missing

    def measure(self, requests: Sequence[Measure], done: OnResponse) -> list[Measured]:
        """Negative log-likelihoods of texts, one request per chunk."""
        self._abilities.require(False, self._server.url)

        def losses(request: Measure, parts: Sequence[chunks.Chunk]) -> list[float]:
            return self._each(len(parts), lambda index: self._loss(parts[index]), lambda index, loss: None)

        return chunks.measure(requests, self.tokenizer, losses, done)

    def _loss(self, chunk: chunks.Chunk) -> float:
        return -sum(self._prompt_values(chunk.ids.tolist(), set())[-chunk.scored :])

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        """Generates the replies to every request: as completions of token ids, else of text, conversations through the
        server's own template."""
        by_ids = self.checkpoint is not None and self._abilities.ids
        if self.checkpoint and not by_ids and self.checkpoint.spec.template:
            raise InputError(
                f"--template: the server at {self._server.url} takes no token ids and writes conversations by its own "
                "template; leave it out, or use --engine hf"
            )
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
                prompt = Prompt(completions.prompt_tokens(replies[0]) or 0, "", prompt.shots_used)
            return answer(request, prompt, [completions.completion(reply, request) for reply in replies])

        return self._each(len(requests), job, done)

    def _reply(self, path: str, body: Mapping[str, Any], request: Generate, sample: int) -> Mapping[str, Any]:
        """One reply, which has a choice."""
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
        reply = self._server.complete(path, full)
        self._count(reply)
        try:
            completions.first_choice(reply)
        except completions.MISSING:
            raise InputError(f"{self._server.url}{path} answered without choices; is it OpenAI-compatible?") from None
        return reply

    def _prompt_values(self, ids: Sequence[int], prints: set[str]) -> list[float]:
        """Log-probabilities of ids[1:]."""
        assert self._abilities.prompt is not None
        return self._read(ids, self._abilities.prompt, lambda choice: completions.prompt_values(choice, ids), prints)

    def _read(
        self,
        ids: Sequence[int],
        fields: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], Answer],
        prints: set[str],
    ) -> Answer:
        """What `read` finds in the answer to a prompt; its system fingerprint is added to `prints`. Raises InputError when the
        server answers otherwise than it did when it was first asked, or counts other tokens than were sent."""
        reply = self._server.post("/completions", {"model": self._model, "prompt": list(ids), **fields})
        self._count(reply)
        prints |= {name for name in [completions.named(reply, "system_fingerprint")] if name}
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
