"""GGUF files: the model equals the checkpoint that the file was made from; what transformers' reader ignores is corrected or an
error."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import gguf_files
import tiny
from qwen_eval.models import gguf as reader
from qwen_eval.models import gguf_tokenizer, hub
from qwen_eval.models.checkpoint import Checkpoint
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.runs import precision
from qwen_eval.schema import CheckpointError, ModelSpec

TEXTS = (
    "The red boat",
    "Question: how many lamps?\n\n  x =  3",
    "问题：岛上有几盏灯？ 12 345",
    "def count(lamps):\n    return 7",
)
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "gemma3": {"tie_word_embeddings": True, "layers": 6, "sliding_window": 16, "query_pre_attn_scalar": 16},
}


def checkpoint(folder: Path, architecture: str, **options: Any) -> Path:
    """A tiny checkpoint of an architecture, as transformers writes it."""
    kind = {"gemma3": "gemma3_text"}.get(architecture, architecture)
    settings = {"chat": True, **KINDS[architecture], **options}
    head_dim = settings.pop("head_dim", None)
    made = tiny.write_causal(folder, kind, **settings)
    if head_dim:  # another width of heads than hidden / heads
        made = tiny.write_causal(folder, kind, hidden=64, heads=2, kv_heads=2, chat=True)
    return made


def opened(path: Path, **options: Any) -> Checkpoint:
    return open_checkpoint(ModelSpec(path=str(path), device="cpu", **options))


def logprobs(found: Checkpoint, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(found.load()(torch.tensor([ids])).logits[0].double(), -1)


@pytest.mark.parametrize("architecture", KINDS)
def test_a_file_answers_as_the_checkpoint_that_it_was_made_from(tmp_path: Path, architecture: str) -> None:
    folder = checkpoint(tmp_path / "folder", architecture)
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", folder, architecture)
    ours, theirs = opened(path), opened(folder)
    assert (ours.name, ours.revision, ours.precision) == ("tiny", "local", "gguf:F32")
    assert ours.context_limit == theirs.context_limit
    for text in TEXTS:
        assert ours.tokenizer.encode(text) == theirs.tokenizer.encode(text)
    ids = theirs.tokenizer.encode("".join(TEXTS))
    assert len(ids) > 32  # beyond Gemma's window
    assert (logprobs(ours, ids) - logprobs(theirs, ids)).abs().max() < 1e-5
    turns: Any = [{"role": "user", "content": "How many <|im_end|> lamps?"}]
    assert ours.tokenizer.chat_ids(turns) == theirs.tokenizer.chat_ids(turns)
    assert ours.tokenizer.stop_ids == theirs.tokenizer.stop_ids
    assert ours.tokenizer.eos_ids == theirs.tokenizer.eos_ids


def test_a_sentencepiece_tokenizer_is_the_one_of_its_model_file(tmp_path: Path) -> None:
    """Against sentencepiece itself. Older files say nothing about the BOS: it comes first."""
    import sentencepiece

    folder = tiny.write_llama(tmp_path / "folder")
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    found = opened(gguf_files.write_gguf(tmp_path / "t.gguf", folder, "llama"))
    for text in (*TEXTS, " leading", "a  b", "naïve 🙂", "\n", ""):
        assert found.tokenizer.encode(text) == [model.bos_id(), *model.encode(text)], text
    assert found.tokenizer.eos_ids == (model.eos_id(),)
    without = gguf_files.write_gguf(tmp_path / "n.gguf", folder, "llama", more={"tokenizer.ggml.add_bos_token": False})
    assert opened(without).tokenizer.encode(TEXTS[0]) == model.encode(TEXTS[0])
    # as Llama 2's own code encodes a turn
    turns: Any = [{"role": "user", "content": "How many lamps?"}]
    assert found.tokenizer.chat_ids(turns) == [model.bos_id(), *model.encode("[INST] How many lamps? [/INST]")]


@pytest.mark.parametrize(("kind", "label", "dtype"), [("Q8_0", "Q8_0", "float32"), ("F16", "F16", "float16")])
def test_quantized_blocks_are_the_numbers_that_gguf_computes(tmp_path: Path, kind: str, label: str, dtype: str) -> None:
    folder = checkpoint(tmp_path / "folder", "qwen2")
    found = opened(gguf_files.write_gguf(tmp_path / "tiny.gguf", folder, "qwen2", kind))
    assert found.precision == f"gguf:{label}"
    assert str(found.dtype) == f"torch.{dtype}"
    model = found.load()
    for name, tensor in load_file(folder / "model.safetensors").items():
        expected = tensor.float().numpy()
        if tensor.dim() > 1 and kind == "Q8_0":
            chosen = gguf.GGMLQuantizationType.Q8_0
            expected = gguf.dequantize(gguf.quantize(expected, chosen), chosen)
        elif tensor.dim() > 1:
            expected = expected.astype(np.float16)
        got = model.state_dict()[name].numpy()
        assert np.array_equal(got, expected.astype(got.dtype)), name


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "gguf:Q8_0"),
        ({"dtype": "bfloat16"}, "gguf:Q8_0+bf16"),
        ({"quantize": "nf4"}, "gguf:Q8_0+nf4"),
        ({"quantize": "int8", "dtype": "bfloat16"}, "gguf:Q8_0+int8+bf16"),
    ],
)
def test_every_precision_of_a_file_has_its_label_and_equals_that_of_the_folder(
    tmp_path: Path, options: dict[str, str], label: str
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = checkpoint(tmp_path / "folder", "llama")
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", folder, "llama", "Q8_0")
    dequantized = tmp_path / "dequantized"
    dequantized.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (dequantized / name).write_bytes((folder / name).read_bytes())
    tiny.write_weights(dequantized, dict(opened(path).load().state_dict()))
    ours, theirs = opened(path, **options), opened(dequantized, **{"dtype": "float32", **options})
    assert ours.precision == label
    ids = theirs.tokenizer.encode("".join(TEXTS))
    assert torch.equal(logprobs(ours, ids), logprobs(theirs, ids))


def test_the_header_is_what_the_gguf_package_reads(tmp_path: Path) -> None:
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", checkpoint(tmp_path / "folder", "llama"), "llama", "Q8_0")
    header, peer = reader.read_header(path), gguf.GGUFReader(path)
    for key, field in peer.fields.items():
        if key.startswith("GGUF."):
            continue
        value = field.contents()
        if isinstance(value, list) and len(value) and isinstance(value[0], str):
            assert key not in header.metadata, key
        else:
            assert header.metadata[key] == (tuple(value) if isinstance(value, list) else value), key
    assert {tensor.name: (tensor.tensor_type.name, tensor.n_bytes) for tensor in peer.tensors} == {
        tensor.name: (tensor.kind, tensor.size) for tensor in header.tensors.values()
    }
    for tensor in peer.tensors:
        assert header.start + header.tensors[tensor.name].offset == tensor.data_offset
        if tensor.tensor_type.name == "Q8_0":
            continue
        assert np.array_equal(reader.read_tensor(header, tensor.name).numpy().ravel(), np.asarray(tensor.data).ravel())


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 128},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        ),
        ({"rope.freq_base": 500000.0}, {"rope_theta": 500000.0}),
        ({"rope.scaling.type": "none"}, {}),
    ],
)
def test_a_scaled_rotation_is_carried_over(tmp_path: Path, more: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same settings in the config.json of a folder give the same model."""
    folder = checkpoint(tmp_path / "folder", "llama")
    path = gguf_files.write_gguf(tmp_path / "t.gguf", folder, "llama", more={f"llama.{k}": v for k, v in more.items()})
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] |= expected
    (folder / "config.json").write_text(json.dumps(config))
    ours, theirs = opened(path), opened(folder)
    ids = theirs.tokenizer.encode("".join(TEXTS) * 3)
    assert (logprobs(ours, ids) - logprobs(theirs, ids)).abs().max() < 1e-5


