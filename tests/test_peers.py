"""Baichuan, ChatGLM2 and InternLM from their original checkpoints: against what the code of 2023 computed (shared data), and
against their formulas written out in float64 (tests/peers.py)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import peers
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models import alibi, native
from qwen_eval.models.chat_formats import FORMATS
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import CheckpointError, Choose, Generate, Measure, ModelSpec, Sample
from shared import shared
from tiny import write_weights

logging.disable_progress_bar()
logging.set_verbosity_error()
KINDS = peers.KINDS
FOLDERS = {"baichuan7b": "baichuan7b-random", "baichuan13b": "baichuan13b-random", "chatglm2": "chatglm2-random"}
FOLDERS |= {"internlm": "internlm-random"}
SPELLED = ("<s>", "</s>", "<unk>")


def recorded(kind: str) -> dict[str, torch.Tensor]:
    return load_file(shared(f"checkpoints/peers/golden/logits_{FOLDERS[kind]}.safetensors"))


def load(folder: Path | str, table: str | None = None, **settings: Any) -> Any:
    """The model of a folder, as the engine loads it."""
    checkpoint = open_checkpoint(ModelSpec(str(folder), **settings))
    if table:
        checkpoint.config.table_dtype = table
    return checkpoint.load()


def same(left: Sequence[int], right: Sequence[int]) -> int:
    """How many first ids two texts have in common."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def furthest(left: torch.Tensor, right: torch.Tensor) -> float:
    return (left.double() - right.double()).abs().max().item()


