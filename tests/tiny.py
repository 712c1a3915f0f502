"""Builders of tiny checkpoints: Qwen-1 in its original layout, and others as transformers writes them.

All weights are random, all text and every token is made up here. A folder takes well under a second to write.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

# Threads that wait for each other over matrices this small treble the time of the tests on a busy machine.
torch.set_num_threads(1)

# Beyond the 256 single bytes: every prefix of these becomes a token, so that merges lead to each.
WORDS = (
    " the", " and", " of", "ing", " is", " A", " B", " C", " D", "Question", "Answer", ":", "\n\n", ". ", " number",
    " answer", "问题", "答案", "system", "user", "assistant", "def", "    ", "return", "ation", " red", " blue",
)  # fmt: skip
CORPUS = (
    "The red boat and the blue boat sail to the island of the seven lamps.",
    "Question: how many lamps are there? Answer: there are seven lamps on the island.",
    "A keeper lights the first lamp at dusk, and the answer of the last lamp is the number seven.",
    "def count(lamps):\n    return len(lamps)\n",
    "问题：岛上有几盏灯？答案：七盏灯。",
    "The keeper is counting the boats: one, two, three, four, five, six, seven.",
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


# ---------------------------------------------------------------------------------------------------------- Qwen-1
def write_ranks(path: Path, words: Sequence[str] = WORDS, limit: int | None = None) -> int:
    """A tiktoken file of our own: the single bytes, then the prefixes of `words`. limit: at most this many ranks (256
    and up). Returns how many there are."""
    tokens = [bytes([byte]) for byte in range(256)]
    for word in words:
        data = word.encode()
        tokens += [data[:end] for end in range(2, len(data) + 1)]
    tokens = list(dict.fromkeys(tokens))[:limit]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    path.write_text("".join(lines))
    return len(tokens)


def write_qwen1(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 2,
    inner: int | None = None,
    vocab: int | None = None,
    words: Sequence[str] = WORDS,
    seq_length: int = 64,
    positions: int = 512,
    seed: int = 0,
    dynamic_ntk: bool = False,
    logn: bool = False,
    dtype: str = "float32",
    generation: str = "2023-12",
    shards: int = 1,
    layout: str = "safetensors",
    spread: float = 0.1,
    stray: bool = False,
) -> Path:
    """A Qwen-1 checkpoint as it was released: config.json, generation_config.json, tokenizer_config.json, qwen.tiktoken
    and weights under the original names. Returns the folder.

    inner: the width of one branch of the gated layer (default 2 x hidden). vocab: rows of the embedding (default: all
    tokens, rounded up to 64). generation: of the config's keys, "2023-08" or "2023-12". shards, layout: weight files,
    "safetensors" or "bin". spread: standard deviation of the weights. stray: with the buffers some checkpoints carry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first_special = write_ranks(folder / "qwen.tiktoken", words)
    vocab = vocab or math.ceil((first_special + 208) / 64) * 64
    inner = inner or 2 * hidden
    common = {
        "architectures": ["QWenLMHeadModel"],
        "auto_map": {
            "AutoConfig": "configuration_qwen.QWenConfig",
            "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
        },
        "model_type": "qwen",
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "fp32": dtype == "float32",
        "kv_channels": hidden // heads,
        "layer_norm_epsilon": 1e-6,
        "no_bias": True,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": seq_length,
        "tie_word_embeddings": False,
        "use_dynamic_ntk": dynamic_ntk,
        "use_logn_attn": logn,
        "use_cache": True,
        "initializer_range": 0.02,
    }
    if generation == "2023-08":
        sizes = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "ffn_hidden_size": 2 * inner}
        sizes |= {"n_positions": positions, "padded_vocab_size": vocab, "vocab_size": first_special + 208}
    else:
        sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
        sizes |= {"intermediate_size": 2 * inner, "max_position_embeddings": positions, "vocab_size": vocab}
    _write_json(folder / "config.json", common | sizes)
    end = {"eos_token_id": first_special, "pad_token_id": first_special, "stop_words_ids": [[first_special]]}
    sampling = {"chat_format": "raw", "do_sample": True, "top_p": 0.8, "top_k": 0, "max_new_tokens": 512}
    _write_json(folder / "generation_config.json", end | sampling)
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "QWenTokenizer", "model_max_length": positions})
    tensors = qwen1_tensors(hidden, layers, inner, vocab, seed, spread)
    if stray:
        for layer in range(layers):
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    write_weights(folder, {name: value.to(getattr(torch, dtype)) for name, value in tensors.items()}, shards, layout)
    return folder


