"""Checkpoints made by a stranger: one line within seconds, bounded memory, and nothing downloaded or run."""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from qwen_eval.models.hub import locate
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import CheckpointError, ModelSpec

limits = pytest.mark.skipif(sys.platform != "linux", reason="tried within limits on Linux alone")
SECONDS, MEMORY = 60.0, 500 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_qwen2(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def refused(folder: Path, **options: Any) -> str:
    """The one line with which a checkpoint is refused, within bounds of time and memory of this process."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError) as error:
        checkpoint = open_checkpoint(ModelSpec(str(folder), **options))
        list(checkpoint.weights)
    assert time.process_time() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MEMORY
    text = str(error.value)
    assert "\n" not in text and str(folder) in text
    return text


# ------------------------------------------------------------------------------------------------- code from the hub
@pytest.mark.parametrize(
    "value", ["x/y", "kernels-community/flash-attn2", "x/y@main:z", {"": "x/y"}, "paged|x/y", "nonsense", 5]
)
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_no_code_is_downloaded_for_an_implementation_that_a_config_names(copy: Path, key: str, value: Any) -> None:
    change(copy, "config.json", **{key: value})
    try:
        text = refused(copy)
    except pytest.fail.Exception:  # transformers takes no notice of the key
        assert open_checkpoint(ModelSpec(str(copy))).config._attn_implementation in (None, "eager", "sdpa")
        return
    assert "config.json" in text


def test_an_implementation_inside_a_part_of_the_config(copy: Path) -> None:
    from transformers import AutoConfig

    vision = AutoConfig.for_model("qwen2_vl")
    vision.save_pretrained(copy)
    content = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    content["attn_implementation"] = {"": "eager", "text_config": "x/y"}
    (copy / "config.json").write_text(json.dumps(content), encoding="utf-8")
    assert "attn_implementation is 'x/y'" in refused(copy)


@pytest.mark.parametrize("value", ["eager", "sdpa", None, "flash_attention_2"])
def test_transformers_own_implementations_are_taken(copy: Path, value: str | None) -> None:
    change(copy, "config.json", attn_implementation=value)
    open_checkpoint(ModelSpec(str(copy))).load()


@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_a_map_of_code_that_is_none(copy: Path, value: Any) -> None:
    change(copy, "config.json", auto_map=value)
    assert "auto_map is" in refused(copy)


@pytest.mark.parametrize("value", [{}, {"AutoModelForCausalLM": "x/y--modeling.Model"}, {"AutoConfig": "a.B"}])
def test_a_config_that_names_code_for_a_known_type(copy: Path, value: Any) -> None:
    change(copy, "config.json", auto_map=value)
    assert open_checkpoint(ModelSpec(str(copy))).load().config.model_type == "qwen2"


# ------------------------------------------------------------------------------------------------- no files at all
def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def long_circle(path: Path) -> None:
    path.symlink_to(path.name + ".json")
    path.with_name(path.name + ".json").symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


def terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [fifo, device, circle, long_circle, folder, terabyte])
@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
             "model.safetensors.index.json", "model.safetensors"],
)  # fmt: skip
def test_what_is_no_plain_file_is_not_read(copy: Path, name: str, make: Callable[[Path], None]) -> None:
    (copy / name).unlink(missing_ok=True)
    make(copy / name)
    assert name in refused(copy)


@pytest.mark.timeout(60)
def test_a_pipe_among_gguf_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match="a device or a pipe"):
        locate(ModelSpec(str(tmp_path)))


# ----------------------------------------------------------------------------------------------------- what is large
@pytest.mark.timeout(60)
@pytest.mark.parametrize("length", [3 << 30, (1 << 30) + 5, 100_000_001, 1 << 62])
def test_a_header_of_gigabytes_is_not_read(copy: Path, length: int) -> None:
    with (copy / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(min(length, 4 << 30) + 8)
    assert "header" in refused(copy)


@limits
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 100_000},
        {"num_hidden_layers": 10_000_000},
        {"model_type": "mixtral", "num_hidden_layers": 90_000, "num_local_experts": 99},
        {"layer_types": ["full_attention"] * 300_000, "num_hidden_layers": 300_000},
    ],
    ids=["100,000", "10,000,000", "with experts", "with types"],
)
def test_a_model_of_endless_layers(copy: Path, values: dict[str, Any]) -> None:
    change(copy, "config.json", **values)
    assert "config.json" in refused(copy)


# --------------------------------------------------------------------------------------------------- chat templates
TEMPLATES = {
    "endless loops": "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "gigabytes by loops": "{% for a in range(99999) %}" * 2 + "{{ 'word' * 100 }}" + "{% endfor %}" * 2,
    "gigabytes at once": "{{ 'x' * 10000000000 }}",
    "doubled": "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "padded": "{{ 'x'.center(9999999999) }}",
    "a large power": "{{ 10 ** (10 ** 9) }}",
    "a macro that calls itself": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "a tree of macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "100 MB": "x" * 100_000_000,
    "nested": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "many blocks": "{% if 1 %}" * 20_000 + "{% endif %}" * 20_000,
    "a list of lists": "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x + [1] %}{% endfor %}",
}  # fmt: skip


@limits
@pytest.mark.timeout(120)
@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_without_end(copy: Path, name: str, place: str) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    if place == "chat_template.jinja":
        change(copy, "tokenizer_config.json", chat_template=None)
        (copy / place).write_text(TEMPLATES[name], encoding="utf-8")
    else:
        change(copy, place, chat_template=TEMPLATES[name])
    started = time.process_time()
    try:
        checkpoint = open_checkpoint(ModelSpec(str(copy)))
        checkpoint.tokenizer.chat_ids([{"role": "user", "content": "x"}])
    except CheckpointError as error:
        assert "template" in str(error) and "\n" not in str(error)
    else:
        raise AssertionError("was rendered")
    assert time.process_time() - started < SECONDS


@pytest.mark.timeout(120)
def test_a_template_that_waits_for_a_certain_message(copy: Path) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    change(
        copy,
        "tokenizer_config.json",
        chat_template="{{ messages[0].content }}{% if messages[0].content == 'now' %}" + loop + "{% endif %}",
    )
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = open_checkpoint(ModelSpec(str(copy))).tokenizer
    assert tokenizer.chat_text([{"role": "user", "content": "later"}]) == "later"
    with pytest.raises(CheckpointError, match="its chat template takes more than"):
        tokenizer.chat_text([{"role": "user", "content": "now"}])


# -------------------------------------------------------------------------------------------------------- tokenizers
def replaced(pattern: str, by: str, times: int) -> dict[str, Any]:
    one = {"type": "Replace", "pattern": {"String": pattern}, "content": by}
    return {"type": "Sequence", "normalizers": [one] * times}


@limits
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalizer", replaced("a", "aa", 60)),
        ("normalizer", replaced("z", "zz", 60)),
        ("normalizer", replaced(" ", "  ", 60)),
        ("normalizer", replaced("中", "中中中", 40)),
        ("normalizer", replaced("x", "x" * 1_000, 5)),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a|a|aa)+$|(x+x+)+y"}, "content": ""}),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a|a|aa)+$|(x+x+)+y"}, "behavior": "Isolated",
                           "invert": False}),
        ("decoder", {"type": "Sequence", "decoders": replaced("a", "aa", 60)["normalizers"]}),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_a_tokenizer_that_grows_its_texts(copy: Path, key: str, value: dict[str, Any]) -> None:
    change(copy, "tokenizer.json", **{key: value})
    try:
        assert "tokenizer" in refused(copy)
    except pytest.fail.Exception:  # the library has limits of its own: it was opened, and what it encodes is small
        assert len(open_checkpoint(ModelSpec(str(copy))).tokenizer.encode("a" * 100)) < 10_000


def test_honest_checkpoints_are_opened(tmp_path: Path) -> None:
    """What is tried within limits changes nothing."""
    for write in (tiny.write_qwen2, tiny.write_llama, tiny.write_mistral):
        checkpoint = open_checkpoint(ModelSpec(str(write(tmp_path / write.__name__))))
        assert checkpoint.load().config is not None
        assert checkpoint.tokenizer.chat_ids([{"role": "user", "content": "x"}])
