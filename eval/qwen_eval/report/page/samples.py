"""The samples of runs in the page's format: by column, every text once, shared prefixes of prompts separately.

A prompt is one string: messages are concatenated as RECORD + role + UNIT + content. Texts that occur several times (the shots
of a subject, the questions of two runs) are stored once in `pool`, and items refer to them by index.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_eval.data.texts import common_prefix
from qwen_eval.tasks.facts import USUAL, View

HASH = "SHA-256"
RECORD, UNIT = "\x1e", "\x1f"
RIGHT, WRONG, INVALID, UNJUDGED = "rwiu"


class Pool:
    """Texts by index, each stored once."""

    def __init__(self) -> None:
        self._indices: dict[str, int] = {}

    def index(self, text: str) -> int:
        """The index of a text, which is added if it is new."""
        return self._indices.setdefault(text, len(self._indices))

    def texts(self) -> list[str]:
        """All texts in the order of their indices."""
        return list(self._indices)


def columns(rows: Sequence[Mapping[str, Any]], pool: Pool, views: Sequence[View] = ()) -> dict[str, Any]:
    """Stored sample rows as columns. rows: as read_samples returns them, in the order in which they are shown. views: the
    benchmark's, which tell what is right."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    prompts = [prompt_text(row["prompt"]) for row in rows]
    heads = shared_heads([row["group"] for row in rows], prompts)
    statistics = list(dict.fromkeys(name for row in rows for name in row["stats"]))
    return {
        "id": [row["id"] for row in rows],
        "groups": groups,
        "group": [groups.index(row["group"]) for row in rows],
        "head": [pool.index(head) for head in heads],
        "rest": [pool.index(prompt[len(head) :]) for prompt, head in zip(prompts, heads, strict=True)],
        "status": "".join(status(row, views) for row in rows),
        "answer": [row["answer"] for row in rows],
        "target": [pool.index(shown(row["target"])) for row in rows],
        "reply": [reply(row) for row in rows],
        "statistics": statistics,
        "stats": [[row["stats"].get(name) for name in statistics] for row in rows],
    }


def prompt_text(prompt: Any) -> str:
    """A stored prompt as one string: text as it is, messages with their roles, the hash in the place of one as a message of
    HASH, anything else as JSON."""
    if isinstance(prompt, str):
        return _plain(prompt)
    if isinstance(prompt, list):
        return "".join(f"{RECORD}{_plain(turn['role'])}{UNIT}{_plain(turn['content'])}" for turn in prompt)
    if isinstance(prompt, dict) and prompt.keys() == {"sha256"}:
        return f"{RECORD}{HASH}{UNIT}{_plain(str(prompt['sha256']))}"
    return json.dumps(prompt, ensure_ascii=False)


def _plain(text: str) -> str:
    """A text with the two separators, if it contains any, replaced by their symbols."""
    return text.replace(RECORD, "\u241e").replace(UNIT, "\u241f")


def shared_heads(groups: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """For every prompt the prefix that it shares with all prompts of its group, up to the end of a line; "" where the group
    has one prompt."""
    members: dict[str, list[str]] = defaultdict(list)
    for group, prompt in zip(groups, prompts, strict=True):
        members[group].append(prompt)
    heads = {
        group: _head(texts) if len(texts) > 1 and not texts[0].startswith(RECORD + HASH) else ""
        for group, texts in members.items()
    }
    return [heads[group] for group in groups]


def _head(texts: Sequence[str]) -> str:
    common = common_prefix(texts)
    return common[: max(common.rfind("\n"), common.rfind(UNIT)) + 1]


def status(row: Mapping[str, Any], views: Sequence[View] = ()) -> str:
    """RIGHT, WRONG, INVALID (no answer) or, where a single item is neither (a translation, a perplexity), UNJUDGED. Programs
    are right when every sample passed."""
    stats = row["stats"]
    if stats.get("invalid") or stats.get("unsplit"):
        return INVALID
    for view in (*views, *USUAL):
        if view.decides and view.stat in stats and view.group in ("", row["group"]):
            value = stats[view.stat] / (stats[view.per] if view.per else 1.0)
            return RIGHT if (value == 0 if view.lower_is_better else value == 1) else WRONG
    return UNJUDGED


def shown(value: Any) -> str:
    """A gold answer as text."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def reply(row: Mapping[str, Any]) -> dict[str, Any]:
    """A stored response: log-probabilities of the options (p) with their labels (l) where those are not A, B, C ..., texts (t)
    with their reasoning (r) and end reasons (e), or the sums of a measurement (m)."""
    response = row["response"]
    if response["kind"] == "chosen":
        labels = {"l": row["labels"]} if "labels" in row else {}
        return {"p": [round(value, 5) for value in response["logprobs"]], **labels}
    if response["kind"] == "generated":
        found = {"t": response["texts"], "e": response["end_reasons"]}
        return found | ({"r": response["reasoning"]} if any(response["reasoning"]) else {})
    if response["kind"] == "unanswered":
        return {"t": [""], "e": [f"not asked, {response['tokens']} tokens in a context of {response['limit']}"]}
    return {"m": {name: value for name, value in response.items() if name != "kind"}}
