"""Tool use: the 2023 script's recorded answers, Rouge-L against its package, data files, whole runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

import plugin_eval
import report
import tiny
from known import benchmark_of, work
from qwen_eval.data import demo
from qwen_eval.data.tools import AgentTask, ReactItem, agent_set, react_items, tool_files
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.runs import results
from qwen_eval.schema import DataError, Generated, InputError, ModelSpec, Sample, Scored
from qwen_eval.stats import scores
from qwen_eval.tasks import agent
from qwen_eval.tasks.extract import react
from shared import REPOSITORY, shared

OWN = agent_set(plugin_eval.OWN_SET)
RECIPES = ("default", "qwen2023")


def reply(text: str, end: str = "eos") -> Generated:
    return Generated((text,), ("",), (end,))


def no_tokens(texts: Sequence[str]) -> list[list[str]]:
    raise AssertionError("the evaluated model's tokens are not asked for")


def asked(part: str, gold: str = "") -> Sample:
    return Sample(f"{part}/0", benchmark_of("plugin").ask(part, 0, "?"), gold, part)


def figures(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    return {(row["metric"], row["group"]): row for row in results.read_results(folder / "plugin.csv")}


# ------------------------------------------------------------------------------------------------------------ ReAct
def test_the_2023_script_s_recorded_answers() -> None:
    """Every parsed field of gold and reply, and both decisions, also as the benchmark scores them."""
    recorded = json.loads(shared("golden/plugin.json").read_text())
    assert len(recorded) == 72
    for row in recorded:
        assert react.react_2023(row["gen"])._asdict() == row["parsed"]
        assert react.react_2023(row["response"])._asdict() == row["gold_parsed"]
        positive, negative = asked("react_positive", row["response"]), asked("react_negative")
        spaced = [text.split() for text in (row["gold_parsed"]["action_input"], row["parsed"]["action_input"])]
        scored = plugin_eval.score_react_2023(positive, reply(row["gen"]), lambda texts, spaced=spaced: spaced)
        assert scored.answer == row["parsed"]
        assert scored.stats["selected"] == row["action_right"]
        assert (
            plugin_eval.score_react_2023(negative, reply(row["gen"]), no_tokens).stats["calls"] == row["false_positive"]
        )


PAIRS = [
    ('{"q": "weather in Paris"}', '{"q": "weather in Rome"}'),
    ('{"prompt": "一只在月光下睡觉的猫"}', '{"prompt": "月光下的猫"}'),
    ('{"a": 1}', "[1, 2, 3]"),
    ('{"city": "Köln", "n": 2.5}', '{"city": "Köln", "n": 2.5}'),
    ('{"text": "the red boat and the blue boat"}', '{"text": "the blue boat and the red boat"}'),
]


def turn(given: str) -> str:
    return f"Thought: t\nAction: tool\nAction Input: {given}\nObservation: seen"


class BySpaces:
    def tokenize(self, text: str) -> list[str]:
        return text.split()


class ByWords:
    def tokenize(self, text: str) -> list[str]:
        return scores.words(text)


@pytest.mark.parametrize(("gold", "given"), PAIRS)
def test_rouge_is_the_package_s_and_no_model_s_tokens_count(gold: str, given: str) -> None:
    scored = plugin_eval.score_react(asked("react_positive", turn(gold)), reply(turn(given)))
    one, other = react.canonical(gold), react.canonical(given)
    assert scored.stats["input"] == RougeScorer(["rougeL"], tokenizer=ByWords()).score(one, other)["rougeL"].fmeasure


@pytest.mark.parametrize("write", [tiny.write_qwen1, tiny.write_llama, tiny.write_qwen2])
def test_rouge_2023_in_the_evaluated_model_s_tokens(write: Any, tmp_path: Path) -> None:
    """Each token's bytes by themselves, joined by spaces, through the package; the tokens say which model it was."""
    engine = HFEngine(ModelSpec(str(write(tmp_path / "model"))))
    tokenizer = engine.checkpoint.tokenizer
    for gold, given in PAIRS:
        texts = []
        for text in map(react.canonical, (gold, given)):
            ids = tokenizer.encode(text)[len(tokenizer.encode("")) :]
            texts.append(" ".join(tokenizer.decode([index]) for index in ids))
        expected = RougeScorer(["rougeL"], tokenizer=BySpaces()).score(*texts)["rougeL"].fmeasure
        scored = plugin_eval.score_react_2023(
            asked("react_positive", turn(gold)), reply(turn(given)), engine.token_texts
        )
        assert scored.stats["input"] == expected


