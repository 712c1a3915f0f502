"""The README's rows of the real model: a random part of their kept answers is asked again. Part of `make verify`.

VERIFY_SHARE=0.1 asks a tenth; VERIFY_SEED chooses which.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import real
from qwen_eval import options
from qwen_eval.engines.open import open_engine
from qwen_eval.runs import answer, find, kept, manifest, samples, signature
from qwen_eval.schema import Engine, Scored
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.load import official
from replies import compare_responses
from shared import REPOSITORY, shared

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(7200)]
RESULTS = REPOSITORY / "results"
SHARE = float(os.environ.get("VERIFY_SHARE", "0.01"))
SEED = int(os.environ.get("VERIFY_SEED", "0"))
RUNS = [run.name for path in find.sample_files(RESULTS) if (run := find.open_run(path)).finished]


@pytest.fixture(scope="module")
def asked() -> dict[str, Benchmark]:
    """The benchmarks of `make real`'s programme, by the name of their kept run."""
    sys.path.insert(0, str(REPOSITORY / "eval"))
    import suite

    data = shared("data/mmlu").parent
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        made: list[Benchmark] = []
        for _, script, *words in real.commands(real.fetch(), real.arrange(data), real.FOLDER / "results", None):
            if script == "eval/suite.py":
                args, passed = suite.parse(options.parser("", {}, writes=("base", "chat")), words)
                made += [job.benchmark for job in suite.plan(args, passed, official())]
            else:
                kind = official()[Path(script).stem]
                made += [kind(row) for row in kind.variants(kind.parser().parse_args(words))]
    infos = {name: manifest.read_run(RESULTS, name)[0] for name in RUNS}
    signatures = {name: manifest.read_manifest(RESULTS, name)["signature"] for name in RUNS}
    return {
        name: benchmark
        for benchmark in made
        for name, info in infos.items()
        if signature.signature(benchmark, info) == signatures[name] and signature.run_id(benchmark, info) == name
    }


@pytest.fixture(scope="module")
def engine_for() -> Callable[[Benchmark], Engine]:
    """The engine of a benchmark's run; the same for the same model."""

    @cache
    def opened(checkpoint: str, dtype: str, quantize: str) -> Engine:
        args = options.parser("", {"base": 0}).parse_args(["-c", checkpoint, "--dtype", dtype, "--quantize", quantize])
        args.device = "cpu"
        return open_engine(args)

    return lambda made: opened(str(REPOSITORY / made.args.checkpoint_path), made.args.dtype, made.args.quantize)


@pytest.mark.parametrize("name", RUNS)
def test_a_random_part_asked_again_is_answered_as_before(
    name: str,
    asked: dict[str, Benchmark],
    engine_for: Callable[[Benchmark], Engine],
    record_property: Callable[[str, object], None],
) -> None:
    assert name in asked, "this run is not one of make real's programme any more: run it again and publish it"
    benchmark = asked[name]
    stored = samples.read_samples(samples.stored_path(RESULTS, name))
    count = max(1, round(SHARE * len(benchmark.asked)))
    part = sorted(random.Random(SEED).sample(range(len(benchmark.asked)), count))
    chosen = [benchmark.asked[index] for index in part]
    same: list[bool] = []

    def compare(index: int, response: Any) -> None:
        sample = chosen[index]
        made = samples.sample_row(Scored(sample, response, answer.UNSCORED), keep_prompt=True)
        row, old = kept.kept_row(made, Path(name)), stored[sample.id]
        assert (row["prompt"], row["target"]) == (old["prompt"], old["target"]), f"{sample.id}: another question"
        same.append(compare_responses(row["response"], old["response"], sample, options.model_spec(benchmark.args)))

    engine = engine_for(benchmark)
    engine.extend(options.model_spec(benchmark.args))
    answer.ask(engine, chosen, compare)
    assert len(same) == count
    record_property("items", sum(same))
    record_property("of", count)
    print(f"{name}: {sum(same)} of {count} the same")
