"""A Qwen-1 checkpoint written in Qwen2's format: transformers' own Qwen2 gives its logits, and the tokenizer its ids."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

import tiny
from known import run_script
from qwen_eval.models import qwen1
from qwen_eval.models.export import as_qwen2, export_qwen2, fast_tokenizer
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.models.tokenizers import HubTokenizer, QwenTokenizer
from qwen_eval.schema import CheckpointError, ModelSpec
from shared import REPOSITORY, shared

qwen1.register()


def random_texts(count: int) -> list[str]:
    """Texts of every script, of broken characters, of special tokens that are only spelled out."""
    rng = np.random.default_rng(0)
    parts = [
        "The red boat's",
        " 123",
        "\n\n",
        "  ",
        "\t",
        "问题：",
        "é",
        "e\u0301",
        "🙂",
        "<|im_end|>",
        "don't",
        "  A",
        "？！",
        "\r\n",
    ]
    made = ["".join(rng.choice(parts, int(rng.integers(1, 12)))) for _ in range(count)]
    return made + ["".join(map(chr, rng.integers(1, 0xD7FF, 40))) for _ in range(count)]


@pytest.mark.parametrize("generation", ["2023-12", "2023-08"])
def test_logits_of_the_released_code_through_qwen2(generation: str, tmp_path: Path) -> None:
    want = load_file(shared(f"checkpoints/golden/logits_{generation}.safetensors"))
    original = AutoModelForCausalLM.from_pretrained(shared(f"checkpoints/qwen1-random-{generation}"))
    as_qwen2(original, 64).save_pretrained(tmp_path / "copy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "copy").eval()
    assert type(model) is Qwen2ForCausalLM
    for length in (32, 64):
        with torch.inference_mode():
            logits = model(want["input_ids_400"][None, :length]).logits[0]
        assert (logits - want[f"full/ntk0_logn0/L{length}"]).abs().max() < 1e-4


def test_a_copy_answers_as_its_original(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, stored precision, limits, end tokens, chat: through the command line and transformers alone."""
    folder = tiny.write_qwen1(tmp_path / "original", dtype="bfloat16", positions=512, seq_length=96, dynamic_ntk=True)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**generation, "chat_format": "chatml"}))
    words = ["-c", folder, "-d", "demo", "--max-seq-len", "96", "--export", tmp_path / "copy"]
    done = run_script("mmlu", words, tmp_path / "results", capsys)
    assert done.status == 0 and "as Qwen2, bf16, for up to 96 tokens" in done.out, done.err
    assert not (tmp_path / "results").exists()
    copy = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", dtype=torch.float32).eval()
    checkpoint = open_checkpoint(ModelSpec(str(folder), dtype="float32", dynamic_ntk="off"))
    ids = torch.randint(0, checkpoint.tokenizer.vocab_size, (2, 96), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert (copy(ids).logits - checkpoint.load()(ids).logits).abs().max() < 1e-4
    stored = load_file(tmp_path / "copy" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    own = checkpoint.tokenizer
    assert isinstance(own, QwenTokenizer)
    assert copy.config.max_position_embeddings == 96 and copy.config.model_type == "qwen2"
    assert copy.generation_config.eos_token_id == [own.im_end, own.endoftext]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "copy")
    for messages in (
        [{"role": "user", "content": "The red boat?"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "灯"}, {"role": "assistant", "content": "A"},
         {"role": "user", "content": "and now"}],
    ):  # fmt: skip
        text = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert theirs(text)["input_ids"] == own.chat_ids(messages)
        assert text == own.decode(own.chat_ids(messages))


def test_the_tool_and_the_option_of_a_script_write_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.write_qwen1(tmp_path / "original", positions=512, seq_length=96, dynamic_ntk=True)
    tool = str(REPOSITORY / "tools/export_qwen2.py")
    for output, more, status in (("copy", ["--max-seq-len", "96"], 0), ("long", [], 2)):
        monkeypatch.setattr(sys, "argv", [tool, "-c", str(folder), "-o", str(tmp_path / output), *more])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(tool, run_name="__main__")
        assert stop.value.code == status
        said = capsys.readouterr()
        if status:
            assert "--max-seq-len 96" in said.err and not (tmp_path / output).exists()
    words = ["-c", folder, "-d", "demo", "--max-seq-len", "96", "--export", tmp_path / "other"]
    assert run_script("mmlu", words, tmp_path / "results", capsys).status == 0
    written = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert "model.safetensors" in written
    assert written == sorted(path.name for path in (tmp_path / "other").iterdir())
    for name in written:
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name


@pytest.mark.parametrize("source", ["tiny", "released"])
def test_the_tokenizer_gives_the_same_ids(source: str, tmp_path: Path) -> None:
    ranks = tmp_path / "ranks" / "qwen.tiktoken"
    if source == "released":
        ranks = shared("checkpoints/qwen1-tokenizer/qwen.tiktoken")
    else:
        ranks.parent.mkdir()
        tiny.write_ranks(ranks)
    own = QwenTokenizer(ranks)
    fast_tokenizer(own, 512).save_pretrained(tmp_path / "copy")
    theirs = HubTokenizer(tmp_path / "copy")
    texts: Sequence[str] = random_texts(400)
    assert theirs.encode_batch(texts) == own.encode_batch(texts)
    assert theirs.vocab_size == own.vocab_size
    specials = [own.decode([index]) for index in range(own.endoftext, own.vocab_size)]
    assert theirs.encode_special("".join(specials)) == list(range(own.endoftext, own.vocab_size))
    for text in texts[:50]:
        assert theirs.decode(own.encode(text)) == own.decode(own.encode(text))


def test_what_a_copy_would_lose_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_qwen1(tmp_path / "long", seq_length=64, positions=512, dynamic_ntk=True, logn=True)
    with pytest.raises(CheckpointError, match=r"dynamic_ntk\+logn past 64 tokens.*--max-seq-len 64.*--dynamic-ntk off"):
        export_qwen2(ModelSpec(str(folder)), tmp_path / "copy")
    with pytest.raises(CheckpointError, match="logn past 64"):
        export_qwen2(ModelSpec(str(folder), dynamic_ntk="off", max_seq_len=65), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    export_qwen2(ModelSpec(str(folder), dynamic_ntk="off", logn="off"), tmp_path / "copy")
    with pytest.raises(CheckpointError, match="is not empty"):
        export_qwen2(ModelSpec(str(folder), max_seq_len=64), tmp_path / "copy")
    with pytest.raises(CheckpointError, match="is no Qwen-1 checkpoint"):
        export_qwen2(ModelSpec(str(tmp_path / "copy")), tmp_path / "again")
