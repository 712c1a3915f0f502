"""Tiny checkpoints in the original layouts of Baichuan-7B, Baichuan-13B, ChatGLM2 and InternLM, and what they compute, written
out as plain matrix products in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor

from tiny import CORPUS, write_weights

KINDS = ("baichuan7b", "baichuan13b", "chatglm2", "internlm")
USER, ASSISTANT = "<reserved_102>", "<reserved_103>"
MARKS = {
    "baichuan7b": (USER, ASSISTANT),
    "baichuan13b": (USER, ASSISTANT),
    "internlm": ("<eoh>", "<eoa>"),
    "chatglm2": (),
}


def write_pieces(folder: Path, marks: tuple[str, ...] = (), space_first: bool = False) -> int:
    """tokenizer.model: byte-pair encoding with bytes, trained on CORPUS. Returns how many pieces it has."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
        remove_extra_whitespaces=False,
        add_dummy_prefix=space_first,
        normalization_rule_name="identity",
        user_defined_symbols=list(marks),
    )
    (folder / "tokenizer.vocab").unlink()
    return int(sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size())


def write_peer(
    folder: Path,
    kind: str,
    *,
    heads: int = 4,
    width: int = 16,
    layers: int = 2,
    inner: int = 96,
    groups: int = 2,
    length: int = 512,
    seed: int = 0,
    shards: int = 1,
    layout: str = "safetensors",
    dtype: str = "float32",
    stray: bool = True,
    chat: bool = True,
    **changes: Any,
) -> Path:
    """A checkpoint of a kind. width: of a head. inner: width of the gated layer. groups: heads of ChatGLM2's keys. stray: with
    the buffers that the original code saved. chat: whether generation_config.json names the tokens of turns (Baichuan).
    changes: of config.json; None removes a key. Returns the folder."""
    hidden = heads * width
    rows = write_pieces(folder, MARKS[kind], space_first=kind == "chatglm2") + 8
    config = _config(kind, rows, hidden, heads, width, layers, inner, groups, length, dtype) | changes
    _write(folder / "config.json", {key: value for key, value in config.items() if value is not None})
    _write(folder / "tokenizer_config.json", {"add_bos_token": False} if kind.startswith("baichuan") else {})
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if kind == "baichuan13b" and chat:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        ends |= {"user_token_id": pieces.piece_to_id(USER), "assistant_token_id": pieces.piece_to_id(ASSISTANT)}
    if kind != "chatglm2":
        _write(folder / "generation_config.json", ends)
    tensors = _tensors(kind, rows, hidden, heads, width, layers, inner, groups, seed)
    if stray and kind == "chatglm2":
        tensors["transformer.rotary_pos_emb.inv_freq"] = torch.ones(width // 4)
    elif stray and kind != "baichuan13b":
        tensors |= {
            f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(width // 2) for layer in range(layers)
        }
    write_weights(folder, {name: value.to(getattr(torch, dtype)) for name, value in tensors.items()}, shards, layout)
    return folder


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))


def _config(
    kind: str,
    rows: int,
    hidden: int,
    heads: int,
    width: int,
    layers: int,
    inner: int,
    groups: int,
    length: int,
    dtype: str,
) -> dict[str, Any]:
    if kind == "chatglm2":
        return {
            "model_type": "chatglm", "architectures": ["ChatGLMModel"], "add_bias_linear": False, "add_qkv_bias": True,
            "apply_query_key_layer_scaling": True, "apply_residual_connection_post_layernorm": False,
            "ffn_hidden_size": inner, "hidden_size": hidden, "kv_channels": width, "layernorm_epsilon": 1e-5,
            "multi_query_attention": True, "multi_query_group_num": groups, "num_attention_heads": heads,
            "num_layers": layers, "original_rope": True, "padded_vocab_size": rows, "post_layer_norm": True,
            "rmsnorm": True, "seq_length": length, "torch_dtype": dtype, "eos_token_id": 2, "pad_token_id": 0,
        }  # fmt: skip
    common = {
        "hidden_act": "silu", "hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads,
        "num_hidden_layers": layers, "rms_norm_eps": 1e-6, "vocab_size": rows, "torch_dtype": dtype, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
    }  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        "baichuan7b": {"architectures": ["BaiChuanForCausalLM"], "model_type": "baichuan", "max_position_embeddings": length},
        "baichuan13b": {"architectures": ["BaichuanForCausalLM"], "model_type": "baichuan", "model_max_length": length},
        "internlm": {
            "architectures": ["InternLMForCausalLM"], "model_type": "internlm", "bias": True, "max_position_embeddings": length,
        },
    }  # fmt: skip
    return common | own[kind]


