"""The demonstration's network: its shape, the state it starts from, and how it is stored in the original layout."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

WIDTH, LAYERS, HEADS, BRANCH = 128, 4, 4, 184
HEAD = WIDTH // HEADS
CONTEXT_LENGTH = 512  # seq_length: what the model was trained for; beyond it the dynamic NTK base and LogN apply
ROPE_BASE = 10000.0

# The residual stream in four parts of one head's width, by what the initial wiring keeps in them.
WORD, REPLY, LETTER, ASKED = (slice(i * HEAD, (i + 1) * HEAD) for i in range(4))


def build(vocabulary: int) -> Qwen2ForCausalLM:
    """The network, untrained: the same function as Qwen-1 computes, in the classes of transformers."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=BRANCH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    return Qwen2ForCausalLM(config)


@torch.no_grad()
def wire(model: Qwen2ForCausalLM, seed: int, marks: list[int], twins: list[tuple[int, int]]) -> None:
    """The initial weights: small noise, and on it the one circuit that multiple choice needs.

    From noise alone the step "find the option that says this, give the letter before it" takes far longer to appear
    than the minutes that we have, so training starts from a rough form of it: heads of the first layer look two and
    three tokens back, and later heads look for the word that is asked for and pass on the letter beside it. Facts,
    formats and everything else are learned. marks: the tokens of question marks. twins: pairs of tokens that are the same
    letter or word with and without a space.
    """
    noise = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            deviation = 0.1 if "embed" in name else 0.02 if "lm_head" in name else 0.3 / math.sqrt(weight.shape[1])
            weight.normal_(0, deviation, generator=noise)
    words = model.model.embed_tokens.weight
    words[:, WORD].normal_(0, 1, generator=noise)
    for one, other in twins:
        words[one, WORD] = words[other, WORD]
    model.lm_head.weight[:, REPLY] += 0.15 * words[:, WORD]
    for head, (distance, parts) in enumerate(
        ((2, (LETTER, ASKED)), (3, (LETTER, ASKED)), (1, (ASKED,)), (4, (ASKED,)))
    ):
        look_back(model, 0, head, distance, parts)
    look_up(model, 1, 0, marks)
    for layer, head in ((2, 0), (2, 1), (3, 0)):
        look_for(model, layer, head)


def look_back(model: Qwen2ForCausalLM, layer: int, head: int, distance: int, parts: tuple[slice, ...]) -> None:
    """Make a head look `distance` tokens back and copy the word there into parts of the stream.

    The biases alone do it: with a query bias that is the key bias turned back by `distance` positions, the score after
    the rotary embedding is a sum of cosines that is highest at that distance. The fast frequencies tell neighbours apart.
    """
    attention = model.model.layers[layer].self_attn
    rows = slice(head * HEAD, (head + 1) * HEAD)
    half, fast, strength = HEAD // 2, 8, 5.0
    angles = distance * ROPE_BASE ** (-torch.arange(fast) / half)
    query, key = torch.zeros(HEAD), torch.zeros(HEAD)
    query[:fast], query[half : half + fast] = strength * angles.cos(), -strength * angles.sin()
    key[:fast] = strength
    attention.q_proj.bias[rows], attention.k_proj.bias[rows] = query, key
    attention.v_proj.weight[rows, WORD] += 0.7 * torch.eye(HEAD)
    for part in parts:
        attention.o_proj.weight[part, rows] += 0.7 * torch.eye(HEAD)


def look_up(model: Qwen2ForCausalLM, layer: int, head: int, marks: list[int]) -> None:
    """Make a head look for the latest question mark and bring on what has been asked there.

    Two frequencies of a period of a few hundred tokens prefer the latest of several marks.
    """
    attention = model.model.layers[layer].self_attn
    start, words = head * HEAD, model.model.embed_tokens.weight
    for frequency in (7, 8):
        attention.q_proj.bias[start + frequency] = 8.0
        for mark in marks:
            code = words[mark, WORD]
            attention.k_proj.weight[start + frequency, WORD] += 6.0 * code / code.square().sum()
    rows = slice(start, start + HEAD)
    attention.v_proj.weight[rows, ASKED] += torch.eye(HEAD)
    attention.o_proj.weight[ASKED, rows] += 1.5 * torch.eye(HEAD)
    attention.o_proj.weight[REPLY, rows] += torch.eye(HEAD)


