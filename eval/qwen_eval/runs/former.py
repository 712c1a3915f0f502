"""Runs whose answers are not taken over: the same command, stored under an identity that other answers may share."""

from __future__ import annotations

import dataclasses

from qwen_eval.runs import samples
from qwen_eval.runs.signature import run_id
from qwen_eval.schema import EngineInfo
from qwen_eval.tasks.benchmark import Benchmark


def notes(benchmark: Benchmark, info: EngineInfo) -> list[str]:
    """Notes on the same run as an earlier version stored it, whose answers may be those to other weights or prompts."""
    variants: dict[str, str] = {}
    for fingerprint in filter(None, (info.sampled, info.fingerprint)):
        for day in dict.fromkeys((info.day, "")):
            why = ["a fingerprint of parts of the weights only (version 0.1)"] if fingerprint == info.sampled else []
            why += ["prompts of whatever day they were asked on"] if day != info.day else []
            if why:
                former = run_id(benchmark, dataclasses.replace(info, fingerprint=fingerprint, day=day))
                variants[former] = " and ".join(why)
    return [
        f"{former} was stored under {why}: its answers are not taken over, all items are asked again"
        for former, why in variants.items()
        if samples.stored_path(benchmark.args.output_dir, former).exists()
    ]
