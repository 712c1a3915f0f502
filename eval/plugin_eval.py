"""Tool use: ReAct prompts (is the right tool called, with the right input, and none where none fits?) and the HF agent
benchmark (does code over fake tools come to the right result?). Chat checkpoints only.

python eval/plugin_eval.py -c Qwen/Qwen-7B-Chat -d DIR    all that DIR holds of *react_positive.jsonl, *react_negative.jsonl
                                                          and *hfagent.jsonl
python eval/plugin_eval.py --react-positive FILE --react-negative FILE --hfagent FILE    all that are given
python eval/plugin_eval.py --hfagent               the agent on our own instructions; tools/fetch_hfagent.py gets the original
python eval/plugin_eval.py -d DIR --dump-prompts   prints the prompts, asks no model
python eval/plugin_eval.py -c demo                 the embedded demonstration, in seconds

The agent's code runs in the strongest isolation the machine offers, which the table names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qwen_eval import options, sandbox
from qwen_eval.data import demo, tools
from qwen_eval.data.files import content_hash
from qwen_eval.main import main
from qwen_eval.schema import Generate, Generated, InputError, Metric, Sample, Score, Scored
from qwen_eval.stats import intervals, scores
from qwen_eval.tasks import agent, generation, judging
from qwen_eval.tasks.benchmark import Benchmark, TokenTexts
from qwen_eval.tasks.extract import react
from qwen_eval.tasks.facts import Column, Table, View

OWN_SET = demo.FOLDER / "data" / "plugin" / "hfagent.jsonl"
# where the tool would speak now; where the agent's prompt would begin another task
STOPS = {"react_positive": "Observation:", "react_negative": "Observation:", "hfagent": "Task:"}
ENDS = ("eos", "stop", "length")
SCORES = ("input", "selection", "used", "code")  # statistics between 0 and 1
OWN_NOTE = (
    "Signatures with `hfagent-own` answer our own instructions in place of the 27 published ones; the agent's prompt is "
    "ours unless `--agent-prompt` gave another."
)
OWN_NOTE_ZH = (
    "签名含 `hfagent-own` 者回答的是我们自己的指令，而非已发布的 27 条；"
    "除非用 `--agent-prompt` 另行指定，代理提示也是我们自己的。"
)


def _agent_column(head: str, metric: str, zh: str) -> Column:
    published = (metric.replace("_", " "), "")
    return Column(head, (metric, "hfagent"), published, shots="0", table="hfagent", digits=2, zh=zh)


class Plugin(Benchmark):
    name, version, title, order = "plugin", 2, "Tool use", 7
    title_zh = "工具使用"
    shots = {"chat": 0}
    writes = ("chat",)
    recipes = ("default", "qwen2023")
    released = True
    headline = ("tool_selection", "all")
    suite = {"chat": ((),)}
    views = (
        View("tool_selection", "selected", "react_positive"),
        View("tool_input", "input", "react_positive", decides=False),
        View("false_positive", "calls", "react_negative", lower_is_better=True),
        View("agent_selection", "selection", "hfagent", decides=False),
        View("agent_used", "used", "hfagent", decides=False),
        View("agent_code", "code", "hfagent"),
    )
    columns = {
        "plugin": (
            Column("Tool selection (acc., ↑)", ("tool_selection", "react"), ("tool selection acc", ""), shots="0",
                   zh="工具选择（准确率，↑）"),
            Column("Tool input (Rouge-L, ↑)", ("tool_input", "react"), ("tool input rouge-l", ""), shots="0", digits=2,
                   zh="工具参数（Rouge-L，↑）"),
            Column("False positives (↓)", ("false_positive", "react"), ("false positive rate", ""), shots="0", lower=True,
                   zh="误报率（↓）"),
        ),
        "hfagent": (
            _agent_column("Tool selection (↑)", "tool_selection", "工具选择（↑）"),
            _agent_column("Tool used (↑)", "tool_used", "工具使用（↑）"),
            _agent_column("Code (↑)", "code", "代码（↑）"),
        ),
    }  # fmt: skip
    tables = (
        Table("plugin", "Tool use: ReAct plugins", mode="chat", order=3, readme=True,
              chinese={"Tool use: ReAct plugins": "工具使用：ReAct 插件"}),
        Table("hfagent", "Tool use: HF agent", mode="chat", notes=(OWN_NOTE,), order=4, readme=True,
              chinese={"Tool use: HF agent": "工具使用：HF agent", OWN_NOTE: OWN_NOTE_ZH}),
    )  # fmt: skip
    agent: tools.AgentSet | None = None
    template = ""

    def check_options(self) -> None:
        if self.shot_count:
            raise InputError("tool use has no shots; leave --shots out")

    def read(self) -> dict[str, Any]:
        """The items of every part that is asked: those given, else those of the data folder, else our own instructions."""
        given = {part: getattr(self.args, part) for part in STOPS if getattr(self.args, part)}
        folder = self.source.directory
        self.files = given or (tools.tool_files(folder) if folder else {"hfagent": OWN_SET})
        found: dict[str, Any] = {}
        for part, path in self.files.items():
            if part == "hfagent":
                self.agent = found[part] = tools.agent_set(path)
                agent.check_answers(self.agent, path)
                prompt = self.args.agent_prompt
                self.template = agent.read_template(prompt) if prompt else agent.AGENT_PROMPT
            else:
                found[part] = tools.react_items(path, positive=part == "react_positive")
        if self.agent and not self.args.dump_prompts:
            sandbox.tier(self.args.allow_unsandboxed)  # refuses now, not after hours of generation
        return found

    def data_origin(self) -> str:
        return "files"

    def parts(self) -> dict[str, Sequence[Any]]:
        return {}

    def samples(self) -> list[Sample]:
        """ReAct: the prompt is the user's whole turn, the target the gold reply. Agent: the instruction in the agent's
        prompt, the target the index of its task in the set."""
        made = []
        for part, items in self.data.items():
            if part == "hfagent":
                turns = [agent.prompt(self.template, items.tools, task.instruction) for task in items.tasks]
                names = [None] * len(turns) if items.problems is None else [f"problem {n}" for n in items.problems]
                made += [
                    Sample(f"{part}/{i}", self.ask(part, i, turn), i, part, cluster=name)
                    for i, (turn, name) in enumerate(zip(turns, names, strict=True))
                ]
            else:
                made += [
                    Sample(f"{part}/{item.index}", self.ask(part, item.index, item.prompt), item.response, part)
                    for item in items
                ]
        return made

    def ask(self, part: str, index: int, turn: str) -> Generate:
        """The user's turn. The 2023 script did not stop: the model went on and made up what the tool says."""
        stop = () if self.recipe == "qwen2023" else (STOPS[part],)
        return generation.chat(self.args, turn, f"{part}/{index}", stop=stop)

    def score_all(
        self, samples: Sequence[Sample], replies: Sequence[Generated], token_texts: TokenTexts, done: Callable[[], None]
    ) -> list[Score]:
        """Scores all replies; the agent's code runs in the sandbox, as many programs at a time as there are CPUs."""
        found: dict[str, Score] = {}
        asked = [(sample, reply) for sample, reply in zip(samples, replies, strict=True) if sample.group == "hfagent"]
        if self.agent and asked:
            tasks = [(self.agent.tasks[sample.target], reply.texts[0]) for sample, reply in asked]
            with sandbox.Sandbox(cpu_seconds=self.args.timeout, allow_unsandboxed=self.args.allow_unsandboxed) as pool:
                judged = agent.judge(self.recipe, self.agent, tasks, pool, done)
            for (sample, reply), score in zip(asked, judged, strict=True):
                found[sample.id] = Score({**score.stats, **ends(reply)}, score.answer)
        for sample, reply in zip(samples, replies, strict=True):
            if sample.group != "hfagent":
                found[sample.id] = self._score_react(sample, reply, token_texts)
                done()
        return [found[sample.id] for sample in samples]

    def _score_react(self, sample: Sample, reply: Generated, token_texts: TokenTexts) -> Score:
        def score(reply: Generated) -> Score:
            old = self.recipe == "qwen2023"
            return score_react_2023(sample, reply, token_texts) if old else score_react(sample, reply)

        def wrong() -> Score:
            return self.unanswered(sample, score(dataclasses.replace(reply, texts=("",))))

        return judging.guarded(sample.id, lambda: score(reply), wrong)

    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """The published figures of both groups and, beside them, why they are what they are."""
        positive, negative, code = ([item for item in scored if item.sample.group == part] for part in STOPS)
        both, made = positive + negative, [item for item in positive if item.score.stats["made"]]
        table = [
            ("tool_selection", "react", "selected", positive),
            ("tool_selection", "hfagent", "selection", code),
            ("tool_input", "react", "input", positive),
            ("false_positive", "react", "calls", negative),
            ("json_valid", "react", "json", made),
            ("arguments_exact", "react", "same", positive),
            ("several_actions", "react", "several", both),
            *((f"end_{why}", "react", f"end_{why}", both) for why in ENDS),
            ("tool_used", "hfagent", "used", code),
            ("code", "hfagent", "code", code),
            *((kind, "hfagent", kind, code) for kind in ("unsplit", "raised", "died", "timeout", "infrastructure")),
            *((f"end_{why}", "hfagent", f"end_{why}", code) for why in ENDS),
        ]
        return [self._figure(*row) for row in table if row[-1]]

    @staticmethod
    def _figure(name: str, group: str, stat: str, items: Sequence[Scored]) -> Metric:
        """Scores between 0 and 1 are means, of tool inputs as a fraction, of the agent in percent; all others are shares."""
        values, by = [item.score.stats.get(stat, 0.0) for item in items], intervals.clusters_of(items)
        if stat not in SCORES:
            return intervals.share(name, group, values, by)
        return intervals.mean(name, group, values, by, percent=group == "hfagent")

    def remarks(self, scored: Sequence[Scored]) -> list[str]:
        """What was not asked, the isolation of the agent's code, what could not be scored, and how the replies ended."""
        lines = [f"not asked: {part} (give {tools.option(part)} FILE)" for part in STOPS if part not in self.files]
        if "hfagent" in self.files:
            tier = sandbox.tier(self.args.allow_unsandboxed)
            lines.append(f"the agent's code ran in {tier}, {self.args.timeout:g} s of CPU time each")
        lost = sum(item.score.stats.get("infrastructure", 0.0) for item in scored)
        if lost:
            lines.append(f"warning: the code of {lost:.0f} replies was not judged (the sandbox failed); run it again")
        return lines + generation.remarks(scored)

    def fields(self) -> dict[str, str]:
        found, hashes = generation.signature(self.args), []
        for part, path in self.files.items():
            if part == "hfagent":
                assert self.agent
                found |= {"agent": generation.digest(self.template), "cpu": f"{self.args.timeout:g}s"}
                name = "hfagent-own" if path.resolve() == OWN_SET else part
                hashes.append(f"{name}-{content_hash([*self.agent.tools, *self.agent.tasks])}")
            else:
                found["rouge"] = "own-tokens" if self.recipe == "qwen2023" else "words"
                hashes.append(f"{part}-{content_hash(self.data[part])}")
        return {**found, "data": "+".join(hashes)}

    @classmethod
    def add_options(cls, parser: options.Parser) -> None:
        add = parser.add_argument
        add("--react-positive", type=Path, metavar="FILE", help="JSONL: prompt, response")
        add("--react-negative", type=Path, metavar="FILE", help="JSONL: prompt; no tool fits")
        add("--hfagent", type=Path, nargs="?", const=OWN_SET, metavar="FILE", help="instructions for the agent (ours)")
        add("--agent-prompt", type=Path, metavar="FILE", help=f"prompt with {agent.TOOLS} and {agent.TASK} (ours)")
        add("--timeout", type=options.seconds, default=3.0, metavar="S", help="CPU seconds of a program (default 3)")
        add("--allow-unsandboxed", action="store_true", help="where nothing isolates, run with limits alone")


