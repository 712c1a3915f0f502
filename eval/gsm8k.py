"""GSM8K: 1,319 grade-school word problems (Cobbe et al. 2021).

python eval/gsm8k.py -c Qwen/Qwen-7B                    8-shot, from the hub
python eval/gsm8k.py -c Qwen/Qwen-7B-Chat --chat        0-shot; --shots 4 puts four examples in the turn
python eval/gsm8k.py -c Qwen/Qwen-7B -d DIR             DIR holds train.jsonl and test.jsonl
python eval/gsm8k.py -c demo                            the embedded demonstration, in seconds
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from qwen_eval import data, main, options, schema
from qwen_eval.stats import metrics
from qwen_eval.tasks import generation
from qwen_eval.tasks.extract import numbers

if TYPE_CHECKING:
    from qwen_eval.data import MathProblem

# Rows of train.jsonl that serve as shots, in this order.
BASE_SHOTS = (4997, 4280, 3996, 1344, 6011, 328, 3809, 2053)
CHAT_SHOTS = (7364, 1708, 669, 6724)
STOP = ("\n\n", "Question:")


def worked(problem: MathProblem) -> str:
    """A shot: the question and its solution, without the calculator's marks, ending in "The answer is N"."""
    solution = re.sub(r"<<.*?>>", "", problem.answer)
    solution = re.sub(r"\n#### *(.*)$", r"\nThe answer is \1", solution.rstrip())
    return f"Question: {problem.question}\nLet's think step by step\n{solution}\n"


def shots(train: Sequence[MathProblem], rows: Sequence[int], count: int) -> list[str]:
    """The first `count` of the protocol's shots. A data set too small to have those rows (the demonstration) gives its
    first ones. Raises InputError for more shots than the protocol has."""
    if count > len(rows):
        raise schema.InputError(
            f"--shots {count} is more than the {len(rows)} examples of this protocol; ask for fewer"
        )
    if max(rows) >= len(train):
        rows = range(min(len(rows), len(train)))
    return [worked(train[row]) for row in list(rows)[:count]]


def base(args: argparse.Namespace, problems: data.Gsm8k) -> Callable[[MathProblem], schema.Generate]:
    """Raw text to be continued: eight worked problems and the question. `qwen2023` cuts nothing."""
    examples = tuple(f"{shot}\n" for shot in shots(problems.train, BASE_SHOTS, args.shots))
    overflow: Literal["none", "drop_shots"] = "none" if args.recipe == "qwen2023" else "drop_shots"

    def ask(problem: MathProblem) -> schema.Generate:
        question = f"Question: {problem.question}\nLet's think step by step\n"
        key = f"gsm8k/{problem.index}"
        return schema.Generate(question, args.max_new_tokens, shots=examples, overflow=overflow, stop=STOP, key=key)

    return ask


def chat(args: argparse.Namespace, problems: data.Gsm8k) -> Callable[[MathProblem], schema.Generate]:
    """One user turn: the bare question, or worked problems before it."""
    examples = [shot.removesuffix("\n") for shot in shots(problems.train, CHAT_SHOTS, args.shots)]

    def ask(problem: MathProblem) -> schema.Generate:
        turn = problem.question
        if examples:
            turn = "\n\n".join([*examples, f"Question: {turn}\nLet's think step by step"])
        return generation.chat(args, turn, f"gsm8k/{problem.index}")

    return ask


def score(recipe: str, mode: str) -> Callable[[schema.Sample, schema.Generated], schema.Score]:
    """Reads the number of a reply. `default`: the last number; `strict`: the one after "The answer is"."""

    def judge(sample: schema.Sample, reply: schema.Generated) -> schema.Score:
        text, target = reply.texts[0], sample.target
        gold = numbers.gold(target)
        if recipe == "qwen2023" and mode == "base":
            answer: object = numbers.gsm8k_2023(text)
            correct = numbers.gsm8k_2023_correct(text, target)
        elif recipe == "qwen2023":
            answer = numbers.gsm8k_chat_2023(text)
            correct = numbers.gsm8k_chat_2023_correct(text, target)
        else:
            answer = numbers.number(text)
            correct = answer == gold
        stats = {
            "correct": float(correct),
            "strict": float(numbers.strict_number(text) == gold),
            "invalid": float(answer is None),
            **generation.endings(reply),
        }
        return schema.Score(stats, None if answer is None else str(answer))

    return judge


def measure(scored: Sequence[schema.Scored]) -> list[schema.Metric]:
    """Accuracy, strict accuracy, and the shares of replies without a number and of replies cut by their length."""
    names = {"acc": "correct", "acc_strict": "strict", "invalid": "invalid"}
    shares = [metrics.share(name, "all", [item.score.stats[stat] for item in scored]) for name, stat in names.items()]
    return [*shares, generation.cut_share(scored)]


def build(args: argparse.Namespace) -> schema.Benchmark:
    problems = data.gsm8k(options.source(args, "gsm8k"))
    mode = options.mode(args)
    ask = (chat if mode == "chat" else base)(args, problems)
    return schema.Benchmark(
        name="gsm8k",
        version=1,
        recipe=args.recipe,
        mode=mode,
        shots=args.shots,
        samples=[schema.Sample(str(problem.index), ask(problem), problem.answer) for problem in problems.test],
        score=score(args.recipe, mode),
        metrics=measure,
        signature={**generation.signature(args), "data": data.content_hash((*problems.train, *problems.test))},
        remarks=generation.remarks,
        origin=problems.origin,
        changed=data.changed("gsm8k", {"train.jsonl": problems.train, "test.jsonl": problems.test}),
    )


def parser() -> options.Parser:
    """The command line."""
    return options.parser(__doc__, {"base": 8, "chat": 0}, generates=("base", "chat"))


SCRIPT = main.Script(parser, build)

if __name__ == "__main__":
    main.main(SCRIPT)
