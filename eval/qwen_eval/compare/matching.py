"""Finds the items of another harness's samples among ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_eval.compare.readers.common import Item, Samples

SLACK = 80  # characters of a prompt after the question and between its choices, as "Answer:" or labels


def match(samples: Samples, rows: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Item], list[Item]]:
    """Their items by our sample ids, and those without a counterpart. rows: ours by sample id.

    An item is looked up first at its own position (subject by the task's name, number by the row), and matches when its
    question and choices stand at the end of our prompt; then anywhere in the subject. Without stored prompts, or where
    their file does not have the question, the position alone decides. Where the texts of the options are scored (responses
    with totals), the prompt has the question alone.
    """
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(row["group"], []).append(name)
    prompts = {name: _without_spaces(_last_text(row["prompt"])) for name, row in rows.items()}
    shown = {name: _question if "totals" in row["response"] else _everything for name, row in rows.items()}
    matched: dict[str, Item] = {}
    unmatched: list[Item] = []
    for item in samples.items:
        group = max(
            (group for group in groups if group and item.task.replace("-", "_").endswith(group)), key=len, default=""
        )
        at_position = f"{group}/{item.index}" if group else item.index
        candidates = [name for name in (at_position, f"HumanEval/{item.index}") if name in rows]
        texts = [_without_spaces(text) for text in item.texts if text.strip()]
        ours = next((name for name in candidates if _asks(prompts[name], shown[name](texts))), None)
        if ours is None and texts:
            others = (name for name in groups.get(group) or rows if name not in matched and prompts[name])
            ours = next((name for name in others if _asks(prompts[name], shown[name](texts))), None)
        if ours is None or ours in matched:
            unmatched.append(item)
        else:
            matched[ours] = item
    return matched, unmatched


def _question(texts: list[str]) -> list[str]:
    return texts[:1]


def _everything(texts: list[str]) -> list[str]:
    return texts


def _asks(prompt: str, texts: Sequence[str]) -> bool:
    """Whether a prompt ends in this question: all its texts stand in the last part that they can fill."""
    tail = prompt[-(sum(map(len, texts)) + SLACK + 4 * len(texts)) :]
    return not prompt or not texts or all(text in tail for text in texts)


def _last_text(prompt: Any) -> str:
    """The text of a stored prompt, of messages the last one; "" where only its hash is stored."""
    if isinstance(prompt, str):
        return prompt
    return str(prompt[-1].get("content", "")) if isinstance(prompt, list) and prompt else ""


def _without_spaces(text: str) -> str:
    return "".join(text.split())
