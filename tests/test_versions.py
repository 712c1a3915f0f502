"""Bounds of the libraries that compute, and what becomes of a cache that a layer does not read."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
import sacrebleu
import torch
import transformers
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from sacrebleu.metrics import BLEU, CHRF
from transformers import DynamicCache

import tiny
from qwen_eval.engines.chunks import Chunk
from qwen_eval.engines.local import blocked, cascade, kernels, measuring
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models import caches, qwen1, versions
from qwen_eval.models.context import ContextExtension, install
from qwen_eval.models.export import export_qwen2
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import CheckpointError, Generate, ModelSpec

ROOT = Path(__file__).resolve().parents[1]


def allowed() -> dict[str, str]:
    """The bounds that pyproject.toml gives, by library."""
    said = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("dependencies = [")[1].split("]")[0]
    return dict(re.findall(r'^  "([a-z_-]+)([^"]*)",$', said, re.MULTILINE))


def test_the_bounds_are_those_of_the_package() -> None:
    assert {name: allowed()[name] for name in versions.TRIED} == versions.TRIED


def test_the_bounds_of_extras_are_those_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, bounds in versions.OPTIONAL.items():
        assert f'{name} = ["{name}{bounds}"]' in text and text.count(f'"{name}{bounds}"') == 2


def test_both_ends_of_transformers_are_tried() -> None:
    (line,) = re.findall(r"^TRANSFORMERS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    oldest, newest = map(Version, line.split())
    bounds = {part.operator: Version(part.version) for part in SpecifierSet(allowed()["transformers"])}
    assert bounds == {
        ">=": Version(f"{oldest.major}.{oldest.minor}"),
        "<": Version(f"{newest.major}.{newest.minor + 1}"),
    }
    assert oldest <= Version(transformers.__version__) <= newest


def test_private_functions_of_torch_are_of_a_version_that_was_tried() -> None:
    """Those that engines/kernels.py and engines/blocked.py use, where this processor has them."""
    assert SpecifierSet(allowed()["torch"]).contains(torch.__version__), "try it, then move the bound"
    query, key, value = torch.randn(3, 1, 2, 20, 16).unbind(0)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, True, scale=0.3)
    own_out, own_lse = kernels._attend_in_slices(query, key, value, True, 0.3)
    assert torch.allclose(out, own_out, atol=1e-5) and torch.allclose(lse, own_lse, atol=1e-5)
    if torch.backends.mkldnn.is_available():
        assert blocked.works(torch.float32)


def test_private_functions_of_sacrebleu_are_of_a_version_that_was_tried() -> None:
    assert SpecifierSet(allowed()["sacrebleu"]).contains(sacrebleu.__version__), "try it, then move the bound"
    texts, sets = ["the cat sat on the mat", "a dog"], [["the cat sat on a mat", "one dog"]]
    for metric in (BLEU(), CHRF()):
        stats = metric._extract_corpus_statistics(texts, sets)
        sums = [sum(column) for column in zip(*stats, strict=True)]
        assert metric._compute_score_from_stats(sums).score == metric.corpus_score(texts, sets).score


def test_a_version_that_was_not_tried_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the engine's notes, which the table and the manifest show, and by the export."""
    folder = tiny.write_qwen1(tmp_path / "model")
    spec = ModelSpec(str(folder), dynamic_ntk="off", logn="off")
    assert not HFEngine(spec).notes
    monkeypatch.setitem(versions.TRIED, "transformers", ">=4,<5")
    (note,) = HFEngine(spec).notes
    start = f"transformers {transformers.__version__} was not tried with this harness (>=4,<5 was)"
    assert note.startswith(start) and "\n" not in note
    assert open_checkpoint(spec).notes == [note]
    assert export_qwen2(spec, tmp_path / "copy").endswith(note)
    monkeypatch.setitem(versions.TRIED, "torch", "<2")
    assert [line.split()[0] for line in versions.untried()] == ["torch", "transformers"]


