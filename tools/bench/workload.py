"""The models, prompts and comparisons that stages share."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from bench.settings import Settings
from gsm8k import Gsm8k
from mmlu import Mmlu
from qwen_eval.data import demo
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models import qwen1
from qwen_eval.models.cutting import QWEN_PATTERN
from qwen_eval.schema import Generate, Sample
from qwen_eval.tasks import choice
from qwen_eval.tasks.benchmark import Benchmark

VOCABULARY = 151_936
SMALL_VOCABULARY = 8192
TOLERANCE = 1e-4  # natural-log probability: the engine's promise in float32


def mmlu_samples(settings: Settings, subjects: Sequence[str] | None = None) -> tuple[list[Sample], str]:
    """All questions of these subjects (None: of all), real where there are any, else the demonstration's; and which."""
    words = ["--subjects", ",".join(subjects)] if subjects and settings.shared else []
    asked = _asked(settings, Mmlu, words)
    return list(asked), "real questions" if settings.shared else "demonstration questions"


def first_of_each(samples: Sequence[Sample], count: int) -> list[Sample]:
    """The first `count` questions of every subject."""
    return [sample for sample in samples if int(sample.id.split("/")[1]) < count]


def gsm8k_requests(settings: Settings, count: int | None, new_tokens: int) -> tuple[list[Generate], str]:
    """The first `count` problems (None: all), real ones where there are any, else the demonstration's; and which. They end
    by their length alone."""
    asked = _asked(settings, Gsm8k, ["--max-new-tokens", str(new_tokens)])[:count]
    origin = "real problems" if settings.shared else "demonstration problems"
    return [dataclasses.replace(sample.request, stop=()) for sample in asked], origin


def _asked(settings: Settings, kind: type[Benchmark], words: Sequence[str]) -> Sequence[Sample]:
    """What a benchmark asks, on the shared data or the demonstration's."""
    folder = str(settings.shared / "data" / kind.name) if settings.shared else demo.NAME
    return kind(kind.parser().parse_args(["-d", folder, *words])).asked


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


def write_qwen2(settings: Settings, width: int, layers: int) -> Path:
    """A Qwen2-format checkpoint with random weights in float32; otherwise as `write_model`."""
    return write_model(settings, "qwen2", width, layers, num_key_value_heads=width // 64)


def write_model(settings: Settings, kind: str, width: int, layers: int, **more: Any) -> Path:
    """A checkpoint of a model type of transformers with random weights in float32, and a byte-level BPE of 8,192 tokens over
    Qwen's words, trained on the prompts themselves. The end of text is never chosen: its row of the output matrix is zero.
    more: further settings of its config."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = settings.folder / f"{kind}-{width}x{layers}"
    if folder.exists():
        return folder
    end = "<|endoftext|>"
    bpe = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated")
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.Sequence([words, bytes_of_words]), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=SMALL_VOCABULARY, initial_alphabet=alphabet, special_tokens=[end], show_progress=False
    )
    bpe.train_from_iterator(_texts(settings), trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end).save_pretrained(folder)
    config = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": max(1, width // 128),
        "head_dim": 64,
        "intermediate_size": 4 * width,
        "vocab_size": SMALL_VOCABULARY,
        "max_position_embeddings": 8192,
        "initializer_range": 0.05,  # answers differ from question to question, and rounding is not made much of
        "eos_token_id": bpe.token_to_id(end),
        "bos_token_id": None,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    logging.disable_progress_bar()
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(config | more)))
    model.lm_head.weight.data[bpe.token_to_id(end)] = 0
    model.save_pretrained(folder)
    return folder


def _texts(settings: Settings) -> Iterator[str]:
    """Every question of MMLU and every problem's prompt of GSM8K, once."""
    for sample in mmlu_samples(settings)[0]:
        if sample.id.endswith("/0"):
            yield sample.request.prompt()
        yield sample.request.question
    for request in gsm8k_requests(settings, None, 1)[0]:
        yield str(request.prompt)


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
    clear = ranked[:, -1] - ranked[:, -2] >= choice.TIE_MARGIN
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