def qwen1_tensors(
    hidden: int, layers: int, inner: int, vocab: int, seed: int = 0, spread: float = 0.1
) -> dict[str, torch.Tensor]:
    """Random weights under Qwen-1's names, float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, mean: float = 0.0) -> torch.Tensor:
        return mean + spread * torch.randn(*shape, generator=generator)

    tensors = {"transformer.wte.weight": normal(vocab, hidden)}
    for layer in range(layers):
        tensors |= {
            f"transformer.h.{layer}.{name}": value
            for name, value in {
                "ln_1.weight": normal(hidden, mean=1.0),
                "attn.c_attn.weight": normal(3 * hidden, hidden),
                "attn.c_attn.bias": normal(3 * hidden),
                "attn.c_proj.weight": normal(hidden, hidden),
                "ln_2.weight": normal(hidden, mean=1.0),
                "mlp.w1.weight": normal(inner, hidden),
                "mlp.w2.weight": normal(inner, hidden),
                "mlp.c_proj.weight": normal(hidden, inner),
            }.items()
        }
    return tensors | {"transformer.ln_f.weight": normal(hidden, mean=1.0), "lm_head.weight": normal(vocab, hidden)}


def export_qwen1(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of our model (Qwen2's names) under Qwen-1's original names."""
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.norm": "transformer.ln_f",
        "model.layers": "transformer.h",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "self_attn.o_proj": "attn.c_proj",
        "mlp.up_proj": "mlp.w1",
        "mlp.gate_proj": "mlp.w2",
        "mlp.down_proj": "mlp.c_proj",
    }
    out: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if "self_attn.k_proj" in name or "self_attn.v_proj" in name:
            continue
        target, value = name, tensor
        if "self_attn.q_proj" in name:
            value = torch.cat([tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
            target = name.replace("self_attn.q_proj", "attn.c_attn")
        for ours, theirs in names.items():
            target = target.replace(ours, theirs)
        out[target] = value.detach().clone().contiguous()
    return out


def write_weights(
    folder: Path, tensors: Mapping[str, torch.Tensor], shards: int = 1, layout: str = "safetensors"
) -> None:
    """Weight files with their index where there are several. layout: "safetensors" or "bin" (torch.save)."""
    single = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[layout]
    stem, suffix = single.split(".")
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        part = {name: tensors[name].contiguous() for name in names[shard::shards]}
        file = single if shards == 1 else f"{stem}-{shard + 1:05d}-of-{shards:05d}.{suffix}"
        if layout == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        _write_json(folder / f"{single}.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})


# ---------------------------------------------------------------------------------------------------------- others
def write_llama(folder: Path, **options: Any) -> Path:
    """A tiny Llama with a SentencePiece tokenizer that puts <s> first, and an [INST] chat template."""
    return write_causal(folder, "llama", tokenizer="sentencepiece", **options)


def write_mistral(folder: Path, **options: Any) -> Path:
    """A tiny Mistral (grouped queries, no biases) with a byte-level tokenizer."""
    return write_causal(folder, "mistral", **options)


def write_qwen2(folder: Path, **options: Any) -> Path:
    """A tiny Qwen2 (biases on query, key and value) with a byte-level tokenizer and ChatML."""
    return write_causal(folder, "qwen2", **options)


def write_qwen3(folder: Path, **options: Any) -> Path:
    """A tiny Qwen3 (normalised queries and keys) with a byte-level tokenizer and ChatML."""
    return write_causal(folder, "qwen3", **options)


def write_causal(
    folder: Path,
    model_type: str,
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    positions: int = 512,
    seed: int = 0,
    spread: float = 0.1,
    tokenizer: str = "bytes",
    chat: bool = True,
    **config: Any,
) -> Path:
    """Any decoder of transformers with Llama-like config keys. tokenizer: "bytes" or "sentencepiece". chat: with a chat
    template. Further keys go to the config. Returns the folder."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    write = {"bytes": write_byte_tokenizer, "sentencepiece": write_sentencepiece_tokenizer}[tokenizer]
    vocab, bos, eos = write(folder, chat)
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "max_position_embeddings": positions,
        "vocab_size": math.ceil(vocab / 64) * 64,
        "initializer_range": spread,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": None,
    }
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes, **config))
    model.save_pretrained(folder)
    return folder


def write_byte_tokenizer(folder: Path, chat: bool = True) -> tuple[int, None, int]:
    """A byte-level BPE tokenizer trained on CORPUS, with ChatML's special tokens. Returns size, no BOS, EOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=380, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tok.train_from_iterator(CORPUS, trainer)
    tok.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "model_max_length": 512}
    _write_json(folder / "tokenizer_config.json", config | ({"chat_template": CHATML} if chat else {}))
    return tok.get_vocab_size(), None, tok.token_to_id("<|endoftext|>")


def write_sentencepiece_tokenizer(folder: Path, chat: bool = True) -> tuple[int, int, int]:
    """A SentencePiece BPE model with byte fallback trained on CORPUS, as Llama's is. Returns size, BOS, EOS."""
    import sentencepiece

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
        normalization_rule_name="identity",
        split_digits=True,
    )
    (folder / "tokenizer.vocab").unlink()
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config |= {"add_bos_token": True, "add_eos_token": False, "legacy": False}
    _write_json(folder / "tokenizer_config.json", config | ({"chat_template": INST} if chat else {}))
    size = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size()
    return size, 1, 2


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False))
