"""Checkpoints with Python code of their own: what no file holds is what the code computes, and where the flag cannot help."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import remote
from known import run_script
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import CheckpointError, Generate, ModelSpec
from test_engine import questions


@pytest.fixture(scope="module", autouse=True)
def _modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield from remote.modules_in(tmp_path_factory.mktemp("modules"))


def trusted(folder: Path, **options: Any) -> ModelSpec:
    return ModelSpec(str(folder), trust_remote_code=True, **options)


def same(folder: Path) -> ModelSpec:
    """The same weights as transformers' own Llama."""
    return ModelSpec(f"{folder}-llama")


def refusal(spec: ModelSpec) -> str:
    with pytest.raises(CheckpointError) as refused:
        open_checkpoint(spec).load()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("more", ["", "IGNORES", "INITIALIZES", "TIES_BY_LIST"])
@pytest.mark.parametrize("table", ["buffer", "attribute", "stored"])
def test_what_no_file_holds_is_what_the_code_computes(table: str, more: str, tmp_path: Path) -> None:
    """At a real size: 2,048 positions of heads of 128. A small table comes from memory that was used before and is not a number
    mostly; this one comes as zeros."""
    lines = getattr(remote, more, "")
    folder = remote.write(
        tmp_path / f"{table}{more}", table, lines, hidden=256, heads=2, positions=2048, kv_heads=2,
        tie_word_embeddings=more == "TIES_BY_LIST",
    )  # fmt: skip
    ids = torch.randint(3, 300, (1, 100), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = (open_checkpoint(spec).load()(ids).logits for spec in (trusted(folder), same(folder)))
    assert (found - expected).abs().max() < 1e-3
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_what_is_random_is_refused(tmp_path: Path) -> None:
    folder = remote.write(tmp_path / "random_table", "random")
    text = refusal(trusted(folder))
    assert "no file holds model.layers.0.self_attn.rotary_emb.cos_cached" in text and "random numbers" in text


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_the_engine_answers_as_with_transformers_own_class(quantize: str, tmp_path: Path) -> None:
    """Choices and texts, by code that keeps its cache as tuples, which transformers no longer does."""
    folder = remote.write(tmp_path / f"engine_{quantize}", "buffer")
    own, plain = (
        HFEngine(ModelSpec(str(path), trust_remote_code=True, quantize=quantize), share=share)
        for path, share in ((folder, True), (f"{folder}-llama", False))
    )
    for one, other in zip(*(engine.choose(questions(3), lambda *_: None) for engine in (own, plain)), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3 if quantize == "none" else 0.2)
    if quantize == "none":
        asked = [Generate("The red boat", 12), Generate("Question: how many lamps", 12)]
        texts = [[reply.texts for reply in engine.generate(asked, lambda *_: None)] for engine in (own, plain)]
        assert texts[0] == texts[1]


def test_a_script_at_a_real_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a user runs it, with the trust test."""
    folder = remote.write(tmp_path / "script", "buffer", hidden=256, heads=2, kv_heads=2, positions=2048)
    words = ["-d", "demo", "--subjects", "formal_logic", "--limit", "2", "--trust-remote-code"]
    runs = [
        run_script("mmlu", ["-c", str(path), *words], tmp_path / path.name, capsys)
        for path in (folder, Path(f"{folder}-llama"))
    ]
    assert [run.status for run in runs] == [0, 0], runs[0].err
    for name, row in runs[0].samples.items():
        expected = runs[1].samples[name]["response"]["logprobs"]
        assert row["response"]["logprobs"] == pytest.approx(expected, abs=1e-3)


# ------------------------------------------------------------------------------------------- the advice to pass the flag
def test_the_flag_is_advised_where_the_code_is_there(tmp_path: Path) -> None:
    folder = remote.write(tmp_path / "advised")
    assert "needs the Python code it carries; pass --trust-remote-code" in refusal(ModelSpec(str(folder)))


def test_the_flag_is_not_advised_where_there_is_no_code(tmp_path: Path) -> None:
    folder = remote.write(tmp_path / "bare", code=False)
    text = refusal(ModelSpec(str(folder)))
    assert "needs Python code that it does not hold (modeling_own.py)" in text and "--trust" not in text


def test_a_hubs_cache_holds_no_code_that_is_not_trusted(tmp_path: Path) -> None:
    place = tmp_path / "models--own--model" / "snapshots" / ("0" * 40)
    remote.write(place, code=False)
    assert "pass --trust-remote-code" in refusal(ModelSpec(str(place)))


@pytest.mark.parametrize("file", ["modeling_own.py", "configuration_own.py"])
def test_packages_that_the_code_imports_are_named_first(file: str, tmp_path: Path) -> None:
    folder = remote.write(tmp_path / f"imports_{file[:5]}")
    (folder / file).write_text("import no_such_package.ops\ntry:\n    import flash_none\nexcept ImportError:\n    pass\n"
                               + (folder / file).read_text())  # fmt: skip
    text = refusal(ModelSpec(str(folder)))
    assert "which imports no_such_package; if you trust it, run: pip install no_such_package" in text
    assert "no_such_package" in refusal(trusted(folder)) and "get the weights" not in refusal(trusted(folder))


def test_code_that_fails_says_what_it_was_written_for(tmp_path: Path) -> None:
    folder = remote.write(tmp_path / "fails", more="x = 1")
    path = folder / "modeling_own.py"
    path.write_text(path.read_text().replace("self.post_init()", "config.max_length_of_old"))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "transformers_version": "4.31.0"}))
    text = refusal(trusted(folder))
    assert re.search(r"own code fails \(AttributeError.*max_length_of_old.*was written for transformers 4.31.0", text)
    assert "get the weights" not in text


def test_a_missing_parameter_is_still_refused(tmp_path: Path) -> None:
    folder = remote.write(tmp_path / "lacks", more='_keys_to_ignore_on_load_missing = [r"lm_head"]')
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "its weights lack lm_head.weight" in refusal(trusted(folder))
