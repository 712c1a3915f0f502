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

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from qwen_eval import data, main, options, sandbox, schema
from qwen_eval.stats import metrics
from qwen_eval.tasks import agent as hfagent
from qwen_eval.tasks import generation
from qwen_eval.tasks.extract import react

OWN_SET = Path(__file__).resolve().parents[1] / "demo" / "data" / "plugin" / "hfagent.jsonl"
# where the tool would speak now; where the agent's prompt would begin another task
STOPS = {"react_positive": "Observation:", "react_negative": "Observation:", "hfagent": "Task:"}
ENDS = ("eos", "stop", "length")


def ask(args: argparse.Namespace, part: str, index: int, turn: str) -> schema.Generate:
    """The user's turn. The 2023 script did not stop: the model went on and made up what the tool says."""
    stop = () if args.recipe == "qwen2023" else (STOPS[part],)
    return generation.chat(args, turn, f"{part}/{index}", stop=stop)


def react_samples(args: argparse.Namespace, part: str, items: Sequence[data.ReactItem]) -> list[schema.Sample]:
    """The prompt is the user's whole turn; the target is the gold reply."""
    return [
        schema.Sample(f"{part}/{item.index}", ask(args, part, item.index, item.prompt), item.response, part)
        for item in items
    ]


def agent_samples(args: argparse.Namespace, template: str, agent: data.AgentSet) -> list[schema.Sample]:
    """The instruction in the agent's prompt; the target is the place of its task in the set."""
    turns = [hfagent.prompt(template, agent.tools, task.instruction) for task in agent.tasks]
    return [schema.Sample(f"hfagent/{i}", ask(args, "hfagent", i, turn), i, "hfagent") for i, turn in enumerate(turns)]


def score_react(sample: schema.Sample, reply: schema.Generated) -> schema.Score:
    """One reply under `default`: its first tool call against the gold one, markers at the start of a line only."""
    text = reply.texts[0].split(STOPS[sample.group])[0]  # replies that were stored under the other recipe go on
    call = react.react(text)
    stats = beside(sample, call, reply) | {"calls": react.names_action(text)}
    if sample.group == "react_positive":
        gold = react.react(sample.target)
        stats |= {"selected": react.action_right(sample.target, text), "input": input_similarity(gold, call)}
    return schema.Score(
        {name: float(value) for name, value in stats.items()}, {"action": call.action, "input": call.input}
    )


def input_similarity(gold: react.Call, call: react.Call) -> float:
    """Rouge-L F1 of two inputs in tokens that no model has a say in. Two empty inputs are equal. An input that cannot be
    read is worth 0, unless the gold one is no JSON either (plain code): then both are compared as they stand."""
    if call.action is None:
        return 0.0
    one, other = (gold.arguments, call.arguments) if gold.arguments is not None else (gold.input, call.input)
    if other is None:
        return 0.0
    return 1.0 if one == other == "" else metrics.rouge_l(metrics.words(one), metrics.words(other))


def score_react_2023(sample: schema.Sample, reply: schema.Generated, tokens: schema.TokenTexts) -> schema.Score:
    """One reply as the 2023 script scored it, inputs in the evaluated model's own tokens; two empty ones score 0."""
    text = reply.texts[0]
    fields = react.react_2023(text)
    stats = beside(sample, react.react(text), reply) | {"calls": react.names_action_2023(text)}
    if sample.group == "react_positive":
        pieces = tokens([react.react_2023(sample.target).action_input, fields.action_input])
        stats["selected"] = react.action_right_2023(sample.target, text)
        stats["input"] = metrics.rouge_l(*(" ".join(texts).split() for texts in pieces))
    return schema.Score({name: float(value) for name, value in stats.items()}, fields._asdict())


def beside(sample: schema.Sample, call: react.Call, reply: schema.Generated) -> dict[str, float]:
    """What is told beside the published figures, the same in both recipes."""
    same = call.action is not None and react.arguments_equal(react.react(sample.target), call)
    stats = {"several": call.actions > 1, "made": call.action is not None, "json": call.valid_json, "same": same}
    return {**stats, **generation.endings(reply), f"end_{reply.end_reasons[0]}": 1.0}


def scorer(
    args: argparse.Namespace, agent: data.AgentSet | None, tokens: schema.TokenTexts
) -> Callable[..., list[schema.Score]]:
    """Scores all replies; the agent's code runs in the sandbox, as many programs at a time as there are CPUs."""

    def score_all(
        samples: Sequence[schema.Sample], replies: Sequence[schema.Generated], done: Callable[[], None]
    ) -> list[schema.Score]:
        scores: dict[str, schema.Score] = {}
        asked = [(sample, reply) for sample, reply in zip(samples, replies, strict=True) if sample.group == "hfagent"]
        if agent and asked:
            tasks = [(agent.tasks[sample.target], reply.texts[0]) for sample, reply in asked]
            with sandbox.Sandbox(cpu_seconds=args.timeout, allow_unsandboxed=args.allow_unsandboxed) as pool:
                judged = hfagent.judge(args.recipe, agent, tasks, pool, done)
            for (sample, reply), score in zip(asked, judged, strict=True):
                ends = {**generation.endings(reply), f"end_{reply.end_reasons[0]}": 1.0}
                scores[sample.id] = schema.Score({**score.stats, **ends}, score.answer)
        for sample, reply in zip(samples, replies, strict=True):
            if sample.group != "hfagent":
                old = args.recipe == "qwen2023"
                scores[sample.id] = score_react_2023(sample, reply, tokens) if old else score_react(sample, reply)
                done()
        return [scores[sample.id] for sample in samples]

    return score_all


