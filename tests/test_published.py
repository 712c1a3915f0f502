"""LLaMA, LLaMA 2, Bloom and StarCoder in the layouts in which they were published (keys of config.json, names of tensors,
shards of torch files, buffers beside the weights), against transformers on the same model in its own layout. All weights are
random."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
from known import run_script
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import Generate, ModelSpec
from sweep import option_log_probability
from test_engine import questions

ROTARY = 10000.0 ** (-torch.arange(0, 16, 2).float() / 16)


def with_rotary(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As Llama's files of 2023 hold them."""
    layers = {re.match(r"model\.layers\.\d+", name) for name in tensors}
    names = {f"{match[0]}.self_attn.rotary_emb.inv_freq" for match in layers if match}
    return tensors | dict.fromkeys(names, ROTARY)


def bare(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As Bloom's files hold them: those of the inner model, without the output matrix, which is the embedding."""
    return {
        name.removeprefix("transformer."): value for name, value in tensors.items() if not name.startswith("lm_head")
    }


def tied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As StarCoder's files hold them: the tied output matrix, too."""
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"]}


LLAMA = {
    "architectures": ["LLaMAForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 128, "max_sequence_length": 2048, "model_type": "llama",
    "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": -1, "rms_norm_eps": 1e-06, "torch_dtype": "float16",
    "transformers_version": "4.27.0.dev0", "use_cache": True, "vocab_size": 448,
}  # fmt: skip
LLAMA2 = {
    **LLAMA, "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "num_key_value_heads": 2,
    "pad_token_id": 0, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
    "transformers_version": "4.31.0.dev0",
}  # fmt: skip
BLOOM = {
    "apply_residual_connection_post_layernorm": False, "architectures": ["BloomForCausalLM"], "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "bos_token_id": 1, "eos_token_id": 2, "hidden_dropout": 0.0,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": True, "model_type": "bloom", "n_embed": 48,
    "n_inner": None, "n_layer": 2, "num_attention_heads": 6, "offset_alibi": 100, "pad_token_id": 3, "pretraining_tp": 4,
    "seq_length": 2048, "skip_bias_add": True, "skip_bias_add_qkv": False, "slow_but_exact": False, "torch_dtype": "float16",
    "transformers_version": "4.20.0.dev0", "unk_token_id": 0, "use_cache": True, "vocab_size": 448,
}  # fmt: skip
STARCODER = {
    "activation_function": "gelu", "architectures": ["GPTBigCodeForCausalLM"], "attention_softmax_in_fp32": True,
    "attn_pdrop": 0.1, "bos_token_id": 0, "embd_pdrop": 0.1, "eos_token_id": 0, "inference_runner": 0,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "max_batch_size": None, "max_sequence_length": None,
    "model_type": "gpt_bigcode", "multi_query": True, "n_embd": 64, "n_head": 4, "n_inner": 256, "n_layer": 2,
    "n_positions": 2048, "pad_key_length": True, "pre_allocate_kv_cache": False, "resid_pdrop": 0.1,
    "scale_attention_softmax_in_fp32": True, "scale_attn_weights": True, "torch_dtype": "float32",
    "transformers_version": "4.28.1", "use_cache": True, "validate_runner_input": True, "vocab_size": 448,
}  # fmt: skip
LAYOUTS: dict[str, tuple[dict[str, Any], Callable[[Any], Any], str, str]] = {
    "llama": (LLAMA, with_rotary, "sentencepiece", "bin"),
    "llama2": (LLAMA2, with_rotary, "sentencepiece", "bin"),
    "llama2-safetensors": (LLAMA2, dict, "sentencepiece", "safetensors"),
    "bloom": (BLOOM, bare, "bytes", "bin"),
    "starcoder": (STARCODER, tied, "bytes", "bin"),
}


def write(folder: Path, name: str) -> tuple[Path, Any]:
    """A checkpoint in a published layout, and the same model as transformers makes it from a config of today."""
    config, layout, tokenizer, files = LAYOUTS[name]
    folder.mkdir()
    {"bytes": tiny.write_byte_tokenizer, "sentencepiece": tiny.write_sentencepiece_tokenizer}[tokenizer](folder)
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    tiny.write_weights(folder, layout(dict(model.state_dict())), shards=3, layout=files)
    return folder, model.train(False)


@pytest.mark.parametrize("name", LAYOUTS)
def test_answers_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder, model = write(tmp_path / name, name)
    engine = HFEngine(ModelSpec(str(folder), dtype="float32"))
    asked = questions(4)
    for request, found in zip(asked, engine.choose(asked, lambda *_: None), strict=True):
        expected = [
            option_log_probability(model, engine.tokenizer, request, option) for option in range(len(request.options))
        ]
        assert found.logprobs == pytest.approx(expected, abs=1e-4)
    assert not [note for note in engine.notes if "whole" in note or "not use" in note]
    text = "The red boat and the blue boat"
    (reply,) = engine.generate([Generate(text, 12)], lambda *_: None)
    ids = torch.tensor([engine.tokenizer.encode(text)])
    with torch.inference_mode():
        for _ in range(12):
            following = model(ids).logits[0, -1].argmax()
            if int(following) in engine.tokenizer.eos_ids:
                break
            ids = torch.cat([ids, following[None, None]], 1)
    written = ids[0, len(engine.tokenizer.encode(text)) :].tolist()
    assert reply.texts[0].strip() == engine.tokenizer.decode(written).strip()


@pytest.mark.parametrize("name", ["llama", "bloom", "starcoder"])
def test_a_script_on_a_published_layout(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the trust test, in the precision that it was published in."""
    folder, _ = write(tmp_path / name, name)
    words = ["-c", folder, "-d", "demo", "--subjects", "formal_logic,nutrition", "--limit", "2"]
    run = run_script("mmlu", words, tmp_path / "results", capsys)
    assert run.status == 0, run.err
    assert "trust:" not in run.signature and "whole" not in run.out
    assert len(run.samples) == 4
