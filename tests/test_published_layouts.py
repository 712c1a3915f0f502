"""LLaMA, LLaMA 2, Bloom and StarCoder in the layouts in which they were published: names of tensors, buffers beside them,
shards of torch files, old keys of configs, and a tokenizer in its original file. Against transformers alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import peers
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import Choose, ModelSpec, Sample
from tiny import write_byte_tokenizer, write_weights

logging.disable_progress_bar()
logging.set_verbosity_error()

OLD = {"torch_dtype": "float32", "transformers_version": "4.27.0.dev0", "use_cache": True}
LLAMA_SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    **LLAMA_SIZES,
}
# config.json with the keys of its time
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA, "max_position_embeddings": 512, "max_sequence_length": 512, "pad_token_id": 0},
    "llama2": {
        **LLAMA, "max_position_embeddings": 512, "num_key_value_heads": 2, "pretraining_tp": 1, "rope_scaling": None,
        "tie_word_embeddings": False,
    },
    "bloom": {
        "architectures": ["BloomForCausalLM"], "model_type": "bloom", "n_layer": 2, "n_head": 4, "hidden_size": 64,
        "n_inner": None, "offset_alibi": 100, "seq_length": 512, "skip_bias_add": True, "slow_but_exact": False,
        "pretraining_tp": 1, "apply_residual_connection_post_layernorm": False, "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True, "masked_softmax_fusion": True, "layer_norm_epsilon": 1e-5, "unk_token_id": 0,
    },
    "starcoder": {
        "architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode", "n_layer": 2, "n_head": 4, "n_embd": 64,
        "n_inner": 96, "n_positions": 512, "multi_query": True, "activation_function": "gelu",
        "attention_softmax_in_fp32": True, "scale_attention_softmax_in_fp32": True, "inference_runner": 0,
    },
}  # fmt: skip


def write(folder: Path, kind: str) -> Path:
    """A checkpoint of this kind, with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    own: dict[str, Any] = {}
    if kind.startswith("llama"):
        rows = peers.write_pieces(folder, space_first=True)
        token = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        own = {name: {**token, "content": text} for name, text in (("bos_token", "<s>"), ("eos_token", "</s>"))}
        own |= {"add_bos_token": True, "add_eos_token": False, "tokenizer_class": "LlamaTokenizer"}
        own |= {"unk_token": {**token, "content": "<unk>"}, "sp_model_kwargs": {}, "legacy": kind == "llama"}
        (folder / "tokenizer_config.json").write_text(json.dumps(own))
        ends = {"bos_token_id": 1, "eos_token_id": 2}
    else:
        rows, _, end = write_byte_tokenizer(folder, chat=False)
        ends = {"bos_token_id": end, "eos_token_id": end}
    config = {**CONFIGS[kind], **OLD, **ends, "vocab_size": rows, "initializer_range": 0.2}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    tensors = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if kind.startswith("llama"):  # buffers that were saved
        for layer in range(2):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(0, 16, 2) / 16)
    elif kind == "bloom":  # of the bare model, whose output matrix is its embedding
        del tensors["lm_head.weight"]
        tensors = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    else:
        for layer in range(2):
            tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(512, 512, dtype=torch.bool).tril()[None]
    write_weights(folder, tensors, 3, "bin")
    return folder


def alone(folder: Path, requests: Sequence[Choose]) -> list[list[float]]:
    """By request the log-probability of each option's own tokens, by transformers' model and tokenizer, one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for request in requests:
        full = [tokenizer(request.prompt() + option)["input_ids"] for option in request.options]
        same = min(map(len, full)) - 1
        while len({tuple(ids[:same]) for ids in full}) > 1:
            same -= 1
        scores = []
        for ids in full:
            with torch.inference_mode():
                values = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(float(values[place - 1, ids[place]]) for place in range(same, len(ids))))
        found.append(scores)
    return found


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_published_layout_is_what_transformers_makes_of_it(tmp_path: Path, kind: str) -> None:
    """With shared prefixes, after the trust test."""
    folder = write(tmp_path, kind)
    words = ("lamps", "boats", "keepers of the seven lamps")
    requests = [
        Choose("The red boat and the blue boat. " * 3, (), f"How many {word}?", (" A", " B", " seven"))
        for word in words
    ]
    engine = HFEngine(ModelSpec(str(folder)))
    samples = [Sample(f"q/{index}", request, 0) for index, request in enumerate(requests)]
    assert engine.trust(samples).marks == "" and engine.runtime.features.replaced
    found = engine.choose(requests, lambda *_: None)
    for answer, want in zip(found, alone(folder, requests), strict=True):
        assert answer.logprobs == pytest.approx(want, abs=1e-4)
    assert engine.usage()["tokens"] < engine.usage()["prompt_tokens"]
