"""Tool use: ReAct prompts with their gold replies, and instruction sets for agents that write code over fake tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword
from pathlib import Path
from string import Formatter
from typing import Any

from qwen_eval.data.files import json_lines, read_file, texts
from qwen_eval.schema import DataError

REACT_HOW = (
    "get exam_plugin_v20231206_react_positive.jsonl and ..._negative.jsonl (github.com/QwenLM/Qwen, eval/EVALUATION.md) "
    "and name them with --react-positive and --react-negative, or their folder with -d DIR"
)
AGENT_HOW = "the format is in eval/EVALUATION.md, Tool use; python tools/fetch_hfagent.py FILE writes the original set"
# the parts of a tool-use benchmark, and the endings of their files' names
TOOL_FILES = {
    "react_positive": "react_positive.jsonl",
    "react_negative": "react_negative.jsonl",
    "hfagent": "hfagent.jsonl",
}


@dataclass(frozen=True)
class ReactItem:
    """A ReAct prompt (the user's whole turn) and the gold reply, "" in the negative file, where no tool fits."""

    index: int
    prompt: str
    response: str


@dataclass(frozen=True)
class FakeTool:
    """A function that only describes what it would do.

    parameters: their names in order. defaults: values of the last ones. returns: the value, with {parameter} in place of
    arguments. requires: by parameter a text that its argument must contain; otherwise the call raises ValueError.
    """

    name: str
    description: str
    parameters: tuple[str, ...]
    returns: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentTask:
    """One instruction: the tools it needs, the variables that are given, and the values that count as right."""

    index: int
    instruction: str
    tools: tuple[str, ...]
    inputs: Mapping[str, Any]
    answers: tuple[Any, ...]


@dataclass(frozen=True)
class AgentSet:
    """Instructions, and all tools that an agent may choose from. problems: of every task the number of its problem, which
    several instructions may put in other words; None where it is not known."""

    tools: tuple[FakeTool, ...]
    tasks: tuple[AgentTask, ...]
    problems: tuple[int, ...] | None = None


def option(part: str) -> str:
    """The command-line option that names a part's file."""
    return f"--{part.replace('_', '-')}"


def tool_files(folder: Path) -> dict[str, Path]:
    """The files of a data folder (or of its sub-folders) by part: "react_positive", "react_negative", "hfagent".

    Raises DataError where there is none, or more than one for a part.
    """
    found: dict[str, Path] = {}
    for part, ending in TOOL_FILES.items():
        paths = sorted(folder.glob(f"*{ending}")) or sorted(folder.glob(f"*/*{ending}"))
        if len(paths) > 1:
            raise DataError(f"{folder} is ambiguous: {', '.join(map(str, paths))}; name one with {option(part)} FILE")
        if paths:
            found[part] = paths[0]
    if not found:
        endings = ", ".join(f"*{ending}" for ending in TOOL_FILES.values())
        raise DataError(f"{folder} holds none of {endings}; {REACT_HOW}; for the agent, {AGENT_HOW}")
    return found


def react_items(path: Path, positive: bool) -> tuple[ReactItem, ...]:
    """The items of a ReAct file: JSON lines with `prompt` and, in the positive one, `response`. Raises DataError."""
    items: list[ReactItem] = []
    names = ("prompt", "response") if positive else ("prompt",)
    for line, record in json_lines(read_file(path, REACT_HOW), REACT_HOW):
        where = f"{path}:{line}"
        picked = texts({name: record.get(name) for name in names}, where, REACT_HOW)
        for name, value in picked.items():
            if not value.strip():
                raise DataError(f"{where}: {name} is empty; {REACT_HOW}")
        items.append(ReactItem(len(items), picked["prompt"], picked.get("response", "")))
    return tuple(items)


def agent_set(path: Path) -> AgentSet:
    """An instruction set: JSON lines, each a tool or a problem (EVALUATION.md, Tool use, has the format).

    Raises DataError, with file and line, for anything that could not be asked or scored.
    """
    tools: dict[str, FakeTool] = {}
    problems: list[tuple[str, Mapping[str, Any]]] = []
    for line, record in json_lines(read_file(path, AGENT_HOW), AGENT_HOW):
        where = f"{path}:{line}"
        if "tool" in record:
            tool = _tool(record, where)
            if tool.name in tools:
                raise DataError(f"{where}: tool {tool.name!r} is repeated; {AGENT_HOW}")
            tools[tool.name] = tool
        elif "instructions" in record:
            problems.append((where, record))
        else:
            raise DataError(f"{where}: neither 'tool' nor 'instructions' is given; {AGENT_HOW}")
    tasks: list[AgentTask] = []
    numbers: list[int] = []
    for number, (where, problem) in enumerate(problems):
        tasks += _tasks(problem, where, tools, len(tasks))
        numbers += [number] * (len(tasks) - len(numbers))
    if not tools or not tasks:
        raise DataError(f"{path} has {len(tools)} tools and {len(tasks)} instructions; {AGENT_HOW}")
    return AgentSet(tuple(tools.values()), tuple(tasks), tuple(numbers))


def _tool(record: Mapping[str, Any], where: str) -> FakeTool:
    _only(record, ("tool", "description", "parameters", "defaults", "requires", "returns"), where)
    given = {"tool": record["tool"], "description": record.get("description", ""), "returns": record.get("returns")}
    name, description, returns = texts(given, where, AGENT_HOW).values()
    parameters = _text_list(record, "parameters", where)
    defaults, requires = (_object(record, key, where) for key in ("defaults", "requires"))
    for word in (name, *parameters):
        _identifier(word, where)
    if len(set(parameters)) < len(parameters):
        raise DataError(f"{where}: a parameter of {name} is repeated; {AGENT_HOW}")
    if list(parameters[len(parameters) - len(defaults) :]) != list(defaults):
        raise DataError(f"{where}: defaults of {name} are not those of its last parameters, in order; {AGENT_HOW}")
    for parameter, part in texts(requires, f"{where}: requires", AGENT_HOW).items():
        if parameter not in parameters or not part:
            raise DataError(f"{where}: {name} requires {part!r} of {parameter!r}, no parameter of it; {AGENT_HOW}")
    try:
        fields = {found for _, found, *_ in Formatter().parse(returns) if found is not None}
        returns.format(**dict.fromkeys(parameters, ""))
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise DataError(f"{where}: returns of {name} cannot be filled in ({error!r}); {AGENT_HOW}") from None
    if not fields <= set(parameters):
        raise DataError(f"{where}: returns of {name} may hold {{parameter}} and nothing else in braces; {AGENT_HOW}")
    return FakeTool(name, description, parameters, returns, defaults, requires)


def _tasks(record: Mapping[str, Any], where: str, tools: Mapping[str, FakeTool], first: int) -> list[AgentTask]:
    """The instructions of one problem, numbered from `first`."""
    _only(record, ("instructions", "tools", "inputs", "answers"), where)
    instructions, wanted = _text_list(record, "instructions", where), _text_list(record, "tools", where)
    inputs, answers = _object(record, "inputs", where), record.get("answers")
    for name in wanted:
        if name not in tools:
            raise DataError(f"{where}: tool {name!r} is not in this file; {AGENT_HOW}")
    for name in inputs:
        _identifier(name, where)
        if name in tools:
            raise DataError(f"{where}: input {name!r} has the name of a tool; {AGENT_HOW}")
    if not isinstance(answers, list) or not answers or None in answers:
        raise DataError(f"{where}: answers is {answers!r}, expected a list of values that count as right; {AGENT_HOW}")
    if not instructions or not wanted:
        raise DataError(f"{where}: instructions and tools may not be empty; {AGENT_HOW}")
    return [
        AgentTask(first + index, text, tuple(wanted), inputs, tuple(answers)) for index, text in enumerate(instructions)
    ]


def _only(record: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in record:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}, expected {', '.join(known)}; {AGENT_HOW}")


def _text_list(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise DataError(f"{where}: {key} is {value!r}, expected a list of texts; {AGENT_HOW}")
    return tuple(value)


def _object(record: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = record.get(key, {})
    if not isinstance(value, dict):
        raise DataError(f"{where}: {key} is {value!r}, expected an object; {AGENT_HOW}")
    return value


def _identifier(name: str, where: str) -> None:
    if not name.isidentifier() or iskeyword(name) or name.startswith("_"):
        raise DataError(f"{where}: {name!r} cannot be a name in a program; {AGENT_HOW}")
