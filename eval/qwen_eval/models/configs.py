"""What a checkpoint's config.json says: its model type, its limits, its end-of-text tokens, its precision."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from qwen_eval.models import files, gguf, implementations, kinds, native, quantized, qwen1
from qwen_eval.models import remote as code
from qwen_eval.models.tokenizers import HubTokenizer, TextTokenizer, one_line
from qwen_eval.schema import CheckpointError, ModelSpec

LABELS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in LABELS}
_NO_LIMIT = 10**9  # tokenizers have 10**30 for no limit


def read_config(folder: Path, trust_remote_code: bool) -> PreTrainedConfig:
    """The config of a folder: ours for an architecture of native.py, transformers' own class or, where trusted, the
    checkpoint's."""
    path = folder / "config.json"
    if not path.exists():
        if (folder / files.ADAPTER).exists():
            raise CheckpointError(files.adapter_alone(folder))
        raise CheckpointError(
            f"{folder} has no config.json, it is no checkpoint; pass the folder with config.json and the weights"
        )
    raw = files.read_json(path)
    kind = raw.get("model_type")
    kind = kind if isinstance(kind, str) else None
    ours = _native_config(folder, raw, trust_remote_code)
    if ours is not None:
        implementations.check(ours, path, trust_remote_code)
        return ours
    named = raw.get("auto_map", {})
    if not isinstance(named, dict):
        raise CheckpointError(f"{path}: auto_map is {named!r:.100}, expected an object; remove it")
    remote = named.get("AutoModelForCausalLM")
    if kind not in transformers.CONFIG_MAPPING and not remote:
        version = transformers.__version__
        problem = f"model type {kind!r} is unknown to transformers {version}" if kind else "no model_type in it"
        raise CheckpointError(f"{path}: {problem}; a newer transformers may know it")
    if kind not in transformers.CONFIG_MAPPING and not trust_remote_code:
        raise code.not_trusted(folder, str(remote))
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # a config's own checks raise anything
        raise CheckpointError(f"{path}: {one_line(error)}") from error
    kinds.check(config, path, remote=bool(remote) and kind not in transformers.CONFIG_MAPPING)
    implementations.check(config, path, trust_remote_code)
    return config


def _native_config(folder: Path, raw: dict[str, Any], trust_remote_code: bool) -> PreTrainedConfig | None:
    """The config of an architecture that our own classes run, None for another one. A relative that they do not run is left to
    its own code where that is trusted."""
    try:
        found = native.find(raw)
    except CheckpointError as error:
        if trust_remote_code:
            return None
        raise CheckpointError(f"{folder}/{error}") from None
    if found is None:
        return None
    found.register()
    try:
        translated: PreTrainedConfig = found.config.from_dict(raw)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}/{error}") from None
    except Exception as error:
        raise CheckpointError(f"{folder / 'config.json'}: {one_line(error)}") from error
    return translated


def read_gguf_config(header: gguf.Header) -> PreTrainedConfig:
    """The config that a GGUF file gives. Raises CheckpointError where transformers' reader does not know the architecture or
    ignores what the file says."""
    path = header.path
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # its reader raises anything, from KeyError to UnicodeDecodeError
        if "not supported" in str(error):
            version = transformers.__version__
            raise CheckpointError(
                f"{path}: transformers {version} does not read GGUF files of the architecture {header.architecture}; use the "
                "checkpoint that the file was made from"
            ) from error
        raise CheckpointError(f"{path}: {one_line(error)}") from error
    kinds.check(config, path, remote=False)
    gguf.complete_config(header, config)
    return config


def gguf_eos_ids(header: gguf.Header) -> list[int]:
    """The tokens that end a text and that end a turn, as a GGUF file names them."""
    named = [header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    return [int(value) for value in named if value is not None]


def eos_ids(folder: Path, config: PreTrainedConfig) -> list[int]:
    """The end-of-text tokens that generation_config.json and config.json name."""
    path = folder / "generation_config.json"
    given = [files.read_json(path).get("eos_token_id")] if path.exists() else []
    given.append(getattr(config.get_text_config(), "eos_token_id", None))
    flat: list[Any] = []
    for value in given:
        flat += value if isinstance(value, Sequence) else [value]
    try:
        return [int(value) for value in flat if value is not None]
    except (TypeError, ValueError):
        raise CheckpointError(
            f"{folder}: eos_token_id in generation_config.json or config.json is {flat!r}, expected numbers of tokens; "
            "correct it"
        ) from None


def generation_config(**settings: Any) -> GenerationConfig:
    """transformers' settings of a generation."""
    make: Any = GenerationConfig  # its constructor has no types
    config: GenerationConfig = make(**settings)
    return config


def own_limit(text: PreTrainedConfig, tokenizer: TextTokenizer) -> int | None:
    """The longest sequence in tokens that the checkpoint states."""
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, key, None)
        if isinstance(value, int) and value > 0:
            return value
    if isinstance(tokenizer, HubTokenizer) and tokenizer.model_max_length < _NO_LIMIT:
        return tokenizer.model_max_length
    return None


def trained_length(text: PreTrainedConfig) -> int | None:
    """The length the model was trained with, before any scaling of its rotation."""
    if isinstance(text, qwen1.QWenConfig):
        seq_length: int = text.seq_length
        return seq_length
    rope = getattr(text, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
    return int(original) if original else None


def own_dtype(config: PreTrainedConfig) -> torch.dtype:
    """The checkpoint's own precision, float32 where it states none."""
    for part in (config, config.get_text_config()):
        dtype = getattr(part, "dtype", None)
        if dtype is not None:
            return dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype))
    return torch.float32


def precision(
    spec: ModelSpec, config: PreTrainedConfig, dtype: torch.dtype, header: gguf.Header | None = None, wide: bool = False
) -> str:
    """What results call it: "bf16", "int8", a quantized checkpoint's own ("gptq4", ":dequantized" where computed with wide
    weights); of a GGUF file (`header`) "gguf:Q4_1", with "+bf16" or "+int8" after it where its numbers are rounded or
    quantized again. dtype: what the weights are loaded as; named where it is not a quantized checkpoint's own."""
    if header is not None:
        again = [spec.quantize] if spec.quantize != "none" else []
        again += [LABELS[dtype]] if dtype != header.dtype else []
        return "+".join([f"gguf:{header.file_type}", *again])
    found = quantized.settings(config)
    if found is None and spec.quantize == "none":
        return LABELS.get(dtype, str(dtype).removeprefix("torch."))
    own = spec.quantize if found is None else quantized.label(found) + (":dequantized" if wide else "")
    # the type of what is not quantized is named where it is not the checkpoint's own
    return own + (f"+{LABELS[dtype]}" if dtype != own_dtype(config) else "")


@contextmanager
def quiet() -> Iterator[None]:
    """Within it transformers shows no progress bars and no warnings: those that matter are raised as CheckpointError."""
    log: Any = transformers.utils.logging  # has no types
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
