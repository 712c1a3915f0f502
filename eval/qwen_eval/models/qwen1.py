"""Qwen-1 (QWenLMHeadModel, 2023) as a model of today's transformers, without the code that came with its weights.

The architecture is that of Qwen2 up to the names: one projection for query, key and value, an intermediate size stored
as the sum of both branches of the gated layer, and rotary tables kept in float32 whatever the model's precision. So the
config translates its keys into Qwen2's, the model is Qwen2's with its own rotation, and transformers renames the tensors
while it loads them. `register()` makes all of that known to the Auto classes; importing this module does not.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2DecoderLayer,
    Qwen2RotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from qwen_eval.models import caches, released
from qwen_eval.schema import CheckpointError

MODEL_TYPE = "qwen"

# Ours -> theirs, the first key present wins: 2023-12 names, then 2023-08 names. padded_vocab_size comes before
# vocab_size because the configs of 2023-08 carry both and the weights have the padded size.
_KEYS = {
    "vocab_size": ("padded_vocab_size", "vocab_size"),
    "hidden_size": ("hidden_size", "n_embd"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "intermediate_size": ("intermediate_size", "ffn_hidden_size"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "seq_length"),
    "rms_norm_eps": ("layer_norm_epsilon",),
    "head_dim": ("kv_channels",),
    "rope_theta": ("rotary_emb_base",),
    "attention_dropout": ("attn_dropout_prob", "attn_pdrop"),
    "seq_length": ("seq_length", "max_position_embeddings", "n_positions"),
}
_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "attention_dropout": 0.0}
_KEPT = (*released.KEPT, "use_dynamic_ntk", "use_logn_attn")
# What the 2023 code allowed and no released checkpoint uses: refused rather than computed wrongly.
_FIXED = {"no_bias": True, "rotary_pct": 1.0, "scale_attn_weights": True, "tie_word_embeddings": False}
# Buffers that some checkpoints have beside their weights; nothing reads them.
STRAY_TENSORS = [r"\.masked_bias$", r"\.attn\.bias$", r"rotary_emb\.inv_freq$"]


def translate(raw: dict[str, Any]) -> dict[str, Any]:
    """The keys of a Qwen-1 config.json (of 2023-08 or 2023-12) as the keys of a Qwen2 config, plus those of context
    extension: seq_length, use_dynamic_ntk, use_logn_attn.

    A config that was translated before (saved by save_pretrained) comes back unchanged. Raises CheckpointError when a
    needed key is missing or a setting is one that no released checkpoint has.
    """
    if "rms_norm_eps" in raw:
        return dict(raw)
    for key, only in _FIXED.items():
        if raw.get(key, only) != only:
            raise CheckpointError(f"config.json: {key}={raw[key]} is not supported for Qwen-1, only {only}")
    out: dict[str, Any] = {"model_type": MODEL_TYPE, **{key: raw[key] for key in _KEPT if key in raw}}
    for key, sources in _KEYS.items():
        value = next((raw[source] for source in sources if raw.get(source) is not None), _DEFAULTS.get(key))
        if value is None and key == "head_dim":
            value = out["hidden_size"] // out["num_attention_heads"]
        if value is None:
            raise CheckpointError(f"config.json: none of {', '.join(sources)} is given; is it a Qwen-1 config?")
        out[key] = value
    out["intermediate_size"] //= 2  # stored as the width of both branches of the gated layer together
    out["rms_norm_eps"] = float(out["rms_norm_eps"])
    out["rope_parameters"] = {"rope_type": "default", "rope_theta": float(out.pop("rope_theta"))}
    out["num_key_value_heads"] = out["num_attention_heads"]
    out["tie_word_embeddings"] = False
    dtype = _dtype_name(raw)
    if dtype is not None:
        out["dtype"] = dtype
    return out


def _dtype_name(raw: dict[str, Any]) -> str | None:
    """The precision a Qwen-1 config asks for. All three flags false (as released) meant: bfloat16, which is also how
    the weights are stored."""
    flags = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    for flag, name in flags.items():
        if raw.get(flag):
            return name
    dtype = raw.get("dtype") or raw.get("torch_dtype")
    if dtype:
        return str(dtype).removeprefix("torch.")
    return "bfloat16" if any(flag in raw for flag in flags) else None


class QWenConfig(Qwen2Config):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """A Qwen2 config made from a Qwen-1 config.json. Beyond Qwen2's fields: seq_length (the trained length in tokens),
    use_dynamic_ntk, use_logn_attn."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        return super().from_dict(translate(config_dict), **kwargs)


