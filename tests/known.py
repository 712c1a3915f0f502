"""Runs of a script inside the test's process, and checkpoints whose answers are known in advance."""

from __future__ import annotations

import argparse
import csv
import runpy
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from qwen_eval import main
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.tokenizers import QwenTokenizer
from qwen_eval.runs import results
from qwen_eval.runs.samples import read_samples
from qwen_eval.schema import Chosen, ModelSpec, Sample
from qwen_eval.stats import one_run
from qwen_eval.tasks import choice, load
from qwen_eval.tasks.benchmark import Benchmark
from shared import REPOSITORY, shared

VOCABULARY = 151_936  # rows of Qwen-7B's embedding


@dataclass(frozen=True)
class Run:
    """What a run of a script left behind: exit status, both streams, the CSV's rows, the samples by id."""

    status: int
    out: str
    err: str
    rows: list[dict[str, str]]
    samples: dict[str, dict[str, Any]]

    def figure(self, metric: str, group: str) -> float:
        """The value of one metric of one group in the CSV, which must hold it exactly once."""
        (value,) = [float(row["value"]) for row in self.rows if (row["metric"], row["group"]) == (metric, group)]
        return value

    @property
    def signature(self) -> str:
        (line,) = [line for line in self.out.splitlines() if line.startswith("signature ")]
        return line.removeprefix("signature ")


