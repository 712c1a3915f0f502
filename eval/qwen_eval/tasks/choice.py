"""What MMLU, C-Eval and CMMLU have in common: samples from rows, the letter a model chose, accuracy by subject."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from qwen_eval import data
from qwen_eval.schema import Choose, Chosen, Generated, InputError, Metric, Sample, Score, Scored
from qwen_eval.stats import metrics
from qwen_eval.tasks import generation, prompts

if TYPE_CHECKING:
    from qwen_eval.data import ChoiceRow, ChoiceSet

# Two best options closer than this (natural-log probability) are a tie: float32 arithmetic in another order of
# summation can swap them.
TIE_MARGIN = 1e-5

Ask: TypeAlias = "Callable[[ChoiceRow, Sequence[ChoiceRow]], Choose]"


def samples(sets: Mapping[str, ChoiceSet], shots: int, ask: Ask) -> list[Sample]:
    """One sample a test row. ask(row, shot rows) makes the request; ids are "subject/row from 0".

    Raises InputError when a subject has fewer development rows than `shots`.
    """
    made = []
    for subject, rows in sets.items():
        examples = prompts.take_shots(rows.dev, shots, subject)
        made += [Sample(f"{subject}/{row.index}", ask(row, examples), row.answer, subject, row.id) for row in rows.test]
    return made


def ask_in_chinese(recipe: str) -> Ask:
    """The requests of C-Eval and CMMLU, which share their prompt: no header, the options in context with no space.

    Both recipes leave a long prompt to the context limit's rule: "default" drops whole shots, "qwen2023" cuts nothing.
    """
    old = recipe == "qwen2023"

    def question(row: ChoiceRow) -> str:
        return f"问题：{row.question}\n{prompts.option_lines(row.options)}答案："

    def request(row: ChoiceRow, examples: Sequence[ChoiceRow]) -> Choose:
        shots = tuple(f"{question(example)}{example.answer}\n\n" for example in examples)
        overflow: Literal["none", "drop_shots"] = "none" if old else "drop_shots"
        return Choose("", shots, question(row), data.LETTERS, overflow, scoring="isolated" if old else "context")

    return request


def data_label(sets: Mapping[str, ChoiceSet]) -> str:
    """The content hash of all rows that are asked or may be shown, for the signature."""
    return data.content_hash(row for rows in sets.values() for row in (*rows.dev, *rows.test))


def origin(sets: Mapping[str, ChoiceSet]) -> str:
    """Where the rows came from, for the manifest."""
    return ", ".join(dict.fromkeys(rows.origin for rows in sets.values()))


def categories(benchmark: str) -> dict[str, list[str]]:
    """Category -> subjects, categories in order of first appearance in the benchmark's list; C-Eval's Hard last."""
    table: dict[str, list[str]] = {}
    for name, info in data.subjects(benchmark).items():
        for category in info.categories:
            table.setdefault(category, []).append(name)
    hard = [name for name, info in data.subjects(benchmark).items() if info.hard]
    return {**table, "Hard": hard} if hard else table


def best_option(scores: Sequence[float], margin: float = TIE_MARGIN) -> tuple[int, bool]:
    """The index of the highest score (the earliest of equals), and whether the two best are within the margin."""
    best = max(range(len(scores)), key=lambda index: (scores[index], -index))
    runner_up = max((score for index, score in enumerate(scores) if index != best), default=float("-inf"))
    # equal infinities (all options impossible) are a tie too, and their difference is not a number
    return best, scores[best] == runner_up or scores[best] - runner_up < margin


def double_softmax(logprobs: Sequence[float]) -> list[float]:
    """The probabilities the 2023 scripts recorded: a softmax, in float32, over the options' probabilities.

    logprobs: natural logs of the options' probabilities over the vocabulary. PROTOCOLS, MMLU, `qwen2023`.
    """
    import numpy as np

    probabilities = np.exp(np.array(logprobs, dtype=np.float64)).astype(np.float32)
    powers = np.exp(probabilities - probabilities.max())
    return [float(value) for value in powers / powers.sum()]


def score(recipe: str) -> Callable[[Sample, Chosen], Score]:
    """The scorer of a recipe: "default" compares log-probabilities; "qwen2023" the doubly softmaxed probabilities, whose
    float32 rounding can make options equal."""

    def judge(sample: Sample, chosen: Chosen) -> Score:
        best, tie = best_option(chosen.logprobs)
        if recipe == "qwen2023":
            recorded = double_softmax(chosen.logprobs)
            best, equal = best_option(recorded, margin=0.0)
            tie = tie or equal
        assert isinstance(sample.request, Choose)
        dropped = chosen.shots_used < len(sample.request.shots)
        stats = {
            "correct": float(data.LETTERS[best] == sample.target),
            "tie": float(tie),
            "shots_dropped": float(dropped),
            "truncated": float(chosen.truncated),
        }
        return Score(stats, data.LETTERS[best])

    return judge


def accuracy(benchmark: str, headline: str) -> Callable[[Sequence[Scored]], list[Metric]]:
    """Accuracy over all items (headline "micro" or "macro"), by category and by subject, and the shares of items that
    are ties, that lost shots to the context limit and that lost more than that, in percent."""
    extras = {"ties": "tie", "shots_dropped": "shots_dropped", "truncated": "truncated"}
    return _accuracy_and(benchmark, headline, extras, lambda scored: [])


def chat_accuracy(benchmark: str, headline: str) -> Callable[[Sequence[Scored]], list[Metric]]:
    """Accuracy as above, and the shares of replies that name no letter and that were cut by their length."""
    return _accuracy_and(benchmark, headline, {"invalid": "invalid"}, lambda scored: [generation.cut_share(scored)])


def _accuracy_and(
    benchmark: str, headline: str, shares: Mapping[str, str], more: Callable[[Sequence[Scored]], list[Metric]]
) -> Callable[[Sequence[Scored]], list[Metric]]:
    groups = categories(benchmark)

    def measure(scored: Sequence[Scored]) -> list[Metric]:
        table = metrics.accuracy_table(scored, groups, headline)
        for name, stat in shares.items():
            table.append(metrics.share(name, "all", [item.score.stats[stat] for item in scored]))
        return table + more(scored)

    return measure


def chat_samples(
    args: argparse.Namespace, benchmark: str, sets: Mapping[str, ChoiceSet], turn: Callable[[ChoiceRow], str]
) -> list[Sample]:
    """One conversation of one turn a test row. Raises InputError for --shots: the chat protocols have none."""
    if args.shots:
        raise InputError(
            "the chat protocol is 0-shot; leave --shots out, or leave --chat out for the few-shot protocol"
        )
    return [
        Sample(f"{subject}/{row.index}", generation.chat(args, turn(row), f"{benchmark}/{subject}/{row.index}"),
               row.answer, subject, row.id)
        for subject, rows in sets.items()
        for row in rows.test
    ]  # fmt: skip


def chat_score(
    sets: Mapping[str, ChoiceSet], recipe: str, read_2023: Callable[[str, str, Sequence[str]], str]
) -> Callable[[Sample, Generated], Score]:
    """Reads the letter of a reply: by the rules of 2023, which always find one, or by ours, which may find none."""
    rows = {f"{subject}/{row.index}": row for subject, rows in sets.items() for row in rows.test}

    from qwen_eval.tasks.extract import letters  # for replies alone: its patterns would be a seventh of --help's time

    def judge(sample: Sample, reply: Generated) -> Score:
        row, text = rows[sample.id], reply.texts[0]
        if recipe == "qwen2023":
            answer: str | None = read_2023(text, row.question, row.options)
        else:
            answer = letters.letter(text, row.options)
        stats = {
            "correct": float(answer == sample.target),
            "invalid": float(answer is None),
            **generation.endings(reply),
        }
        return Score(stats, answer)

    return judge


def remarks(scored: Sequence[Scored]) -> list[str]:
    """What a reader must know about the choices: ties, and prompts that did not fit."""
    lines = []
    for stat, sentence in {
        "tie": f"have their two best options within {TIE_MARGIN:g} of each other (ties, the earliest was taken)",
        "shots_dropped": "lost shots to the context limit",
        "truncated": "lost the beginning of their prompt to the context limit",
    }.items():
        hit = round(sum(item.score.stats[stat] for item in scored))
        if hit:
            lines.append(f"{hit} of {len(scored)} items {sentence}")
    return lines