class QWenRotaryEmbedding(Qwen2RotaryEmbedding):
    """Rotary tables in float32, as Qwen-1 keeps them in every precision; Qwen2 rounds them to the model's."""

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x: any tensor on the right device. position_ids [rows, length]. Returns cos, sin [rows, length, head size]."""
        tables: tuple[torch.Tensor, torch.Tensor] = super().forward(
            torch.empty(0, dtype=torch.float32, device=x.device), position_ids
        )
        return tables


class QWenAttention(Qwen2Attention):
    """Qwen2's attention with the rotation done in float32 and rounded afterwards."""

    def forward(  # type: ignore[override]  # the cache's name depends on transformers' version
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden_states [rows, length, hidden size] -> (the same shape, attention weights or None). The cache comes under
        the name that the installed transformers gives it."""
        cache = caches.take(kwargs)
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        rotated_query, rotated_key = apply_rotary_pos_emb(query.float(), key.float(), *position_embeddings)
        query, key = rotated_query.to(query.dtype), rotated_key.to(key.dtype)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        name = self.config._attn_implementation
        attend: Any = eager_attention_forward if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]
        output, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=None,
            **kwargs,
        )
        return self.o_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights


class QWenLMHeadModel(Qwen2ForCausalLM):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """Qwen-1 with its output matrix, under the name its checkpoints give in `architectures`."""

    config_class = QWenConfig
    _can_record_outputs = {"hidden_states": Qwen2DecoderLayer, "attentions": QWenAttention}  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = STRAY_TENSORS

    def __init__(self, config: QWenConfig) -> None:
        super().__init__(config)
        self.model.rotary_emb = QWenRotaryEmbedding(config)
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = QWenAttention(config, index)
        self.post_init()  # type: ignore[no-untyped-call]  # again, for the layers replaced above


def _conversion() -> list[WeightConverter | WeightRenaming]:
    """How transformers turns Qwen-1 tensor names into Qwen2's while it loads (and back while it saves).

    mlp: c_proj(w1(x) * silu(w2(x))), so w2 is the gate and w1 the other branch.
    """
    names = {
        "transformer.wte.": "model.embed_tokens.",
        "transformer.ln_f.": "model.norm.",
        "transformer.h.": "model.layers.",
        ".ln_1.": ".input_layernorm.",
        ".ln_2.": ".post_attention_layernorm.",
        ".attn.c_proj.": ".self_attn.o_proj.",
        ".mlp.w1.": ".mlp.up_proj.",
        ".mlp.w2.": ".mlp.gate_proj.",
        ".mlp.c_proj.": ".mlp.down_proj.",
    }
    # dots are not escaped: they match themselves, and transformers 5.0 writes patterns into names when it saves
    renamed = [WeightRenaming(old, new) for old, new in names.items()]
    parts = [f".self_attn.{part}_proj." for part in "qkv"]
    return [*renamed, WeightConverter(".attn.c_attn.", parts, operations=[Chunk(dim=0)])]


def register() -> None:
    """Make AutoConfig and AutoModelForCausalLM load Qwen-1 folders natively. Calling it again changes nothing."""
    AutoConfig.register(MODEL_TYPE, QWenConfig, exist_ok=True)
    AutoModelForCausalLM.register(QWenConfig, QWenLMHeadModel, exist_ok=True)
    register_checkpoint_conversion_mapping(MODEL_TYPE, _conversion(), overwrite=True)
