"""Checkpoints of a hub: which files are downloaded and when, and a one-line error for each that is not available."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import pytest

from loopback_hub import MAIN, LoopbackHub, Repo
from qwen_eval.models.opening import open_checkpoint
from test_checkpoint import refusal, spec
from tiny import write_qwen1


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_qwen1(tmp_path / "Qwen-tiny", seq_length=64, positions=512, dynamic_ntk=True, logn=True)


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A hub on this machine with a Qwen-1 in two layouts; huggingface_hub is pointed at it."""
    from huggingface_hub import constants

    (folder / "modeling_qwen.py").write_text("raise SystemExit('ran')\n")
    safe = {path.name: path.read_bytes() for path in folder.iterdir()}
    sharded = write_qwen1(tmp_path / "bin", shards=2, layout="bin")
    binary = {path.name: path.read_bytes() for path in sharded.iterdir()}
    both = safe | {"pytorch_model.bin": b"never fetched", "original/consolidated.safetensors": b"never fetched"}
    models = {
        "Qwen/tiny": Repo(both, revisions={"main", MAIN}),
        "Qwen/bin": binary,
        "Qwen/gated": Repo(safe, gated=True),
    }
    models["Qwen/empty"] = {"config.json": safe["config.json"], "qwen.tiktoken": safe["qwen.tiktoken"]}
    models["Qwen/down"] = Repo(safe, status=500)
    with LoopbackHub(models=models) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


def fetched(checkpoint) -> set[str]:
    return {path.name for path in checkpoint.folder.rglob("*") if path.is_file()}


def test_a_hub_id_is_described_before_its_weights_are_fetched(hub):
    checkpoint = open_checkpoint(spec("Qwen/tiny"))
    assert (checkpoint.name, checkpoint.revision) == ("Qwen/tiny", MAIN)
    small = {"config.json", "generation_config.json", "qwen.tiktoken", "tokenizer_config.json"}
    assert fetched(checkpoint) == small
    checkpoint.load()
    assert fetched(checkpoint) == small | {"model.safetensors"}


def test_torch_shards_are_fetched_where_there_are_no_safetensors(hub):
    checkpoint = open_checkpoint(spec("Qwen/bin"))
    checkpoint.load()
    assert {name for name in fetched(checkpoint) if name.endswith(".bin")} == {
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    }


def test_python_files_are_fetched_only_when_trusted(hub):
    assert "modeling_qwen.py" in fetched(open_checkpoint(spec("Qwen/tiny", trust_remote_code=True)))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("Qwen/none", {}, "is neither a folder here nor a model on the hub"),
        ("Qwen/gated", {}, "is gated: accept its terms at https://huggingface.co/Qwen/gated, then run: hf auth login"),
        ("Qwen/tiny", {"revision": "v9"}, "has no revision v9"),
    ],
)
def test_the_hub_refuses(hub, name, options, says):
    assert says in refusal(lambda: open_checkpoint(spec(name, **options)))


def test_a_repository_without_weights(hub):
    assert "holds no weights" in refusal(open_checkpoint(spec("Qwen/empty")).load)


def test_without_a_network_the_cache_is_used_and_otherwise_the_message_lists_what_to_get(hub, monkeypatch):
    from huggingface_hub import constants

    open_checkpoint(spec("Qwen/tiny")).load()
    open_checkpoint(spec("Qwen/bin"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    checkpoint = open_checkpoint(spec("Qwen/tiny"))
    assert checkpoint.revision == MAIN
    checkpoint.load()
    assert "is missing (2 of 2)" in refusal(open_checkpoint(spec("Qwen/bin")).load)  # its weights were not asked for
    text = refusal(lambda: open_checkpoint(spec("Qwen/none")))
    for part in ("cannot be reached", "config.json", "qwen.tiktoken", "safetensors", "pass it with -c"):
        assert part in text


def test_modelscope(folder, tmp_path, monkeypatch):
    assert "pip install 'qwen-eval[modelscope]'" in refusal(
        lambda: open_checkpoint(spec("qwen/tiny", hub="modelscope"))
    )
    place = tmp_path / "scope"
    asked = []

    def snapshot_download(name, revision=None, allow_patterns=()):
        if name != "qwen/tiny":
            raise RuntimeError("no such model")
        asked.append(list(allow_patterns))
        place.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for path in folder.glob(pattern):
                shutil.copy(path, place)
        return str(place)

    fake = types.ModuleType("modelscope")
    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "modelscope", fake)
    checkpoint = open_checkpoint(spec("qwen/tiny", hub="modelscope"))
    assert (checkpoint.name, checkpoint.revision) == ("qwen/tiny", "master")
    assert not (place / "model.safetensors").exists()
    checkpoint.load()
    assert asked[1:] == [["model.safetensors"]]
    text = refusal(lambda: open_checkpoint(spec("qwen/none", hub="modelscope")))
    assert "ModelScope did not give it (no such model)" in text
