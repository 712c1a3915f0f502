"""The HF agent benchmark: scores computed by hand, the code in the sandbox, the original set read and never run."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import plugin_eval
from known import benchmark_of
from qwen_eval import terminal
from qwen_eval.data.tools import AgentSet, AgentTask, FakeTool, agent_set
from qwen_eval.sandbox import Sandbox
from qwen_eval.schema import Sample, Score, Scored
from qwen_eval.tasks import agent
from shared import REPOSITORY, shared
from test_plugin import reply, written

OWN = agent_set(plugin_eval.OWN_SET)
RECIPES = ("default", "qwen2023")


def original_set() -> AgentSet:
    """The shared record of the original instructions in our own records."""
    content = json.loads(shared("data/hfagent/tasks.json").read_text())
    tools = []
    for name, entry in content["tools"].items():
        returns, _, condition = entry["returns"].partition("  (error unless ")
        requires = dict([condition.removesuffix(")").split(" is in ")[::-1]]) if condition else {}
        parameters = [text.split("=")[0] for text in entry["parameters"]]
        defaults = {text.split("=")[0]: int(text.split("=")[1]) for text in entry["parameters"] if "=" in text}
        wanted = {parameter: part.strip("'") for parameter, part in requires.items()}
        tools.append(FakeTool(name, "", tuple(parameters), returns, defaults, wanted))
    tasks: list[AgentTask] = []
    for entry in content["problems"]:
        for text in entry["instructions"]:
            tasks.append(AgentTask(len(tasks), text, tuple(entry["tools"]), entry["inputs"], tuple(entry["answers"])))
    return AgentSet(tuple(tools), tuple(tasks))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=2, cpu_seconds=0.5) as pool:
        yield pool


DRAW = "tools: `image_generator` to draw and `image_transformer` to change it."
CODE = "image = image_generator(text_input)\nimage_transformer(image, prompt)"
# task 6 of the original, which takes image_generator and image_transformer:
# explanation, code, tool selection, tool used, code under default, code under qwen2023
BY_HAND = {
    "perfect": (DRAW, CODE, 1, 1, 1, 1),
    "value assigned last": (DRAW, "r = image_transformer(image_generator(text_input), prompt)", 1, 1, 1, 1),
    "missing tool": ("tool: `image_generator`.", "image_generator(text_input)", 0.75, 0.75, 0.3, 0.3),
    "no back-ticks": ("tools: image_generator, image_transformer.", CODE, 0.5, 1, 1, 1),
    "extra tool": (DRAW + " And `text_reader`.", CODE + "\ntext_reader(prompt)", 0.75, 0.75, 0.3, 0.3),
    "two extra, one missing": (
        "`image_generator` `text_reader` `summarizer`",
        "text_reader(summarizer(image_generator(prompt)))",
        0.25,
        0.25,
        0.3,
        0.3,
    ),
    "five wrong": (
        "`translator` `text_reader` `summarizer` `transcriber`",
        "translator(text_reader(summarizer(prompt)), 'a', 'b')",
        0,
        0,
        0.3,
        0.3,
    ),
    "value left in a variable": (DRAW, f"done = {CODE.splitlines()[1]}".replace("image,", "image_generator(text_input),")
                                 + "\n'finished'", 1, 1, 0.75, 0.75),
    "value printed": (DRAW, CODE.replace("image_transformer", "made = image_transformer") + "\nprint(made)", 1, 1, 0.75,
                      0.75),
    "raises": (DRAW, "image_transformer(image_generator(text_input), missing)", 1, 1, 0, 0.3),
    "raises with the value at hand": (DRAW, f"made = {CODE.splitlines()[1]}".replace(
        "image,", "image_generator(text_input),") + "\n1 / 0", 1, 1, 0, 0.3),
    "a tool refuses": (DRAW, "image_generator(image_transformer(text_input, prompt))", 1, 1, 0, 0.3),
    "no program": (DRAW, "image_generator then image_transformer!", 1, 1, 0, 0.3),
    "loops": (DRAW, "while True:\n    image_transformer(image_generator(text_input), prompt)", 1, 1, 0, 0.3),
    "imports os": (DRAW, f"import os\n{CODE}", 1, 1, 1, 1),
    "removes with os": (DRAW, f"import os\nos.remove('/etc/passwd')\n{CODE}", 1, 1, 0, 0.3),
    "leaves with os": (DRAW, f"import os\nos._exit(0)\n{CODE}", 1, 1, 0, 0.3),
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_agent_scores_by_hand(recipe: str, sandbox: Sandbox) -> None:
    original = original_set()
    replies = [f"{said}\n\nAnswer:\n```py\n{code}\n```" for said, code, *_ in BY_HAND.values()]
    scores = agent.judge(recipe, original, [(original.tasks[6], text) for text in replies], sandbox)
    for (name, (*_, selection, used, default, old)), score in zip(BY_HAND.items(), scores, strict=True):
        found = tuple(score.stats[stat] for stat in ("selection", "used", "code"))
        assert found == (selection, used, default if recipe == "default" else old), (name, score)
    statuses = [score.answer["status"] for score in scores]
    assert statuses == ["ok"] * 9 + ["raised"] * 4 + ["timeout", "ok", "raised", "died"]


@pytest.mark.parametrize("text", [f"{DRAW}\n{CODE}", f"{DRAW}\nAnswer:\n{CODE}\nAnswer:\n{CODE}", "", "Answer"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_reply_without_a_single_answer_marker_scores_zero(recipe: str, text: str, sandbox: Sandbox) -> None:
    (score,) = agent.judge(recipe, OWN, [(OWN.tasks[0], text)], sandbox)
    assert score.stats == {"selection": 0, "used": 0, "code": 0, "unsplit": 1}


@pytest.mark.parametrize(
    ("reply_text", "code"),
    [
        ("x Answer: a()", "a()"),
        ("x\n\nAnswer:\n```py\na()\nb()\n```\n", "a()\nb()"),
        ("x Answer:\n```python\na()\n```", "a()"),
        ("x Answer:```\na()\n```", "a()"),
        ("x Answer:\n```py\na()\n```\nThat is all.", "a()\n```\nThat is all."),  # not a surrounding fence
        ("x Answer:\n```js\na()\n```", "```js\na()"),
        ("x Answer:", ""),
        ("x Answer:```", ""),
    ],
)
def test_explanation_and_code(reply_text: str, code: str) -> None:
    assert agent.split(reply_text) == ("x", code)


def test_the_code_never_touches_this_process(tmp_path: Path, sandbox: Sandbox) -> None:
    trace = tmp_path / "trace"
    code = f"import os\nos.system('touch {trace}')\nopen({str(trace)!r}, 'w').write('x')"
    (score,) = agent.judge("default", OWN, [(OWN.tasks[0], f"x Answer:\n{code}")], sandbox)
    assert score.stats["code"] == 0 and score.answer["status"] == "raised" and not trace.exists()


def test_the_original_s_fake_tools(sandbox: Sandbox) -> None:
    """What each returns, and that four of them refuse what is not an image or sound."""
    original = original_set()
    assert len(original.tools) == 13 and len(original.tasks) == 27
    calls = {tool.name: f"{tool.name}({', '.join(repr(p) for p in tool.parameters)})" for tool in original.tools}
    task = dataclasses.replace(original.tasks[0], inputs={})
    refused = []
    for tool, outcome in zip(
        original.tools, sandbox.run([agent.snippet(c, original.tools, task) for c in calls.values()]), strict=True
    ):
        if outcome.status == "raised":
            refused.append(tool.name)
        else:
            assert outcome.value == tool.returns.format(**{name: name for name in tool.parameters})
    assert refused == ["transcriber"]  # image is in 'image', sound is not in 'audio'
    wrong = [f"{name}('picture', 'x')" for name in ("image_transformer", "image_qa")] + ["image_captioner('picture')"]
    found = sandbox.run([agent.snippet(code, original.tools, task) for code in wrong])
    assert {outcome.status for outcome in found} == {"raised"}
    assert agent.described(original.tools[-1]) == "- video_generator(prompt, seconds=2)"


def test_half_a_point_in_27_is_1_85() -> None:
    stats = {"selection": 0.0, "used": 1.0, "code": 0.0, "texts": 1.0, "cut": 0.0, "truncated": 0.0}
    benchmark = benchmark_of("plugin", "--hfagent")
    samples = [Sample(f"hfagent/{i}", benchmark.ask("hfagent", i, "?"), i, "hfagent") for i in range(27)]
    scored = [Scored(one, reply(""), Score({**stats, "code": 0.5 * (i == 13)}, None)) for i, one in enumerate(samples)]
    found = {metric.metric: metric for metric in benchmark.metrics(scored)}
    assert found["code"].value == pytest.approx(100 * 0.5 / 27) and found["code"].n == 27
    assert (found["tool_selection"].value, found["tool_used"].value) == (0.0, 100.0)
    shown = terminal.table(benchmark.headline[0], list(found.values()), "t", "s", [])
    assert "code hfagent              1.85" in shown


MODULE = """
def speaker(text):
    return f"sound of {text} {{!}}."