def _tensors(
    kind: str, rows: int, hidden: int, heads: int, width: int, layers: int, inner: int, groups: int, seed: int
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, mean: float = 0.0) -> Tensor:
        return mean + 0.2 * torch.randn(*shape, generator=generator)

    if kind == "chatglm2":
        tensors = {
            "transformer.embedding.word_embeddings.weight": normal(rows, hidden),
            "transformer.encoder.final_layernorm.weight": normal(hidden, mean=1.0),
            "transformer.output_layer.weight": normal(rows, hidden),
        }
        for layer in range(layers):
            start = f"transformer.encoder.layers.{layer}."
            tensors |= {
                f"{start}input_layernorm.weight": normal(hidden, mean=1.0),
                f"{start}self_attention.query_key_value.weight": normal((heads + 2 * groups) * width, hidden),
                f"{start}self_attention.query_key_value.bias": normal((heads + 2 * groups) * width),
                f"{start}self_attention.dense.weight": normal(hidden, heads * width),
                f"{start}post_attention_layernorm.weight": normal(hidden, mean=1.0),
                f"{start}mlp.dense_h_to_4h.weight": normal(2 * inner, hidden),
                f"{start}mlp.dense_4h_to_h.weight": normal(hidden, inner),
            }
        return tensors
    tensors = {
        "model.embed_tokens.weight": normal(rows, hidden),
        "model.norm.weight": normal(hidden, mean=1.0),
        "lm_head.weight": normal(rows, hidden),
    }
    for layer in range(layers):
        start = f"model.layers.{layer}."
        tensors |= {
            f"{start}input_layernorm.weight": normal(hidden, mean=1.0),
            f"{start}self_attn.o_proj.weight": normal(hidden, hidden),
            f"{start}post_attention_layernorm.weight": normal(hidden, mean=1.0),
            f"{start}mlp.gate_proj.weight": normal(inner, hidden),
            f"{start}mlp.up_proj.weight": normal(inner, hidden),
            f"{start}mlp.down_proj.weight": normal(hidden, inner),
        }
        if kind == "internlm":
            tensors |= {f"{start}self_attn.{part}_proj.weight": normal(hidden, hidden) for part in "qkv"}
            tensors |= {f"{start}self_attn.{part}_proj.bias": normal(hidden) for part in "qkvo"}
        else:
            tensors[f"{start}self_attn.W_pack.weight"] = normal(3 * hidden, hidden)
    return tensors


