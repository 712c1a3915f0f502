"""The HF agent benchmark: an instruction, tools to choose from, and code that is run over fake ones.

The scores are those of the agent evaluation that transformers carried from 4.29 to 4.4x (src/transformers/tools, later
agents, evaluate_agent.py), from which the Qwen-7B release took its table. The prompt here is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_eval import sandbox, schema
from qwen_eval.tasks import judging

if TYPE_CHECKING:
    from qwen_eval.data.tools import AgentSet, AgentTask, FakeTool

# where a template takes the list of tools and the instruction; the same as in transformers' own templates
TOOLS, TASK = "<<all_tools>>", "<<prompt>>"
BEGINNING = "I will use the following"  # of the reply: the prompt ends in it
FENCES = ("```", "```py", "```python")
SHOWN = 1000  # characters of a value that are stored
STEP = 0.25  # penalty for each missing and each unexpected tool

AGENT_PROMPT = f"""You solve a task by writing a few lines of Python that call tools. For every task you first say which \
tools you will use and why, each name in back-ticks, and then, after "Answer:", you give the code in a fence. The \
variables named in the task exist already. Call nothing but these tools; the last line computes the result.

Tools:
{TOOLS}

Task: "The `note` is a recipe in German. Draw the dish it describes."

{BEGINNING} tools: `translator` to turn the note into English, then `image_generator` to draw the dish.

Answer:
```py
english = translator(text=note, src_lang="German", tgt_lang="English")
image_generator(prompt=english)
```

Task: "How many people are in the `photo`? Say the answer aloud."

{BEGINNING} tools: `image_qa` to count the people, then `text_reader` to say the answer.

Answer:
```py
count = image_qa(image=photo, question="How many people are in the photo?")
text_reader(text=count)
```

Task: "{TASK}"

{BEGINNING}"""


def read_template(path: Path) -> str:
    """A custom prompt template, such as transformers' own. Raises DataError if it lacks the marker for the instruction."""
    try:
        template = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise schema.DataError(f"{path} cannot be read ({error}); name a UTF-8 text with --agent-prompt") from error
    if TASK not in template:
        raise schema.DataError(
            f"{path} has no {TASK}, where the instruction goes; {TOOLS} is where the tools are listed"
        )
    return template


def check_answers(agent: AgentSet, path: Path) -> None:
    """Raises DataError, which names the file of the set, for an answer that no program's result can be."""
    for task in agent.tasks:
        for answer in task.answers:
            if why := sandbox.not_plain(answer):
                raise schema.DataError(
                    f"{path}: instruction {task.index} from 0 has an answer that no result can be ({why}); shorten it"
                )


def prompt(template: str, tools: Sequence[FakeTool], instruction: str) -> str:
    """The template with the tools, one per line, and the instruction put in."""
    return template.replace(TOOLS, "\n".join(map(described, tools))).replace(TASK, instruction)


def described(tool: FakeTool) -> str:
    """`- image_qa(image, question): answers a question about an image`."""
    line = f"- {tool.name}({_signature(tool)})"
    return f"{line}: {tool.description}" if tool.description else line


def split(reply: str) -> tuple[str, str] | None:
    """Explanation and code, without the fence around the code; None where `Answer:` does not part the reply in two."""
    parts = reply.split("Answer:")
    if len(parts) != 2:
        return None
    lines = parts[1].strip().split("\n")
    if lines[0] in FENCES:
        del lines[0]
    if lines and lines[-1] == FENCES[0]:
        del lines[-1]
    return parts[0].strip(), "\n".join(lines)


def named(explanation: str, names: Iterable[str]) -> set[str]:
    """The names that stand in back-ticks."""
    return {name for name in names if f"`{name}`" in explanation}


def used(code: str, names: Iterable[str]) -> set[str]:
    """The names that occur in the code, as any part of it."""
    return {name for name in names if name in code}


