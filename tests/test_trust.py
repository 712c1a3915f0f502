"""The trust test: what an engine loses is seen before a figure is made, what it does not lose passes and is remembered."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers import models as hf

import architectures
import sweep
import tiny
from qwen_eval.engines.local import (
    alibi,
    blocked,
    cascade,
    features,
    kernel_test,
    kernels,
    measuring,
    probes,
    reference,
    runtime,
    trust,
)
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.engines.local.rules import EVERYTHING, Span
from qwen_eval.models import context
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.runs import manifest
from qwen_eval.schema import Choose, Generate, InputError, Measure, ModelSpec, Sample, Trusted
from test_engine import brute_force, questions
from test_runner import Questions, ask, options, rows

CHOICES = [Sample(f"q/{index}", request, "A") for index, request in enumerate(questions(12))]
TEXTS = [
    Sample(f"t/{index}", Generate(request.prompt(), 24, key=str(index)), "")
    for index, request in enumerate(questions(8))
]
READING = [Sample("d", Measure((" ".join(request.prompt() for request in questions(4)),), 200), "")]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "DROPPED", set())


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.write_qwen1(tmp_path_factory.mktemp("qwen"), positions=4096, spread=0.3))


SIZES: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": 0,
    "bos_token_id": None, "pad_token_id": None,
}  # fmt: skip
LLAMA = SIZES | {"intermediate_size": 128, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048}
BAND, ALL = "sliding_attention", "full_attention"
MAMBA = {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
CONFIGS: dict[str, Callable[[], Any]] = {
    "bloom": lambda: hf.BloomConfig(**(SIZES | {"n_layer": 2, "n_head": 4})),
    "falcon": lambda: hf.FalconConfig(**SIZES, alibi=True, new_decoder_architecture=False, multi_query=True),
    "gpt_oss": lambda: hf.GptOssConfig(
        **LLAMA, layer_types=[BAND, ALL], sliding_window=24, num_local_experts=4, num_experts_per_tok=2
    ),
    "gemma2": lambda: hf.Gemma2Config(
        **LLAMA, layer_types=[BAND, ALL], sliding_window=24, attn_logit_softcapping=2.0, query_pre_attn_scalar=16
    ),
    "llama4": lambda: hf.Llama4TextConfig(
        **LLAMA, attention_chunk_size=24, no_rope_layers=[1, 1], num_local_experts=2, intermediate_size_mlp=128
    ),
    "mistral": lambda: hf.MistralConfig(**LLAMA, sliding_window=24),
    "mamba": lambda: hf.MambaConfig(
        **{name: SIZES[name] for name in SIZES if name != "num_attention_heads"}, state_size=8, time_step_rank=4
    ),
    "falcon_h1": lambda: hf.FalconH1Config(**LLAMA, **MAMBA, mamba_chunk_size=16, mamba_expand=2),
}


def write(name: str, folder: Path) -> str:
    """A checkpoint of two layers whose weights make the context matter. Returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_byte_tokenizer(folder)
    about = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]()).float()
    generator = torch.Generator().manual_seed(0)
    for part, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "sinks" in part:
            weight.data.copy_(noise + 1.0)
        elif weight.dim() == 2 and "A_log" not in part:
            wide = 4.0 if "embed" in part else weight.shape[1]
            weight.data.copy_(noise * (2.0 if "q_proj" in part or "k_proj" in part else 1.0) / math.sqrt(wide))
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def get(name: str) -> str:
        if name not in made:
            made[name] = write(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def test_a_sound_engine_passes_and_the_result_is_remembered(qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(qwen)
    first = HFEngine(spec)
    found = first.trust([*CHOICES, *TEXTS, *READING])
    assert found.marks == "" and found.notes == ()
    assert {verb: one["difference"] < 1e-4 for verb, one in found.result["tried"].items()} == dict.fromkeys(
        ("choose", "generate", "measure"), True
    )
    assert first.usage()["tokens"] == 0 and first.usage()["prompt_tokens"] == 0
    again = HFEngine(spec)
    assert again.trust(CHOICES) == found and not again.runtime.loaded
    longer = [Sample("l", Choose("", (), CHOICES[0].request.prompt() * 3, (" A", " B")), "A")]
    loaded = HFEngine(spec)
    assert loaded.trust(longer).result["tried"]["choose"]["tokens"] > found.result["tried"]["choose"]["tokens"]
    assert loaded.runtime.loaded
    assert not HFEngine(spec, batch_size=1).trust(CHOICES).result["tried"].keys() - {"choose"}  # tried by itself
    for name in ("__version__", "_code"):
        with monkeypatch.context() as other:
            other.setattr(trust.verdicts, name, "0.0.0" if name == "__version__" else lambda: "other code")
            changed = HFEngine(spec)
            changed.trust(CHOICES[:2])
            assert changed.runtime.loaded


def test_the_reference_is_the_plain_model(qwen: str) -> None:
    """Of an engine that is loaded already: the same as before its matrices were replaced."""
    checkpoint = open_checkpoint(ModelSpec(qwen))
    model = checkpoint.load()
    ids = probes.asked(CHOICES, checkpoint)["choose"].longest
    with torch.inference_mode():
        plain = model(torch.from_numpy(ids.astype("int64"))[None]).logits[0, -3:].log_softmax(-1)
    for _ in range(2):
        given = reference.log_probabilities(model, ids, 3, "eager", checkpoint.context, len(ids))
        torch.testing.assert_close(given, plain, atol=1e-4, rtol=0)
        blocked.block(model)
        with blocked.plain(model):
            kept = reference.log_probabilities(model, ids, 3, "eager", checkpoint.context, len(ids))
        assert torch.equal(kept, given) or not torch.equal(given, plain)
    assert any(isinstance(part, blocked.BlockedLinear) for part in model.modules())


def without_alibi(model: Any) -> None:
    """The model's own code and the engine both ask this function."""
    module: Any = sys.modules[type(model).__module__]
    build = module.build_alibi_tensor
    module.build_alibi_tensor = lambda *args, **kwargs: build(*args, **kwargs) * 0


def without_sinks(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.sinks.data.fill_(-1e4)


def without_softcap(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None


def without_chunk(model: Any) -> None:
    model.config.attention_chunk_size = 4096


def without_window(model: Any) -> None:
    model.config.sliding_window = None
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None


def without_state(model: Any) -> None:
    """Mamba's state decays at once; Falcon-H1's recurrent branch says nothing."""
    for name, weight in model.named_parameters():
        if name.endswith("mixer.A_log"):
            weight.data.fill_(20.0)
        elif name.endswith("mamba.out_proj.weight"):
            weight.data.zero_()


LOSSES = {
    "bloom": without_alibi, "falcon": without_alibi, "gpt_oss": without_sinks, "gemma2": without_softcap,
    "llama4": without_chunk, "mistral": without_window, "mamba": without_state, "falcon_h1": without_state,
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_what_the_engine_loses_is_an_error(
    name: str, checkpoints: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken from the model itself after the reference: then nothing that the engine could do instead is right."""
    spec = ModelSpec(checkpoints(name))
    passed = HFEngine(spec).trust(CHOICES)
    assert passed.result["tried"]["choose"]["difference"] < 1e-3
    monkeypatch.setenv("QWEN_EVAL_CACHE", str(tmp_path / "other"))
    for module in (hf.falcon.modeling_falcon, hf.bloom.modeling_bloom):  # put back after the test
        monkeypatch.setattr(module, "build_alibi_tensor", module.build_alibi_tensor)
    monkeypatch.setattr(blocked, "block", LOSSES[name])
    with pytest.raises(
        InputError, match=r"trust test: in q/\d+ the log-probability of .* is -?[\d.e-]+ in the engine and "
    ) as stop:
        HFEngine(spec).trust(CHOICES)
    assert "--no-self-check runs anyway" in str(stop.value) and "\n" not in str(stop.value)


def lose(name: str, patch: pytest.MonkeyPatch) -> None:
    """Takes from the engine, and not from the model, what an architecture has beside plain attention."""
    if name == "bloom":
        beside = alibi.beside
        patch.setattr(alibi, "beside", lambda slopes, *rest: beside(torch.zeros_like(slopes), *rest))
    elif name == "falcon_h1":  # what is packed in one row is not looked at for a state that runs through it
        patch.setattr(features, "_alike", lambda *args: True)
    else:
        rule = cascade.Attention.rule
        less: dict[str, Any] = {"gpt_oss": {"sinks": None}, "gemma2": {"softcap": None}}.get(name, {"span": EVERYTHING})
        patch.setattr(cascade.Attention, "rule", lambda self, layer: dataclasses.replace(rule(self, layer), **less))


SHARED = ("bloom", "gpt_oss", "gemma2", "mistral", "llama4")


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_passes(name: str, checkpoints: Callable[[str], str]) -> None:
    engine = HFEngine(ModelSpec(checkpoints(name)))
    assert engine.trust([*CHOICES, *TEXTS, *READING]).marks == "" and engine.runtime.no_pieces == ""
    engine.choose([sample.request for sample in CHOICES], lambda index, response: None)  # type: ignore[misc]
    assert engine.usage()["tokens"] < engine.usage()["prompt_tokens"]
    assert not engine.notes


@pytest.mark.parametrize("asked", [CHOICES, TEXTS], ids=["choose", "generate"])
@pytest.mark.parametrize("name", [*SHARED, "falcon_h1"])
def test_what_only_sharing_loses_ends_the_sharing(
    name: str, asked: list[Sample], checkpoints: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's own attention, in whole prompts, is right."""
    lose(name, monkeypatch)
    engine = HFEngine(ModelSpec(checkpoints(name)))
    found = engine.trust(asked)
    assert found.marks == "unshared"
    assert any("nothing is shared between prompts, as in " in note for note in engine.notes)
    if asked is CHOICES:
        requests = [sample.request for sample in CHOICES[:3]]
        expected = brute_force(ModelSpec(checkpoints(name), attention="eager"), requests)  # type: ignore[arg-type]
        given = [item.logprobs for item in engine.choose(requests, lambda index, response: None)]  # type: ignore[arg-type]
        torch.testing.assert_close(torch.tensor(given), torch.tensor(expected), atol=1e-3, rtol=0)
    assert HFEngine(ModelSpec(checkpoints(name))).trust(asked).marks == "unshared"  # remembered


@pytest.mark.parametrize("name", SHARED)
def test_what_only_pieces_lose_ends_the_reading_in_pieces(
    name: str, checkpoints: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(name, monkeypatch)
    engine = HFEngine(ModelSpec(checkpoints(name)))
    assert engine.trust(READING).marks == ""  # read whole, by the model's own attention
    assert "cannot be read in pieces: in d the mean loss" in engine.runtime.no_pieces


def wrong_sum(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    out, lse = kernels._flash_cpu(*args, **kwargs)
    return out, lse + 0.1


def wrong_mask(*args: Any, mask: Tensor | None = None) -> tuple[Tensor, ...]:
    return kernels._flash_cpu(*args)


def wrong_when_long(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    out, lse = kernels._flash_cpu(*args, **kwargs)
    return (out * 1.1 if args[1].shape[2] > max(kernel_test.LENGTHS) else out), lse


def refuses(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    raise RuntimeError("no kernel image is available for execution on the device")


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        (wrong_sum, "attention kernel flash-cpu its log-sum-exp is off by 0.1"),
        (wrong_mask, "attention kernel flash-cpu is off by"),
        (refuses, "attention kernel flash-cpu refuses (no kernel image is available"),
        (wrong_when_long, "without attention kernel flash-cpu, with which in q/"),
    ],
)
def test_a_wrong_kernel_is_dropped_for_the_next(
    kernel: Callable[..., Any], says: str, qwen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels.KERNELS, "flash-cpu", kernel)
    engine = HFEngine(ModelSpec(qwen))
    assert engine.trust(CHOICES).marks == "no-flash-cpu"
    assert any(says in note for note in engine.notes), engine.notes
    assert kernels.usable("cpu", torch.float32) == ["slices"]
    requests = [sample.request for sample in CHOICES[:4]]
    expected = brute_force(ModelSpec(qwen), requests)  # type: ignore[arg-type]
    given = [item.logprobs for item in engine.choose(requests, lambda index, response: None)]  # type: ignore[arg-type]
    torch.testing.assert_close(torch.tensor(given), torch.tensor(expected), atol=1e-3, rtol=0)
    assert engine.usage()["tokens"] < engine.usage()["prompt_tokens"]  # it shares


def test_kernels_are_tried_alone_in_the_widths_of_the_layers(
    checkpoints: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bloom's heads have 16 numbers and 8 for ALiBi; Falcon's attention is its own and needs no kernel of ours."""

    def wrong_when_wide(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        out, lse = kernels._flash_cpu(*args, **kwargs)
        return (out * 1.1 if args[0].shape[3] > 16 else out), lse

    monkeypatch.setitem(kernels.KERNELS, "flash-cpu", wrong_when_wide)
    for name, mark in (("bloom", "no-flash-cpu"), ("mistral", ""), ("falcon", "")):
        engine = HFEngine(ModelSpec(checkpoints(name)))
        assert engine.trust(CHOICES).marks == mark
        assert any("attention kernel flash-cpu is off by 0.1" in note for note in engine.notes) == bool(mark)


EXTENDED = {"dynamic_ntk": "on", "logn": "on"}


@pytest.mark.parametrize("settings", [EXTENDED, EXTENDED | {"window": "40,90"}, {"window": "30"}])
@pytest.mark.parametrize("asked", [CHOICES, TEXTS, READING], ids=["choose", "generate", "measure"])
def test_our_extensions_agree_with_their_formulas(settings: dict[str, Any], asked: list[Sample], qwen: str) -> None:
    found = HFEngine(ModelSpec(qwen, **settings)).trust(asked)
    assert found.marks == ""
    assert all(one["difference"] < 1e-3 for one in found.result["tried"].values())


@pytest.mark.parametrize(
    ("where", "name", "wrong", "settings"),
    [
        (runtime, "logn_factor", lambda places, trained, dtype: torch.ones(places.shape), EXTENDED),
        (context, "ntk_alpha", lambda length, trained: 1.0, EXTENDED),
        (context, "ntk_alpha", lambda length, trained: length / trained, EXTENDED),
        (Span, "within", lambda span, window: span_within(span, window + 1), {"window": "30"}),
    ],
)
def test_a_wrong_extension_is_an_error_or_ends_the_sharing(
    where: Any, name: str, wrong: Any, settings: dict[str, Any], qwen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, wrong)
    engine = HFEngine(ModelSpec(qwen, **settings))
    if where is not context:  # of the engine alone
        assert engine.trust(CHOICES).marks == "unshared"
    else:
        with pytest.raises(InputError, match="trust test: in q/"):
            engine.trust(CHOICES)


span_within = Span.within
window_attention = context.window_attention


def test_a_wrong_window_attention_is_an_error_where_nothing_is_shared(
    qwen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "window_attention", lambda *args: window_attention(*args[:3], args[3] + 1, args[4]))
    with pytest.raises(InputError, match="trust test: in q/"):
        HFEngine(ModelSpec(qwen, window="30"), share=False).trust(CHOICES)


def test_an_extension_that_does_not_reach_the_attention_is_refused(checkpoints: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match="use --logn off"):
        HFEngine(ModelSpec(checkpoints("bloom"), logn="on", train_length=64)).trust(CHOICES)


@pytest.mark.parametrize(("dtype", "asked"), [("bfloat16", CHOICES), ("bfloat16", READING), ("float16", TEXTS)])
def test_in_16_bits_rounding_passes_and_a_loss_does_not(
    dtype: str, asked: list[Sample], qwen: str, checkpoints: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HFEngine(ModelSpec(qwen, dtype=dtype)).trust(asked).marks == ""
    monkeypatch.setattr(blocked, "block", without_window)
    with pytest.raises(InputError, match="trust test: in "):
        HFEngine(ModelSpec(checkpoints("mistral"), dtype=dtype)).trust(asked)


# the state of these two changes log-probabilities by no more than bfloat16 does
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("mamba", "falcon_h1")])
def test_in_bfloat16_a_loss_is_an_error(
    name: str, checkpoints: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModelSpec(checkpoints(name), dtype="bfloat16")
    assert HFEngine(spec).trust(CHOICES).marks == ""
    monkeypatch.setenv("QWEN_EVAL_CACHE", str(tmp_path / "other"))
    for module in (hf.falcon.modeling_falcon, hf.bloom.modeling_bloom):  # put back after the test
        monkeypatch.setattr(module, "build_alibi_tensor", module.build_alibi_tensor)
    monkeypatch.setattr(blocked, "block", LOSSES[name])
    with pytest.raises(InputError, match="trust test: in "):
        HFEngine(spec).trust(CHOICES)


# models whose experts or soft caps make much of rounding; rotations that change while a text is written; positions from 2
ODD = [
    ("gemma3_text", "bfloat16"), ("gpt_oss", "bfloat16"), ("mixtral", "bfloat16"), ("phimoe/windows", "bfloat16"),
    ("deepseek_v3", "float16"), ("phi3/longrope", "float32"), ("phi3/longrope", "bfloat16"), ("llama/dynamic", "float32"),
    ("roberta", "float32"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "dtype"), ODD)
def test_rounding_alone_is_no_error(name: str, dtype: str, tmp_path: Path) -> None:
    folder = architectures.write(tmp_path, name)
    asked = [
        *(Sample(f"q/{index}", request, "A") for index, request in enumerate(sweep.ASKED)),
        *(Sample(f"t/{index}", request, "") for index, request in enumerate(sweep.TEXTS)),
        Sample("d", Measure((sweep.DOCUMENT,), sweep.LENGTH), ""),
    ]
    found = HFEngine(ModelSpec(str(folder), dtype=dtype, max_seq_len=2048)).trust(asked)  # type: ignore[arg-type]
    assert found.marks == "" and found.result["tried"].keys() == {"choose", "generate", "measure"}


def test_in_float32_every_number_is(qwen: str) -> None:
    """The pass that tells how much rounding does, against the same weights in a model of float32."""
    narrow = open_checkpoint(ModelSpec(qwen, dtype="bfloat16"))
    model, ids = narrow.load(), probes.asked(CHOICES, narrow)["choose"].longest
    exact = reference.log_probabilities(model, ids, 5, reference.WIDE, narrow.context, len(ids), exact=True)
    wide = reference.log_probabilities(model.float(), ids, 5, "eager", narrow.context, len(ids))
    torch.testing.assert_close(exact, wide, atol=1e-4, rtol=0)


def test_texts_that_cannot_be_read_in_pieces_are_read_whole_or_not(qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces = measuring._in_pieces
    monkeypatch.setattr(measuring, "_in_pieces", lambda *args: in_pieces(*args) + 9.0)
    engine = HFEngine(ModelSpec(qwen))
    engine.trust(READING)
    engine.measure([READING[0].request], lambda index, response: None)  # type: ignore[list-item]
    long = Measure(((CHOICES[0].request.prompt() + " ") * 20,), 1500, max_memory=1e-3)
    with pytest.raises(InputError, match=r"texts cannot be read in pieces: in d the mean loss .* --max-memory"):
        engine.measure([long], lambda index, response: None)


def test_the_prompts_pass_every_limit_that_the_run_passes(checkpoints: Callable[[str], str], qwen: str) -> None:
    long = Sample("long", Choose("", (), CHOICES[0].request.prompt() * 11, (" A", " B")), "A")
    for name, spec, limit in (("mistral", checkpoints("mistral"), 24), ("ntk", qwen, 64)):
        checkpoint = open_checkpoint(ModelSpec(spec, dynamic_ntk="on" if name == "ntk" else "off"))
        found = probes.limits(checkpoint)
        assert limit in (*found.windows, *found.lengths)
        for verb, asked in (("choose", [*CHOICES, long]), ("generate", TEXTS)):
            texts = probes.probes(verb, probes.asked(asked, checkpoint)[verb], found)
            lengths = [len(text.ids) for text in texts]
            assert max(lengths) <= probes.LONGEST + probes.STEPS and min(lengths) < 2 * probes.FEW + probes.STEPS
            assert sum(length > limit for length in lengths) >= 3
            pair = texts[1:3]
            same = sum(1 for a, b in zip(pair[0].ids.tolist(), pair[1].ids.tolist(), strict=False) if a == b)
            assert same > 2 * probes.FEW and len(pair[0].ids) != len(pair[1].ids)
    far = probes.Limits((4096, 32768), (8192,))
    assert probes.tokens_needed(700, far) == 700 and probes.tokens_needed(3000, far) == probes.LONGEST
    assert probes.tokens_needed(5000, far) == 4160 and probes.tokens_needed(8200, far) == 8200
    assert probes.tokens_needed(20000, far) == 8256


class Sure(HFEngine):
    """An engine whose test gave something up."""

    def trust(self, samples: Sequence[Sample]) -> Trusted:
        return Trusted("unshared", (), {"tried": {"choose": {"difference": 0.25}}})


@pytest.mark.parametrize(
    ("kind", "word", "mark"), [(Sure, "", "unshared"), (HFEngine, "no", "untested"), (HFEngine, "", "")]
)
def test_row_and_manifest_say_what_it_came_to(kind: Any, word: str, mark: str, qwen: str, tmp_path: Path) -> None:
    asked = options(tmp_path)
    checked = type(asked)(**{**vars(asked), "no_self_check": bool(word)})
    for _ in range(2):  # the second time everything is stored, and nothing is tested
        ask(Questions(checked), kind(ModelSpec(qwen)))
    (signature,) = {row["signature"] for row in rows(tmp_path)}
    assert signature.endswith(f"|trust:{mark}" if mark else "|dtype:fp32")
    (run,) = {row["run_id"] for row in rows(tmp_path)}
    stored = manifest.read_manifest(tmp_path, run)
    assert stored["model"]["trust"] == mark
    assert stored["trust"] == {"declined": True} if word else "difference" in stored["trust"]["tried"]["choose"]


def test_a_run_that_fails_it_stores_nothing(qwen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "block", lambda model: model.model.layers[0].self_attn.v_proj.weight.data.mul_(1.5))
    asked = options(tmp_path)
    checked = type(asked)(**{**vars(asked), "no_self_check": False})
    with pytest.raises(InputError, match="trust test: in anatomy/"):
        ask(Questions(checked), HFEngine(ModelSpec(qwen)))
    stored = [path for path in (tmp_path / "samples").rglob("*") if path.is_file() and path.stat().st_size]
    assert all(path.suffix in (".start", ".asking") for path in stored)  # a start that stored no answer does not count
    assert not (tmp_path / "mmlu.csv").exists()


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "xlnet"
    folder.mkdir()
    tiny.write_byte_tokenizer(folder)
    config = hf.XLNetConfig(vocab_size=384, d_model=64, n_layer=2, n_head=4, d_inner=128, dropout=0.0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    architectures.draw(model, 0)
    model.save_pretrained(folder)
    for asked in (CHOICES, TEXTS, READING):
        with pytest.raises(InputError, match="XLNetLMHeadModel looks ahead: another last token of ") as stop:
            HFEngine(ModelSpec(str(folder))).trust(asked)
        assert "\n" not in str(stop.value)
