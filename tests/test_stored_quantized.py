"""Checkpoints that are stored quantized: figures where transformers reads them here, else one line that names the package."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GptOssConfig, GptOssForCausalLM

import tiny
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models import quantized
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import CheckpointError, ModelSpec
from test_engine import questions

IDS = torch.randint(3, 300, (1, 40), generator=torch.Generator().manual_seed(0))


def settle(folder: Path, **keys: Any) -> Path:
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return folder


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as refused:
        open_checkpoint(ModelSpec(str(folder), **options)).load()
    assert "\n" not in str(refused.value)
    return str(refused.value)


INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
LAYOUTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, "gptq4", "optimum and gptqmodel"),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}, "awq4", "gptqmodel"),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors", "format": "pack-quantized",
         "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}}},
        "compressed-tensors:int4", "compressed-tensors",
    ),
    "hqq": ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}, "hqq4", "hqq"),
    "torchao": ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
                "torchao:Int4WeightOnlyConfig", "torchao"),
    "quanto": ({"quant_method": "quanto", "weights": "int8"}, "quanto:int8", "optimum-quanto"),
    "aqlm": ({"quant_method": "aqlm"}, "aqlm", "aqlm[gpu,cpu]"),
    "eetq": ({"quant_method": "eetq", "weights": "int8"}, "eetq", "kernels"),
    "auto-round": ({"quant_method": "auto-round", "bits": 4}, "auto-round4", "auto-round"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_package_is_named_before_anything_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, label, packages = LAYOUTS[name]
    folder = settle(tiny.write_llama(tmp_path), quantization_config=own)
    find = importlib.util.find_spec
    absent = set(quantized._PACKAGES[name])
    monkeypatch.setattr(
        quantized.importlib.util, "find_spec", lambda module: None if module in absent else find(module)
    )
    assert quantized.label(own) == label
    text = refusal(folder)
    assert f"the checkpoint is quantized ({label}), and transformers reads it with {packages}; run: pip install" in text
    assert "get the weights" not in text


def test_formats_that_transformers_would_leave_out_are_refused(tmp_path: Path) -> None:
    """It warns, and takes the packed numbers for weights."""
    folder = settle(tiny.write_llama(tmp_path), quantization_config={"quant_method": "exl9", "bits": 4})
    assert "quantization method 'exl9', which transformers" in refusal(folder)
    settle(folder, quantization_config={"bits": 4})
    assert "its quantization_config names no quant_method" in refusal(folder)


def test_what_is_quantized_is_not_quantized_again(tmp_path: Path) -> None:
    folder = settle(tiny.write_llama(tmp_path), quantization_config=LAYOUTS["gptq"][0])
    assert "quantized already (gptq4); leave out --quantize" in refusal(folder, quantize="int8")


def fp8(folder: Path, block: int = 32) -> tuple[Path, Any]:
    """A checkpoint in 8-bit floats with a scale for a block of each matrix, as DeepSeek-V3's is, and the same model with the
    weights that these are, by hand."""
    base = tiny.write_llama(folder / "base")
    wide = AutoModelForCausalLM.from_pretrained(base)
    tensors = load_file(base / "model.safetensors")
    for name, weight in list(tensors.items()):
        if not name.endswith("_proj.weight"):
            continue
        rows, columns = weight.shape[0] // block, weight.shape[1] // block
        blocks = weight.reshape(rows, block, columns, block)
        scale = blocks.abs().amax((1, 3)) / 448
        narrow = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        tensors[name] = narrow.reshape(weight.shape)
        tensors[f"{name}_scale_inv"] = scale
        wide.get_parameter(name).data = (narrow.float() * scale[:, None, :, None]).reshape(weight.shape)
    target = tiny.write_llama(folder / "fp8")
    tiny.write_weights(target, tensors)
    own = {"quant_method": "fp8", "weight_block_size": [block, block], "activation_scheme": "dynamic"}
    return settle(target, quantization_config=own), wide


def test_8_bit_floats_where_there_is_no_kernel_for_them(tmp_path: Path) -> None:
    folder, wide = fp8(tmp_path)
    if torch.cuda.is_available():
        pytest.skip("computed in 8 bits there")
    opened = open_checkpoint(ModelSpec(str(folder), dtype="float32"))
    assert opened.precision == "fp8:dequantized" and not opened.quantized
    with torch.inference_mode():
        found, expected = opened.load()(IDS).logits, wide(IDS).logits
        bare = AutoModelForCausalLM.from_pretrained(tmp_path / "base")(IDS).logits
    assert (found - expected).abs().max() < 1e-3 < 1e-2 < (bare - expected).abs().max()


def test_4_bit_floats_of_experts_where_there_is_no_kernel_for_them(tmp_path: Path) -> None:
    """gpt-oss's MXFP4: 32 numbers of 4 bits share a power of two (OCP Microscaling Formats 1.0), two in a byte, the first in
    its low half."""
    if torch.cuda.is_available() or importlib.util.find_spec("kernels"):
        pytest.skip("computed in 4 bits there")
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    values = torch.cat([values, -values])
    config = GptOssConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        num_local_experts=4, num_experts_per_tok=2, vocab_size=448, max_position_embeddings=512, sliding_window=32,
        initializer_range=0.1, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    torch.manual_seed(0)
    wide = GptOssForCausalLM(config).train(False)
    tensors = dict(wide.state_dict())
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wide.named_parameters():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            continue
        experts, columns, rows = parameter.shape
        codes = torch.randint(0, 16, (experts, rows, columns // 32, 32), generator=generator)
        powers = torch.randint(122, 126, (experts, rows, columns // 32), generator=generator)
        del tensors[name]
        tensors[f"{name}_blocks"] = (codes[..., ::2] + 16 * codes[..., 1::2]).to(torch.uint8)
        tensors[f"{name}_scales"] = powers.to(torch.uint8)
        matrix = values[codes] * 2.0 ** (powers - 127)[..., None]
        parameter.data = matrix.reshape(experts, rows, columns).transpose(1, 2).contiguous()
    tiny.write_byte_tokenizer(tmp_path)
    config.save_pretrained(tmp_path)
    tiny.write_weights(tmp_path, {name: value.clone() for name, value in tensors.items()})
    settle(tmp_path, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    opened = open_checkpoint(ModelSpec(str(tmp_path), dtype="float32"))
    assert opened.precision.startswith("mxfp4:dequantized")
    try:
        model = opened.load()
    except CheckpointError as refused:  # transformers 5.10 has bfloat16 only, whatever is asked for
        assert "add --dtype bfloat16" in str(refused)
        return
    with torch.inference_mode():
        assert (model(IDS).logits - wide(IDS).logits).abs().max() < 1e-3


def test_scales_without_a_config_are_named(tmp_path: Path) -> None:
    folder, _ = fp8(tmp_path)
    text = refusal(settle(folder, quantization_config=None))
    assert "weight_scale_inv" in text and "config.json has no quantization_config" in text


def test_the_layout_of_older_tools_is_named(tmp_path: Path) -> None:
    """AutoGPTQ wrote its settings to quantize_config.json only."""
    folder = tiny.write_llama(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        tensors[name.replace("weight", "qweight")] = torch.zeros(8, 64, dtype=torch.int32)
        tensors[name.replace("weight", "scales")] = torch.zeros(1, 64, dtype=torch.float16)
        del tensors[name]
    tiny.write_weights(folder, tensors)
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 64}')
    text = refusal(folder)
    assert "its weights lack" in text and "quantize_config.json" in text


def adapter_of(base: Path, folder: Path) -> Path:
    """A LoRA of random values."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder / "adapter")
    return folder / "adapter"


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_saved_by_bitsandbytes(kind: str, tmp_path: Path) -> None:
    """The same answers as from quantizing the wide checkpoint here."""
    base = tiny.write_llama(tmp_path / "base", hidden=128)
    bits: dict[str, Any] = {"load_in_8bit": True}
    if kind == "nf4":
        bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    made: Any = BitsAndBytesConfig
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=made(**bits), device_map={"": "cpu"})
    saved = tiny.write_llama(tmp_path / "saved", hidden=128)
    (saved / "model.safetensors").unlink()
    model.save_pretrained(saved)
    opened = open_checkpoint(ModelSpec(str(saved)))
    assert opened.precision == f"bitsandbytes:{kind}" and opened.quantized
    assert "cannot be merged into quantized weights" in refusal(saved, adapter=str(adapter_of(base, tmp_path)))
    both = [
        open_checkpoint(
            ModelSpec(path, quantize=quantize, adapter=str(tmp_path / "adapter"), adapter_mode="apply")
        ).load()
        for path, quantize in ((str(saved), "none"), (str(base), kind))
    ]
    with torch.inference_mode():
        assert (both[0](IDS).logits - both[1](IDS).logits).abs().max() < 1e-3
    engines = [HFEngine(ModelSpec(str(saved))), HFEngine(ModelSpec(str(base), quantize=kind))]
    for one, other in zip(*(engine.choose(questions(3), lambda *_: None) for engine in engines), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


@pytest.mark.parametrize(("dtype", "label"), [("auto", "gptq4"), ("bfloat16", "gptq4+bf16")])
def test_another_type_is_another_run(dtype: str, label: str, tmp_path: Path) -> None:
    """Where the weights are run elsewhere (by vLLM, by a server) no package is needed here."""
    folder = settle(tiny.write_llama(tmp_path), quantization_config=LAYOUTS["gptq"][0])
    assert open_checkpoint(ModelSpec(str(folder), dtype=dtype), runs=False).precision == label
