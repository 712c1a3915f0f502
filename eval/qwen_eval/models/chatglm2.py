"""ChatGLM2-6B (ChatGLMModel, 2023) as GLM, whose rotation it has: interleaved, over half of a head.

`model_type` is the same for ChatGLM-6B, ChatGLM3 and GLM-4, and the config of ChatGLM2's first day has none: they are told
apart by their keys, and what is not ChatGLM2 is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GlmConfig, GlmForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Concatenate, ConversionOps, WeightConverter, WeightRenaming
from transformers.models.glm.modeling_glm import GlmRotaryEmbedding

from qwen_eval.models import released
from qwen_eval.schema import CheckpointError

MODEL_TYPE = "chatglm"
NAME = "ChatGLM2"
BASE = 10000.0
_OWN_KEYS = ("padded_vocab_size", "multi_query_group_num")
# what the code of 2023 allowed and ChatGLM2 does not use
_FIXED = {
    "add_bias_linear": False,
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "interleaved_qkv": False,
    "pre_seq_len": None,
    "quantization_bit": 0,
    "tie_word_embeddings": False,
}


def recognises(raw: Mapping[str, Any]) -> bool:
    """Whether a config.json is ChatGLM2's, with `model_type` or, as on its first day, without. Raises CheckpointError for
    another model of that type."""
    kind = raw.get("model_type")
    if kind is None:
        return all(key in raw for key in _OWN_KEYS)
    if kind != MODEL_TYPE:
        return False
    if "rope_parameters" not in raw:
        _check(raw)
    return True


def _check(raw: Mapping[str, Any]) -> None:
    """Raises CheckpointError for another model than ChatGLM2."""
    if not raw.get("multi_query_attention") or "padded_vocab_size" not in raw:
        what = "position_encoding_2d" if "position_encoding_2d" in raw else "no multi_query_attention"
        raise CheckpointError(
            f"config.json: this is ChatGLM-6B or its like ({what}), which is not supported; take ChatGLM2"
        )
    if raw.get("rope_ratio", 1) not in (1, None):
        raise CheckpointError(
            f"config.json: rope_ratio={raw['rope_ratio']}, as ChatGLM3 and GLM-4 have for long texts, is not supported; take "
            "ChatGLM2, or GLM-4 in transformers' own format"
        )


def translate(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ChatGLM2's config.json as those of a GLM config. One that was translated before comes back unchanged. Raises
    CheckpointError for a setting that the released checkpoint does not have."""
    if "rope_parameters" in raw:
        return dict(raw)
    _check(raw)
    released.refuse_other(raw, _FIXED, NAME)
    hidden, heads = released.number(raw, "hidden_size", NAME), released.number(raw, "num_attention_heads", NAME)
    width = raw.get("kv_channels") or released.whole_heads(hidden, heads)
    out = released.translated(raw, MODEL_TYPE)
    # GLM's own defaults lie outside this vocabulary
    out |= {"eos_token_id": raw.get("eos_token_id", 2), "pad_token_id": raw.get("pad_token_id", 0)}
    return {
        **out,
        "vocab_size": released.number(raw, "padded_vocab_size", NAME),
        "hidden_size": hidden,
        "intermediate_size": released.number(raw, "ffn_hidden_size", NAME),
        "num_hidden_layers": released.number(raw, "num_layers", NAME),
        "num_attention_heads": heads,
        "num_key_value_heads": released.number(raw, "multi_query_group_num", NAME, 1),
        "head_dim": int(width),
        "hidden_act": "silu",
        "rms_norm_eps": float(raw.get("layernorm_epsilon", 1e-5)),
        "attention_bias": bool(raw.get("add_qkv_bias", False)),
        "attention_dropout": 0.0,
        "max_position_embeddings": released.number(raw, "seq_length", NAME, 2048),
        "partial_rotary_factor": 0.5,
        "rope_parameters": {"rope_type": "default", "rope_theta": BASE, "partial_rotary_factor": 0.5},
    }


