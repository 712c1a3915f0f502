"""Writes GGUF files from tiny checkpoints, as llama.cpp's converter does: the names, the order of dimensions, Llama's rotated
halves interleaved, Gemma's norms with one added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

NAMES = {
    "model.embed_tokens.": "token_embd.",
    "model.norm.": "output_norm.",
    "lm_head.": "output.",
    "model.layers.": "blk.",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "input_layernorm": "attn_norm",
}
NORMS = {"llama": "ffn_norm", "qwen2": "ffn_norm", "qwen3": "ffn_norm", "gemma3": "post_attention_norm"}


def write_gguf(
    path: Path,
    folder: Path,
    architecture: str,
    kind: str = "F32",
    more: Mapping[str, Any] | None = None,
    tensors: Mapping[str, torch.Tensor] | None = None,
    leave_out: tuple[str, ...] = (),
) -> Path:
    """The checkpoint in `folder` as a GGUF file. kind: the type of the matrices, such as Q8_0; vectors stay F32. more: further
    metadata, which replaces ours (a str, bool, int or float each). tensors: further tensors. leave_out: keys that are not
    written. Returns the path."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, architecture)
    metadata = {**_shape(config, architecture), **_tokenizer(folder, architecture), **(more or {})}
    for key, value in metadata.items():
        if key not in leave_out:
            _add(writer, key, value)
    if "general.file_type" not in leave_out:
        writer.add_file_type(next(one.value for one in gguf.LlamaFileType if one.name.endswith(f"_{kind}")))
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        _add_tensor(writer, name, tensor.float(), config, architecture, kind)
    for name, tensor in (tensors or {}).items():
        writer.add_tensor(name, tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shape(config: dict[str, Any], architecture: str) -> dict[str, Any]:
    rotation = config.get("rope_parameters") or {}
    rotation = rotation.get("full_attention", rotation)
    own = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": rotation["rope_theta"],
    }
    if architecture == "llama":
        own |= {"rope.dimension_count": config["head_dim"], "vocab_size": config["vocab_size"]}
    else:
        own |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    if architecture == "gemma3":
        own["attention.sliding_window"] = config["sliding_window"]
    if architecture == "qwen2":  # its heads' width is not written
        own = {key: value for key, value in own.items() if "_length" not in key or "attention" not in key}
    return {f"{architecture}.{key}": value for key, value in own.items()}


def _tokenizer(folder: Path, architecture: str) -> dict[str, Any]:
    """The metadata of a tokenizer written by tiny.py, filled up to the model's vocabulary as the converter does."""
    if (folder / "tokenizer.model").exists():
        return _sentencepiece(folder)
    definition = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    vocabulary = definition["model"]["vocab"]
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    special = {token["content"] for token in definition["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    missing = size - len(tokens)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in definition["model"]["merges"]]
    found = {
        "tokenizer.ggml.model": "gpt2",
        # transformers cuts texts Qwen2's way whatever the tokenizer.json of a folder with model_type qwen2 says
        "tokenizer.ggml.pre": "qwen2" if architecture == "qwen2" else "gpt-2",
        "tokenizer.ggml.tokens": [*tokens, *(f"[PAD{len(tokens) + index}]" for index in range(missing))],
        "tokenizer.ggml.token_type": [*map(int, kinds), *[int(gguf.TokenType.UNUSED)] * missing],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": vocabulary["<|endoftext|>"],
        "tokenizer.ggml.add_bos_token": False,
    }
    if "chat_template" in settings:
        found["tokenizer.chat_template"] = settings["chat_template"]
    return found


def _sentencepiece(folder: Path) -> dict[str, Any]:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    ids = range(model.get_piece_size())
    kinds = [
        gguf.TokenType.UNKNOWN
        if model.is_unknown(index)
        else gguf.TokenType.CONTROL
        if model.is_control(index)
        else gguf.TokenType.BYTE
        if model.is_byte(index)
        else gguf.TokenType.NORMAL
        for index in ids
    ]
    missing = size - len(ids)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [
            *map(model.id_to_piece, ids),
            *(f"[PAD{len(ids) + index}]" for index in range(missing)),
        ],
        "tokenizer.ggml.scores": [*map(model.get_score, ids), *[-1000.0] * missing],
        "tokenizer.ggml.token_type": [*map(int, kinds), *[int(gguf.TokenType.UNUSED)] * missing],
        "tokenizer.ggml.bos_token_id": model.bos_id(),
        "tokenizer.ggml.eos_token_id": model.eos_id(),
        "tokenizer.ggml.unknown_token_id": model.unk_id(),
        "tokenizer.chat_template": json.loads((folder / "tokenizer_config.json").read_text())["chat_template"],
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor, config: dict[str, Any], architecture: str, kind: str
) -> None:
    for theirs, ours in {**NAMES, "post_attention_layernorm": NORMS[architecture]}.items():
        name = name.replace(theirs, ours)
    if architecture == "llama" and ("attn_q." in name or "attn_k." in name):
        heads = config["num_attention_heads"] if "attn_q." in name else config["num_key_value_heads"]
        pairs = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        tensor = pairs.swapaxes(1, 2).reshape(tensor.shape)
    if architecture == "gemma3" and name.endswith("norm.weight"):
        tensor = tensor + 1
    values = np.ascontiguousarray(tensor.numpy())
    if tensor.dim() == 1 or kind == "F32":
        writer.add_tensor(name, values)
    elif kind == "F16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        chosen = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quantize(values, chosen), raw_dtype=chosen)
