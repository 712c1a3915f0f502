"""Runs whose answers are not taken over: the same command, stored under an identity that is not this one's, or that other
answers may share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping

from qwen_eval.runs import find, samples, starts
from qwen_eval.runs.signature import run_id
from qwen_eval.schema import EngineInfo
from qwen_eval.tasks.benchmark import Benchmark

SHOWN = 3  # facts of a served model that differ, in a note


def notes(benchmark: Benchmark, info: EngineInfo) -> list[str]:
    """A note on each such run that is stored."""
    return [
        f"{name} {why}: its answers are not taken over, all items are asked again"
        for name, why in [*_by_earlier_versions(benchmark, info), *_of_other_served(benchmark, info)]
    ]


def _by_earlier_versions(benchmark: Benchmark, info: EngineInfo) -> Iterator[tuple[str, str]]:
    """Runs of this model that an earlier version stored, whose answers may be those to other weights or prompts."""
    for fingerprint in filter(None, (info.sampled, info.fingerprint)):
        for day in dict.fromkeys((info.day, "")):
            why = ["a fingerprint of parts of the weights only (version 0.1)"] if fingerprint == info.sampled else []
            why += ["prompts of whatever day they were asked on"] if day != info.day else []
            former = run_id(benchmark, dataclasses.replace(info, fingerprint=fingerprint, day=day)) if why else ""
            if why and samples.stored_path(benchmark.args.output_dir, former).exists():
                yield former, f"was stored under {' and '.join(why)}"


def _of_other_served(benchmark: Benchmark, info: EngineInfo) -> Iterator[tuple[str, str]]:
    """Runs of the same command whose answers are of another model that was served under this name."""
    if not info.known_by:
        return
    output = benchmark.args.output_dir
    mine = run_id(benchmark, info)
    for name in map(find.run_name, find.sample_files(output)):
        start = starts.described(output, name)
        if start is None or name == mine or (start.engine, start.model) != (info.engine, info.model):
            continue
        if run_id(benchmark, start) == name:  # the same questions, asked in the same way
            yield name, _other(start, info)


def _other(before: EngineInfo, now: EngineInfo) -> str:
    """How the served model of a stored run differs from today's."""
    if not before.known_by:
        return f"was answered by whatever {now.versions.get('served model', now.model)} was then (version 0.1)"
    names = sorted({*before.served, *now.served})
    changes = [
        f"{name} {_shown(before.served, name)}, now {_shown(now.served, name)}"
        for name in names
        if before.served.get(name) != now.served.get(name)
    ]
    if not changes:
        return f"was answered by the server at {before.device}"
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return f"was answered by another served model ({'; '.join(changes[:SHOWN])}{more})"


def _shown(facts: Mapping[str, str], name: str) -> str:
    return json.dumps(facts[name], ensure_ascii=False) if name in facts else "unknown"