def test_the_factors_of_llama_3s_rotation_are_read_from_their_tensor(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "folder", "llama", rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})
    settings = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    plain = 1.0 / 500000.0 ** (torch.arange(0, 16, 2).double() / 16)
    waves = 2 * torch.pi / plain
    smooth = (8192 / waves - 1.0) / (4.0 - 1.0)
    scaled = torch.where(
        waves > 8192, plain / 32, torch.where(waves < 2048, plain, (1 - smooth) * plain / 32 + smooth * plain)
    )
    path = gguf_files.write_gguf(tmp_path / "t.gguf", folder, "llama", tensors={"rope_freqs.weight": plain / scaled})
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = settings
    (folder / "config.json").write_text(json.dumps(config))
    ids = opened(folder).tokenizer.encode("".join(TEXTS) * 3)
    assert (logprobs(opened(path), ids) - logprobs(opened(folder), ids)).abs().max() < 1e-5
    strange = gguf_files.write_gguf(
        tmp_path / "s.gguf", folder, "llama", tensors={"rope_freqs.weight": plain / scaled * 3}
    )
    with pytest.raises(CheckpointError, match=r"s\.gguf: the factors of its rotation"):
        opened(strange)


@pytest.mark.parametrize(
    ("more", "leave_out", "text"),
    [
        ({"llama.attention.scale": 0.2}, (), r"llama\.attention\.scale says something about the model"),
        ({"llama.rope.scaling.type": "longrope"}, (), r"rope\.scaling\.type 'longrope' is not read here"),
        ({"llama.rope.scaling.attn_factor": 1.5}, (), r"rope\.scaling\.attn_factor is not read here"),
        ({"llama.rope.dimension_count": 8}, (), "transformers' reader rotates|other shapes"),
        ({"llama.expert_count": 8}, (), "LlamaConfig has no place for it"),
        ({"split.count": 3}, (), "one of 3 parts; join them"),
        ({"split.count": "many"}, (), "one of many parts"),
        ({"llama.rope.freq_base": "x"}, (), "its metadata describe no model"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": float("nan")}, (), "factor is nan"),
        ({"llama.attention.head_count_kv": [2, 1]}, (), "num_key_value_heads"),
        (
            {"tokenizer.ggml.pre": "poro-chat"},
            (),
            r"its pre-tokenizer 'poro-chat' is not known here \(tokenizer\.ggml\.pre\)",
        ),
        ({"tokenizer.ggml.pre": "default"}, (), "names no pre-tokenizer"),
        ({}, ("tokenizer.ggml.pre",), "names no pre-tokenizer"),
        ({"tokenizer.ggml.add_bos_token": True}, (), "a BOS comes first and none is named"),
        ({"tokenizer.ggml.model": "rwkv"}, (), "rwkv"),
        ({"general.architecture": "starcoder9"}, (), "does not read GGUF files of the architecture starcoder9"),
    ],
)
def test_what_would_be_lost_is_an_error(
    tmp_path: Path, more: dict[str, Any], leave_out: tuple[str, ...], text: str
) -> None:
    folder = checkpoint(tmp_path / "folder", "llama")
    architecture = str(more.get("general.architecture", "llama"))
    path = tmp_path / "t.gguf"
    if architecture == "llama":
        gguf_files.write_gguf(path, folder, "llama", more=more, leave_out=leave_out)
    else:
        writer = gguf.GGUFWriter(path, architecture)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    with pytest.raises(CheckpointError, match=text) as caught:
        opened(path).load()
    assert "t.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_a_tensor_that_the_model_does_not_use_is_an_error(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "folder", "llama")
    path = gguf_files.write_gguf(
        tmp_path / "t.gguf", folder, "llama", tensors={"blk.0.attn_sinks.weight": torch.ones(4)}
    )
    with pytest.raises(CheckpointError, match=r"holds [\d,]+ numbers and transformers' model of it [\d,]+"):
        opened(path).load()


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    whole = gguf_files.write_gguf(tmp_path / "t.gguf", checkpoint(tmp_path / "folder", "llama"), "llama").read_bytes()
    huge = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 2**60)
    for content, text in (
        (b"", "cannot be read"),
        (b"GGML" + whole[4:], "is no GGUF file"),
        (whole[:4] + b"\x01\0\0\0" + whole[8:], "GGUF version 1"),
        (whole[:3000], "damaged or truncated header"),
        (whole[:-1000], "is truncated"),
        (huge, "damaged or truncated header"),
    ):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=text):
            opened(path)


