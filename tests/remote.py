"""Checkpoints that bring Python code of their own, written here: a small decoder in the manner of 2023.

The code computes what Llama computes, from Llama's tensors, so that transformers' own class says what is right. Its rotary
table is a buffer that no checkpoint stores, filled when a module is made and never again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

import tiny

CONFIGURATION = """
from transformers import PretrainedConfig

class OwnConfig(PretrainedConfig):
    model_type = "own2023"

    def __init__(self, vocab_size=384, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                 max_position_embeddings=512, rms_norm_eps=1e-6, tie_word_embeddings=False, **kwargs):
        self.vocab_size, self.hidden_size, self.intermediate_size = vocab_size, hidden_size, intermediate_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.max_position_embeddings, self.rms_norm_eps = max_position_embeddings, rms_norm_eps
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
"""

MODELING = """
import math
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from .configuration_own import OwnConfig

def half(x):
    return torch.cat([-x[..., x.shape[-1] // 2:], x[..., :x.shape[-1] // 2]], -1)

class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps
        self.register_buffer("one", torch.ones(1), persistent=False)

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)

class Rotary(nn.Module):
    def __init__(self, width, length):
        super().__init__()
        angles = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(0, width, 2).float() / width))
        angles = torch.cat([angles, angles], -1)
        {table}

    def forward(self, x, positions):
        return x * self.cos_cached[positions].to(x.dtype) + half(x) * self.sin_cached[positions].to(x.dtype)

class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.width = config.hidden_size // self.heads
        for name in "qkvo":
            setattr(self, name + "_proj", nn.Linear(config.hidden_size, config.hidden_size, bias=False))
        self.rotary_emb = Rotary(self.width, config.max_position_embeddings)

    def forward(self, x, positions, mask, past):
        rows, length, _ = x.shape
        q, k, v = (getattr(self, n + "_proj")(x).view(rows, length, self.heads, self.width).transpose(1, 2) for n in "qkv")
        q, k = self.rotary_emb(q, positions), self.rotary_emb(k, positions)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        scores = q @ k.transpose(2, 3) / math.sqrt(self.width) + mask
        out = scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1)), (k, v)

class Gated(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))

class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn, self.mlp = Attention(config), Gated(config)
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, positions, mask, past):
        attended, cache = self.self_attn(self.input_layernorm(x), positions, mask, past)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), cache

class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "model"
    {more}

    def __init__(self, config):
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, attention_mask=None, **kwargs):
        if past_key_values is not None:
            input_ids = input_ids[:, past_key_values[0][0].shape[2]:]
        return {"input_ids": input_ids, "past_key_values": past_key_values, "use_cache": kwargs.get("use_cache")}

    def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False, **kwargs):
        x = self.model.embed_tokens(input_ids)
        rows, length = input_ids.shape
        before = past_key_values[0][0].shape[2] if past_key_values is not None else 0
        if position_ids is None:
            position_ids = torch.arange(before, before + length)[None].expand(rows, -1)
        keys = torch.arange(before + length)
        future = keys[None, :] > (before + torch.arange(length))[:, None]
        mask = torch.zeros(rows, 1, length, before + length, dtype=x.dtype).masked_fill(future, torch.finfo(x.dtype).min)
        if attention_mask is not None:
            mask = mask.masked_fill(attention_mask[:, None, None, :] == 0, torch.finfo(x.dtype).min)
        caches = []
        for layer, past in zip(self.model.layers, past_key_values or [None] * len(self.model.layers)):
            x, cache = layer(x, position_ids[:, None], mask, past)
            caches.append(cache)
        logits = self.lm_head(self.model.norm(x))
        return CausalLMOutputWithPast(logits=logits, past_key_values=tuple(caches) if use_cache else None)
"""

# how a table is kept: as InternLM and Baichuan-7B do, as an attribute that is no buffer, as a buffer that is stored (but by
# this checkpoint is not), and as random numbers that nothing stores
TABLES = {
    "buffer": 'self.register_buffer("cos_cached", angles.cos(), persistent=False)\n'
    '        self.register_buffer("sin_cached", angles.sin(), persistent=False)',
    "attribute": "self.cos_cached, self.sin_cached = angles.cos(), angles.sin()",
    "stored": 'self.register_buffer("cos_cached", angles.cos())\n'
    '        self.register_buffer("sin_cached", angles.sin())',
    "random": 'self.register_buffer("cos_cached", torch.rand(length, width), persistent=False)\n'
    '        self.register_buffer("sin_cached", angles.sin(), persistent=False)',
}  # fmt: skip
IGNORES = '_keys_to_ignore_on_load_missing = [r"rotary_emb\\..*_cached"]'
INITIALIZES = """
    def _init_weights(self, module):
        if isinstance(module, Norm):
            module.weight.data.fill_(0.5)
"""
TIES_BY_LIST = '_tied_weights_keys = ["lm_head.weight"]'


def write(folder: Path, table: str = "buffer", more: str = "", code: bool = True, **settings: Any) -> Path:
    """A checkpoint of a Llama under a model type of its own. table: one of `TABLES`. more: lines of the model's class. code:
    whether the Python files lie beside. settings: of the Llama. Returns the folder; FOLDER-llama beside it has the same
    weights and tokenizer as transformers' own Llama."""
    same = tiny.write_causal(folder.with_name(f"{folder.name}-llama"), "llama", **{"kv_heads": 4, **settings})
    folder.mkdir(parents=True, exist_ok=True)
    for path in same.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    config |= {"model_type": "own2023", "architectures": ["OwnModel"], "auto_map": auto_map}
    config.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps(config))
    if code:
        (folder / "configuration_own.py").write_text(CONFIGURATION)
        text = MODELING.replace("{table}", TABLES[table]).replace("{more}", more)
        (folder / "modeling_own.py").write_text(text)
    return folder


def modules_in(place: Path) -> Iterator[None]:
    """Within it transformers copies code to `place`, not to a folder of the user's. Folders must differ in name."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "transformers_modules"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(place))
        patch.syspath_prepend(str(place))
        _forget()
        yield
    _forget()
    sys.modules.update(before)


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]