def measure(scored: Sequence[schema.Scored]) -> list[schema.Metric]:
    """The published figures of both groups and, beside them, why they are what they are. Scores between 0 and 1 have
    Wilson's interval, as shares do: on the safe side, since nothing in [0, 1] of that mean varies more than a share."""
    positive, negative, agent = ([item.score.stats for item in scored if item.sample.group == part] for part in STOPS)
    both, made = positive + negative, [stats for stats in positive if stats["made"]]
    table = [
        ("tool_selection", "react", "selected", positive),
        ("tool_selection", "hfagent", "selection", agent),
        ("tool_input", "react", "input", positive),
        ("false_positive", "react", "calls", negative),
        ("json_valid", "react", "json", made),
        ("arguments_exact", "react", "same", positive),
        ("several_actions", "react", "several", both),
        *((f"end_{why}", "react", f"end_{why}", both) for why in ENDS),
        ("tool_used", "hfagent", "used", agent),
        ("code", "hfagent", "code", agent),
        *((kind, "hfagent", kind, agent) for kind in ("unsplit", "raised", "died", "timeout", "infrastructure")),
        *((f"end_{why}", "hfagent", f"end_{why}", agent) for why in ENDS),
    ]
    return [
        (metrics.mean if name == "tool_input" else metrics.share)(
            name, group, [stats.get(stat, 0.0) for stats in items]
        )
        for name, group, stat, items in table
        if items
    ]


def remarks(args: argparse.Namespace, parts: Sequence[str]) -> Callable[[Sequence[schema.Scored]], list[str]]:
    """What was not asked, the isolation of the agent's code, what could not be scored, and how the replies ended."""

    def say(scored: Sequence[schema.Scored]) -> list[str]:
        lines = [f"not asked: {part} (give {data.option(part)} FILE)" for part in STOPS if part not in parts]
        if "hfagent" in parts:
            lines.append(
                f"the agent's code ran in {sandbox.tier(args.allow_unsandboxed)}, {args.timeout:g} s of CPU time each"
            )
        lost = sum(item.score.stats.get("infrastructure", 0.0) for item in scored)
        if lost:
            lines.append(f"warning: the code of {lost:.0f} replies was not judged (the sandbox failed); run it again")
        return lines + generation.remarks(scored)

    return say


def chosen(args: argparse.Namespace) -> dict[str, Path]:
    """The file of every part that is asked: those given, else those of the data folder, else our own instructions."""
    given = {part: getattr(args, part) for part in STOPS if getattr(args, part)}
    folder = options.source(args, "plugin").directory
    return given or (data.tool_files(folder) if folder else {"hfagent": OWN_SET})


def build(args: argparse.Namespace) -> schema.Benchmark:
    if args.shots:
        raise schema.InputError("tool use has no shots; leave --shots out")
    files = chosen(args)
    samples: list[schema.Sample] = []
    signature, hashes = generation.signature(args), []
    agent = None
    for part, path in files.items():
        if part == "hfagent":
            agent = data.agent_set(path)
            template = hfagent.read_template(args.agent_prompt) if args.agent_prompt else hfagent.AGENT_PROMPT
            samples += agent_samples(args, template, agent)
            signature |= {"agent": generation.digest(template), "cpu": f"{args.timeout:g}s"}
            name = "hfagent-own" if path.resolve() == OWN_SET else part
            hashes.append(f"{name}-{data.content_hash([*agent.tools, *agent.tasks])}")
        else:
            items = data.react_items(path, positive=part == "react_positive")
            samples += react_samples(args, part, items)
            signature["rouge"] = "own-tokens" if args.recipe == "qwen2023" else "words"
            hashes.append(f"{part}-{data.content_hash(items)}")
    if agent and not args.dump_prompts:
        sandbox.tier(args.allow_unsandboxed)  # refuses now, not after hours of generation
    return schema.Benchmark(
        name="plugin",
        version=1,
        recipe=args.recipe,
        mode="chat",
        shots=0,
        samples=samples,
        score=None,
        score_in_tokens=lambda tokens: scorer(args, agent, tokens),
        metrics=measure,
        signature={**signature, "data": "+".join(hashes)},
        headline=("tool_selection", "all"),
        remarks=remarks(args, list(files)),
    )


def parser() -> options.Parser:
    """The command line."""
    made = options.parser(__doc__, {"chat": 0}, generates=("chat",))
    made.set_defaults(chat=True)
    add = made.add_argument
    add("--react-positive", type=Path, metavar="FILE", help="JSONL: prompt, response")
    add("--react-negative", type=Path, metavar="FILE", help="JSONL: prompt; no tool fits")
    add("--hfagent", type=Path, nargs="?", const=OWN_SET, metavar="FILE", help="instructions for the agent (ours)")
    add("--agent-prompt", type=Path, metavar="FILE", help=f"prompt with {hfagent.TOOLS} and {hfagent.TASK} (ours)")
    add("--timeout", type=options.seconds, default=3.0, metavar="S", help="CPU seconds of a program (default 3)")
    add("--allow-unsandboxed", action="store_true", help="where nothing isolates, run with limits alone")
    return made


SCRIPT = main.Script(parser, build)

if __name__ == "__main__":
    main.main(SCRIPT)