def test_a_folder_with_one_file_is_that_file_and_several_are_listed(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "folder", "llama")
    alone = tmp_path / "alone"
    alone.mkdir()
    gguf_files.write_gguf(alone / "a.gguf", folder, "llama")
    assert opened(alone).name == "a"
    assert opened(alone).fingerprint == opened(alone / "a.gguf").fingerprint
    gguf_files.write_gguf(alone / "b.gguf", folder, "llama", "Q8_0")
    with pytest.raises(CheckpointError, match=r"holds 2 GGUF files, pass one of them with -c: a\.gguf, b\.gguf"):
        opened(alone)
    (folder / "c.gguf").write_bytes((alone / "a.gguf").read_bytes())
    assert opened(folder).precision == "fp32"  # a folder with weights of its own is that model
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(CheckpointError, match="is a file, and no GGUF file; pass the folder"):
        opened(tmp_path / "notes.txt")


def test_files_of_different_content_have_different_fingerprints(tmp_path: Path) -> None:
    paths = [
        gguf_files.write_gguf(
            tmp_path / name / "t.gguf", checkpoint(tmp_path / f"folder{seed}", "llama", seed=seed), "llama"
        )
        for seed, name in enumerate(("a", "b"))
        if (tmp_path / name).mkdir() is None
    ]
    assert opened(paths[0]).fingerprint != opened(paths[1]).fingerprint


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gguf_files.write_gguf(tmp_path / "t.gguf", checkpoint(tmp_path / "folder", "llama"), "llama")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(CheckpointError, match=r"needs the package gguf; run: pip install -e '\.\[gguf\]'"):
        reader.read_header(path)