class ChatGLM2Config(GlmConfig):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """A GLM config made from ChatGLM2's config.json. Beyond GLM's fields: table_dtype, the precision that the rotation's angles
    are computed in ("float16", "bfloat16"), None for float32."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        return super().from_dict(translate(config_dict), **kwargs)

    @property
    def rounds_tables(self) -> bool:
        """Whether the code of 2023 computed its table of positions in the model's precision."""
        return True

    @property
    def lacks(self) -> dict[str, str]:
        """By context extension why this model cannot have it."""
        table = getattr(self, "table_dtype", None)
        return {"dynamic_ntk": f"its rotation is rounded to {table}, as the code of 2023 did"} if table else {}


class ChatGLM2RotaryEmbedding(GlmRotaryEmbedding):
    """GLM's rotary tables, or those of the code of 2023, which computed the angles in the model's precision."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """x: any tensor of the model's precision on the right device. position_ids [rows, length]. Returns cos, sin [rows,
        length, rotated width]."""
        name = getattr(self.config, "table_dtype", None)
        if not name:
            found: tuple[Tensor, Tensor] = super().forward(x, position_ids)
            return found
        dtype: torch.dtype = getattr(torch, name)
        size = 2 * len(self.inv_freq)
        exponents = torch.arange(0, size, 2, dtype=dtype, device=x.device) / size
        angles = (position_ids[..., None].to(dtype) * (1.0 / BASE**exponents)).float()
        angles = torch.cat((angles, angles), -1)
        return angles.cos().to(dtype).to(x.dtype), angles.sin().to(dtype).to(x.dtype)


class ChatGLM2ForCausalLM(GlmForCausalLM):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """ChatGLM2 with its output matrix."""

    config_class = ChatGLM2Config
    _keys_to_ignore_on_load_unexpected = [r"rotary_pos_emb\.inv_freq$"]  # noqa: RUF012

    def __init__(self, config: ChatGLM2Config) -> None:
        super().__init__(config)
        self.model.rotary_emb = ChatGLM2RotaryEmbedding(config)


class SplitHeads(ConversionOps):
    """The rows of one projection as those of queries, keys and values, of which there are fewer (transformers before 5.23 has
    no operation for unequal parts)."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Any]:
        config = kwargs["config"]
        (found,) = input_dict.values()
        tensor = found[0] if isinstance(found, list) else found
        sizes = [config.head_dim * config.num_attention_heads, *[config.head_dim * config.num_key_value_heads] * 2]
        parts = torch.split(tensor, sizes)
        return {name: part.contiguous() for name, part in zip(target_patterns, parts, strict=True)}

    @property
    def reverse_op(self) -> ConversionOps:
        return Concatenate(dim=0)


def _conversion() -> list[WeightConverter | WeightRenaming]:
    """How transformers turns ChatGLM2's tensor names into GLM's while it loads (and back while it saves)."""
    names = {
        "transformer.embedding.word_embeddings.": "model.embed_tokens.",
        "transformer.encoder.layers.": "model.layers.",
        "transformer.encoder.final_layernorm.": "model.norm.",
        "transformer.output_layer.": "lm_head.",
        ".self_attention.dense.": ".self_attn.o_proj.",
        ".mlp.dense_h_to_4h.": ".mlp.gate_up_proj.",
        ".mlp.dense_4h_to_h.": ".mlp.down_proj.",
    }
    # dots are not escaped: they match themselves, and some versions of transformers write patterns into names when they save
    renamed = [WeightRenaming(old, new) for old, new in names.items()]
    parts = [f".self_attn.{part}_proj." for part in "qkv"]
    return [*renamed, WeightConverter(".self_attention.query_key_value.", parts, operations=[SplitHeads()])]


def register() -> None:
    """Make AutoConfig and AutoModelForCausalLM load ChatGLM2's folders natively. Calling it again changes nothing."""
    AutoConfig.register(MODEL_TYPE, ChatGLM2Config, exist_ok=True)
    AutoModelForCausalLM.register(ChatGLM2Config, ChatGLM2ForCausalLM, exist_ok=True)
    register_checkpoint_conversion_mapping(MODEL_TYPE, _conversion(), overwrite=True)