def score_react(sample: Sample, reply: Generated) -> Score:
    """One reply under `default`: its first tool call against the gold one, markers at the start of a line only."""
    text = reply.texts[0].split(STOPS[sample.group])[0]  # replies that were stored under the other recipe go on
    call = react.react(text)
    stats = beside(sample, call, reply) | {"calls": react.names_action(text)}
    if sample.group == "react_positive":
        gold = react.react(sample.target)
        stats |= {"selected": react.action_right(sample.target, text), "input": input_similarity(gold, call)}
    return Score({name: float(value) for name, value in stats.items()}, {"action": call.action, "input": call.input})


def input_similarity(gold: react.Call, call: react.Call) -> float:
    """Rouge-L F1 of two inputs, on tokens that do not depend on the model. Two empty inputs are equal. An input that cannot
    be parsed scores 0, unless the gold one is not JSON either (plain code): then both are compared as written."""
    if call.action is None:
        return 0.0
    one, other = (gold.arguments, call.arguments) if gold.arguments is not None else (gold.input, call.input)
    if other is None:
        return 0.0
    return 1.0 if one == other == "" else scores.rouge_l(scores.words(one), scores.words(other))


def score_react_2023(sample: Sample, reply: Generated, tokens: TokenTexts) -> Score:
    """One reply as the 2023 script scored it, inputs in the evaluated model's own tokens; two empty ones score 0."""
    text = reply.texts[0]
    fields = react.react_2023(text)
    stats = beside(sample, react.react(text), reply) | {"calls": react.names_action_2023(text)}
    if sample.group == "react_positive":
        pieces = tokens([react.react_2023(sample.target).action_input, fields.action_input])
        stats["selected"] = react.action_right_2023(sample.target, text)
        stats["input"] = scores.rouge_l(*(" ".join(texts).split() for texts in pieces))
    return Score({name: float(value) for name, value in stats.items()}, fields._asdict())


def beside(sample: Sample, call: react.Call, reply: Generated) -> dict[str, float]:
    """What is told beside the published figures, the same in both recipes."""
    same = call.action is not None and react.arguments_equal(react.react(sample.target), call)
    stats = {"several": call.actions > 1, "made": call.action is not None, "json": call.valid_json, "same": same}
    return {**stats, **ends(reply)}


def ends(reply: Generated) -> dict[str, float]:
    """How the reply ended."""
    return {**generation.endings(reply), f"end_{reply.end_reasons[0]}": 1.0}


if __name__ == "__main__":
    main(Plugin)