def test_every_pre_tokenizer_keeps_the_text() -> None:
    from tokenizers import Tokenizer, models

    text = "It's 1234 HELLOworld don’t…  \n\n\tx=3.50 /usr\r\n中文 ½ ² नमस्ते"
    for name, how in gguf_tokenizer.PRE_TOKENIZERS.items():
        backend = Tokenizer(models.BPE())
        gguf_tokenizer._set_pre_tokenizer(backend, how)
        pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        spelled = {value: key for key, value in _bytes().items()}
        whole = bytes(spelled[char] for piece in pieces for char in piece)
        assert whole.decode() == text, name


def _bytes() -> dict[int, str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return bytes_to_unicode()


def test_repositories_of_gguf_files_list_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Entry:
        def __init__(self, name: str) -> None:
            self.rfilename = name

    class Info:
        siblings = [Entry("README.md"), Entry("m.Q4_0.gguf"), Entry("m.Q8_0.gguf")]  # noqa: RUF012

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **named: Info())
    with pytest.raises(
        CheckpointError, match=r"holds GGUF files; get one \(hf download a/b FILE.*m\.Q4_0\.gguf, m\.Q8_0"
    ):
        hub.locate(ModelSpec(path="a/b"))


def test_labels_say_what_is_computed_and_what_a_run_is_held_against() -> None:
    computed = {
        "fp32": "fp32",
        "gguf:Q4_1": "fp32",
        "gguf:F16": "fp16",
        "gguf:BF16": "bf16",
        "gguf:Q4_1+bf16": "bf16",
        "gguf:Q4_1+nf4": "nf4",
        "nf4+bf16": "bf16",
    }
    for label, expected in computed.items():
        assert precision.computed_in(label) == expected, label
    held = {"fp32": "bf16", "nf4+bf16": "bf16", "gguf:Q4_1": "gguf:Q4_1+bf16", "gguf:Q4_1+nf4+bf16": "gguf:Q4_1+bf16"}
    for label, expected in {**held, "gguf:BF16+int8": "gguf:BF16"}.items():
        assert precision.reference(label) == expected, label