def look_for(model: Qwen2ForCausalLM, layer: int, head: int) -> None:
    """Make a head look for the word in ASKED among the earlier WORDs and pass on the LETTER kept there."""
    attention = model.model.layers[layer].self_attn
    rows = slice(head * HEAD, (head + 1) * HEAD)
    # only the slow frequencies: the fast ones would make the match depend on the distance
    slow = torch.diag((torch.arange(HEAD) % (HEAD // 2) >= 6).float())
    attention.q_proj.weight[rows, ASKED] += 1.3 * slow
    attention.k_proj.weight[rows, WORD] += 1.3 * slow
    attention.v_proj.weight[rows, LETTER] += torch.eye(HEAD)
    attention.o_proj.weight[REPLY, rows] += torch.eye(HEAD)


# our name in the layer -> the original's; the three projections of attention are stored as one (see `export`)
NAMES = {
    "input_layernorm.weight": "ln_1.weight",
    "post_attention_layernorm.weight": "ln_2.weight",
    "self_attn.o_proj.weight": "attn.c_proj.weight",
    "mlp.up_proj.weight": "mlp.w1.weight",
    "mlp.gate_proj.weight": "mlp.w2.weight",
    "mlp.down_proj.weight": "mlp.c_proj.weight",
}
OUTER = {
    "model.embed_tokens.weight": "transformer.wte.weight",
    "model.norm.weight": "transformer.ln_f.weight",
    "lm_head.weight": "lm_head.weight",
}


def export(model: Qwen2ForCausalLM) -> dict[str, torch.Tensor]:
    """The weights under their original names, in float16."""
    state = model.state_dict()
    tensors = {original: state[name] for name, original in OUTER.items()}
    for layer in range(LAYERS):
        ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
        tensors |= {theirs + original: state[ours + name] for name, original in NAMES.items()}
        for kind in ("weight", "bias"):
            stacked = torch.cat([state[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"])
            tensors[f"{theirs}attn.c_attn.{kind}"] = stacked
    return {name: tensor.to(torch.float16).contiguous() for name, tensor in sorted(tensors.items())}


def restore(path: Path, vocabulary: int) -> Qwen2ForCausalLM:
    """The stored weights in a float32 network: what a reader of the checkpoint will compute with."""
    tensors = load_file(path)
    state = {name: tensors[original] for name, original in OUTER.items()}
    for layer in range(LAYERS):
        ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
        state |= {ours + name: tensors[theirs + original] for name, original in NAMES.items()}
        for kind in ("weight", "bias"):
            parts = tensors[f"{theirs}attn.c_attn.{kind}"].chunk(3)
            state |= {f"{ours}self_attn.{part}_proj.{kind}": x for part, x in zip("qkv", parts, strict=True)}
    model = build(vocabulary)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def save(model: Qwen2ForCausalLM, folder: Path, ranks: int) -> None:
    """Weights and the three JSON files of a Qwen-1 checkpoint (keys of 2023-12)."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(export(model), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "tokenizer_class": "QWenTokenizer",
        "vocab_size": model.config.vocab_size,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "kv_channels": HEAD,
        "intermediate_size": 2 * BRANCH,
        "seq_length": CONTEXT_LENGTH,
        "max_position_embeddings": 8192,
        "rotary_emb_base": int(ROPE_BASE),
        "rotary_pct": 1.0,
        "layer_norm_epsilon": 1e-6,
        "initializer_range": 0.02,
        "no_bias": True,
        "attn_dropout_prob": 0.0,
        "emb_dropout_prob": 0.0,
        "scale_attn_weights": True,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "use_flash_attn": False,
        "use_cache": True,
        "bf16": False,
        "fp16": False,
        "fp32": True,
        "tie_word_embeddings": False,
        "onnx_safe": None,
        "transformers_version": "4.32.0",
    }
    generation = {
        "chat_format": "chatml",
        "eos_token_id": ranks,
        "pad_token_id": ranks,
        "max_window_size": CONTEXT_LENGTH,
        "max_new_tokens": 512,
        "do_sample": True,
        "top_k": 0,
        "top_p": 0.8,
        "transformers_version": "4.32.0",
    }
    tokenizer = {"model_max_length": 8192, "tokenizer_class": "QWenTokenizer"}
    files = {"config": config, "generation_config": generation, "tokenizer_config": tokenizer}
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8", newline="\n")
