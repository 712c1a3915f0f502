"""The native Qwen-1 model against the logits that the released code of 2023-08 and 2023-12 computed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from qwen_eval.models import qwen1
from qwen_eval.models.context import ContextExtension, install
from qwen_eval.schema import CheckpointError
from shared import REPOSITORY, shared
from tiny import export_qwen1, qwen1_tensors, write_qwen1, write_weights

logging.disable_progress_bar()
logging.set_verbosity_error()
qwen1.register()

TRAINED = 64
GENERATIONS = ["2023-12", "2023-08"]
TAGS = {f"ntk{ntk}_logn{logn}": (bool(ntk), bool(logn)) for ntk in (0, 1) for logn in (0, 1)}
# config.json of Qwen-7B: the sizes as both generations of keys write them
QWEN_7B = {
    "2023-12": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 22016,
        "max_position_embeddings": 32768, "vocab_size": 151936, "seq_length": 8192,
    },
    "2023-08": {
        "n_embd": 4096, "n_layer": 32, "n_head": 32, "ffn_hidden_size": 22016, "n_positions": 6144,
        "padded_vocab_size": 151936, "vocab_size": 151851, "seq_length": 2048,
    },
}  # fmt: skip
COMMON_7B = {
    "model_type": "qwen", "kv_channels": 128, "rotary_emb_base": 10000, "layer_norm_epsilon": 1e-6, "no_bias": True,
    "bf16": False, "fp16": False, "fp32": False, "use_dynamic_ntk": True, "use_logn_attn": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, torch.Tensor]]:
    return {tag: load_file(shared(f"checkpoints/golden/logits_{tag}.safetensors")) for tag in GENERATIONS}


def load(path: Path, **options: object) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(path, **options).eval()


@pytest.fixture(scope="module")
def originals() -> dict[tuple[str, str], torch.nn.Module]:
    return {
        (tag, attention): load(shared(f"checkpoints/qwen1-random-{tag}"), attn_implementation=attention)
        for tag in GENERATIONS
        for attention in ("sdpa", "eager")
    }


def furthest(left: torch.Tensor, right: torch.Tensor) -> float:
    return (left - right).abs().max().item()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("generation", GENERATIONS)
@torch.inference_mode()
def test_full_forward_equals_the_released_code(golden, originals, generation, attention, record_property):
    want, model = golden[generation], originals[generation, attention]
    ids, differences = want["input_ids_400"], []
    for tag, (ntk, logn) in TAGS.items():
        handle = install(model, ContextExtension(ntk, logn, TRAINED))
        for length in (32, 64, 100, 200, 300):
            key = f"full/{tag if length > TRAINED else 'ntk0_logn0'}/L{length}"
            differences.append(furthest(model(ids[None, :length]).logits[0], want[key]))
            assert differences[-1] < 1e-4, key
        handle.remove()
    record_property("difference", max(differences))


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("generation", GENERATIONS)
@torch.inference_mode()
def test_greedy_decoding_with_a_cache_equals_the_released_code(golden, originals, generation, tag, record_property):
    want, model = golden[generation], originals[generation, "sdpa"]
    handle = install(model, ContextExtension(*TAGS[tag], TRAINED))
    differences = []
    for length in (32, 60, 64, 100, 120, 200, 250, 300):
        ids, past, tokens = want["input_ids_400"][None, :length], None, []
        for step in want[f"decode/{tag}/P{length}/step_logits"]:
            out = model(ids, past_key_values=past, use_cache=True)
            differences.append(furthest(out.logits[0, -1], step))
            assert differences[-1] < 1e-4
            past, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
            tokens.append(ids.item())
        assert tokens == want[f"decode/{tag}/P{length}/tokens"].tolist()
    handle.remove()
    record_property("difference", max(differences))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("generation", GENERATIONS)
@torch.inference_mode()
def test_a_padded_row_equals_the_row_alone(golden, originals, generation, side, record_property):
    """The released code is up to 12 logits off here: it counts padding as positions, or ignores the mask."""
    want, model = golden[generation], originals[generation, "sdpa"]
    lengths, differences = (300, 200, 100, 40), []
    ids = torch.zeros(4, 300, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        span = slice(300 - length, 300) if side == "left" else slice(0, length)
        generator = torch.Generator().manual_seed(100 + row)
        ids[row, span] = torch.randint(0, 256, (400,), generator=generator)[:length]
        mask[row, span] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    for tag, (ntk, logn) in TAGS.items():
        handle = install(model, ContextExtension(ntk, logn, TRAINED))
        logits = model(ids, attention_mask=mask, position_ids=positions).logits
        for row, length in enumerate(lengths):
            end = 300 if side == "left" else length
            alone = want[f"single_for_batch/{tag}/row{row}_len{length}_last8"]
            differences.append(furthest(logits[row, end - 8 : end], alone))
            assert differences[-1] < 1e-4, (tag, row)
        handle.remove()
    record_property("difference", max(differences))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_qwen_7b_has_the_published_number_of_parameters(generation):
    config = qwen1.QWenConfig.from_dict(COMMON_7B | QWEN_7B[generation])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_721_324_544
    assert config.dtype == torch.bfloat16  # all three flags are false as released: bfloat16
    assert (config.seq_length, config.head_dim, config.intermediate_size) == (
        QWEN_7B[generation]["seq_length"],
        128,
        11008,
    )


def test_both_generations_of_keys_mean_the_same(tmp_path):
    models = [load(write_qwen1(tmp_path / tag, generation=tag)) for tag in GENERATIONS]
    ids = torch.arange(60)[None]
    assert torch.equal(*(model(ids).logits for model in models))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"no_bias": False}, "no_bias=False"),
        ({"rotary_pct": 0.25}, "rotary_pct=0.25"),
        ({"hidden_size": None}, "none of hidden_size, n_embd"),
    ],
)
def test_a_config_that_would_be_computed_wrongly_is_refused(change, says):
    with pytest.raises(CheckpointError, match=says):
        qwen1.translate(COMMON_7B | QWEN_7B["2023-12"] | change)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_layout_of_the_weights_loads_equal(tmp_path, layout, shards):
    plain = load(write_qwen1(tmp_path / "plain"))
    other = load(write_qwen1(tmp_path / "other", layout=layout, shards=shards, stray=True))
    assert other.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in other.state_dict().items())


def test_tensors_come_back_under_their_original_names(tmp_path):
    """save_pretrained writes the original layout, and export_qwen1, an export written independently, agrees."""
    model = load(write_qwen1(tmp_path / "in"))
    model.save_pretrained(tmp_path / "saved")
    original, saved = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "saved"))
    for tensors in (saved, export_qwen1(model.state_dict())):
        assert tensors.keys() == original.keys()
        assert all(torch.equal(value, original[name]) for name, value in tensors.items())
    again = load(tmp_path / "saved")
    ids = torch.arange(60)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_bfloat16_keeps_the_rotation_in_float32(tmp_path):
    folder = write_qwen1(tmp_path, dtype="bfloat16", positions=4096)
    model = load(folder)
    assert model.dtype == torch.bfloat16
    positions = torch.arange(4000)[None]
    cos, _ = model.model.rotary_emb(torch.zeros(1, dtype=torch.bfloat16), positions)
    assert cos.dtype == torch.float32
    assert torch.equal(cos, load(folder, dtype=torch.float32).model.rotary_emb(torch.zeros(1), positions)[0])
    past = model(positions[:, :50] % 256, use_cache=True).past_key_values
    assert past.layers[0].keys.dtype == torch.bfloat16
    ids = torch.arange(60)[None]
    exact = load(folder, dtype=torch.float32)(ids).logits
    assert furthest(model(ids).logits.float(), exact) < 0.2


def test_fewer_layers_than_the_weights_hold_are_noticed(tmp_path):
    folder = write_qwen1(tmp_path, layers=3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    _, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert any("layers.2" in name or "h.2" in name for name in report["unexpected_keys"])


def test_pickled_code_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    folder = write_qwen1(tmp_path / "model", layout="bin")
    torch.save(qwen1_tensors(64, 2, 128, 576) | {"bomb": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_device_map_and_offloading_work(tmp_path):
    folder = write_qwen1(tmp_path / "model")
    split = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu"}
    split |= {"lm_head": "cpu", "model.rotary_emb": "cpu"}
    model = load(folder, device_map=split, offload_folder=tmp_path / "offload")
    ids = torch.arange(60)[None]
    assert torch.equal(model(ids).logits, load(folder)(ids).logits)


def test_importing_registers_nothing():
    code = (
        "from qwen_eval.models import qwen1\nfrom transformers import CONFIG_MAPPING\n"
        "assert 'qwen' not in CONFIG_MAPPING\nqwen1.register(); qwen1.register()\nassert 'qwen' in CONFIG_MAPPING\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "eval", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_config_needs_no_trust(tmp_path):
    config = AutoConfig.from_pretrained(write_qwen1(tmp_path, seq_length=96, dynamic_ntk=True), trust_remote_code=False)
    assert (config.seq_length, config.use_dynamic_ntk, config.use_logn_attn) == (96, True, False)


def test_a_missing_tensor_is_reported(tmp_path):
    folder = write_qwen1(tmp_path)
    tensors = qwen1_tensors(64, 2, 128, 576)
    del tensors["transformer.h.1.attn.c_attn.bias"]
    write_weights(folder, tensors)
    _, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert any("layers.1.self_attn.q_proj.bias" in name for name in report["missing_keys"])
