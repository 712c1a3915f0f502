"""Dynamic NTK and LogN on any rotary model, against an independent computation."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging

import architectures
from qwen_eval.models import qwen1
from qwen_eval.models.context import ContextExtension, install, installed, logn_factor, ntk_alpha, ntk_inv_freq
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.models.rotary import Rotation
from qwen_eval.schema import CheckpointError, ModelSpec
from shared import shared
from tiny import write_causal, write_llama, write_mistral, write_qwen1, write_qwen2, write_qwen3

logging.disable_progress_bar()
logging.set_verbosity_error()

TRAINED = 32
NTK = ContextExtension(True, False, TRAINED)
LOGN = ContextExtension(False, True, TRAINED)
BOTH = ContextExtension(True, True, TRAINED)
WRITERS = {"llama": write_llama, "qwen2": write_qwen2, "qwen3": write_qwen3, "mistral": write_mistral}
# one 100-token row; 100 tokens are past 2 x 32 and within 4 x 32, so alpha is 7
IDS = torch.randint(0, 256, (1, 100), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: write(root / kind) for kind, write in WRITERS.items()}


def load(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def furthest(left, right):
    return (left - right).abs().max().item()


@torch.inference_mode()
def logits(model, ids=IDS, **options):
    return model(ids, **options).logits


def with_theta(model, alpha):
    """A copy of a model built from the start with the rotary base that NTK gives for `alpha`."""
    config = copy.deepcopy(model.config)
    size = config.head_dim if getattr(config, "head_dim", None) else config.hidden_size // config.num_attention_heads
    theta = config.rope_parameters["rope_theta"] * alpha ** (size / (size - 2))
    config.rope_parameters = {**config.rope_parameters, "rope_theta": theta}
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    return other


def scale_queries(model, length):
    """LogN by hand: the rotation is linear, so scaling queries before it is scaling them after it."""
    position = torch.arange(1, length + 1)
    factor = torch.tensor([max(1.0, math.log(i) / math.log(TRAINED)) for i in position.tolist()])
    for layer in model.model.layers:
        attention = layer.self_attn
        if hasattr(attention, "q_norm"):  # [rows, length, heads, head size]
            attention.q_norm.register_forward_hook(lambda _, __, out: out * factor[None, :, None, None])
        else:  # [rows, length, heads x head size]
            attention.q_proj.register_forward_hook(lambda _, __, out: out * factor[None, :, None])


def test_alpha_by_length():
    by_length = {1: 1, 8192: 1, 8193: 3, 16384: 3, 16385: 7, 32768: 7, 32769: 15, 65536: 15}
    assert {length: ntk_alpha(length, 8192) for length in by_length} == by_length
    assert [ContextExtension(ntk, False, 8).alpha(9) for ntk in (False, True)] == [1.0, 3.0]


def test_labels():
    pairs = {(n, w): ContextExtension(n, w, 8).label for n in (False, True) for w in (False, True)}
    assert list(pairs.values()) == ["none", "logn", "dynamic_ntk", "dynamic_ntk+logn"]


def test_logn_factor_is_one_up_to_the_trained_length_and_the_logarithms_ratio_after():
    factor = logn_factor(torch.arange(200), TRAINED, torch.float32)
    want = [1.0 if i <= TRAINED else math.log(i, TRAINED) for i in range(1, 201)]
    assert torch.equal(factor, torch.tensor(want))
    assert logn_factor(torch.tensor([[5], [500]]), TRAINED, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("alpha", [3.0, 7.0, 63.0])
def test_both_ways_to_stretch_frequencies_agree(alpha):
    """The factor form, which scaled frequencies need, and the new base."""
    theta, size = 1e6, 128
    own = 1.0 / theta ** (torch.arange(0, size, 2).double() / size)
    assert torch.allclose(ntk_inv_freq(own.float(), alpha, theta), ntk_inv_freq(own.float(), alpha), rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", WRITERS)
def test_extension_equals_a_hand_computation(folders, kind, attention):
    model = load(folders[kind], attn_implementation=attention)
    before = logits(model)
    for extension in (NTK, LOGN, BOTH):
        handle = install(model, extension)
        got = logits(model)
        handle.remove()
        want = with_theta(model, 7.0) if extension.dynamic_ntk else copy.deepcopy(model)
        want.set_attn_implementation(attention)
        if extension.logn:
            scale_queries(want, 100)
        assert furthest(got, logits(want)) < 1e-4, extension.label
        assert furthest(got, before) > 1e-2, extension.label  # it did something
        assert torch.equal(logits(model), before)  # and left nothing behind


@pytest.mark.parametrize("kind", WRITERS)
def test_short_texts_are_left_alone(folders, kind):
    model = load(folders[kind])
    before = logits(model, IDS[:, :TRAINED])
    install(model, BOTH)
    logits(model)  # a long text before it leaves no trace either
    assert torch.equal(logits(model, IDS[:, :TRAINED]), before)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_row_of_a_padded_batch_has_its_own_alpha(folders, kind, side):
    model = load(folders[kind])
    install(model, BOTH)
    lengths = (100, 60, 20)  # alpha 7, 3, 1
    ids, mask = torch.zeros(3, 100, dtype=torch.long), torch.zeros(3, 100, dtype=torch.long)
    for row, length in enumerate(lengths):
        place = slice(100 - length, 100) if side == "left" else slice(0, length)
        ids[row, place], mask[row, place] = IDS[0, :length], 1
    got = logits(model, ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0))
    for row, length in enumerate(lengths):
        assert furthest(got[row][mask[row] == 1], logits(model, IDS[:, :length])[0]) < 1e-4


def test_generation_of_a_batch_equals_its_rows_alone(folders):
    """Decoding crosses 32 and 64 tokens; each row keeps the alpha of its prompt."""
    model = load(folders["qwen2"])
    install(model, BOTH)
    lengths = (62, 30)
    ids, mask = torch.zeros(2, 62, dtype=torch.long), torch.zeros(2, 62, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, -length:], mask[row, -length:] = IDS[0, :length], 1
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    got = model.generate(ids, attention_mask=mask, **options)[:, 62:]
    for row, length in enumerate(lengths):
        alone = IDS[:, :length]
        want = model.generate(alone, attention_mask=torch.ones_like(alone), **options)[0, length:]
        assert torch.equal(got[row], want)


@pytest.mark.parametrize("kind", [*WRITERS, "qwen1"])
@torch.inference_mode()
def test_a_shared_prefix_needs_the_alpha_of_the_whole(folders, kind, tmp_path):
    qwen1.register()
    model = load(write_qwen1(tmp_path, seq_length=TRAINED) if kind == "qwen1" else folders[kind])
    handle = install(model, BOTH)
    whole = logits(model)
    with handle.alpha(BOTH.alpha(100)):
        past = model(IDS[:, :20], use_cache=True).past_key_values
        rest = model(IDS[:, 20:], past_key_values=past).logits
    assert furthest(rest, whole[:, 20:]) < 1e-4
    past = model(IDS[:, :20], use_cache=True).past_key_values  # without it: the prefix's own
    assert furthest(model(IDS[:, 20:], past_key_values=past).logits, whole[:, 20:]) > 1e-2


def test_alpha_given_by_row(folders):
    model = load(folders["llama"])
    handle = install(model, NTK)
    want = torch.cat([logits(with_theta(model, 3.0)), logits(with_theta(model, 15.0)), logits(load(folders["llama"]))])
    for given in ([3.0, 15.0, 1.0], torch.tensor([3, 15, 1])):
        with handle.alpha(given):
            assert furthest(logits(model, IDS.expand(3, -1)), want) < 1e-4
            with handle.alpha(1):  # nested: the inner one applies, then the outer one again
                assert furthest(logits(model), want[2:]) < 1e-4
            assert furthest(logits(model, IDS.expand(3, -1)), want) < 1e-4
    assert furthest(logits(model), logits(with_theta(model, 7.0))) < 1e-4  # automatic again


def test_rows_that_come_and_go_need_alpha(folders):
    model = load(folders["llama"])
    install(model, NTK)
    ids = torch.cat([IDS[:, :60], IDS[:, 40:]])
    mask = torch.ones_like(ids)
    mask[1, :40] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    past = model(ids, attention_mask=mask, position_ids=positions, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="rows changed"):
        model(torch.zeros(3, 1, dtype=torch.long), position_ids=torch.full((3, 1), 60), past_key_values=past)


def test_install_replaces_and_remove_forgets(folders):
    model = load(folders["mistral"])
    first, second = install(model, BOTH), install(model, NTK)
    assert installed(model) is second
    assert model.config._attn_implementation == "sdpa"
    first.remove()  # removed before: nothing more to take off
    assert installed(model) is second
    second.remove()
    assert installed(model) is None


def test_frequencies_scaled_before_are_stretched_too(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": TRAINED}
    folder = write_causal(tmp_path, "llama", rope_parameters=rope)
    model = load(folder)
    install(model, NTK)
    got = logits(model)
    size = model.config.head_dim
    by_hand = load(folder)
    by_hand.model.rotary_emb.inv_freq *= 7.0 ** -(torch.arange(0, size, 2) / (size - 2))
    assert furthest(got, logits(by_hand)) < 1e-4
    assert open_checkpoint(ModelSpec(str(folder), device="cpu")).trained_length == TRAINED


def test_attention_under_logn_sees_its_own_name(folders):
    """transformers' flash attention picks its kernels by the name in the config, and ours would be unknown to it."""
    sdpa, seen = ALL_ATTENTION_FUNCTIONS["sdpa"], []

    def noted(module, *args, **kwargs):
        seen.append(module.config._attn_implementation)
        return sdpa(module, *args, **kwargs)

    AttentionInterface.register("noted", noted)
    AttentionMaskInterface.register("noted", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model, plain = load(folders["llama"], attn_implementation="noted"), load(folders["llama"])
    install(model, LOGN)
    install(plain, LOGN)
    name = model.config._attn_implementation
    seen.clear()
    assert furthest(logits(model), logits(plain)) == 0
    assert seen == ["noted"] * model.config.num_hidden_layers and model.config._attn_implementation == name != "noted"


def test_unsupported_models_are_refused(tmp_path):
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = load(write_causal(tmp_path, "llama", rope_parameters=rope))
    with pytest.raises(CheckpointError, match=r"rope type dynamic.*--dynamic-ntk off"):
        install(model, NTK)
    plain = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=256))
    with pytest.raises(CheckpointError, match=r"gpt2 has no rotary module.*--dynamic-ntk off"):
        install(plain, NTK)


