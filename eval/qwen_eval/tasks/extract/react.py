"""Tool use: the fields of a ReAct text (Thought, Action, Action Input, Observation, Final Answer)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

JSON5_LIMIT = 8_000  # characters; json5 is a parser in Python and takes a second for these


class Fields2023(NamedTuple):
    """What the 2023 script cut out of a text. A field whose markers are missing holds whatever its arithmetic hit."""

    thought: str
    action: str
    action_input: str
    observation: str
    thought_last: str
    final_answer: str


def react_2023(text: str) -> Fields2023:
    """The fields under `qwen2023`: every marker by `str.find`, where a missing one has index -1."""
    text += "\n"

    def between(start: str, end: str) -> str:
        return text[text.find(start) + len(start) : text.find(end)].strip()

    last = text.rfind("Thought:")
    return Fields2023(
        thought=text[: text.find("Action:")].strip(),
        action=between("Action:", "Action Input:"),
        action_input=canonical(between("Action Input:", "Observation:")) or "",
        observation=text[text.find("Observation:") + len("Observation:") : last].strip(),
        thought_last=text[last + len("Thought:") : text.find("Final Answer:")].strip(),
        final_answer=text[text.find("Final Answer:") + len("Final Answer:") :].strip(),
    )


def names_action_2023(reply: str) -> bool:
    """Whether the reply uses a tool under `qwen2023` (on a negative item: a false positive)."""
    return "\nAction: " in reply


def action_right_2023(gold: str, reply: str) -> bool:
    """Whether the reply selects the gold text's tool under `qwen2023`."""
    return names_action_2023(reply) and _same_name(react_2023(gold).action, react_2023(reply).action)


@dataclass(frozen=True)
class Call:
    """The first tool call of a reply under `default`.

    action: the tool's name, None where no tool is called. input: the text of its input. arguments: that input as
    canonical JSON, "" where it is empty, None where it cannot be read. valid_json: the input is JSON, strictly.
    actions: how many calls the reply makes. final_answer: None where there is none.
    """

    thought: str
    action: str | None
    input: str
    arguments: str | None
    valid_json: bool
    actions: int
    final_answer: str | None


_ACTION = re.compile(r"(?:\AAction:|\nAction: )([^\n]*)")
_INPUT = re.compile(r"\n[ \t]*Action Input:")
_NEXT = re.compile(r"\n[ \t]*(?:Observation|Thought|Action|Final Answer):")
_FINAL = re.compile(r"(?:\A|\n)[ \t]*Final Answer:")


def react(reply: str) -> Call:
    """The first tool call of a reply: markers count at the start of a line only."""
    actions = list(_ACTION.finditer(reply))
    if not actions:
        *thought, answer = _FINAL.split(reply)
        return Call(
            _thought(thought[0] if thought else reply), None, "", "", False, 0, answer.strip() if thought else None
        )
    first = actions[0]
    end = actions[1].start() if len(actions) > 1 else len(reply)
    marker = _INPUT.search(reply, first.end(), end)
    text = ""
    if marker:
        following = _NEXT.search(reply, marker.end(), end)
        text = reply[marker.end() : following.start() if following else end].strip()
    answers = _FINAL.split(reply[first.end() :])
    return Call(
        thought=_thought(reply[: first.start()]),
        action=first.group(1).strip(),
        input=text,
        arguments=canonical(text) if text else "",
        valid_json=_strict_json(text),
        actions=len(actions),
        final_answer=answers[-1].strip() if len(answers) > 1 else None,
    )


def names_action(reply: str) -> bool:
    """Whether the reply uses a tool under `default`, where the reply may also start with `Action:`."""
    return _ACTION.search(reply) is not None


def action_right(gold: str, reply: str) -> bool:
    """Whether the reply selects the gold text's tool under `default`."""
    expected, called = react(gold).action, react(reply).action
    return expected is not None and called is not None and _same_name(expected, called)


def arguments_equal(gold: Call, reply: Call) -> bool:
    """Whether both inputs say exactly the same: the same JSON value; the same text where the gold one is not JSON."""
    if gold.arguments is None:
        return reply.arguments is None and gold.input == reply.input
    return gold.arguments == reply.arguments


def canonical(text: str) -> str | None:
    """A JSON or JSON5 text in one form: sorted keys, one spacing; None if it cannot be read."""
    try:
        return json.dumps(_loads(text), ensure_ascii=False, sort_keys=True)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None


def _loads(text: str) -> Any:
    """The value of a JSON5 text; of one beyond the limit only where it is JSON, which takes a thousandth of the time."""
    try:
        return json.loads(text)
    except ValueError:
        if len(text) > JSON5_LIMIT:
            raise
    import json5

    return json5.loads(text)


def _strict_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _same_name(one: str, other: str) -> bool:
    return one.strip().lower() == other.strip().lower()


def _thought(text: str) -> str:
    return text.strip().removeprefix("Thought:").strip()
