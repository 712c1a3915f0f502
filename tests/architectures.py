"""Tiny random checkpoints of the architectures that transformers has for causal language models.

Weights are random, with a spread wide enough that the context changes the log-probability of the next token by whole units:
an attention that lacks a part is then seen at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.utils import logging

import tiny

WINDOW = 24  # tokens, of windows and chunks
WIDTH, HEADS, KV_HEADS, LAYERS, VOCABULARY = 64, 4, 2, 4, 384

# What config classes call their sizes; each takes those that it has.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "lru_width"), WIDTH),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "dff", "intermediate_size_mlp"), 2 * WIDTH
    ),
    **dict.fromkeys(("decoder_ffn_dim", "shared_intermediate_size", "mamba_d_ssm"), 2 * WIDTH),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), HEADS),
    **dict.fromkeys(("decoder_attention_heads",), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), KV_HEADS),
    **dict.fromkeys(("head_dim", "kv_channels", "attention_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 2048),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "attention_window_size"), WINDOW),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "mamba_n_heads_per_group"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "mamba_n_groups"), 1),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("state_size", "mamba_d_state", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_headdim", "mamba_chunk_size", "chunk_size", "qk_nope_head_dim"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    "v_head_dim": 12,
    "time_step_rank": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "vocab_size": VOCABULARY,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
BAND, ALL = "sliding_attention", "full_attention"
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [3.0 - 0.2 * step for step in range(8)],
    "original_max_position_embeddings": 120,
    "partial_rotary_factor": 1.0,
}

# Further settings: of a model type, or of one of its variants ("type/variant").
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama/dynamic": {
        "max_position_embeddings": 120,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    },
    "mistral": {},
    "qwen2": {},
    "qwen2/windows": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3": {},
    "qwen2_moe/windows": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3_moe": {},
    "gemma": {},
    "gemma2": {"layer_types": [BAND, ALL] * 2, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
    "gemma3_text": {"layer_types": [BAND, ALL] * 2},
    "gemma3n_text": {
        "layer_types": [BAND, ALL] * 2, "num_kv_shared_layers": 2, "intermediate_size": [2 * WIDTH] * LAYERS,
        "laurel_rank": 8, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0], "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": VOCABULARY,
    },
    "gemma4_text": {"layer_types": [BAND, ALL] * 2, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input":
    VOCABULARY},
    "gpt_oss": {"layer_types": [BAND, ALL] * 2},
    "deepseek_v2": {"topk_method": "greedy", "num_key_value_heads": HEADS},
    "deepseek_v3": {"num_key_value_heads": HEADS},
    "minicpm3": {"num_key_value_heads": HEADS},
    "llama4_text": {
        "layer_types": None, "no_rope_layers": [1, 1, 0, 1], "attn_temperature_tuning": True, "floor_scale": 64,
        "attn_scale": 0.5,
    },
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {},
    "phi3/longrope": {"sliding_window": None, "original_max_position_embeddings": 120, "rope_parameters": LONGROPE},
    "phimoe/windows": {},
    "mixtral": {},
    "starcoder2": {},
    "stablelm": {"partial_rotary_factor": 0.5},
    "nemotron": {"partial_rotary_factor": 0.5},
    "cohere": {"logit_scale": 0.5},
    "cohere2": {"layer_types": [BAND, BAND, BAND, ALL], "logit_scale": 0.5},
    "granite": {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "attention_multiplier": 0.4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2, "mamba_expand": 2},
    "olmo2": {},
    "olmo3": {"layer_types": [BAND, BAND, BAND, ALL]},
    "exaone4": {"layer_types": [BAND, BAND, BAND, ALL], "sliding_window_pattern": 4},
    "smollm3": {},
    "glm4": {},
    "ernie4_5": {},
    "gpt2": {},
    "gpt_neox": {},
    "gpt_bigcode": {},
    "opt": {},
    "bloom": {},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW, "hidden_size": WIDTH, "num_heads": HEADS},
    "mpt": {},
    "falcon": {},
    "falcon/alibi": {"alibi": True, "new_decoder_architecture": False, "multi_query": True},
    "openai-gpt": {},
    "xglm": {},
    "biogpt": {},
    "persimmon": {"partial_rotary_factor": 0.5},
    "moshi": {"num_hidden_layers": LAYERS, "ffn_dim": 2 * WIDTH},
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "expand": 2},
    "falcon_mamba": {},
    "rwkv": {"attention_hidden_size": WIDTH},
    "falcon_h1": {"mamba_expand": 2},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "zaya": {"num_experts_per_tok": 1},
    "lfm2": {"layer_types": ["conv", ALL] * 2},
    "qwen3_next": {"layer_types": ["linear_attention", ALL] * 2},
    "minimax": {"layer_types": ["linear_attention", ALL] * 2},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "diffllama": {},
    "mimo_v2_flash": {},
    "vaultgemma": {},
    "roberta": {"is_decoder": True, "pad_token_id": 1, "type_vocab_size": 1},  # positions from 2
    "youtu": {"num_key_value_heads": HEADS},
}  # fmt: skip

# Parameters that are only perturbed; all other vectors and matrices are re-initialized.
KEPT = ("a_log", "dt_bias", "time_decay", "time_first", "time_mix", "conv", "dt_proj", "recurrent_param", ".d")


def known(name: str) -> bool:
    """Whether the installed transformers has the architecture."""
    return name.split("/")[0] in CONFIG_MAPPING


def write(folder: Path, name: str, seed: int = 0, **settings: Any) -> Path:
    """A checkpoint of a model type, or of a variant in SETTINGS, in float32. Returns the folder."""
    logging.disable_progress_bar()
    kind: Any = CONFIG_MAPPING[name.split("/")[0]]
    default = kind()
    names = set(default.to_dict()) | set(kind.attribute_map)
    sizes = {key: value for key, value in SIZES.items() if key in names}
    for long, short in kind.attribute_map.items():  # one name for each
        if long in sizes:
            sizes.pop(short, None)
    for key in ("sliding_window", "attention_chunk_size"):
        if getattr(default, key, None) is None and not name.endswith("windows"):
            sizes.pop(key, None)
    if "qk_rope_head_dim" in names:
        sizes.pop("head_dim", None)  # it follows from its parts
    config = kind(**{**sizes, **SETTINGS.get(name, {}), **settings})
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_byte_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 2048}))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float()
    draw(model, seed)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def draw(model: torch.nn.Module, seed: int) -> None:
    """Random weights: matrices that keep the size of what they multiply, queries and keys twice that, sinks around 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        low = name.lower()
        if "sink" in low:
            weight.copy_(noise + 1)
        elif weight.dim() < 2 or any(part in low for part in KEPT):
            weight.add_(0.1 * noise)
        elif any(part in low for part in ("embed", "wte", "wpe")):
            weight.copy_(noise / 2)
        else:
            strong = any(
                part in low
                for part in ("q_proj", "k_proj", "q_b_proj", "kv_b_proj", "query_key_value", "c_attn", "qkv")
            )
            fan = weight.shape[-1] if weight.dim() == 2 else (weight.shape[-1] * weight.shape[-2]) ** 0.5
            weight.copy_(noise * (2 if strong or "lm_head" in low else 1) / fan**0.5)