@torch.inference_mode()
def test_qwen1_weights_as_a_qwen2_model(tmp_path):
    """The same weights under Qwen2's class, extended from outside, are the Qwen-1 checkpoint with its own flags."""
    checkpoint = open_checkpoint(
        ModelSpec(str(write_qwen1(tmp_path, seq_length=TRAINED, dynamic_ntk=True, logn=True)), device="cpu")
    )
    model = checkpoint.load()
    assert installed(model).extension == BOTH
    shape = {key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "architectures")}
    copied = Qwen2ForCausalLM(Qwen2Config(**shape)).eval()
    copied.load_state_dict(model.state_dict())
    install(copied, BOTH)
    assert torch.equal(logits(model), logits(copied))


@torch.inference_mode()
def test_bfloat16(folders):
    model = load(folders["qwen2"], dtype=torch.bfloat16)
    install(model, BOTH)
    exact = load(folders["qwen2"])
    install(exact, BOTH)
    got = logits(model)
    assert got.dtype == torch.bfloat16
    assert furthest(got.float(), logits(exact)) < 0.3


@torch.inference_mode()
def test_perplexity_of_the_released_code():
    """Chunks of 512 tokens with a model trained on 256: the recorded sum, without the engine."""
    checkpoint = open_checkpoint(ModelSpec(str(shared("checkpoints/qwen1-tiny")), device="cpu"))
    assert checkpoint.context.label == "dynamic_ntk+logn"
    model = checkpoint.load()
    rows = json.loads(shared("checkpoints/golden/ppl_original.json").read_text())
    wanted = next(row for row in rows if row["dynamic_ntk"] and row["logn"] and row["length"] == 512)
    lines = shared("data/wmt22/generaltest2022.zh-en.ref.A.en").read_text().split("\n")
    documents = ["\n".join(lines[start : start + 200]) for start in range(0, len(lines) - 199, 200)]
    encoded = checkpoint.tokenizer.encode_batch(documents)
    chunks = [ids[start : start + 512] for ids in encoded for start in range(0, len(ids) - 511, 512)]
    nll = 0.0
    for ids in torch.tensor(chunks[: wanted["chunks"]]):
        scores = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])
        nll -= scores.double().sum().item()
    assert nll == pytest.approx(wanted["nll"], rel=1e-6)