def run_script(name: str, words: Sequence[object], output: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`python eval/NAME.py WORDS -o OUTPUT --quiet` in this process, through the script's own __main__.

    rows and samples are those of the run that the table names, none where it names none.
    """
    command = [f"{name}.py", *map(str, words), "-o", str(output), "--quiet"]
    capsys.readouterr()
    before = sys.argv
    sys.argv = command
    try:
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(REPOSITORY / "eval" / f"{name}.py"), run_name="__main__")
    finally:
        sys.argv = before
    streams = capsys.readouterr()
    (run_id,) = [
        Path(line.removeprefix("samples in ")).stem
        for line in streams.out.splitlines()
        if line.startswith("samples in ")
    ] or [""]
    stored = results.read_results(output / f"{name}.csv") if run_id else []
    rows = [row for row in stored if row["run_id"] == run_id]
    samples = read_samples(output / "samples" / f"{run_id}.jsonl") if run_id else {}
    return Run(int(stop.value.code or 0), streams.out, streams.err, rows, samples)


def options_of(name: str, *words: object) -> argparse.Namespace:
    """The options of the official benchmark NAME, parsed from a command line of these words."""
    return load.official()[name].parser().parse_args([*map(str, words)])


def benchmark_of(name: str, *words: object) -> Any:
    """The official benchmark NAME, made from a command line of these words; Any, for its own members."""
    return load.official()[name](options_of(name, *words))


def work(name: str, *words: object) -> int:
    """Does what the command line of the official benchmark NAME asks for; returns the exit status. Raises InputError."""
    return main.work(load.official()[name], options_of(name, *words))


def write_random(folder: Path, *, hidden: int = 64, layers: int = 2, seed: int = 0, spread: float = 0.3) -> Path:
    """A Qwen-1 checkpoint with the real tokenizer and random weights, NTK and LogN off.

    With a spread of 0.1 the last state hardly depends on the question and nine answers in ten are the same letter; with
    0.3 attention and the gated layers are far from linear and every letter gets its share.
    """
    ranks = shared("checkpoints/qwen1-tokenizer/qwen.tiktoken")
    sizes = {"hidden": hidden, "layers": layers, "vocab": VOCABULARY, "positions": 8192, "seq_length": 8192}
    tiny.write_qwen1(folder, seed=seed, spread=spread, **sizes)
    shutil.copy(ranks, folder / "qwen.tiktoken")
    return folder


def write_preferring(folder: Path, option: str | None) -> Path:
    """A checkpoint with the real tokenizer whose best option is known: always `option`, or none (all logits are 0).

    Attention and gated layer are random and active, but they write nothing into the first dimension, where every
    embedding is 1; the last norm keeps that dimension only; and only `option` has an entry for it in the output matrix.
    Its lead over the others therefore varies from question to question and is never 0.
    """
    write_random(folder, hidden=16, layers=1)
    tensors = tiny.qwen1_tensors(hidden=16, layers=1, inner=32, vocab=VOCABULARY, spread=0.3)
    tensors["transformer.wte.weight"][:, 0] = 1
    for name in ("attn.c_proj", "mlp.c_proj"):
        tensors[f"transformer.h.0.{name}.weight"][0] = 0
    tensors["transformer.ln_f.weight"] = torch.eye(16)[0]
    tensors["lm_head.weight"] = torch.zeros(VOCABULARY, 16)
    if option is not None:
        (token,) = QwenTokenizer(folder / "qwen.tiktoken").encode(option)
        tensors["lm_head.weight"][token, 0] = 1
    tiny.write_weights(folder, tensors)
    return folder


def assert_as_recorded(benchmark: Benchmark, samples: Sequence[Sample], chosen: Sequence[Chosen], folder: Path) -> int:
    """Compares answers under the qwen2023 recipe with what the 2023 script recorded, one CSV per subject in `folder`.

    Every prediction is the recorded one, except where the two best recorded probabilities are less than 1e-6 apart;
    every probability (a softmax over the options of a softmax over the vocabulary) is the recorded one to 5e-7. Returns
    how many predictions are the recorded ones, near ties included.
    """
    assert benchmark.recipe == "qwen2023"
    identical = 0
    tables: dict[str, list[dict[str, str]]] = {}
    for sample, answer in zip(samples, chosen, strict=True):
        if sample.group not in tables:
            with (folder / f"{sample.group}.csv").open(newline="") as file:
                tables[sample.group] = list(csv.DictReader(file))
        recorded = tables[sample.group][int(sample.id.split("/")[1])]
        expected = [float(recorded[f"prob_{letter}"]) for letter in "ABCD"]
        found = choice.double_softmax(answer.logprobs)
        assert found == pytest.approx(expected, abs=5e-7, rel=0), sample.id
        second, best = sorted(expected)[-2:]
        same = benchmark.score(sample, answer).answer == recorded["model_output"]
        assert same or best - second < 1e-6, sample.id
        identical += same
    return identical


def answers_as_in_2023(name: str, subjects: Sequence[str], step: int, cut: Callable[[Chosen], bool]) -> tuple[int, int]:
    """Every step-th row of each subject under qwen2023 on the trained tiny checkpoint, its NTK and LogN on, against the record.
    cut: whether the prompt of an answer has to be cut. Returns how many predictions are the recorded ones, and of how many."""
    words = ("-d", shared(f"data/{name}"), "--recipe", "qwen2023", "--subjects", ",".join(subjects))
    benchmark = benchmark_of(name, *words)
    asked = [sample for sample in benchmark.asked if int(sample.id.split("/")[1]) % step == 0]
    engine = HFEngine(ModelSpec(str(shared("checkpoints/qwen1-tiny"))))
    chosen = engine.choose([sample.request for sample in asked], lambda *_: None)
    assert engine.describe().context == "dynamic_ntk+logn" and not engine.notes
    assert all(answer.truncated == cut(answer) for answer in chosen)
    return assert_as_recorded(benchmark, asked, chosen, shared(f"golden/{name}_original")), len(asked)


def coverage(samples: Iterable[Mapping[str, Any]], permutations: int = 2000) -> tuple[float, float]:
    """How often, in percent, the interval of "acc" covers the accuracy expected by chance when the gold answers
    of stored samples are shuffled; and how often it should.

    That accuracy is the sum over letters of P(answer) P(gold). The permuted count of right answers has the variance of
    a binomial one times 1 - (V(golds' shares, over the answers) + V(answers' shares, over the golds)) / (m (1 - m)), m
    the expected accuracy: answers that favour a letter make it narrower, and a checkpoint that always gives the same
    letter has no variance at all and is covered in every case. That says nothing about the interval, so the checkpoint
    must be one whose answers spread over the letters: no letter half of the time, none in less than one of twenty.
    """
    pairs = [("ABCD".index(sample["answer"]), "ABCD".index(sample["target"])) for sample in samples]
    answers, golds = np.array(pairs).T
    n = len(answers)
    p, g = (np.bincount(letters, minlength=4) / n for letters in (answers, golds))
    assert p.min() > 0.05 and p.max() < 0.5, p
    expected = float(p @ g)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(permutations):
        low, high = one_run.share(int((answers == rng.permutation(golds)).sum()), n)
        covered += low <= expected <= high
    narrower = (p @ (g - p @ g) ** 2 + g @ (p - p @ g) ** 2) / (expected * (1 - expected))
    return 100 * covered / permutations, 100 * erf(1.959964 / sqrt(2 * (1 - narrower)))
