"""A real model on small parts of the real files, against what it answered before: `make test-real`.

The answers are in tests/real, without texts that are not ours (runs/kept.py). After a change that is meant to move them:
`PYTHONPATH=tools python tests/test_real.py [NAME ...]` records them again; look at the difference first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import real
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.runs import find, kept, run, samples
from qwen_eval.schema import Choose, Generate, ModelSpec, Sample
from qwen_eval.tasks.load import official
from replies import CLOSE, EXACT, compare_responses, greedy_within
from shared import REPOSITORY, shared

pytestmark = [pytest.mark.real, pytest.mark.slow]
RECORDED = Path(__file__).parent / "real"
DEMONSTRATION = REPOSITORY / "demo" / "data"
# by name: the benchmark, its data (None: our own) and its options
RUNS: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "mmlu": ("mmlu", "data/mmlu", ("--subjects", "anatomy,high_school_world_history,moral_scenarios", "--limit", "8")),
    "ceval": ("ceval", "data/ceval", ("--subjects", "law,physician", "--limit", "6")),
    "cmmlu": ("cmmlu", "data/cmmlu", ("--subjects", "anatomy,chinese_literature", "--limit", "6")),
    "gsm8k": ("gsm8k", "data/gsm8k", ("--limit", "8")),
    "humaneval": ("humaneval", "data/humaneval", ("--limit", "6")),
    "wmt22": ("wmt22", "data/wmt22", ("--limit", "4", "--max-new-tokens", "128")),
    "long_ppl": ("long_ppl", None, ("--lengths", "512,1024", "--max-tokens", "1024")),
    "mmlu-chat": ("mmlu", "data/mmlu", ("--chat", "--subjects", "anatomy,virology", "--limit", "4")),
    "ceval-chat": ("ceval", "data/ceval", ("--chat", "--subjects", "law,physician", "--limit", "2")),
    "gsm8k-chat": ("gsm8k", "data/gsm8k", ("--chat", "--limit", "6")),
    "humaneval-chat": ("humaneval", "data/humaneval", ("--chat", "--limit", "4")),
    "plugin-chat": ("plugin", None, ("--limit", "4")),
}


def model() -> Path:
    """The model's file, downloaded if need be; skips without it, and fails where it is required."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(REPOSITORY)
            return REPOSITORY / real.fetch()
    except real.Failure as error:
        if os.environ.get("REQUIRE_SHARED") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


def spec() -> ModelSpec:
    return ModelSpec(str(model()), device="cpu")


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine(spec())


def asked(name: str, output: Path, engine: HFEngine) -> run.Outcome:
    """Asks a run of RUNS. Returns what it came to."""
    kind, data, options = RUNS[name]
    path = shared(data) if data else DEMONSTRATION / kind
    words = [
        "-c",
        str(model()),
        "-d",
        str(path),
        "-o",
        str(output),
        "--device",
        "cpu",
        "--quiet",
        "--no-self-check",
        *options,
    ]
    benchmark = official()[kind](official()[kind].parser().parse_args(words))
    outcome = run.run(benchmark, engine)
    assert outcome is not None
    return outcome


@pytest.mark.parametrize("name", RUNS)
def test_a_real_model_answers_as_before(name: str, engine: HFEngine, tmp_path: Path) -> None:
    outcome = asked(name, tmp_path, engine)
    before = samples.read_samples(RECORDED / f"{name}.jsonl.gz")
    now = {key: kept.kept_row(row, outcome.samples) for key, row in find.open_run(outcome.samples).rows.items()}
    assert now.keys() == before.keys()
    prompts = {sample.id: sample for sample in outcome.benchmark.asked}
    for key, row in now.items():
        old = before[key]
        assert row["prompt"] == old["prompt"] and row["target"] == old["target"], f"{key}: another question"
        if compare_responses(row["response"], old["response"], prompts[key], spec()):
            assert row["answer"] == old["answer"], f"{key}: another answer was read from the same reply"
            assert {k: v for k, v in row["stats"].items() if k not in ("nll",)} == pytest.approx(
                {k: v for k, v in old["stats"].items() if k not in ("nll",)}
            ), f"{key}: scored differently"


def test_log_probabilities_are_those_of_plain_transformers(engine: HFEngine) -> None:
    """The same file by transformers alone, each prompt with each option by itself."""
    kind, data, options = RUNS["mmlu"]
    benchmark = official()[kind](official()[kind].parser().parse_args(["-d", str(shared(str(data))), *options]))
    requests: list[Choose] = [sample.request for sample in benchmark.asked[::6]]  # type: ignore[misc]
    chosen = engine.choose(requests, lambda index, response: None)
    path = model()
    plain: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    tokenizer = open_checkpoint(spec()).tokenizer
    for request, answer in zip(requests, chosen, strict=True):
        for option, found in zip(request.options, answer.logprobs, strict=True):
            ids = tokenizer.encode(request.prompt() + option)
            with torch.no_grad():
                scores = torch.log_softmax(plain(torch.tensor([ids])).logits[0, -2], -1)
            assert found == pytest.approx(scores[ids[-1]].item(), abs=EXACT)


def test_a_tie_explains_another_text_and_nothing_else_does() -> None:
    """The check itself: the model's own text passes, one with another word does not."""
    sample = Sample("x", Generate("The capital of France is", 6), None)
    with torch.no_grad():
        checkpoint = open_checkpoint(spec())
        ids = torch.tensor([checkpoint.tokenizer.encode("The capital of France is")])
        made = checkpoint.load().generate(ids, max_new_tokens=6, do_sample=False)
    text = checkpoint.tokenizer.decode(made[0, ids.shape[1] :].tolist())
    assert greedy_within(sample, text, CLOSE, spec())
    assert not greedy_within(sample, text.replace("Paris", "Rome"), CLOSE, spec())


def record(names: list[str]) -> None:
    """Writes the answers of the named runs (all, if none is named)."""
    engine = HFEngine(spec())
    RECORDED.mkdir(exist_ok=True)
    for name in names or RUNS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = asked(name, Path(folder), engine)
            packed = kept.keep(Path(folder), find.run_name(outcome.samples))
            shutil.copyfile(packed, RECORDED / f"{name}.jsonl.gz")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    record(parser.parse_args().names)
    sys.exit(0)