@pytest.mark.parametrize(
    "extension", [LOGN, ContextExtension(False, False, TRAINED, (8, 8, 8, 8))], ids=["logn", "window"]
)
@pytest.mark.parametrize("name", ["bloom", "gptj", "mamba"])
def test_an_extension_that_would_reach_no_layer_is_refused(
    name: str, extension: ContextExtension, tmp_path: Path
) -> None:
    """Their attention, or what they have instead, is code of their own, which transformers does not say."""
    model = load(architectures.write(tmp_path, name))
    with pytest.raises(CheckpointError, match=r"would reach 0 of the 4 layers .* use --(logn|window) off"):
        install(model, extension)
    assert installed(model) is None


@pytest.mark.parametrize(
    ("name", "lost", "size"),
    [
        ("gpt_oss", "attention sinks", 8),
        ("gemma2", "a soft cap", 8),
        ("mistral", "windows of 24 keys", 32),
        ("llama4_text", "chunks of 24 tokens", 8),
    ],
)
def test_windows_that_would_drop_a_part_of_the_attention_are_refused(
    name: str, lost: str, size: int, tmp_path: Path
) -> None:
    model = load(architectures.write(tmp_path, name))
    with pytest.raises(CheckpointError, match=f"has {lost}, which window attention would drop; use --window off"):
        install(model, ContextExtension(False, False, TRAINED, (8, 8, 8, size)))


@pytest.mark.parametrize("name", ["llama/dynamic", "phi3/longrope"])
def test_a_rotation_that_follows_the_length_is_that_of_each_sequence_alone(name: str, tmp_path: Path) -> None:
    """Whatever was computed before, whatever is computed beside it, and in parts."""
    model = load(architectures.write(tmp_path, name))
    rotation = Rotation(model)
    assert rotation.border == 120 and rotation.table(120) == 0
    assert rotation.table(200) == (200 if name == "llama/dynamic" else 121)
    rotary = next(module for module in model.modules() if hasattr(module, "rope_type"))
    tables = {length: rotary(torch.zeros(1), torch.arange(length)[None])[0].clone() for length in (60, 200, 300)}
    for length in (200, 300, 60, 200):
        with rotation.as_if(length):
            first, last = (rotary(torch.zeros(1), torch.arange(*part)[None])[0] for part in ((0, 50), (50, length)))
        rotation.forget()
        alone = rotary(torch.zeros(1), torch.arange(length)[None])[0]
        torch.testing.assert_close(torch.cat([first, last], 1), alone, atol=0, rtol=0)
        torch.testing.assert_close(alone, tables[length], atol=0, rtol=0)
