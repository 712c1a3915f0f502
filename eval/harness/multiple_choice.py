"""What MMLU, C-Eval and CMMLU have in common: samples from rows, the letter a model chose, accuracy by subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from harness import data, metrics, prompts
from harness.data import LETTERS, ChoiceRow, ChoiceSet
from harness.schema import Choose, Chosen, Metric, Sample, Score, Scored

# Two best options closer than this (natural-log probability) are a tie: float32 arithmetic in another order of
# summation can swap them.
TIE_MARGIN = 1e-5

Ask = Callable[[ChoiceRow, Sequence[ChoiceRow]], Choose]


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
        return Choose("", shots, question(row), LETTERS, overflow, scoring="isolated" if old else "context")

    return request


def data_label(sets: Mapping[str, ChoiceSet]) -> str:
    """The content hash of all rows that are asked or may be shown, for the signature."""
    return data.content_hash(row for rows in sets.values() for row in (*rows.dev, *rows.test))


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
            "correct": float(LETTERS[best] == sample.target),
            "tie": float(tie),
            "shots_dropped": float(dropped),
            "truncated": float(chosen.truncated),
        }
        return Score(stats, LETTERS[best])

    return judge


def accuracy(benchmark: str, headline: str) -> Callable[[Sequence[Scored]], list[Metric]]:
    """Accuracy over all items (headline "micro" or "macro"), by category and by subject, and the shares of items that
    are ties, that lost shots to the context limit and that lost more than that, in percent."""
    groups = categories(benchmark)

    def measure(scored: Sequence[Scored]) -> list[Metric]:
        def of_all(name: str, stat: str) -> Metric:
            return metrics.share(name, "all", [item.score.stats[stat] for item in scored])

        extras = [of_all("ties", "tie"), of_all("shots_dropped", "shots_dropped"), of_all("truncated", "truncated")]
        return metrics.accuracy_table(scored, groups, headline) + extras

    return measure


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