def test_the_same_pair_differs_between_models_only_under_2023(tmp_path: Path) -> None:
    sample, answer = asked("react_positive", turn(PAIRS[0][0])), reply(turn(PAIRS[0][1]))
    found = set()
    for number, words in enumerate((tiny.WORDS, (" weather in Paris", " Rome"))):
        engine = HFEngine(ModelSpec(str(tiny.write_qwen1(tmp_path / str(number), words=words))))
        found.add(plugin_eval.score_react_2023(sample, answer, engine.token_texts).stats["input"])
    assert len(found) == 2
    eleven_tokens_ten_in_common = pytest.approx(10 / 11)
    assert plugin_eval.score_react(sample, answer).stats["input"] == eleven_tokens_ten_in_common


@pytest.mark.parametrize(
    ("gold", "given", "score"),
    [
        ("", "", 1.0),  # two empty inputs
        ("", "{broken", 0.0),  # unreadable against empty
        ("{broken", "", 0.0),
        ('{"a": 1}', '{"a": 1', 0.0),  # a tool that wants JSON can do nothing with it
        ("print(1)", "print(1)", 1.0),  # code, not JSON: compared verbatim
        ("print(1)", "print(2)", 0.75),
        ('{"a": 1, "b": 2}', "{b: 2, 'a': 1}", 1.0),  # JSON5, keys in another order
        ('{"a": 1}', "", 0.0),
    ],
)
def test_inputs_under_default(gold: str, given: str, score: float) -> None:
    stats = plugin_eval.score_react(asked("react_positive", turn(gold)), reply(turn(given))).stats
    assert stats["input"] == score
    assert stats["same"] == (score == 1.0)


def test_no_call_has_no_input() -> None:
    stats = plugin_eval.score_react(asked("react_positive", turn("")), reply("I can answer that.")).stats
    assert (stats["selected"], stats["input"], stats["same"], stats["made"]) == (0, 0, 0, 0)


def test_two_empty_inputs_score_nothing_under_2023() -> None:
    scored = plugin_eval.score_react_2023(asked("react_positive", turn("")), reply(turn("")), lambda texts: [[], []])
    assert scored.stats["input"] == 0.0


def test_the_figures_reported_beside() -> None:
    """A reply that starts with the marker calls a tool under default only; the second call is counted."""
    text = 'Action: tool\nAction Input: {"a": 1}\nThought: more\nAction: other\nAction Input: {"b": 2}'
    sample = asked("react_positive", turn('{"a": 1}'))
    new = plugin_eval.score_react(sample, reply(text, "stop")).stats
    old = plugin_eval.score_react_2023(sample, reply(text, "length"), lambda texts: [["a"], ["a"]]).stats
    assert (new["selected"], new["calls"], new["several"], new["json"], new["end_stop"]) == (1, 1, 1, 1, 1)
    assert (old["calls"], old["several"], old["json"], old["end_length"], old["cut"]) == (1, 1, 1, 1, 1)
    only = reply('Action: tool\nAction Input: {"a": 1}')
    assert plugin_eval.score_react(asked("react_negative"), only).stats["calls"] == 1
    assert plugin_eval.score_react_2023(asked("react_negative"), only, no_tokens).stats["calls"] == 0