def cutter(image, label, size=3):
    if "image" not in image:
        raise ValueError("no image")
    return f"{label} of {image}"
TEST_TOOLS = {"speak": speaker, "cut": cutter}
EVALUATION_TASKS = [
    Problem(task=["One `image`.", "Two " "`image`."], inputs=["image"],
            answer=["speak(cut(image, label='x'))", "speak(image)"]),
    Problem(task=["Say it."], inputs={"text": "hello"}, answer="speak('hello')"),
]
raise SystemExit("this module is never run")
"""


def fetch() -> Any:
    spec = importlib.util.spec_from_file_location("fetch_hfagent", REPOSITORY / "tools" / "fetch_hfagent.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, text: str) -> tuple[Path, str]:
    path = folder / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("transformers/tools/evaluate_agent.py", text)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_original_is_read_and_never_run(tmp_path: Path) -> None:
    script = fetch()
    rows = script.convert(script.read_module(*wheel(tmp_path, MODULE)))
    found = agent_set(written(tmp_path / "hfagent.jsonl", *rows))
    assert [tool.name for tool in found.tools] == ["speak", "cut"]
    assert found.tools[1] == FakeTool(
        "cut", "", ("image", "label", "size"), "{label} of {image}", {"size": 3}, {"image": "image"}
    )
    first = AgentTask(0, "One `image`.", ("speak", "cut"), {"image": "<<image>>"}, ())
    assert found.tasks[0] == dataclasses.replace(
        first, answers=("sound of x of <<image>> {!}.", "sound of <<image>> {!}.")
    )
    assert found.tasks[1].instruction == "Two `image`."
    assert found.tasks[2] == AgentTask(2, "Say it.", ("speak",), {"text": "hello"}, ("sound of hello {!}.",))


def test_another_package_is_refused(tmp_path: Path) -> None:
    script = fetch()
    path, _ = wheel(tmp_path, MODULE)
    with pytest.raises(script.Unexpected, match="is not transformers"):
        script.read_module(path)
    changed = MODULE.replace('    return f"sound', '    print("!")\n    return f"sound')
    with pytest.raises(script.Unexpected, match="does more than it is known to do"):
        script.convert(script.read_module(*wheel(tmp_path, changed)))
