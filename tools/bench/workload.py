"""The models, prompts and comparisons that stages share."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

import gsm8k
import mmlu
from bench.settings import Settings
from harness import data, demo, multiple_choice
from harness.engines.hf import HFEngine
from harness.models import qwen1
from harness.schema import Generate, Sample

VOCABULARY = 151_936
TOLERANCE = 1e-4  # natural-log probability: the engine's promise in float32


def mmlu_samples(settings: Settings, subjects: Sequence[str]) -> tuple[list[Sample], str]:
    """Real questions of these subjects where there are any, else the demonstration's; and which."""
    if settings.shared:
        source, origin = data.Source(settings.shared / "data/mmlu"), "real questions"
    else:
        source, subjects, origin = data.Source(demo.data("mmlu")), demo.subjects("mmlu"), "demonstration questions"
    asked = multiple_choice.samples(data.mmlu(source, list(subjects)), 5, mmlu.ask("default"))
    return [sample for sample in asked if int(sample.id.split("/")[1]) < settings.items], origin


def gsm8k_requests(settings: Settings, count: int, new_tokens: int) -> tuple[list[Generate], str]:
    """Real problems where there are any, else the demonstration's; and which. They end by their length alone."""
    if settings.shared:
        source, origin = data.Source(settings.shared / "data/gsm8k"), "real problems"
    else:
        source, origin = data.Source(demo.data("gsm8k")), "demonstration problems"
    problems = data.gsm8k(source)
    ask = gsm8k.base(gsm8k.parser().parse_args(["--max-new-tokens", str(new_tokens)]), problems)
    return [dataclasses.replace(ask(problem), stop=()) for problem in problems.test[:count]], origin


def write_qwen1(settings: Settings, width: int, layers: int) -> Path:
    """A Qwen-1 checkpoint with random weights in float32, and the real tokenizer where there is one, else the
    demonstration's."""
    config = {
        "model_type": qwen1.MODEL_TYPE,
        "architectures": ["QWenLMHeadModel"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 2 * 4 * width,
        "vocab_size": VOCABULARY,
        "seq_length": 8192,
        "max_position_embeddings": 8192,
        "fp32": True,
        "initializer_range": 0.1,  # large enough that the answers differ from question to question
    }
    qwen1.register()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    folder = settings.folder / f"qwen1-{width}x{layers}"
    if not folder.exists():
        qwen1.QWenLMHeadModel(qwen1.QWenConfig.from_dict(config)).save_pretrained(folder)
        real = settings.shared / "checkpoints/qwen1-tokenizer" if settings.shared else demo.FOLDER / "checkpoint"
        shutil.copy(real / "qwen.tiktoken", folder)
    return folder


def token_counter(engine: HFEngine) -> Callable[[], tuple[int, int]]:
    """Tokens computed and tokens in prompts since the last call."""
    counted = [0, 0]

    def since() -> tuple[int, int]:
        before, counted[:] = tuple(counted), (engine.usage()["tokens"], engine.usage()["prompt_tokens"])
        return int(counted[0] - before[0]), int(counted[1] - before[1])

    return since


def difference(name: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """The furthest two log-probabilities of one option are apart. Raises SystemExit beyond the tolerance, and for a
    question that is answered otherwise and is no tie."""
    left, right = np.array(ours), np.array(theirs)
    furthest = float(np.abs(left - right).max())
    ranked = np.sort(right, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] >= multiple_choice.TIE_MARGIN
    if furthest > TOLERANCE or (left.argmax(1) != right.argmax(1))[clear].any():
        raise SystemExit(f"bench: ours and {name} do not compute the same (log-probabilities {furthest:.1e} apart)")
    return furthest


def same_texts(name: str, ours: Sequence[str], theirs: Sequence[str]) -> float:
    """The share of texts that differ. Raises SystemExit when it is more than one in twenty (two tokens can be a near
    tie)."""
    apart = sum(a != b for a, b in zip(ours, theirs, strict=True)) / len(ours)
    if apart > 0.05:
        raise SystemExit(f"bench: ours and {name} do not write the same ({apart:.0%} of the texts differ)")
    return apart
