"""Checkpoints: what is read from them, and one line with file and remedy for each that is broken."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import remote
from loopback_hub import MAIN
from qwen_eval.engines.local.runtime import Runtime
from qwen_eval.models import checkpoint as module
from qwen_eval.models import opening
from qwen_eval.models.context import installed
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import CheckpointError, ModelSpec
from tiny import qwen1_tensors, write_byte_tokenizer, write_causal, write_llama, write_qwen1, write_qwen2, write_weights

IDS = torch.arange(40)[None]


def spec(path: Path | str, **options) -> ModelSpec:
    return ModelSpec(str(path), **{"device": "cpu", **options})


def refusal(action: Callable[[], object]) -> str:
    """The text of the CheckpointError that an action raises: one line."""
    with pytest.raises(CheckpointError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    assert 20 < len(text) < 700
    return text


def edit(path: Path, **changes) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_qwen1(tmp_path / "Qwen-tiny", seq_length=64, positions=512, dynamic_ntk=True, logn=True)


# ------------------------------------------------------------------------------------------------------- what is read
def test_a_qwen1_folder(folder):
    checkpoint = open_checkpoint(spec(folder))
    assert (checkpoint.name, checkpoint.revision, checkpoint.qwen1) == ("Qwen-tiny", "local", True)
    assert (checkpoint.context_limit, checkpoint.trained_length) == (512, 64)
    assert (checkpoint.context.label, checkpoint.precision, checkpoint.device) == ("dynamic_ntk+logn", "fp32", "cpu")
    model = checkpoint.load()
    assert not model.training
    assert installed(model).extension == checkpoint.context
    assert model.generation_config.do_sample is False  # the released generation configs sample
    assert model.generation_config.eos_token_id == [checkpoint.tokenizer.endoftext]
    assert model.generation_config.repetition_penalty in (None, 1.0)


@pytest.mark.parametrize("write", [write_llama, write_qwen2])
def test_any_other_causal_model(tmp_path, write):
    checkpoint = open_checkpoint(spec(write(tmp_path / "model")))
    assert (checkpoint.qwen1, checkpoint.context.label, checkpoint.context_limit) == (False, "none", 512)
    model = checkpoint.load()
    want = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert torch.equal(model(IDS).logits, want(IDS).logits)


def test_the_command_line_takes_precedence_over_the_config(folder):
    options = {"dynamic_ntk": "off", "logn": "off", "max_seq_len": 100, "dtype": "bfloat16", "attention": "eager"}
    checkpoint = open_checkpoint(spec(folder, **options))
    assert (checkpoint.context.label, checkpoint.context_limit, checkpoint.precision) == ("none", 100, "bf16")
    model = checkpoint.load()
    assert (model.dtype, model.config._attn_implementation) == (torch.bfloat16, "eager")


def test_extension_of_a_model_that_has_none(tmp_path):
    checkpoint = open_checkpoint(spec(write_llama(tmp_path, positions=64), dynamic_ntk="on", max_seq_len=256))
    assert (checkpoint.context.label, checkpoint.trained_length, checkpoint.context_limit) == ("dynamic_ntk", 64, 256)
    assert installed(checkpoint.load()).extension.dynamic_ntk


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"fp32": True}, "fp32"),
        ({"fp32": False, "bf16": True}, "bf16"),
        ({"fp32": False, "fp16": True}, "fp16"),
        ({"fp32": False}, "bf16"),  # as released: all false
        ({"fp32": False, "torch_dtype": "float16"}, "fp16"),
        ({"fp32": None, "fp16": None, "bf16": None}, "fp32"),
        ({"fp32": None, "fp16": None, "bf16": None, "dtype": "bfloat16"}, "bf16"),
    ],
)
def test_precision_of_a_qwen1_config(folder, flags, precision):
    edit(folder / "config.json", **flags)
    assert open_checkpoint(spec(folder)).precision == precision


def test_precision_of_other_configs(tmp_path):
    write_llama(tmp_path)
    edit(tmp_path / "config.json", dtype=None, torch_dtype="bfloat16")
    assert open_checkpoint(spec(tmp_path)).precision == "bf16"
    edit(tmp_path / "config.json", torch_dtype=None)
    assert open_checkpoint(spec(tmp_path)).precision == "fp32"


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_shards_load_equal(folder, tmp_path, layout):
    other = write_qwen1(tmp_path / "other", shards=3, layout=layout, seq_length=64, dynamic_ntk=True, logn=True)
    models = [open_checkpoint(spec(path)).load() for path in (folder, other)]
    assert torch.equal(*(model(IDS).logits for model in models))


def test_safetensors_are_taken_where_there_are_both(folder):
    torch.save({"nothing": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert [path.name for path in open_checkpoint(spec(folder)).weights] == ["model.safetensors"]
    open_checkpoint(spec(folder)).load()


def test_the_fingerprint_follows_the_content(folder, tmp_path):
    first = open_checkpoint(spec(folder)).fingerprint
    assert first == open_checkpoint(spec(shutil.copytree(folder, tmp_path / "copy"))).fingerprint
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][3, 3] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert open_checkpoint(spec(folder)).fingerprint != first


def test_a_folder_of_the_hubs_cache_knows_its_name(folder, tmp_path):
    place = tmp_path / "models--Qwen--Qwen-7B" / "snapshots" / MAIN
    shutil.copytree(folder, place)
    checkpoint = open_checkpoint(spec(place))
    assert (checkpoint.name, checkpoint.revision) == ("Qwen/Qwen-7B", MAIN)


# ------------------------------------------------------------------------------------------------- broken in a folder
def break_folder(how: str, folder: Path) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    actions: dict[str, Callable[[], object]] = {
        "no config": config.unlink,
        "broken config": lambda: config.write_text('{\n "model_type": "qwen",\n'),
        "config is a list": lambda: config.write_text("[]"),
        "no sizes": lambda: edit(config, hidden_size=None),
        "no model type": lambda: edit(config, model_type=None, auto_map=None),
        "unknown model type": lambda: edit(config, model_type="qwen99", auto_map=None),
        "own code": lambda: edit(config, model_type="qwen99"),
        "not causal": lambda: config.write_text('{"model_type": "t5"}'),
        "broken generation config": lambda: (folder / "generation_config.json").write_text("{"),
        "no tokenizer": (folder / "qwen.tiktoken").unlink,
        "another tokenizer": lambda: edit(config, vocab_size=128),
        "no weights": weights.unlink,
        "adapter": lambda: (weights.unlink(), (folder / "adapter_config.json").write_text("{}")),
        "only an adapter": lambda: (config.unlink(), (folder / "adapter_config.json").write_text("{}")),
    }
    actions[how]()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no config", ["has no config.json", "pass the folder with config.json"]),
        ("broken config", ["config.json:3: not valid JSON", "get it again"]),
        ("config is a list", ["config.json: not a JSON object"]),
        ("no sizes", ["config.json: none of hidden_size, n_embd is given"]),
        ("no model type", ["config.json: no model_type in it"]),
        ("unknown model type", ["'qwen99' is unknown to transformers", transformers.__version__]),
        ("own code", ["needs Python code that it does not hold (modeling_qwen.py)"]),
        ("not causal", ["config.json: this is an encoder-decoder model (t5)"]),
        ("broken generation config", ["generation_config.json:1: not valid JSON"]),
        ("no tokenizer", ["qwen.tiktoken is missing"]),
        ("another tokenizer", ["qwen.tiktoken has", "vocabulary of 128", "different checkpoints"]),
        ("no weights", ["holds no weights (model.safetensors or pytorch_model.bin"]),
        ("adapter", ["holds an adapter, not a model; pass its base model and the adapter: -c BASE --adapter"]),
        ("only an adapter", ["holds an adapter, not a model; pass its base model and the adapter: -c BASE --adapter"]),
    ],
)
def test_a_broken_folder_is_reported_before_anything_is_loaded(folder, how, says):
    break_folder(how, folder)
    text = refusal(lambda: open_checkpoint(spec(folder)))
    assert str(folder) in text
    for part in says:
        assert part in text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/no/such/folder", "does not exist; pass a folder"),
        ("./models/mine", "does not exist; pass a folder"),
        ("two words", "does not exist; pass a folder"),
        ("a/b/c", "does not exist; pass a folder"),
    ],
)
def test_a_path_that_does_not_exist(path, says):
    assert says in refusal(lambda: open_checkpoint(spec(path)))


def test_a_file_is_no_folder(folder):
    assert "is a file, and no GGUF file; pass the folder" in refusal(
        lambda: open_checkpoint(spec(folder / "config.json"))
    )


def test_damaged_weights_are_named_before_they_are_loaded(tmp_path):
    whole = write_qwen1(tmp_path / "whole", shards=3)
    shard = "model-00002-of-00003.safetensors"

    def damaged(change: Callable[[Path], object]) -> str:
        copy = Path(shutil.copytree(whole, tmp_path / "copy", dirs_exist_ok=True))
        change(copy)
        return refusal(lambda: open_checkpoint(spec(copy)).load())

    size = (whole / shard).stat().st_size
    text = damaged(lambda copy: os.truncate(copy / shard, size - 100))
    assert f"{shard} is truncated ({size - 100} of {size} bytes); get it again" in text
    assert f"{shard} is truncated (3 bytes" in damaged(lambda copy: os.truncate(copy / shard, 3))
    assert f"{shard} is truncated" in damaged(lambda copy: os.truncate(copy / shard, 100))
    noise = struct.pack("<Q", 64) + b"x" * 200
    assert f"{shard} has a damaged header" in damaged(lambda copy: (copy / shard).write_bytes(noise))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
    assert f"{shard} is a git-lfs pointer" in damaged(lambda copy: (copy / shard).write_bytes(pointer))
    text = damaged(lambda copy: (copy / shard).unlink())
    assert f"model.safetensors.index.json names {shard}, which is missing (1 of 3)" in text
    shutil.copy(whole / shard, tmp_path / "copy" / shard)
    text = damaged(lambda copy: (copy / "model.safetensors.index.json").write_text("{}"))
    assert "model.safetensors.index.json: no weight_map in it" in text


def test_damaged_torch_files_are_named(tmp_path):
    folder = write_qwen1(tmp_path, layout="bin")
    path = folder / "pytorch_model.bin"
    os.truncate(path, path.stat().st_size - 100)
    assert "pytorch_model.bin is truncated" in refusal(lambda: open_checkpoint(spec(folder)).load())
    path.write_bytes(b"<html>not found</html>")
    assert "pytorch_model.bin is no torch file" in refusal(lambda: open_checkpoint(spec(folder)).load())


def test_pickled_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    folder = write_qwen1(tmp_path / "model", layout="bin")
    torch.save(qwen1_tensors(64, 2, 128, 576) | {"bomb": Bomb()}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in refusal(lambda: open_checkpoint(spec(folder)).load())
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_model_are_refused(tmp_path):
    folder = write_qwen1(tmp_path / "fewer", layers=3)
    edit(folder / "config.json", num_hidden_layers=2)
    assert "has no place for" in refusal(lambda: open_checkpoint(spec(folder)).load())
    edit(folder / "config.json", num_hidden_layers=4)
    assert "its weights lack model.layers.3" in refusal(lambda: open_checkpoint(spec(folder)).load())
    edit(folder / "config.json", num_hidden_layers=3, intermediate_size=512)
    assert "weights have other shapes than its config.json says" in refusal(
        lambda: open_checkpoint(spec(folder)).load()
    )


def test_tensors_that_a_model_does_not_use_are_reported(tmp_path):
    folder = write_llama(tmp_path)
    save_file(
        load_file(folder / "model.safetensors") | {"value_head.weight": torch.zeros(2)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    runtime = Runtime(open_checkpoint(spec(folder)), None)
    assert runtime.model
    assert "have tensors that the model does not use: value_head.weight (1 tensors)" in runtime.notes[-1]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.q_proj.bias", (64,)),  # attention_bias is missing from the config
        ("model.layers.1.mlp.up_proj.weight_scale_inv", (1, 1)),  # of 8 bits, which the config does not say
        ("model.layers.2.mlp.up_proj.weight", (128, 64)),  # one more layer than the config has
        ("lm_head.bias", (384,)),
    ],
)
def test_tensors_that_the_model_ought_to_have_a_place_for_are_refused(tmp_path, name, shape):
    folder = write_llama(tmp_path)
    write_weights(folder, load_file(folder / "model.safetensors") | {name: torch.zeros(shape)})
    assert f"config.json has no place for {name} (1 tensors)" in refusal(open_checkpoint(spec(folder)).load)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.masked_bias",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.self_attn.k_proj.k_scale",  # of a cache in 8 bits
    ],
)
def test_buffers_that_no_model_needs_are_no_fault(tmp_path, name):
    folder = write_llama(tmp_path)
    write_weights(folder, load_file(folder / "model.safetensors") | {name: torch.zeros(8)})
    open_checkpoint(spec(folder)).load()


def test_layers_that_predict_further_tokens_are_no_fault(tmp_path):
    folder = write_llama(tmp_path, num_nextn_predict_layers=1)
    name = "model.layers.2.mlp.up_proj.weight"
    write_weights(folder, load_file(folder / "model.safetensors") | {name: torch.zeros(128, 64)})
    open_checkpoint(spec(folder)).load()


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_a_tensor_of_another_shape_is_named(tmp_path, layout):
    folder = write_llama(tmp_path)
    tensors = load_file(folder / "model.safetensors") | {"model.norm.weight": torch.zeros(32)}
    (folder / "model.safetensors").unlink()
    write_weights(folder, tensors, shards=2, layout=layout)
    says = "model.norm.weight is (32,) in its weights and (64,) by its config.json (1 tensors)"
    assert says in refusal(open_checkpoint(spec(folder)).load)


def test_stray_buffers_are_not_reported(tmp_path):
    open_checkpoint(spec(write_qwen1(tmp_path, stray=True))).load()


def test_no_context_length_anywhere(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    size, _, _ = write_byte_tokenizer(folder)
    transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=size, hidden_size=16, num_hidden_layers=1, state_size=4)
    ).save_pretrained(folder)
    assert open_checkpoint(spec(folder)).context_limit == 512  # the tokenizer's own
    edit(folder / "tokenizer_config.json", model_max_length=None)
    assert "no context length; pass --max-seq-len" in refusal(lambda: open_checkpoint(spec(folder)))


# ------------------------------------------------------------------------------------------------ broken command lines
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int4"}, "--dtype int4 is unknown; use one of auto, bfloat16, float16, float32"),
        ({"attention": "fast"}, "--attn fast is unknown"),
        ({"quantize": "int2"}, "--quantize int2 is unknown"),
        ({"quantize": "nf4"}, "--quantize nf4 needs bitsandbytes; run: pip install -e '.[quant]'"),
        ({"attention": "flash"}, "--attn flash needs flash-attn; run: pip install -e '.[flash]', or use --attn sdpa"),
        ({"max_seq_len": 0}, "--max-seq-len 0 is no length"),
        ({"device": "gpu"}, "--device gpu is no torch device"),
        ({"device": "cuda:99"}, "--device cuda:99 is not there"),
    ],
)
def test_usage_errors(folder, monkeypatch, options, says):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert says in refusal(lambda: open_checkpoint(spec(folder, **options)))


@pytest.mark.parametrize(
    ("device", "dtype", "says"),
    [
        ("cpu", "bfloat16", "--attn flash needs a CUDA GPU, and this run is on cpu; use --attn sdpa"),
        ("cuda:0", "float32", "--attn flash does not compute in float32; add --dtype bfloat16, or use --attn sdpa"),
        ("cuda:0", "float16", None),
    ],
)
def test_flash_attention_runs_on_a_gpu_in_16_bits(folder, monkeypatch, device, dtype, says):
    """As if flash-attn were installed and there were a GPU: without one only the refusals can be tested."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(opening, "_device", lambda name: device)
    wanted = spec(folder, attention="flash", dtype=dtype)
    if says:
        assert says in refusal(lambda: open_checkpoint(wanted))
        assert open_checkpoint(spec(folder, dtype=dtype)).device == device  # nothing requests it by default
        return
    asked = {}
    monkeypatch.setattr(module.Checkpoint, "_too_large", lambda self: False)
    monkeypatch.setattr(
        module.qwen1.QWenLMHeadModel, "from_pretrained", lambda path, **options: asked.update(options) or 1 / 0
    )
    assert "cannot be loaded" in refusal(open_checkpoint(wanted).load)
    assert asked["attn_implementation"] == "flash_attention_2"