def test_the_installed_versions_are_the_imported_ones() -> None:
    """An overlay (`make test-versions`) has to be found by those who read metadata, too."""
    assert metadata.version("transformers") == transformers.__version__


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_qwen1(tmp_path_factory.mktemp("qwen1"), positions=4096)


def test_a_cache_under_a_name_unknown_to_the_layers_is_refused(folder: Path) -> None:
    """As transformers 5.24 handed the native Qwen-1 its cache under a new name, which it ignored."""
    model = open_checkpoint(ModelSpec(str(folder))).load()
    cache = DynamicCache(config=model.config)
    layer = model.model.layers[0].self_attn
    given = {"hidden_states": torch.randn(1, 3, model.config.hidden_size), "attention_mask": None}
    given["position_embeddings"] = model.model.rotary_emb(given["hidden_states"], torch.arange(3)[None])
    with torch.inference_mode():
        for name in ("kv_store", "past_key_value"):
            with pytest.raises(CheckpointError, match=f"hands the layers their cache as {name}"):
                layer(**given, **{name: cache})
        for number, name in enumerate(caches.NAMES, 1):
            layer(**given, **{name: cache})
            assert cache.get_seq_length() == 3 * number


@pytest.mark.parametrize("extension", [{"logn": True}, {"logn": False, "windows": (2, 2)}], ids=str)
def test_no_attention_of_ours_swallows_a_cache(folder: Path, extension: dict) -> None:
    model = open_checkpoint(ModelSpec(str(folder))).load()
    install(model, ContextExtension(dynamic_ntk=False, trained_length=64, **extension))
    attend = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS[model.config._attn_implementation]
    states = torch.randn(1, 2, 3, 8)
    state = cascade.Cascade([3])
    for function, more in ((attend, {"position_ids": torch.arange(3)[None]}), (cascade.attention, {})):
        with cascade.attending(state), pytest.raises(CheckpointError, match="as kv_store"):
            function(model.model.layers[0].self_attn, *3 * [states], None, kv_store=DynamicCache(), **more)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native Qwen-1 as it was: its attention drops whatever cache it is handed."""
    monkeypatch.setattr(caches, "take", lambda keywords: [keywords.pop(name, None) for name in caches.NAMES] and None)


@pytest.mark.usefixtures("deaf")
def test_perplexity_in_pieces_needs_no_cache_of_the_model(folder: Path) -> None:
    engine = HFEngine(ModelSpec(str(folder)))
    chunk = Chunk(torch.arange(40).int().numpy(), 39, 0)
    with torch.inference_mode():
        (whole,) = measuring._losses(engine.runtime, [chunk], 5000)
        assert measuring._in_pieces(engine.runtime, chunk, 5000, 16) == pytest.approx(whole, rel=1e-6)


@pytest.mark.usefixtures("deaf")
def test_generation_by_transformers_sees_that_a_cache_is_not_used(folder: Path) -> None:
    engine, asked = HFEngine(ModelSpec(str(folder)), share=False), [Generate("to be or not to be", 6)]
    found = engine.generate(asked, lambda *_: None)
    assert found[0].texts == HFEngine(ModelSpec(str(folder))).generate(asked, lambda *_: None)[0].texts
    assert "without a cache: with one its log-probabilities are off by" in engine.notes[-1]


def test_packed_rows_need_a_model_that_takes_positions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose forward swallows position_ids would count on from one packed row to the next."""
    engine = HFEngine(ModelSpec(str(folder)))
    whole = qwen1.QWenLMHeadModel.forward

    def forward(self: object, input_ids: torch.Tensor, **kwargs: object) -> object:
        return whole(self, input_ids, **kwargs)

    monkeypatch.setattr(qwen1.QWenLMHeadModel, "forward", forward)
    with pytest.raises(cascade.Unsupported, match="where the token stands"), engine.runtime.cascade_attention():
        pass
