"""What is taken for a model that generates text, by what config.json says; text-only use of vision-language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

import tiny
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.configs import read_config
from qwen_eval.schema import CheckpointError, Choose, Generate, ModelSpec
from sweep import option_log_probability

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 384,
}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def config(folder: Path, kind: str, **settings: Any) -> Path:
    """A folder with a config alone."""
    AutoConfig.for_model(kind, **settings).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "architecture", "settings", "what"),
    [
        ("bert", "BertForMaskedLM", {}, "a masked language model"),
        ("roberta", "RobertaForMaskedLM", {}, "a masked language model"),
        ("modernbert", "ModernBertForMaskedLM", {}, "a masked language model"),
        ("bert", "BertLMHeadModel", {}, "attends in both directions"),
        ("bert", None, {}, "attends in both directions"),
        ("qwen2", "Qwen2ForSequenceClassification", {"tie_word_embeddings": True}, "a classifier or reward model"),
        ("qwen2", "Qwen2ForRewardModel", {}, "a classifier or reward model"),
        ("llama", "LlamaForTokenClassification", {}, "a classifier"),
        ("llama", "LlamaForQuestionAnswering", {}, "marks answers"),
        ("qwen2", "Qwen2Model", {"tie_word_embeddings": True}, "a bare or embedding model"),
        ("qwen3", "Qwen3Embedding", {}, "a bare or embedding model"),
        ("gemma3_text", "Gemma3TextModel", {"use_bidirectional_attention": True}, "attends in both directions"),
        ("gemma3_text", "Gemma3ForCausalLM", {"use_bidirectional_attention": True}, "attends in both directions"),
        ("t5", "T5ForConditionalGeneration", {}, "an encoder-decoder model"),
        ("bart", "BartForConditionalGeneration", {}, "an encoder-decoder model"),
        ("bart", None, {}, "an encoder-decoder model"),
        ("marian", "MarianMTModel", {}, "an encoder-decoder model"),
        ("clip", "CLIPModel", {}, "a bare or embedding model"),
        ("whisper", None, {}, "an encoder-decoder model"),
        ("vit", None, {}, "no causal language model"),
    ],
)
def test_what_does_not_generate_text_is_refused_by_what_it_is(
    kind: str, architecture: str | None, settings: dict, what: str, tmp_path: Path
) -> None:
    named = {"architectures": [architecture]} if architecture else {}
    folder = config(tmp_path, kind, **named, **settings)
    with pytest.raises(CheckpointError) as refused:
        read_config(folder, trust_remote_code=False)
    assert what in str(refused.value) and "\n" not in str(refused.value)
    assert str(folder / "config.json") in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "architecture", "settings"),
    [
        ("llama", "LlamaForCausalLM", {}),
        ("llama", None, {}),
        ("qwen2", "AnotherNameForCausalLM", {}),
        ("gpt2", "GPT2LMHeadModel", {}),
        ("xlnet", "XLNetLMHeadModel", {}),
        ("bert", "BertLMHeadModel", {"is_decoder": True}),
        ("bart", "BartForCausalLM", {"is_decoder": True, "is_encoder_decoder": False}),
        ("gemma3", "Gemma3ForConditionalGeneration", {}),
        ("llava", "LlavaForConditionalGeneration", {}),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", {}),
    ],
)
def test_what_generates_text_is_taken(kind: str, architecture: str | None, settings: dict, tmp_path: Path) -> None:
    named = {"architectures": [architecture]} if architecture else {}
    read_config(config(tmp_path, kind, **named, **settings), trust_remote_code=False)


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_a_vision_language_model_answers_through_its_text_model(kind: str, tmp_path: Path) -> None:
    text = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2}
    if kind == "llava":
        parts = {
            "text_config": {"model_type": "llama", **text},
            "vision_config": {"model_type": "clip_vision_model", **SMALL, "image_size": 28, "patch_size": 14},
            "image_token_index": 383,
        }
    else:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
        vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
        parts = {"text_config": {**text, "rope_parameters": rope}, "vision_config": vision}
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **parts)).train(False)
    tiny.write_byte_tokenizer(tmp_path)
    model.save_pretrained(tmp_path)
    engine = HFEngine(ModelSpec(str(tmp_path), dtype="float32"))
    shots = ("Question: how many lamps?\nAnswer: seven\n\n",) * 3
    asked = [
        Choose("About lamps.\n\n", shots, f"Question: {what}?\nAnswer:", (" A", " B")) for what in ("dusk", "a boat")
    ]
    for request, found in zip(asked, engine.choose(asked, lambda *_: None), strict=True):
        expected = [option_log_probability(model, engine.checkpoint.tokenizer, request, option) for option in (0, 1)]
        assert found.logprobs == pytest.approx(expected, abs=1e-4)
    assert engine.generate([Generate("The red boat", 4)], lambda *_: None)[0].texts[0]