def agreement(found: Collection[str], expected: Collection[str]) -> float:
    """1 for the expected set; a quarter less for each tool missing and each unexpected, not below 0."""
    return max(0.0, 1.0 - STEP * len(set(found) ^ set(expected)))


def code_score(recipe: str, outcome: sandbox.Outcome, answers: Sequence[Any]) -> float:
    """1 where the value is an accepted answer, 0.75 where a variable is, else 0.3; code that did not run to its end
    (raised, ran out of time, ended its process) 0, under `qwen2023` 0.3."""
    if outcome.status == "infrastructure":
        return 0.0
    if outcome.status != "ok":
        return 0.3 if recipe == "qwen2023" else 0.0
    if outcome.value in answers:
        return 1.0
    return 0.75 if any(value in answers for value in outcome.state.values()) else 0.3


def judge(
    recipe: str,
    agent: AgentSet,
    replies: Sequence[tuple[AgentTask, str]],
    pool: sandbox.Sandbox,
    done: Callable[[], None] = lambda: None,
) -> list[schema.Score]:
    """The three scores ("selection", "used", "code") of replies to tasks of the set, their code run in the sandbox.

    done is called as each is known. Beside the scores: "unsplit" 1.0 where `Answer:` did not part the reply, else the
    status its code ended with ("ok", "raised", "died", "timeout", "infrastructure") 1.0.
    """
    parts = [split(text) for _, text in replies]
    answered = [index for index, part in enumerate(parts) if part]
    snippets = [snippet(part[1], agent.tools, task) for (task, _), part in zip(replies, parts, strict=True) if part]
    outcomes = dict(zip(answered, pool.run(snippets, lambda _, outcome: done()), strict=True))
    names = [tool.name for tool in agent.tools]
    scores = []
    for index, ((task, _), part) in enumerate(zip(replies, parts, strict=True)):
        if part is None:
            done()
            scores.append(schema.Score({**_none().stats, "unsplit": 1.0}, None))
            continue
        score = partial(_score, recipe, task, *part, outcomes[index], names)
        scores.append(judging.guarded(f"hfagent/{task.index}", score, _none))
    return scores


def _score(
    recipe: str, task: AgentTask, explanation: str, code: str, outcome: sandbox.Outcome, names: Sequence[str]
) -> schema.Score:
    stats = {
        "selection": agreement(named(explanation, names), task.tools),
        "used": agreement(used(code, names), task.tools),
        "code": code_score(recipe, outcome, task.answers),
        outcome.status: 1.0,
    }
    value = (outcome.value if isinstance(outcome.value, str) else repr(outcome.value))[:SHOWN]
    said = {"explanation": explanation, "code": code, "status": outcome.status, "value": value}
    return schema.Score(stats, {**said, "detail": outcome.detail})


def _none() -> schema.Score:
    return schema.Score({"selection": 0.0, "used": 0.0, "code": 0.0}, None)


def snippet(code: str, tools: Sequence[FakeTool], task: AgentTask) -> sandbox.Snippet:
    """The code for the sandbox, with the fake tools and the task's variables ready."""
    inputs = [f"{name} = {value!r}" for name, value in task.inputs.items()]
    return sandbox.Snippet(code, "\n".join([*map(source, tools), *inputs]))


def source(tool: FakeTool) -> str:
    """The program text of a fake tool."""
    lines = [f"def {tool.name}({_signature(tool)}):"]
    for parameter, part in tool.requires.items():
        complaint = f"{parameter} holds no {part}"
        lines += [f"    if {part!r} not in {parameter}:", f"        raise ValueError({complaint!r})"]
    filled = ", ".join(f"{name}={name}" for name in tool.parameters)
    return "\n".join([*lines, f"    return {tool.returns!r}.format({filled})", ""])


def _signature(tool: FakeTool) -> str:
    defaults: Mapping[str, Any] = tool.defaults
    return ", ".join(f"{name}={defaults[name]!r}" if name in defaults else name for name in tool.parameters)