def test_automatic_attention_needs_no_flash_attention(folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "flash_attn" else find(name))
    assert open_checkpoint(spec(folder)).load().config._attn_implementation.endswith("sdpa")


def test_quantized_loading_is_asked_for(folder, monkeypatch):
    """What is passed to transformers; test_quantize.py has the real thing."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    asked = {}

    def from_pretrained(path, **options):
        asked.update(options)
        raise ImportError("not here")

    monkeypatch.setattr(module.qwen1.QWenLMHeadModel, "from_pretrained", from_pretrained)
    checkpoint = open_checkpoint(spec(folder, quantize="nf4", dtype="bfloat16"))
    assert checkpoint.precision == "nf4+bf16"  # the checkpoint's own is float32
    assert "needs a package that is missing or does not work: not here" in refusal(checkpoint.load)
    quantization = asked["quantization_config"]
    assert (quantization.load_in_4bit, quantization.bnb_4bit_quant_type) == (True, "nf4")
    assert quantization.bnb_4bit_compute_dtype == torch.bfloat16
    assert asked["device_map"] == {"": "cpu"}


@pytest.mark.parametrize(
    ("free", "gpus", "device", "world", "wanted"),
    [
        (10**5, 2, "auto", "1", "auto"),
        (10**9, 2, "auto", "1", {"": "cuda:0"}),
        (10**5, 1, "auto", "1", {"": "cuda:0"}),
        (10**5, 2, "auto", "2", {"": "cuda:0"}),
        (10**5, 2, "cuda:0", "1", {"": "cuda:0"}),
    ],
)
def test_a_model_larger_than_a_gpu_takes_all(folder, monkeypatch, free, gpus, device, world, wanted):
    """What is passed to transformers, on a machine that says it has GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda name: (free, free))
    monkeypatch.setenv("WORLD_SIZE", world)
    asked = {}

    def from_pretrained(path, **options):
        asked.update(options)
        raise ImportError("not here")

    monkeypatch.setattr(module.qwen1.QWenLMHeadModel, "from_pretrained", from_pretrained)
    assert "not here" in refusal(open_checkpoint(spec(folder, device=device)).load)
    assert asked["device_map"] == wanted