# ---------------------------------------------------------------------------------------------------- what they compute
def logits(folder: Path, kind: str, tensors: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """float64 [length, rows] for one text, from the tensors under their original names."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: value.double() for name, value in tensors.items()}
    glm = kind == "chatglm2"
    heads = config["num_attention_heads"]
    epsilon = config["layernorm_epsilon" if glm else "rms_norm_eps"]
    stem = "transformer.encoder" if glm else "model"
    x = weights["transformer.embedding.word_embeddings.weight" if glm else "model.embed_tokens.weight"][ids]

    def norm(values: Tensor, name: str) -> Tensor:
        return values * (values.square().mean(-1, keepdim=True) + epsilon).rsqrt() * weights[name]

    for layer in range(config["num_layers" if glm else "num_hidden_layers"]):
        start = f"{stem}.layers.{layer}."
        before = norm(x, f"{start}input_layernorm.weight")
        x = x + _attention(kind, weights, start, before, heads, config)
        before = norm(x, f"{start}post_attention_layernorm.weight")
        if glm:
            gate, up = (before @ weights[f"{start}mlp.dense_h_to_4h.weight"].T).chunk(2, -1)
            down = weights[f"{start}mlp.dense_4h_to_h.weight"]
        else:
            gate, up = (before @ weights[f"{start}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
            down = weights[f"{start}mlp.down_proj.weight"]
        x = x + (torch.nn.functional.silu(gate) * up) @ down.T
    x = norm(x, f"{stem}.final_layernorm.weight" if glm else "model.norm.weight")
    return x @ weights["transformer.output_layer.weight" if glm else "lm_head.weight"].T


def _attention(
    kind: str, weights: Mapping[str, Tensor], start: str, x: Tensor, heads: int, config: Mapping[str, Any]
) -> Tensor:
    length = len(x)
    if kind == "chatglm2":
        name, out = f"{start}self_attention.query_key_value.", weights[f"{start}self_attention.dense.weight"]
        width, groups = config["kv_channels"], config["multi_query_group_num"]
        whole = x @ weights[f"{name}weight"].T + weights[f"{name}bias"]
        query, key, value = (
            part.view(length, -1, width).transpose(0, 1)
            for part in whole.split([heads * width] + 2 * [groups * width], -1)
        )
        key, value = (part.repeat_interleave(heads // groups, 0) for part in (key, value))
        # pairs of neighbours, in the first half of a head
        query, key = (
            torch.cat([_turned(part[..., : width // 2], neighbours=True), part[..., width // 2 :]], -1)
            for part in (query, key)
        )
        bias: Tensor | float = 0.0
        after: Tensor | float = 0.0
    else:
        width = config["hidden_size"] // heads
        if kind == "internlm":
            whole = torch.cat(
                [x @ weights[f"{start}self_attn.{part}_proj.weight"].T + weights[f"{start}self_attn.{part}_proj.bias"]
                 for part in "qkv"], -1,
            )  # fmt: skip
        else:
            whole = x @ weights[f"{start}self_attn.W_pack.weight"].T
        query, key, value = (part.view(length, heads, width).transpose(0, 1) for part in whole.chunk(3, -1))
        out, after = weights[f"{start}self_attn.o_proj.weight"], weights.get(f"{start}self_attn.o_proj.bias", 0.0)
        bias = 0.0
        if kind == "baichuan13b":
            steep = torch.tensor([_slope(head, heads) for head in range(heads)], dtype=torch.float64)
            bias = steep[:, None, None] * torch.arange(length, dtype=torch.float64)
        else:
            query, key = (_turned(part, neighbours=False) for part in (query, key))
    scores = query @ key.transpose(1, 2) / math.sqrt(width) + bias
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
    return (scores.softmax(-1) @ value).transpose(0, 1).reshape(length, -1) @ out.T + after


def _slope(head: int, heads: int) -> float:
    """ALiBi's slope (Press et al. 2022, and their code where the number of heads is no power of two)."""
    power = 2 ** math.floor(math.log2(heads))
    return 2 ** (-8 * (head + 1) / power) if head < power else 2 ** (-8 * (2 * (head - power) + 1) / (2 * power))


def _turned(x: Tensor, neighbours: bool) -> Tensor:
    """Rotary positions on x [heads, length, d], as complex numbers of neighbouring numbers or of those half of d apart."""
    length, size = x.shape[1:]
    angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    first, second = (x[..., 0::2], x[..., 1::2]) if neighbours else x.chunk(2, -1)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
    if neighbours:
        return torch.view_as_real(turned).flatten(-2)
    return torch.cat([turned.real, turned.imag], -1)
