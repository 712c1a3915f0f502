"""What can be known of a served model without its files: what the server says of it, and how it answers.

A name does not identify a model: another one may be served under it tomorrow. What is found here is part of the run's
identity, so that a replaced model is run again; more kinds of facts can be added, since the identity is a hash of all of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_eval.engines.api.server import FIRST_ATTEMPTS, Refused, Server
from qwen_eval.schema import InputError

LONGEST = 100  # characters of a fact; of longer ones (templates) the hash is kept
# names of what may change while the model stays: times (`created` is the time of the call on vLLM and llama.cpp), the server's
# state, what it costs, how it is called and described
_UNSTEADY = re.compile(
    r"creat|time|date|_at$|expir|permission|pric|cost|stat(e|us)|load|cache|usage|last_|latency|rate_|descri|support|alias|tags|modalit|^object$"
)
# names of what identifies the weights themselves
_CONTENT = re.compile(r"(^|[._])(digest|\w*sha(256|1)?|\w*checksum|weights?_hash)$")
# By server, a path below its root, and the fields there that describe the model; of a list, those of the model's entry.
_ELSEWHERE: Sequence[tuple[str, str, Sequence[str]]] = (
    ("llama.cpp", "/props", ("model_path", "model_ftype", "chat_template", "default_generation_settings.n_ctx")),
    ("TGI", "/info", ("model_id", "model_sha", "model_dtype", "max_input_tokens", "max_total_tokens")),
    ("SGLang", "/get_model_info", ("model_path", "tokenizer_path", "weight_version")),
    ("Ollama", "/api/show", ("details", "template", "system", "parameters")),
    ("Ollama", "/api/tags", ("digest", "size")),
    ("LM Studio", "/api/v0/models", ("arch", "quantization", "compatibility_type", "max_context_length", "publisher")),
)
_POSTED = ("/api/show",)
_LISTS = ("models", "data")


@dataclass(frozen=True)
class Served:
    """A served model. name: on the server. limit: its context limit there in tokens, 0 where the server does not tell. facts:
    what is known of it beside its name, by where it was found ("models.root", "Ollama.digest", "replies.text"). template: the
    text of its chat template, "" where the server does not show it."""

    name: str
    limit: int
    facts: Mapping[str, str]
    template: str = ""

    @property
    def known_by(self) -> str:
        """What would show that another model is served under the name: "content" (a hash of its weights), "replies" (its greedy
        replies to fixed prompts), "entry" (what the server says of it), or "name": nothing."""
        if any(_CONTENT.search(name) for name in self.facts):
            return "content"
        if "replies.text" in self.facts:
            return "replies"
        return "entry" if self.facts else "name"

    def by_weight(self) -> list[str]:
        """The names of the facts, those that say most about the weights first."""
        telling = (
            "replies.text",
            "replies.model",
            "models.root",
            "model_path",
            "model_id",
            "size",
            "replies.",
            "quant",
            "type",
        )

        def order(name: str) -> tuple[bool, int]:
            weight = next((place for place, part in enumerate(telling) if part in name), len(telling))
            return not _CONTENT.search(name), weight

        return sorted(self.facts, key=order)


def find(server: Server, name: str | None) -> Served:
    """The model of that name, None for the only one that the server lists, as the server describes it. Raises InputError
    where the server cannot be reached, or lists several and none is named."""
    entries = _entries(server, required=name is None)
    if name is None:
        if len(entries) != 1:
            some = ", ".join(sorted(entries)[:5]) or "none"
            raise InputError(
                f"the server at {server.url} lists {len(entries)} models ({some}); name one with --served-model"
            )
        (name,) = entries
    entry = entries.get(name, {})
    facts = {f"models.{field}": value for field, value in _flat(entry) if field != "id"}
    template = ""
    for kind, path, fields in _ELSEWHERE:
        answer = server.look(path, {"model": name} if path in _POSTED else None)
        found = _of_model(answer, name)
        template = template or str(found.get("chat_template") or found.get("template") or "")
        wanted = {field: _field(found, field) for field in fields}
        facts |= {f"{kind}.{field}": value for field, value in _flat(wanted)}
    return Served(name, _limit(entry), facts, template)


def _entries(server: Server, required: bool) -> dict[str, Mapping[str, Any]]:
    """The models that the server lists, by name. Raises Refused where it has no list and one is required."""
    try:
        answer = server.get("/models", FIRST_ATTEMPTS)
    except Refused:
        if required:
            raise
        return {}
    listed = answer.get("data") if isinstance(answer, Mapping) else answer
    entries = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    return {str(item["id"]): item for item in entries if item.get("id") is not None}


def _limit(entry: Mapping[str, Any]) -> int:
    """The context limit in a model's entry: vLLM's max_model_len."""
    try:
        return max(0, int(entry.get("max_model_len") or 0))
    except (TypeError, ValueError, OverflowError):
        return 0


def _of_model(answer: Any, name: str) -> Mapping[str, Any]:
    """What an answer says of the model: the answer itself, or of a list in it the entry with the model's name."""
    if not isinstance(answer, Mapping):
        return {}
    listed = next((answer[key] for key in _LISTS if isinstance(answer.get(key), list)), None)
    if listed is None:
        return answer
    names = (name, f"{name}:latest")  # Ollama's default tag
    entries = [item for item in listed if isinstance(item, Mapping)]
    return next((item for item in entries if item.get("id") in names or item.get("name") in names), {})


def _field(found: Mapping[str, Any], path: str) -> Any:
    """A field by its path through nested objects, None where there is none."""
    value: Any = found
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The steady facts in nested objects, by path, as text."""
    for name, each in sorted(value.items()):
        if _UNSTEADY.search(name.lower()) or each in (None, "", [], {}):
            continue
        if isinstance(each, Mapping):
            yield from _flat(each, f"{above}{name}.")
        else:
            yield f"{above}{name}", _text(each)


def _text(value: Any) -> str:
    """A fact as text, the same for a number and its digits; of a long one the hash."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(text) <= LONGEST:
        return text
    return f"sha256 {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
