"""Tries a benchmark's scoring on made-up responses before a model is asked, so that an error in its code does not show after
hours of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_eval.runs.files import json_lines
from qwen_eval.runs.samples import sample_row
from qwen_eval.runs.unanswered import empty_response
from qwen_eval.schema import Generate, InputError, Metric, Sample, Score, Scored, Unanswered
from qwen_eval.tasks.benchmark import Benchmark, own_code

MAX_SAMPLES = 64
TEXTS = ("", "The answer is 1.")  # replies that are tried


def rehearse(benchmark: Benchmark) -> None:
    """Raises InputError, with file and line of the code, where a benchmark of one's own cannot score a response or compute
    figures. The eight are covered by tests."""
    if not benchmark.is_own():
        return
    asked = _selection(benchmark.asked)
    for text in TEXTS if any(isinstance(sample.request, Generate) for sample in asked) else TEXTS[:1]:
        _try(benchmark, asked, [empty_response(sample.request, text) for sample in asked])


def _try(benchmark: Benchmark, asked: Sequence[Sample], replies: Sequence[Any]) -> None:
    """Scores these replies, makes their rows and figures, and stores nothing. Raises InputError."""
    with own_code(type(benchmark)):
        scores = benchmark.score_all(asked, replies, lambda texts: [list(text) for text in texts], lambda: None)
        scored = [Scored(*item) for item in zip(asked, replies, scores, strict=True)]
        if benchmark.args.too_long == "wrong":
            first = scored[0]
            score = benchmark.unanswered(first.sample, first.score)
            scored[0] = Scored(first.sample, Unanswered(2, 1), score)
    for item in scored:
        if not isinstance(item.score, Score) or not all(isinstance(n, (int, float)) for n in item.score.stats.values()):
            raise InputError(f"{benchmark.name}: score has to return a Score with numbers as statistics")
        try:
            json_lines([sample_row(item)])
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{benchmark.name}: the answer or target of {item.sample.id} cannot be stored as JSON ({error}); return text, "
                "numbers, lists or dictionaries"
            ) from error
    with own_code(type(benchmark)):
        figures = benchmark.metrics(scored)
        benchmark.remarks(scored)
    if not all(isinstance(figure, Metric) for figure in figures):
        raise InputError(f"{benchmark.name}: metrics has to return Metric records")
    if figures and tuple(benchmark.headline) not in [(figure.metric, figure.group) for figure in figures]:
        made = ", ".join(f"{figure.metric} {figure.group}" for figure in figures)
        raise InputError(
            f"{benchmark.name}: the headline {' '.join(benchmark.headline)} is not one of its figures ({made})"
        )


def _selection(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of every group, and others evenly spread over all."""
    step = max(1, len(samples) // MAX_SAMPLES)
    first = {sample.group: sample for sample in reversed(samples)}
    return list({sample.id: sample for sample in [*samples[::step][:MAX_SAMPLES], *first.values()]}.values())
