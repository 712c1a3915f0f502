"""What defines a figure, in one line, and the id of the run that computed it.

The signature holds all that defines a figure and nothing else; the run id is a hash of it, the weights' fingerprint and the
prompts, so that another model or setting never inherits results, and the same command finds its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any

from qwen_eval.schema import Choose, EngineInfo, Measure, Request, Sample
from qwen_eval.tasks.benchmark import Benchmark


def signature(benchmark: Benchmark, info: EngineInfo) -> str:
    """The line that defines a figure: `mmlu|v1|default|base|shots:5|select:logprob|...|ctx:8192|dtype:bf16`."""
    fields = {"shots": str(benchmark.shot_count), **benchmark.signature, "n": str(len(benchmark.asked))}
    if benchmark.mode == "chat":
        fields["template"] = info.chat_template
        if info.day:
            fields["date"] = info.day
    if info.known_by:
        fields["served"] = info.known_by
    fields["ctx"] = str(info.context_limit)
    if benchmark.too_long:
        fields["unanswered"] = str(len(benchmark.too_long))
    if info.context != "none":
        fields["ext"] = info.context
        fields["trained"] = str(info.trained_length)
    if info.window:
        fields["window"] = info.window
    fields["dtype"] = info.precision
    if info.adapter:
        fields["adapter"] = info.adapter
    if info.trust:
        fields["trust"] = info.trust
    version = benchmark.versions.get((benchmark.recipe, benchmark.mode), benchmark.version)
    head = [benchmark.name, f"v{version}", benchmark.recipe, benchmark.mode]
    return "|".join(head + [f"{name}:{value}" for name, value in fields.items()])


def run_id(benchmark: Benchmark, info: EngineInfo) -> str:
    """The run's id, usable as a file name: a readable part, and a hash of what defines the answers (model, protocol, precision,
    and every prompt with its decoding parameters), so that a change of any of them inherits no answers. The date of prompts
    that show it is no part: it is that of the run's first start (starts.py), whenever the run goes on."""
    digest = hashlib.sha256()
    # a run that goes on, tested or not, is the same run
    for line in (
        signature(benchmark, dataclasses.replace(info, trust="", day="first start" if info.day else "")),
        info.model,
        info.revision,
        info.fingerprint,
        *map(_identity, benchmark.asked),
    ):
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    model = re.sub(r"[^A-Za-z0-9._-]+", "_", info.model.rstrip("/").split("/")[-1]) or "model"
    return f"{benchmark.name}-{benchmark.recipe}-{benchmark.mode}-{model}-{digest.hexdigest()[:10]}"


def _identity(sample: Sample) -> str:
    """A sample's id, prompt and decoding parameters (of a measurement not the documents, whose hash is in the signature)."""
    texts = ("header", "shots", "question", "prompt", "documents")
    fields = {
        field.name: getattr(sample.request, field.name)
        for field in dataclasses.fields(sample.request)
        if field.name not in texts
        and not (field.metadata.get("later") and getattr(sample.request, field.name) == field.default)
    }
    return repr((sample.id, prompt_of(sample.request), fields))


def prompt_of(request: Request) -> Any:
    """The whole prompt of a request: text, or messages; of a measurement its parameters, not the documents."""
    if isinstance(request, Measure):
        return {**dataclasses.asdict(request), "documents": len(request.documents)}
    return request.prompt() if isinstance(request, Choose) else request.text()


def prompt_hash(prompt: Any) -> str:
    """The SHA-256 of a prompt as prompt_of returns it or as a row stores it: text, messages, or the hash itself."""
    if isinstance(prompt, dict) and "sha256" in prompt:
        return str(prompt["sha256"])
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
