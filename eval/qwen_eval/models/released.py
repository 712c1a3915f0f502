"""What the architectures of 2023 that are run by our own classes have in common: how their config.json files are read.

Their code came with their weights and no longer runs; the architectures are those of classes that transformers has. A config
translates its keys into such a class's, and transformers renames the tensors while it loads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_eval.schema import CheckpointError

# What is carried over as it is
KEPT = (
    "initializer_range",
    "use_cache",
    "architectures",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "quantization_config",
    "_name_or_path",
)


def class_name(raw: Mapping[str, Any]) -> str:
    """The class that a config.json says the checkpoint was saved from, "" where it says none."""
    names = raw.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def refuse_other(raw: Mapping[str, Any], only: Mapping[str, Any], name: str) -> None:
    """Raises CheckpointError for a setting other than the one that the released checkpoints of this name have. only: by key,
    that setting, which is also the default."""
    for key, value in only.items():
        found = raw.get(key, value)
        if found != value and not (found is None and not value):
            raise CheckpointError(f"config.json: {key}={found} is not supported for {name}, only {value}")


def number(raw: Mapping[str, Any], key: str, name: str, default: int | None = None) -> int:
    """A positive whole number of a config.json. Raises CheckpointError where it is missing or something else."""
    value = raw.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        said = "is missing" if value is None else f"is {value!r}, no positive whole number"
        raise CheckpointError(f"config.json: {key} {said}; is it a config of {name}?")
    return value


def whole_heads(size: int, heads: int) -> int:
    """The width of one of `heads` equal parts of `size`. Raises CheckpointError where it is no whole number."""
    if size % heads:
        raise CheckpointError(f"config.json: hidden_size {size} is no multiple of num_attention_heads {heads}")
    return size // heads


def translated(raw: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """The keys that are carried over, with the precision under its name of today."""
    out: dict[str, Any] = {"model_type": model_type, **{key: raw[key] for key in KEPT if key in raw}}
    out["tie_word_embeddings"] = False
    dtype = raw.get("dtype") or raw.get("torch_dtype")
    if dtype:
        out["dtype"] = str(dtype).removeprefix("torch.")
    return out


def llama_keys(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The sizes of a config.json that has Llama's keys, as those of a Llama config."""
    hidden, heads = number(raw, "hidden_size", name), number(raw, "num_attention_heads", name)
    return {
        "vocab_size": number(raw, "vocab_size", name),
        "hidden_size": hidden,
        "intermediate_size": number(raw, "intermediate_size", name),
        "num_hidden_layers": number(raw, "num_hidden_layers", name),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": whole_heads(hidden, heads),
        "hidden_act": "silu",
        "rms_norm_eps": float(raw.get("rms_norm_eps", 1e-6)),
        "attention_dropout": 0.0,
        "mlp_bias": False,
    }
