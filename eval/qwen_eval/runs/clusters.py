"""Which stored items belong together: by the cluster that their rows keep, or by the beginnings of stored prompts, for rows
that were stored before rows kept one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_eval.data.passages import passages
from qwen_eval.data.texts import common_prefix

Row = Mapping[str, Any]


def clusters_of(rows: Sequence[Row]) -> list[str | None]:
    """The name of every row's cluster within its group, "" for an item by itself, None where it is not known."""
    if all("cluster" in row for row in rows):
        return [row["cluster"] for row in rows]
    found: list[str | None] = [None] * len(rows)
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[row["group"]].append(index)
    for indices in members.values():
        texts = [_text(rows[index]["prompt"]) for index in indices]
        known = [text for text in texts if text is not None]
        if len(known) < len(texts):
            continue
        # the header and the shots; a single prompt cannot tell them from its question
        start = common_prefix(known) if len(known) > 1 else ""
        for index, name in zip(indices, passages(known, start), strict=True):
            found[index] = name
    return found


def _text(prompt: Any) -> str | None:
    """A stored prompt as text; of messages what they say. None for a hash or a measurement."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, (list, tuple)) and all(isinstance(turn, Mapping) for turn in prompt):
        return "\n".join(str(turn.get("content", "")) for turn in prompt)
    return None