def test_generation_stops_where_the_tool_would_speak() -> None:
    for recipe, stop in (("default", ("Observation:",)), ("qwen2023", ())):
        request = benchmark_of("plugin", "--recipe", recipe).ask("react_positive", 0, "?")
        assert request.stop == stop and request.prompt == ({"role": "user", "content": "?"},)


# ------------------------------------------------------------------------------------------------------------- data
TOOL = {"tool": "speak", "parameters": ["text"], "returns": "sound of {text}"}
PROBLEM = {"instructions": ["Say `a`."], "tools": ["speak"], "inputs": {"a": "b"}, "answers": ["sound of b"]}


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_custom_instruction_set(tmp_path: Path) -> None:
    tool = {**TOOL, "description": "says it", "parameters": ["text", "speed"], "defaults": {"speed": 1}}
    made = agent_set(written(tmp_path / "x.jsonl", PROBLEM, tool))
    (speak,) = made.tools
    assert agent.described(speak) == "- speak(text, speed=1): says it"
    assert made.tasks == (AgentTask(0, "Say `a`.", ("speak",), {"a": "b"}, ("sound of b",)),)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ({"hello": 1}, "neither 'tool' nor 'instructions'"),
        ({**TOOL, "tool": "spe ak"}, "cannot be a name"),
        ({**TOOL, "tool": "for"}, "cannot be a name"),
        ({**TOOL, "tool": 3}, "tool is 3, expected text"),
        ({**TOOL, "parameters": "text"}, "parameters is 'text', expected a list of texts"),
        ({**TOOL, "parameters": ["a", "a"]}, "is repeated"),
        ({**TOOL, "returns": "{sound}"}, "cannot be filled in"),
        ({**TOOL, "returns": "{text"}, "cannot be filled in"),
        ({**TOOL, "returns": "{text.__class__}"}, "nothing else in braces"),
        ({**TOOL, "returns": None}, "returns is None, expected text"),
        ({**TOOL, "defaults": {"speed": 1}}, "defaults of speak"),
        ({**TOOL, "requires": {"audio": "x"}}, "no parameter of it"),
        ({**TOOL, "return": "x"}, "unknown key 'return'"),
        ({**PROBLEM, "tools": ["speek"]}, "tool 'speek' is not in this file"),
        ({**PROBLEM, "tools": []}, "may not be empty"),
        ({**PROBLEM, "instructions": []}, "may not be empty"),
        ({**PROBLEM, "inputs": ["a"]}, "expected an object"),
        ({**PROBLEM, "inputs": {"speak": 1}}, "the name of a tool"),
        ({**PROBLEM, "inputs": {"a b": 1}}, "cannot be a name"),
        ({**PROBLEM, "answers": "x"}, "expected a list of values"),
        ({**PROBLEM, "answers": []}, "expected a list of values"),
        ({**PROBLEM, "answer": ["x"]}, "unknown key 'answer'"),
    ],
)
def test_errors_name_file_and_line(line: object, says: str, tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", {**TOOL, "tool": "speak2"}, {**TOOL}, "", line, PROBLEM)
    if isinstance(line, dict) and "returns" in line:
        path = written(path, {**TOOL, "tool": "speak2"}, "", "", line, {**PROBLEM, "tools": ["speak2"]})
    with pytest.raises(DataError) as error:
        agent_set(path)
    assert str(error.value).startswith(f"{path}:4") and says in str(error.value)


def test_a_set_without_tools_or_instructions(tmp_path: Path) -> None:
    for row in (TOOL, ""):
        with pytest.raises(DataError, match=r"0 instructions|is empty"):
            agent_set(written(tmp_path / "set.jsonl", row))
    with pytest.raises(DataError, match="is repeated"):
        agent_set(written(tmp_path / "set.jsonl", TOOL, TOOL, PROBLEM))


def test_react_files(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", {"prompt": "q", "response": turn("{}"), "more": 1})
    assert react_items(path, positive=True) == (ReactItem(0, "q", turn("{}")),)
    for row, says in (({"prompt": "q"}, "response is None"), ({"prompt": " ", "response": "x"}, "prompt is empty")):
        with pytest.raises(DataError, match=rf":1: {says}"):
            react_items(written(path, row), positive=True)
    with pytest.raises(DataError, match="is missing; get exam_plugin"):
        react_items(tmp_path / "none.jsonl", positive=False)


def test_the_files_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds none of"):
        tool_files(tmp_path)
    inner = tmp_path / "plugin"
    inner.mkdir()
    negative = written(inner / "exam_plugin_v20231206_react_negative.jsonl", {"prompt": "q"})
    assert tool_files(inner) == tool_files(tmp_path) == {"react_negative": negative}
    written(inner / "other_react_negative.jsonl", {"prompt": "q"})
    with pytest.raises(DataError, match="name one with --react-negative FILE"):
        tool_files(inner)


# ------------------------------------------------------------------------------------------------------- whole runs
@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_qwen1(tmp_path_factory.mktemp("plugin") / "model", positions=4096, seq_length=4096)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_whole_run(recipe: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All three parts; every published figure in the CSV and in the tables of the report."""
    words = ["-c", checkpoint, "-d", "demo", "--recipe", recipe, "--max-new-tokens", 8, "-o", tmp_path, "--quiet"]
    assert work("plugin", *words) == 0
    first = capsys.readouterr().out
    assert "the agent's code ran in" in first and "data:demo-react_positive-" in first and "hfagent-own-" in first
    rows = figures(tmp_path)
    counts = {"tool_selection": 40, "tool_input": 40, "false_positive": 30, "several_actions": 70, "end_length": 70}
    assert {name: int(rows[name, "react"]["n"]) for name in counts} == counts
    assert {int(rows[name, "hfagent"]["n"]) for name in ("tool_selection", "tool_used", "code", "unsplit")} == {32}
    ends = sum(float(rows[f"end_{why}", "react"]["value"]) for why in plugin_eval.ENDS)
    assert ends == pytest.approx(100)
    assert work("plugin", *words) == 0  # stored replies, scored again
    assert "already in" in capsys.readouterr().out
    (tmp_path / "published.csv").write_bytes((REPOSITORY / "results" / "published.csv").read_bytes())
    make = report.read(tmp_path).markdown
    assert "| Qwen-7B-Chat | **99.0** | 0.89 | **9.7** | README |" in make("plugin")
    assert "| Qwen-7B-Chat | 90.74 | 92.59 | 74.07 | README |" in make("hfagent")
    assert "| 0.00 (0.00 to 11.50) | ours |" in make("hfagent") and "0.00 (0.00 to 0.09)" in make("plugin")


def test_replies_of_2023_scored_under_default_but_not_the_other_way(checkpoint: Path, tmp_path: Path) -> None:
    words = ["-d", "demo", "--max-new-tokens", 4, "--limit", 2, "-o", tmp_path, "--quiet"]
    runs = {}
    for recipe in RECIPES:
        work("plugin", "-c", checkpoint, "--recipe", recipe, *words)
        runs[recipe] = results.read_results(tmp_path / "plugin.csv")[-1]["run_id"]
    work("plugin", "--rescore", runs["qwen2023"], *words)
    with pytest.raises(InputError, match=r"tokens of .* are not stored"):
        work("plugin", "--rescore", runs["default"], "--recipe", "qwen2023", *words)


def test_known_replies_come_to_known_figures(tmp_path: Path) -> None:
    """Two of four right tools, input scores 1, 1/2, 0 and 0, one false positive of two, one agent task of two
    solved."""
    positive = written(tmp_path / "p.jsonl", *({"prompt": f"q{i}", "response": turn("a b")} for i in range(4)))
    negative = written(tmp_path / "n.jsonl", {"prompt": "q"}, {"prompt": "r"})
    tasks = written(tmp_path / "h.jsonl", TOOL, {**PROBLEM, "instructions": ["Say `a`.", "Say `a` aloud."]})
    given = ["--react-positive", positive, "--react-negative", negative, "--hfagent", tasks]
    benchmark = benchmark_of("plugin", *given)
    said = ["Thought: t\nAction: Tool \nAction Input: a b", "\nAction: tool\nAction Input: a c", "Action: x", "no"]
    said += ["x\nAction: tool", "hello", "with `speak`. Answer:\nspeak(a)", "with `speak`. Answer:\nspeak('c')"]
    replies = [reply(text) for text in said]
    assert benchmark.together
    scores = benchmark.score_all(benchmark.asked, replies, no_tokens, lambda: None)
    scored = [Scored(*row) for row in zip(benchmark.asked, replies, scores, strict=True)]
    found = {(metric.metric, metric.group): metric.value for metric in benchmark.metrics(scored)}
    assert found["tool_selection", "react"] == 50 and found["tool_input", "react"] == 0.375
    assert found["false_positive", "react"] == 50 and found["arguments_exact", "react"] == 25
    assert found["json_valid", "react"] == 0  # of three inputs that were given
    assert found["tool_selection", "hfagent"] == found["tool_used", "hfagent"] == 100
    assert found["code", "hfagent"] == pytest.approx(65)


def test_the_demonstration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (demo.FOLDER / "checkpoint").is_dir():
        pytest.skip("the demonstration checkpoint is not there")
    assert work("plugin", "-c", "demo", "-o", tmp_path, "--limit", 2, "--max-new-tokens", 64, "--quiet") == 0
    shown = capsys.readouterr().out
    assert "plugin  demo  chat, 0-shot, recipe default, fp32, dynamic_ntk+logn  (partial)" in shown
    rows = figures(tmp_path)  # of the first two items of each part, which it has learned to answer
    assert float(rows["tool_selection", "react"]["value"]) == 100 and float(rows["unsplit", "hfagent"]["value"]) == 0


def test_prompts_can_be_printed_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert work("plugin", "-c", "nobody/nothing", "--hfagent", "--dump-prompts", "-o", tmp_path) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == [f"hfagent/{index}" for index in range(len(OWN.tasks))]
    ((message,),) = [row["prompt"] for row in rows[:1]]
    assert message["content"].endswith(f'Task: "{OWN.tasks[0].instruction}"\n\nI will use the following')
    assert all(agent.described(tool) in message["content"] for tool in OWN.tools)
    assert not list(tmp_path.iterdir())


def test_the_agent_s_prompt_is_part_of_the_signature(tmp_path: Path) -> None:
    given = tmp_path / "prompt.txt"
    given.write_text("Tools:\n<<all_tools>>\nTask: <<prompt>>\nI will use the following")
    words = ("--hfagent", "--agent-prompt", given)
    ours, theirs = benchmark_of("plugin"), benchmark_of("plugin", *words)
    assert ours.signature["agent"] == hashlib.sha256(agent.AGENT_PROMPT.encode()).hexdigest()[:8]
    assert theirs.signature["agent"] == hashlib.sha256(given.read_bytes()).hexdigest()[:8]
    assert ours.signature["data"] == theirs.signature["data"] and ours.signature["data"].startswith("hfagent-own-")
    content = theirs.asked[0].request.prompt[0]["content"]
    assert content.startswith("Tools:\n- text_classifier(text, labels): ") and OWN.tasks[0].instruction in content
    given.write_text("no place")
    with pytest.raises(DataError, match="has no <<prompt>>"):
        benchmark_of("plugin", *words)


def test_shots_are_refused() -> None:
    with pytest.raises(InputError, match="no shots"):
        benchmark_of("plugin", "--shots", 3)
