"""The prompts of a run as the model reads them: the day that they show, and the first of them, kept from the first start on."""

from __future__ import annotations

import dataclasses
import json
from datetime import date, datetime, timezone
from typing import Any

from qwen_eval.data.texts import common_prefix
from qwen_eval.runs import samples, starts
from qwen_eval.runs.signature import prompt_hash, prompt_of
from qwen_eval.schema import Engine, EngineInfo, Generate, Measure
from qwen_eval.tasks.benchmark import Benchmark

SHOWN = 40  # characters of a prompt in a message


def conversations(benchmark: Benchmark) -> list[Generate]:
    """The requests of a benchmark that are conversations."""
    requests = [sample.request for sample in benchmark.asked]
    return [each for each in requests if isinstance(each, Generate) and not isinstance(each.prompt, str)]


def with_day(benchmark: Benchmark, engine: Engine, info: EngineInfo) -> EngineInfo:
    """The description with today's date where the prompts move with the clock."""
    asked = conversations(benchmark)
    return dataclasses.replace(info, day=date.today().isoformat()) if asked and engine.moves(asked) else info


def set_day(benchmark: Benchmark, engine: Engine, day: str) -> None:
    """Has the engine render all conversations on this day, "" for the day they are asked."""
    if conversations(benchmark):
        engine.set_day(day or None)


def first_start(benchmark: Benchmark, engine: Engine, info: EngineInfo, name: str) -> tuple[starts.Start, Any]:
    """The first start of the run, which is stored if anything was answered and else is this one, and the first prompt as it is
    now. The engine renders all prompts on the day of that start."""
    args = benchmark.args
    answered = samples.answered(args.output_dir, name)
    stored = starts.read(args.output_dir, name) if answered else None
    set_day(benchmark, engine, stored.day if stored else info.day)
    prompt: Any = _first_prompt(benchmark, engine, info)
    if args.no_prompts and isinstance(prompt, str):
        prompt = {"sha256": prompt_hash(prompt)}
    if stored:
        return stored, prompt
    # what is answered without a start was stored by an earlier version
    started = "" if answered else datetime.now(timezone.utc).strftime(starts.TIME)
    start = starts.Start(started, dataclasses.asdict(info), prompt)
    starts.write(args.output_dir, name, start)
    return start, prompt


def _first_prompt(benchmark: Benchmark, engine: Engine, info: EngineInfo) -> Any:
    """The first prompt as the model reads it; None where there is none (documents, given texts) or it is not known."""
    request = benchmark.asked[0].request if benchmark.asked else None
    if request is None or isinstance(request, Measure) or info.engine == "file":
        return None
    if isinstance(request, Generate) and not isinstance(request.prompt, str):
        return engine.prompt_text(request)
    return prompt_of(request)


def notes(info: EngineInfo, start: starts.Start, prompt: Any) -> list[str]:
    """What a reader has to know of the prompts: that they show a date, and whether they changed since the first start."""
    dated = f"the chat template shows the date: all prompts are those of {info.day}, when the run first started"
    return [*([dated] if info.day else []), *changed(start, prompt)]


def changed(start: starts.Start, prompt: Any) -> list[str]:
    """A note if the first prompt was another one when the run first started."""
    if prompt is None or start.wrote(prompt):
        return []
    when = f" ({start.started})" if start.started else ""
    return [f"the first prompt differs from that of the run's first start{when}{_difference(start.prompt, prompt)}"]


def _difference(before: Any, now: Any) -> str:
    """Both texts where two prompts begin to differ, if both are known."""
    if not (isinstance(before, str) and isinstance(now, str)):
        return ""
    same = len(common_prefix([before, now]))
    first = max(0, same - SHOWN // 2)
    old, new = (json.dumps(text[first : same + SHOWN], ensure_ascii=False) for text in (before, now))
    return f": {old} was written, now {new}"
