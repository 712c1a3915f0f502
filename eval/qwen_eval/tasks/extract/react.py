"""Tool use: the fields of a ReAct text (Thought, Action, Action Input, Observation, Final Answer)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from qwen_eval.tasks.extract import ending

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


# A marker is the first thing on its line; models set it in bold, or with a Chinese colon.
_LINE, _COLON = r"(?:\A|\n)[ \t]*\*{0,2}", r"\*{0,2}[ \t]*[:：]\*{0,2}"
_MARKERS = r"Observation|Thought|Action Input|Action|Final Answer|Question"
_ACTION = re.compile(rf"{_LINE}Action{_COLON}[ \t]*(?P<here>[^\n]*)(?=(?:\n\s*(?P<next>[^\n]*))?)")
_MARKER = re.compile(rf"[ \t]*\*{{0,2}}(?:{_MARKERS}){_COLON}")
_INPUT = re.compile(rf"(?:{_LINE}|[ \t])Action Input{_COLON}")
_NEXT = re.compile(rf"\n[ \t]*\*{{0,2}}(?:{_MARKERS}){_COLON}")
_FINAL = re.compile(rf"{_LINE}Final Answer{_COLON}")
_QUESTION = re.compile(rf"{_LINE}Question{_COLON}")
_FENCED = re.compile(r"`{3,}[ \t]*(?:json5?|JSON5?|python|text)?[ \t]*\n?(?P<inside>.*?)\s*(?:`{3,}.*)?", re.DOTALL)
# A name that says that there is no tool to call.
_NONE = re.compile(
    r"(?:none|nothing|null|nil|n/?a)\b.*|no"
    r"|(?:no|not)\b(?:[ \w]*\b)?(?:actions?|tools?|need(?:ed)?|required|necessary|applicable)\b.*"
    r"|[-—]+|无(?:需|法|须|合适|适用|可用|工具|动作|行动|操作|相关)?|(?:无(?:需|法|须|合适|适用|可用|相关)|没有|不需要|不必|不使用|不调用).*",
    re.IGNORECASE,
)


class _Action(NamedTuple):
    start: int
    end: int  # of the tool's name
    name: str


def _actions(reply: str) -> Iterator[_Action]:
    """The calls of a reply: the marker at the start of a line, and behind it or on the next line the name of a tool."""
    for found in _ACTION.finditer(reply):
        here, following = found["here"], found["next"] or ""
        if here.strip():
            name, end = here, found.end("here")
            if same_line := _INPUT.search(here):
                name, end = here[: same_line.start()], found.start("here") + same_line.start()
        elif following and not _MARKER.match(following):
            name, end = following, found.end("next")
        else:
            name, end = "", found.end("here")
        name = name.strip().strip("*`'\"[]").strip()
        if not _NONE.fullmatch(name.strip("()（）.。")):
            yield _Action(found.start(), end, name)


def react(reply: str) -> Call:
    """The first tool call of a reply: markers count at the start of a line only."""
    reply = _proper(reply)
    actions = list(_actions(reply))
    if not actions:
        thought, *answers = _FINAL.split(reply)
        return Call(_thought(thought), None, "", "", False, 0, answers[-1].strip() if answers else None)
    first = actions[0]
    end = actions[1].start if len(actions) > 1 else len(reply)
    marker = _INPUT.search(reply, first.end, end)
    text = ""
    if marker:
        following = _NEXT.search(reply, marker.end(), end)
        text = _input(reply[marker.end() : following.start() if following else end].strip())
    answers = _FINAL.split(reply[first.end :])[1:]
    return Call(
        thought=_thought(reply[: first.start]),
        action=first.name,
        input=text,
        arguments=canonical(text) if text else "",
        valid_json=_strict_json(text),
        actions=len(actions),
        final_answer=answers[-1].strip() if answers else None,
    )


def _proper(reply: str) -> str:
    """The reply up to its end. A question belongs to the format, but the one after a final answer is another."""
    reply = ending.reply(reply, questions=False)
    final = _FINAL.search(reply)
    following = _QUESTION.search(reply, final.end()) if final else None
    return reply[: following.start()] if following else reply


def _input(text: str) -> str:
    """An input without a fence around it, and without the marker that the end of the reply cut off ("Observ")."""
    before, _, last = text.rpartition("\n")
    if last and any(marker.startswith(last.strip()) for marker in ("Observation:", "Thought:", "Final Answer:")):
        text = before.rstrip() if len(last.strip()) > 2 or canonical(before) is not None else text
    fenced = _FENCED.fullmatch(text)
    return fenced["inside"] if fenced else text


def names_action(reply: str) -> bool:
    """Whether the reply uses a tool under `default`, where a line that starts with `Action:` and names one is a call."""
    return react(reply).action is not None


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