# ------------------------------------------------------------------------------------- against the code of 2023
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_logits_equal_the_original_code(kind: str, attention: str) -> None:
    want = recorded(kind)
    model = load(shared(f"checkpoints/peers/{FOLDERS[kind]}"), attention=attention)
    ids = want["input_ids_200"]
    for length in (1, 17, 64, 200):
        assert furthest(model(ids[None, :length]).logits[0], want[f"full/L{length}"]) < 1e-4
    for length in (17, 64):
        past, read, tokens = None, ids[None, :length], []
        for step in want[f"decode/P{length}/step_logits"]:
            out = model(read, past_key_values=past, use_cache=True)
            assert furthest(out.logits[0, -1], step) < 1e-4
            past, read = out.past_key_values, out.logits[:, -1:].argmax(-1)
            tokens.append(read.item())
        assert tokens == want[f"decode/P{length}/tokens"].tolist()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_rows_padded_on_the_left_equal_the_original_code(kind: str) -> None:
    want, model = recorded(kind), load(shared(f"checkpoints/peers/{FOLDERS[kind]}"))
    lengths = (40, 5, 17)
    ids = torch.zeros(3, 40, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(100 + row)
        ids[row, 40 - length :] = torch.randint(3, model.config.vocab_size, (200,), generator=generator)[:length]
        mask[row, 40 - length :] = 1
    logits = model(ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits
    for row, length in enumerate(lengths):
        last = min(8, length)
        assert furthest(logits[row, -last:], want[f"batch_left/row{row}_len{length}_last{last}"]) < 1e-4


@pytest.mark.parametrize(
    ("kind", "table", "key"),
    [
        ("chatglm2", "float16", "fp16rope"),
        ("chatglm2", "bfloat16", "bf16rope"),
        ("baichuan13b", "float16", "alibi_fp16"),
        ("baichuan13b", "bfloat16", "alibi_bf16"),
    ],
)
@torch.inference_mode()
def test_tables_rounded_as_in_2023_equal_the_original_code(kind: str, table: str, key: str) -> None:
    want = recorded(kind)
    model = load(shared(f"checkpoints/peers/{FOLDERS[kind]}"), table)
    logits = model(want["input_ids_200"][None]).logits[0]
    assert furthest(logits, want[f"{key}/L200"]) < 1e-4
    assert furthest(logits, want["full/L200"]) > 0.1  # what the rounding does
    if kind == "chatglm2":
        table_of_2023 = want[f"rotary/{table}"].float()
        cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(512)[None])
        half = table_of_2023.shape[1]
        assert torch.equal(cos[0, :, :half], table_of_2023[..., 0])
        assert torch.equal(sin[0, :, :half], table_of_2023[..., 1])


def test_slopes_equal_the_original_code() -> None:
    want = recorded("baichuan13b")
    assert torch.equal(alibi.slopes(10), want["alibi/slopes"])
    assert torch.equal(alibi.slopes(40), want["alibi/slopes_40_heads"])


def tokenizer(name: str) -> TextTokenizer:
    folder = shared(f"checkpoints/peers/{name}")
    config = folder / "config.json"
    found = native.find(json.loads(config.read_text()) if config.exists() else {"model_type": "internlm"})
    assert found is not None
    return found.tokenizer(folder, [])


@pytest.mark.parametrize("name", [*FOLDERS.values(), "internlm-7b-tokenizer"])
def test_ids_equal_the_original_tokenizers(name: str) -> None:
    """All but those that spell <s>, </s> or <unk>, which are text here."""
    own = tokenizer(name)
    golden = json.loads(shared(f"checkpoints/peers/golden/tokenizer_{name}.json").read_text())
    start = len(own.encode(""))
    special = {own.special_id("bos"), own.special_id("eos"), 0}
    equal = 0
    for item in golden["strings"]:
        ids = own.encode(item["text"])
        if "chatglm2" not in name and any(token in item["text"] for token in SPELLED):
            assert not special & set(ids[start:])
            continue
        equal += 1
        assert (ids, ids[start:]) == (item["ids"], item["ids_no_special"])
        assert own.decode(ids[start:]) == item["decode"]
        assert own.decode(ids, skip_special=True) == item["decode_skip"]
    assert equal == (77 if "chatglm2" in name else 72)
    assert own.vocab_size == golden["len"]


@pytest.mark.parametrize("put_first", [True, False])
def test_bos_is_put_first_where_the_tokenizer_config_says_so(tmp_path: Path, put_first: bool) -> None:
    folder = shared("checkpoints/peers/baichuan13b-random")
    for name in ("tokenizer.model", "generation_config.json", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": put_first}))
    found = native.find(json.loads((tmp_path / "config.json").read_text()))
    assert found is not None
    golden = json.loads(shared("checkpoints/peers/golden/tokenizer_baichuan13b-random.json").read_text())
    for item in golden[f"add_bos_token_{str(put_first).lower()}"]:
        assert found.tokenizer(tmp_path, []).encode(item["text"]) == item["ids"]


@pytest.mark.parametrize("name", ["baichuan13b-random", "chatglm2-random", "internlm-random", "internlm-7b-tokenizer"])
def test_conversations_equal_the_original_chat_code(name: str) -> None:
    """A message that spells </s> is text here and a special token there, except in ChatGLM2."""
    own = tokenizer(name)
    if "internlm" in name:
        own.use(FORMATS["internlm"])
    golden = json.loads(shared(f"checkpoints/peers/golden/chat_{name}.json").read_text())["conversations"]
    for item in golden:
        ids, want = own.chat_ids(item["messages"]), item["ids"]
        if "chatglm2" in name or not any("</s>" in turn["content"] for turn in item["messages"]):
            assert ids == want
            continue
        before = same(ids, want)
        after = same(ids[:before:-1], want[:before:-1])
        assert len(want) - before - after <= 3 and 2 in want[before : len(want) - after]
        assert 2 not in ids[before : len(ids) - after]


@pytest.mark.parametrize("kind", KINDS)
def test_mmlu_through_the_engine_equals_the_original_code(kind: str) -> None:
    """Ten prompts of a thousand tokens, their shots shared, after the trust test."""
    import mmlu

    golden = json.loads(shared(f"checkpoints/peers/golden/mmlu_{FOLDERS[kind]}.json").read_text())["items"]
    words = ["-d", str(shared("data/mmlu")), "--limit", "5", "--subjects", "abstract_algebra,anatomy"]
    args = mmlu.Mmlu.parser().parse_args(words)
    samples = {sample.id: sample for sample in mmlu.Mmlu(args).asked}
    asked = [samples[item["id"]] for item in golden]
    engine = HFEngine(ModelSpec(str(shared(f"checkpoints/peers/{FOLDERS[kind]}")), max_seq_len=8192))
    assert engine.trust(asked).marks == ""
    chosen = engine.choose([sample.request for sample in asked], lambda *_: None)
    for item, found in zip(golden, chosen, strict=True):
        assert found.prompt_tokens == item["prompt_tokens"]
        assert found.logprobs == pytest.approx(item["logprobs"], abs=1e-3 if kind == "baichuan13b" else 1e-4)
    assert engine.usage()["tokens"] < 0.4 * engine.usage()["prompt_tokens"]
    assert not engine.notes


# ------------------------------------------------------------------------------------- against the formulas
CASES = {
    "baichuan7b": {},
    "baichuan13b": {},
    "baichuan13b, 10 heads": {"heads": 10, "width": 8, "layout": "bin", "shards": 3},
    "baichuan13b, 20 heads": {"heads": 20, "width": 8},
    "baichuan13b, 5 heads": {"heads": 5, "width": 24},
    "chatglm2": {"layout": "bin", "shards": 2},
    "chatglm2, first day": {"model_type": None, "architectures": None, "pad_token_id": None, "eos_token_id": None},
    "chatglm2, one group": {"groups": 1, "layers": 3},
    "chatglm2, as many keys as queries": {"groups": 4},
    "internlm": {"shards": 2},
    "internlm, rotary named": {"rotary": {"base": 10000, "type": "dynamic"}, "attn_implementation": "eager"},
}


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    for path in sorted(folder.glob("*.bin")):
        found |= torch.load(path, weights_only=True)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_tiny_checkpoint_computes_its_formulas(tmp_path: Path, case: str) -> None:
    """Alone, and in the engine with a shared beginning."""
    kind = case.split(",")[0]
    folder = peers.write_peer(tmp_path, kind, **CASES[case])
    tensors = tensors_of(folder)
    engine = HFEngine(ModelSpec(str(folder)))
    requests = [
        Choose(
            "The red boat and the blue boat sail to the island. ",
            (),
            f"How many {word} are there?",
            (" A", " B", " seven"),
        )
        for word in ("lamps", "boats", "keepers of the seven lamps")
    ]
    samples = [Sample(f"q/{index}", request, 0) for index, request in enumerate(requests)]
    assert engine.trust(samples).marks == "" and engine.runtime.features.replaced
    found = engine.choose(requests, lambda *_: None)
    own = engine.tokenizer
    for request, answer in zip(requests, found, strict=True):
        full = [own.encode(request.prompt() + option) for option in request.options]
        shared_tokens = min(*(same(full[0], ids) for ids in full[1:]), *(len(ids) - 1 for ids in full))
        for ids, value in zip(full, answer.logprobs, strict=True):
            exact = peers.logits(folder, kind, tensors, torch.tensor(ids)).log_softmax(-1)
            want = sum(float(exact[place - 1, ids[place]]) for place in range(shared_tokens, len(ids)))
            assert value == pytest.approx(want, abs=1e-4)
    ids = torch.tensor(np.arange(300) % 250 + 5)
    model = load(folder)
    with torch.inference_mode():
        assert furthest(model(ids[None]).logits[0], peers.logits(folder, kind, tensors, ids)) < 2e-3
        assert furthest(model(ids[None, :40]).logits[0], peers.logits(folder, kind, tensors, ids[:40])) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [True, False])
def test_replies_are_those_of_greedy_decoding_without_a_cache(tmp_path: Path, kind: str, share: bool) -> None:
    """With shared prefixes, and by transformers' own generate."""
    folder = peers.write_peer(tmp_path, kind, layers=1)
    engine = HFEngine(ModelSpec(str(folder)), share=share)
    prompts = ["The keeper lights the first lamp", "The keeper lights the last lamp, and"]
    replies = engine.generate([Generate(text, 8) for text in prompts], lambda *_: None)
    tensors, own = tensors_of(folder), engine.tokenizer
    for text, reply in zip(prompts, replies, strict=True):
        ids = own.encode(text)
        written: list[int] = []
        while len(written) < 8:
            token = int(peers.logits(folder, kind, tensors, torch.tensor(ids + written))[-1].argmax())
            if token in own.eos_ids:
                break
            written.append(token)
        before = own.decode(ids[-4:], skip_special=True)
        assert reply.texts[0] == own.decode(ids[-4:] + written, skip_special=True)[len(before) :]
    assert not engine.notes


@pytest.mark.parametrize("kind", KINDS)
def test_perplexity_is_that_of_the_formulas(tmp_path: Path, kind: str) -> None:
    """Whole and in pieces."""
    folder = peers.write_peer(tmp_path, kind)
    text = "The keeper lights the first lamp at dusk, and the answer of the last lamp is the number seven. " * 4
    engine = HFEngine(ModelSpec(str(folder)))
    request = Measure((text,), 64)
    engine.trust([Sample("text/0", request, 0)])
    assert engine.runtime.no_pieces == ""
    (found,) = engine.measure([request], lambda *_: None)
    ids = torch.tensor(engine.tokenizer.encode(text))
    want = 0.0
    for start in range(0, found.chunks[0] * 64, 64):
        part = ids[start : start + 64]
        exact = peers.logits(folder, kind, tensors_of(folder), part).log_softmax(-1)
        want -= float(exact[:-1].gather(1, part[1:, None]).sum())
    assert found.nll[0] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_16_bits_the_trust_test_passes(tmp_path: Path, kind: str, dtype: str) -> None:
    folder = peers.write_peer(tmp_path, kind, dtype=dtype, heads=10, width=8 if kind == "baichuan13b" else 16, groups=5)
    for old in (False, True):
        engine = HFEngine(ModelSpec(str(folder), tables_of_2023=old))
        rounded = getattr(engine.checkpoint.config, "table_dtype", None)
        assert rounded == (dtype if old and kind in ("chatglm2", "baichuan13b") else None)
        assert [f"rounded to {dtype}" in note for note in engine.notes] == [True] * (rounded is not None)
        requests = [
            Choose("The boat. " * 30, (), f"Is it {word}?", (" A", " B")) for word in ("red", "blue, or not at all")
        ]
        samples = [Sample(f"q/{index}", request, 0) for index, request in enumerate(requests)]
        assert engine.trust(samples).marks == ""


def test_float32_rounds_nothing_under_either_recipe(tmp_path: Path) -> None:
    folder = peers.write_peer(tmp_path, "chatglm2")
    checkpoint = open_checkpoint(ModelSpec(str(folder), tables_of_2023=True))
    assert getattr(checkpoint.config, "table_dtype", None) is None


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_come_back_under_their_original_names(tmp_path: Path, kind: str) -> None:
    folder = peers.write_peer(tmp_path / "in", kind, stray=False)
    model = load(folder)
    model.save_pretrained(tmp_path / "out")
    original, saved = tensors_of(folder), tensors_of(tmp_path / "out")
    assert saved.keys() == original.keys()
    assert all(torch.equal(value, original[name]) for name, value in saved.items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(5, 60)[None]
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_and_an_unknown_tensor_are_named(tmp_path: Path, kind: str) -> None:
    folder = peers.write_peer(tmp_path, kind)
    tensors = tensors_of(folder)
    last = next(name for name in tensors if "layers.1" in name and "norm" in name)
    write_weights(folder, {name: value for name, value in tensors.items() if name != last})
    with pytest.raises(CheckpointError, match=r"its weights lack model\.layers\.1"):
        load(folder)
    write_weights(folder, {**tensors, "model.layers.7.more.weight": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"config.json has no place for model.layers.7.more.weight"):
        load(folder)


# ------------------------------------------------------------------------------------- one model_type, several models
@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("baichuan13b", {"z_loss_weight": 0}, "this is Baichuan2 .z_loss_weight."),
        ("baichuan7b", {"vocab_size": 125696}, "this is Baichuan2 .a vocabulary of 125696."),
        ("baichuan7b", {"architectures": ["BaichuanForCausalLM"]}, "as Baichuan2-7B has, which is not supported"),
        ("baichuan13b", {"architectures": ["BaiChuanForCausalLM"]}, "which no released Baichuan has"),
        ("baichuan13b", {"model_max_length": None}, "neither max_position_embeddings"),
        ("baichuan7b", {"hidden_act": "gelu"}, "hidden_act=gelu is not supported for Baichuan-7B, only silu"),
        ("baichuan7b", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling="),
        ("baichuan7b", {"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ("baichuan13b", {"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        ("chatglm2", {"multi_query_attention": None}, "this is ChatGLM-6B"),
        ("chatglm2", {"padded_vocab_size": None, "position_encoding_2d": True}, "ChatGLM-6B or its like .position_enc"),
        ("chatglm2", {"rope_ratio": 50}, "rope_ratio=50, as ChatGLM3 and GLM-4"),
        ("chatglm2", {"interleaved_qkv": True}, "interleaved_qkv=True"),
        ("chatglm2", {"pre_seq_len": 128}, "pre_seq_len=128"),
        ("chatglm2", {"quantization_bit": 4}, "quantization_bit=4"),
        ("chatglm2", {"rmsnorm": False}, "rmsnorm=False"),
        ("chatglm2", {"post_layer_norm": False}, "post_layer_norm=False"),
        ("chatglm2", {"add_bias_linear": True}, "add_bias_linear=True"),
        ("internlm", {"rotary": {"base": 10000, "type": "linear"}}, "rotary=.*is not supported for InternLM"),
        ("internlm", {"hidden_act": "relu"}, "hidden_act=relu"),
        ("internlm", {"num_attention_heads": 3}, "no multiple of num_attention_heads"),
    ],
)
def test_what_is_not_handled_is_refused_by_name(tmp_path: Path, kind: str, changes: dict[str, Any], says: str) -> None:
    folder = peers.write_peer(tmp_path, kind, **changes)
    with pytest.raises(CheckpointError, match=says) as caught:
        open_checkpoint(ModelSpec(str(folder)))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_of_another_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    folder = peers.write_peer(tmp_path, kind, **{"padded_vocab_size" if kind == "chatglm2" else "vocab_size": 300})
    with pytest.raises(CheckpointError, match=r"tokenizer\.model has \d+ tokens and config.json a vocabulary of 300"):
        open_checkpoint(ModelSpec(str(folder)))


def test_chatglm3_is_known_by_its_tokenizer(tmp_path: Path) -> None:
    folder = peers.write_peer(tmp_path, "chatglm2", rope_ratio=1)
    open_checkpoint(ModelSpec(str(folder)))
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"64795": {"content": "<|user|>"}}}')
    with pytest.raises(CheckpointError, match="this is ChatGLM3"):
        open_checkpoint(ModelSpec(str(folder)))


def test_internlm_ends_where_it_stretches_its_rotation(tmp_path: Path) -> None:
    folder = peers.write_peer(tmp_path, "internlm", length=64, rotary={"base": 10000, "type": "dynamic"})
    with pytest.raises(CheckpointError, match=r"beyond 64 tokens .* stretches its rotation .*set no more than 64"):
        open_checkpoint(ModelSpec(str(folder), max_seq_len=65))
    assert HFEngine(ModelSpec(str(folder))).rigid
    plain = peers.write_peer(tmp_path / "plain", "internlm", length=64)
    assert open_checkpoint(ModelSpec(str(plain), max_seq_len=650)).context_limit == 650


@pytest.mark.parametrize(("option", "name"), [("dynamic_ntk", "--dynamic-ntk"), ("logn", "--logn")])
def test_alibi_has_no_rotation_to_stretch_and_no_queries_to_scale(tmp_path: Path, option: str, name: str) -> None:
    folder = peers.write_peer(tmp_path, "baichuan13b")
    with pytest.raises(CheckpointError, match=f"{name} cannot be applied .*ALiBi.*use {name} off"):
        open_checkpoint(ModelSpec(str(folder), **{option: "on"}))
    HFEngine(ModelSpec(str(folder))).extend(ModelSpec(str(folder)))


def test_a_rounded_rotation_cannot_be_stretched(tmp_path: Path) -> None:
    folder = str(peers.write_peer(tmp_path, "chatglm2", dtype="float16"))
    with pytest.raises(CheckpointError, match="its rotation is rounded to float16"):
        open_checkpoint(ModelSpec(folder, dynamic_ntk="on", tables_of_2023=True))
    open_checkpoint(ModelSpec(folder, dynamic_ntk="on"))


def test_a_window_holds_with_alibi(tmp_path: Path) -> None:
    """As many keys as a window lets through, against the formulas of a text that has no more."""
    folder = peers.write_peer(tmp_path, "baichuan13b", layers=1, heads=10, width=8)
    model = load(folder, window="7")
    ids = torch.arange(5, 45)
    with torch.inference_mode():
        found = model(ids[None]).logits[0, -1]
    # one layer: what the last token sees are the last seven; a shift of all positions changes nothing
    assert furthest(found, peers.logits(folder, "baichuan13b", tensors_of(folder), ids[-7:])[-1]) < 1e-4


# ------------------------------------------------------------------------------------- tokenizer files
def test_a_tokenizer_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    folder = peers.write_peer(tmp_path, "internlm")
    path = folder / "tokenizer.model"
    for content, says in (
        (b"no model", "is no SentencePiece model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=says):
            open_checkpoint(ModelSpec(str(folder)))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is missing"):
        open_checkpoint(ModelSpec(str(folder)))


def test_bytes_of_tokens_are_those_of_the_text(tmp_path: Path) -> None:
    folder = peers.write_peer(tmp_path, "internlm")
    own = open_checkpoint(ModelSpec(str(folder))).tokenizer
    text = "The keeper lights 7 lamps. 问题：é \U0001f642"
    ids = own.encode(text)
    assert own.token_bytes(ids) == text.encode() == own.token_bytes(ids[:4]) + own.token_bytes(ids[4:])
    assert "".join(own.split_texts(["The keeper"])[0]) == "The keeper"
