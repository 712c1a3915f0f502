"""Baichuan-7B and Baichuan-13B (2023) as Llama, the latter with ALiBi in the place of the rotation.

ALiBi is carried by further dimensions of queries and keys (alibi.py).

`model_type` is the same for both, and for Baichuan2, which normalises the rows of its output matrix and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, eager_attention_forward

from qwen_eval.models import alibi, caches, released
from qwen_eval.schema import CheckpointError

MODEL_TYPE = "baichuan"
ROTARY_CLASS = "BaiChuanForCausalLM"  # Baichuan-7B's alone: Baichuan-13B's and Baichuan2's have a small c
_FIXED = {"hidden_act": "silu", "tie_word_embeddings": False, "rope_scaling": None, "rope_theta": 10000.0}
_SECOND_VOCABULARY = 125696  # Baichuan2's


def recognises(raw: Mapping[str, Any]) -> bool:
    """Whether a config.json is Baichuan's. Raises CheckpointError for Baichuan2, and where it cannot be told which it is."""
    if raw.get("model_type") != MODEL_TYPE:
        return False
    if "rope_parameters" not in raw:
        _name(raw)
    return True


def _name(raw: Mapping[str, Any]) -> str:
    """Baichuan-7B or Baichuan-13B. Raises CheckpointError for anything else."""
    if "z_loss_weight" in raw or raw.get("vocab_size") == _SECOND_VOCABULARY:
        key = "z_loss_weight" if "z_loss_weight" in raw else f"a vocabulary of {_SECOND_VOCABULARY}"
        raise CheckpointError(
            f"config.json: this is Baichuan2 ({key}), whose normalised output matrix is not supported; take Baichuan-7B or "
            "Baichuan-13B"
        )
    rotary, named = raw.get("max_position_embeddings") is not None, released.class_name(raw)
    if not rotary and raw.get("model_max_length") is None:
        raise CheckpointError(
            "config.json: neither max_position_embeddings (Baichuan-7B) nor model_max_length (Baichuan-13B) is given; get it "
            "again"
        )
    if named and rotary != (named == ROTARY_CLASS):
        length = "max_position_embeddings" if rotary else "model_max_length alone"
        like = "as Baichuan2-7B has, which is not supported" if rotary else "which no released Baichuan has"
        raise CheckpointError(f"config.json: {named} with {length}, {like}; take Baichuan-7B or Baichuan-13B")
    return "Baichuan-7B" if rotary else "Baichuan-13B"


def translate(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a Baichuan config.json as those of a Llama config, and alibi: whether positions count through ALiBi. A config
    that was translated before comes back unchanged. Raises CheckpointError for a setting that no released checkpoint has."""
    if "rope_parameters" in raw:
        return dict(raw)
    name = _name(raw)
    released.refuse_other(raw, _FIXED, name)
    has_alibi = name == "Baichuan-13B"
    length = "model_max_length" if has_alibi else "max_position_embeddings"
    return {
        **released.translated(raw, MODEL_TYPE),
        **released.llama_keys(raw, name),
        "max_position_embeddings": released.number(raw, length, name),
        "attention_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},  # of no effect with ALiBi
        "alibi": has_alibi,
    }


class BaichuanConfig(LlamaConfig):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """A Llama config made from a Baichuan config.json. Beyond Llama's fields: alibi; table_dtype, the precision that ALiBi's
    biases are rounded to ("float16", "bfloat16"), None for none."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        return super().from_dict(translate(config_dict), **kwargs)

    @property
    def rounds_tables(self) -> bool:
        """Whether the code of 2023 kept its table of positions in the model's precision."""
        return bool(getattr(self, "alibi", False))

    @property
    def lacks(self) -> dict[str, str]:
        """By context extension why this model cannot have it."""
        if not getattr(self, "alibi", False):
            return {}
        why = "its positions count through ALiBi"
        return {"dynamic_ntk": f"{why} and not by a rotation", "logn": f"{why}, which LogN would scale as well"}


class AlibiTables(nn.Module):
    """What ALiBi appends to queries and keys, in the place of a rotary module: slope x position is the product of both.

    Rounded biases (`table_dtype`) stand in the keys themselves, of every head.
    """

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__()
        self.heads, self.width = config.num_attention_heads, int(config.head_dim or 0)
        table = getattr(config, "table_dtype", None)
        self.table = getattr(torch, table) if table else None

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """x: any tensor of the model's precision on the right device. position_ids [rows, length]. Returns what queries [1,
        heads, 1, more] and keys [rows, heads or 1, length, more] have beside their own."""
        slopes, scale = alibi.slopes(self.heads), self.width**-0.5
        if self.table is None:
            return alibi.beside(slopes, position_ids, scale, self.width, x.dtype)
        queries = alibi.digits(torch.full((self.heads,), 1 / scale, dtype=torch.float64), x.dtype)[None, :, None]
        biases = slopes.to(x.device)[None, :, None] * position_ids[:, None, :].float()
        keys = biases.to(self.table).to(x.dtype)[..., None].expand(-1, -1, -1, alibi.DIGITS)
        return alibi.padded(queries.to(x.device), self.width), alibi.padded(keys, self.width)


class AlibiAttention(LlamaAttention):
    """Llama's attention with what AlibiTables gives appended to queries and keys, and as many zeros to values, so that every
    kernel takes them."""

    def forward(  # type: ignore[override]  # the cache's name depends on transformers' version
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states [rows, length, hidden size] -> (the same shape, attention weights or None)."""
        cache = caches.take(kwargs)
        rows, length = hidden_states.shape[:2]
        shape = (rows, length, -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = alibi.appended(query, key, *position_embeddings)
        value = F.pad(value, (0, key.shape[-1] - self.head_dim))
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        name = self.config._attn_implementation
        attend: Any = eager_attention_forward if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, sliding_window=None, **kwargs
        )
        return self.o_proj(output[..., : self.head_dim].reshape(*output.shape[:2], -1)), weights


class BaichuanForCausalLM(LlamaForCausalLM):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """Baichuan-7B or -13B with its output matrix."""

    config_class = BaichuanConfig
    _can_record_outputs = {"hidden_states": LlamaDecoderLayer, "attentions": LlamaAttention}  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__(config)
        if not getattr(config, "alibi", False):
            return
        self.model.rotary_emb = AlibiTables(config)
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = AlibiAttention(config, index)
        self.post_init()  # type: ignore[no-untyped-call]  # again, for the layers replaced above


def register() -> None:
    """Make AutoConfig and AutoModelForCausalLM load Baichuan's folders natively. Calling it again changes nothing."""
    AutoConfig.register(MODEL_TYPE, BaichuanConfig, exist_ok=True)
    AutoModelForCausalLM.register(BaichuanConfig, BaichuanForCausalLM, exist_ok=True)
    parts = [f".self_attn.{part}_proj." for part in "qkv"]
    converter = WeightConverter(".self_attn.W_pack.", parts, operations=[Chunk(dim=0)])
    register_checkpoint_conversion_mapping(MODEL_TYPE, [converter], overwrite=True)
