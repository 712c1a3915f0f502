"""InternLM-7B and -20B (InternLMForCausalLM, 2023) as Llama, whose tensor names they have.

Their later code stretches the rotation past the trained length (`rotary` in config.json, type "dynamic"). Up to that length it
is the plain rotation, and only so far it is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from qwen_eval.models import released
from qwen_eval.schema import CheckpointError

MODEL_TYPE = "internlm"
NAME = "InternLM"
_FIXED = {"hidden_act": "silu", "tie_word_embeddings": False, "rope_scaling": None}
_PLAIN = ("origin", "dynamic")  # types of rotation that are the plain one up to the trained length


def recognises(raw: Mapping[str, Any]) -> bool:
    """Whether a config.json is InternLM's."""
    return raw.get("model_type") == MODEL_TYPE


def translate(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of InternLM's config.json as those of a Llama config. reach: the tokens up to which the rotation is the plain
    one, 0 for any number. A config that was translated before comes back unchanged. Raises CheckpointError for a setting that
    no released checkpoint has."""
    if "rope_parameters" in raw:
        return dict(raw)
    released.refuse_other(raw, _FIXED, NAME)
    base, kind = _rotation(raw.get("rotary"))
    length = released.number(raw, "max_position_embeddings", NAME, 2048)
    return {
        **released.translated(raw, MODEL_TYPE),
        **released.llama_keys(raw, NAME),
        "max_position_embeddings": length,
        "attention_bias": bool(raw.get("bias", True)),
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
        "reach": length if kind == "dynamic" else 0,
    }


def _rotation(rotary: Any) -> tuple[float, str]:
    """Base and type of the rotation. Raises CheckpointError for a type that is not known."""
    if rotary is None:
        return 10000.0, "origin"
    kind = rotary.get("type") if isinstance(rotary, dict) else rotary
    if not isinstance(rotary, dict) or kind not in _PLAIN or not isinstance(rotary.get("base", 10000), int | float):
        raise CheckpointError(f"config.json: rotary={rotary} is not supported for {NAME}, only the types {_PLAIN}")
    return float(rotary.get("base", 10000)), str(kind)


class InternLMConfig(LlamaConfig):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """A Llama config made from InternLM's config.json. Beyond Llama's fields: reach (`translate`)."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        return super().from_dict(translate(config_dict), **kwargs)


class InternLMForCausalLM(LlamaForCausalLM):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """InternLM with its output matrix."""

    config_class = InternLMConfig
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012


def register() -> None:
    """Make AutoConfig and AutoModelForCausalLM load InternLM's folders natively. Calling it again changes nothing."""
    AutoConfig.register(MODEL_TYPE, InternLMConfig, exist_ok=True)
    AutoModelForCausalLM.register(InternLMConfig, InternLMForCausalLM, exist_ok=True)
