"""The demonstration: its files are what its scripts write, no test question is in the training texts, and all of them
can be solved."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

import plugin_eval
from known import benchmark_of
from qwen_eval.data import demo, problems
from qwen_eval.data.files import Source
from qwen_eval.data.tools import agent_set
from qwen_eval.sandbox import Sandbox
from qwen_eval.tasks import agent
from qwen_eval.tasks.extract import react
from shared import REPOSITORY

sys.path.append(str(REPOSITORY / "demo"))  # its scripts find each other there
import tasks
import tool_calls
import tool_code

DRAWS = 3000  # texts of the training


def test_the_files_are_what_the_scripts_write(tmp_path: Path) -> None:
    for script in ("make_data.py", "documents.py"):
        subprocess.run([sys.executable, REPOSITORY / "demo" / script, tmp_path], check=True, capture_output=True)
    shipped = demo.FOLDER / "data"
    names = sorted(path.relative_to(shipped) for path in shipped.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for name in names:
        assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes(), name


def test_the_checkpoint_is_whole_and_small() -> None:
    folder = demo.checkpoint()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_500_000


def rows(part: str) -> list[dict]:
    return [json.loads(line) for line in (plugin_eval.OWN_SET.parent / f"{part}.jsonl").read_text().splitlines()]


def question(prompt: str) -> str:
    return prompt.rpartition("Question: ")[2]


def joined(make: Callable[[Random], tasks.Document]) -> list[str]:
    rng = Random(5)
    return ["".join(text for text, _ in make(rng)) for _ in range(DRAWS)]


def test_no_test_question_is_in_the_training_texts() -> None:
    """ReAct: the question, whatever tools are listed with it. Agent: the two wordings, whatever fills them."""
    asked = {question(row["prompt"]) for part in ("react_positive", "react_negative") for row in rows(part)}
    assert len(asked) > 60
    trained = {question(text).partition("<|im_end|>")[0] for text in joined(tool_calls.react)}
    assert len(trained) > 1000 and not asked & trained
    tested = {wordings for _, wordings in tool_code.sayings(test=True)}
    assert tested and not tested & {wordings for _, wordings in tool_code.TAUGHT}
    instructions = [task.instruction for task in agent_set(plugin_eval.OWN_SET).tasks]
    train_text = "".join(joined(lambda rng: tool_code.agent_drill(rng, 4)))
    assert len(instructions) == len(tested) and not any(text in train_text for text in instructions)
    names = {task.entry_point for task in problems.humaneval(Source(demo.FOLDER / "data" / "humaneval")).tasks}
    new = names - {function.name for function in tasks.fixed_functions()}
    chats = "".join(joined(tasks.chat))
    assert len(new) == 9 and "`add_1(x)`" in chats and not any(f"`{name}(x)`" in chats for name in new)


def turns(text: str) -> list[str]:
    """What the user says in a training text."""
    return [part.partition("<|im_end|>")[0] for part in text.split("<|im_start|>user\n")[1:]]


def test_the_training_prompts_are_those_of_the_benchmarks() -> None:
    own = agent_set(plugin_eval.OWN_SET)
    assert own.tools == tool_code.TOOLS
    (asked,) = turns("".join(text for text, _ in tool_code.agent(Random(0))))
    instruction = asked.split('Task: "')[-1].partition('"')[0]
    assert asked == agent.prompt(agent.AGENT_PROMPT, own.tools, instruction)
    functions = {function.name: function for function in tasks.fixed_functions() + tasks.number_functions(test=True)}
    for sample in benchmark_of("humaneval", "-c", "demo", "--chat").asked:
        (message,) = sample.request.prompt
        assert message["content"] == tasks.humaneval_turn(functions[sample.target])


def test_our_own_instructions_are_solved_by_the_code_in_the_training_texts() -> None:
    """Run in the sandbox, it gives the answers in the file."""
    own, rng = agent_set(plugin_eval.OWN_SET), Random("plugin/hfagent")
    drawn = [tool_code.instruction(rng, said) for said in tool_code.sayings(test=True)]
    assert [one.text for one in drawn] == [task.instruction for task in own.tasks]
    with Sandbox(workers=2, cpu_seconds=0.5) as sandbox:
        scores = agent.judge("default", own, list(zip(own.tasks, (one.reply() for one in drawn), strict=True)), sandbox)
    for score in scores:
        assert score.stats == {"selection": 1, "used": 1, "code": 1, "ok": 1}, score


@pytest.mark.parametrize("row", rows("react_positive"), ids=lambda row: question(row["prompt"]))
def test_the_gold_replies_call_a_tool_that_is_listed(row: dict) -> None:
    call = react.react(row["response"])
    assert call.actions == 1 and f"\n{call.action}: {tool_calls.TOOLS[str(call.action)]}\n" in row["prompt"]
    assert call.valid_json == (call.action != "python") and call.final_answer
    assert react.action_right_2023(row["response"], row["response"])