# ------------------------------------------------------------------------------------------------------------ its code
@pytest.fixture
def modules(tmp_path):
    yield from remote.modules_in(tmp_path / "modules")


@pytest.mark.usefixtures("modules")
def test_code_of_a_checkpoint_runs_only_when_trusted(tmp_path):
    folder = write_causal(tmp_path / "model", "llama")
    (folder / "configuration_own.py").write_text(
        "from transformers import LlamaConfig\nclass OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaForCausalLM\nfrom .configuration_own import OwnConfig\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    edit(folder / "config.json", model_type="own", auto_map=auto_map)
    assert "--trust-remote-code" in refusal(lambda: open_checkpoint(spec(folder)))
    model = open_checkpoint(spec(folder, trust_remote_code=True)).load()
    assert type(model).__name__ == "OwnModel"


def test_code_of_a_tokenizer_is_not_run_either(tmp_path):
    folder = write_causal(tmp_path, "llama")
    (folder / "tokenizer.json").unlink()
    (folder / "own.py").write_text("raise SystemExit('ran')\n")
    edit(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]})
    assert "pass --trust-remote-code" in refusal(lambda: open_checkpoint(spec(folder)))


def test_missing_weights_are_refused_for_other_models_too(tmp_path):
    folder = write_llama(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    write_weights(folder, tensors)
    assert "its weights lack model.layers.0.mlp.up_proj.weight (1 tensors)" in refusal(
        open_checkpoint(spec(folder)).load
    )
