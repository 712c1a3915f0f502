"""Disturbed runs end like undisturbed ones: killed at random moments, short of memory at random batches.

`make test-faults`; FAULT_KILLS (200) says how many kills, FAULT_SEED when.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import kills
from known import run_script
from qwen_eval.engines.local.runtime import Runtime
from qwen_eval.runs import results

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("FAULT_KILLS", "200"))
SEED = int(os.environ.get("FAULT_SEED", "1"))
# float32 throughout: the demonstration's own precision
SCRIPTS: dict[str, list[str]] = {
    "mmlu": ["--limit", "8"],
    "ceval": ["--limit", "8"],
    "cmmlu": ["--limit", "8"],
    "gsm8k": ["--limit", "10"],
    "humaneval": ["--limit", "10"],
    "wmt22": ["--limit", "6"],
    "plugin_eval": ["--limit", "5"],
    "long_ppl": ["--lengths", "128,256,512", "--max-tokens", "4000", "--grid", "none,dynamic_ntk+logn"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_killed_at_random_moments(script: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Every stored answer is kept, none is stored twice, and samples and CSV are those of an undisturbed run."""
    kills.preload()
    share = len(range(list(SCRIPTS).index(script), KILLS, len(SCRIPTS)))
    counts = kills.kill_often(script, ["-c", "demo", *SCRIPTS[script]], share, tmp_path, SEED)
    print(f"{script}: {counts}")
    record_property("counts", counts)
    assert counts["kills"] == share


def test_a_lost_device_is_a_one_line_error_and_the_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", "demo", *SCRIPTS["mmlu"], "--batch-size", "4", "--no-self-check"]
    whole = run_script("mmlu", words, tmp_path / "whole", capsys)
    calls, forward = [], Runtime.logits

    def lost(self: Runtime, *args: Any, **inputs: Any) -> Any:
        calls.append(1)
        if len(calls) > 6:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with ...")
        return forward(self, *args, **inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Runtime, "logits", lost)
        run = run_script("mmlu", words, tmp_path / "lost", capsys)
    assert run.status == 2 and run.err.count("\n") == 1
    assert "cpu failed (CUDA error: an illegal memory access was encountered); the answers up to here" in run.err
    stored = kills.left("mmlu", tmp_path / "lost").samples
    assert 0 < len(stored) < len(whole.samples)
    run = run_script("mmlu", words, tmp_path / "lost", capsys)
    assert kills.answers(kills.left("mmlu", tmp_path / "lost").samples) == kills.answers(
        kills.left("mmlu", tmp_path / "whole").samples
    )


MEMORY = {name: SCRIPTS[name] for name in ("mmlu", "gsm8k", "wmt22")}
MEMORY["long_ppl"] = SCRIPTS["long_ppl"][:4]  # one row of the grid


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("script", MEMORY)
def test_memory_runs_out_at_random_batches(
    script: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first and every third batch of more than one item fail, before their work or after it; the answers
    stay the same."""
    words = ["-c", "demo", *MEMORY[script]]
    undisturbed = run_script(script, words, tmp_path / "whole", capsys)
    chance, failed = random.Random(f"{SEED} {seed}"), []
    halving = Runtime.halving

    def short_of_memory(self: Runtime, items: Sequence[Any], run: Callable[[Sequence[Any]], Any]) -> Any:
        late = chance.random() < 0.5

        def fails(batch: Sequence[Any]) -> Any:
            if late:
                run(batch)
            failed.append(len(batch))
            raise torch.OutOfMemoryError("injected")

        hit = not failed or chance.random() < 1 / 3  # the first one, too: a short run has few
        return halving(self, items, fails if len(items) > 1 and hit else run)

    monkeypatch.setattr(Runtime, "halving", short_of_memory)
    run = run_script(script, words, tmp_path / "short", capsys)
    assert failed and run.status == undisturbed.status == 0
    folders = [kills.left(script, tmp_path / name) for name in ("whole", "short")]
    assert kills.answers(folders[0].samples) == kills.answers(folders[1].samples)
    assert folders[0].rows == folders[1].rows
    assert len(results.read_results(tmp_path / "short" / f"{script}.csv")) == len(folders[0].rows)
