"""Adapters: what a model computes with one, merged and applied, and one line for each that does not fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import tiny
from known import run_script
from loopback_hub import MAIN, LoopbackHub, Repo
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models import adapters, checkpoint
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import CheckpointError, Generate, ModelSpec
from test_engine import questions

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")

IDS = torch.randint(3, 300, (1, 40), generator=torch.Generator().manual_seed(0))
LAYERS = ["q_proj", "v_proj", "up_proj", "down_proj"]


def lora(**settings: Any) -> Any:
    given = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 16, "target_modules": LAYERS, "init_lora_weights": False}
    return peft.LoraConfig(**{**given, **settings})


def write(base: Path, folder: Path, config: Any, resize: int = 0) -> Path:
    """An adapter of random values, saved as PEFT saves it. resize: rows that the embeddings get first."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if resize:
        model.resize_token_embeddings(resize, mean_resizing=False)
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    wrapped.save_pretrained(folder)
    return folder


def load(base: Path, adapter: Path, mode: str = "merge", **options: Any) -> Any:
    return open_checkpoint(ModelSpec(str(base), adapter=str(adapter), adapter_mode=mode, **options)).load()  # type: ignore[arg-type]


def refusal(base: Path, adapter: Path, mode: str = "merge", **options: Any) -> str:
    with pytest.raises(CheckpointError) as refused:
        load(base, adapter, mode, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_llama(tmp_path_factory.mktemp("models") / "base")


def by_hand(base: Path, adapter: Path) -> Any:
    """The base model with weights computed by the definitions: LoRA (Hu et al. 2021) W + alpha/r B A, rsLoRA (Kalajdzievski
    2023) alpha/sqrt(r), DoRA (Liu et al. 2024) rows of that scaled to learned lengths, (IA)3 (Liu et al. 2022) rows of W times
    learned numbers, in feed-forward layers its columns."""
    model = AutoModelForCausalLM.from_pretrained(base)
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = {
        name.removeprefix("base_model.model."): value
        for name, value in load_file(adapter / "adapter_model.safetensors").items()
    }
    for name, module in model.named_modules():
        if f"{name}.lora_A.weight" in tensors:
            down, up = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
            scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
            weight = module.weight.data + scale * up @ down
            if config["use_dora"]:
                lengths = tensors[f"{name}.lora_magnitude_vector"]
                weight = weight * (lengths / weight.norm(dim=1))[:, None]
            module.weight.data = weight
        if f"{name}.ia3_l" in tensors:
            module.weight.data = module.weight.data * tensors[f"{name}.ia3_l"]
        if name in ("lm_head", "model.embed_tokens") and f"{name}.weight" in tensors:
            module.weight = torch.nn.Parameter(tensors[f"{name}.weight"])
    return model


HAND = {
    "lora": lambda: lora(),
    "rslora": lambda: lora(use_rslora=True),
    "dora": lambda: lora(use_dora=True),
    "ia3": lambda: peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "modules_to_save": lambda: lora(modules_to_save=["lm_head", "embed_tokens"]),
}


@pytest.mark.parametrize("mode", ["merge", "apply"])
@pytest.mark.parametrize("kind", HAND)
def test_what_adapters_compute(kind: str, mode: str, base: Path, tmp_path: Path) -> None:
    adapter = write(base, tmp_path / kind, HAND[kind]())
    with torch.inference_mode():
        found, expected, bare = (
            model(IDS).logits
            for model in (load(base, adapter, mode), by_hand(base, adapter), AutoModelForCausalLM.from_pretrained(base))
        )
    assert (found - expected).abs().max() < 1e-4 < 0.1 < (expected - bare).abs().max()


@pytest.mark.parametrize("targets", [["q_proj", "embed_tokens"], ["q_proj", "lm_head"], ["embed_tokens", "lm_head"]])
def test_a_tied_matrix_is_changed_where_the_adapter_changes_it(targets: Sequence[str], tmp_path: Path) -> None:
    """Merged into the one tensor, the change would be in embedding and output."""
    tied = tiny.write_llama(tmp_path / "tied", tie_word_embeddings=True)
    adapter = write(tied, tmp_path / "adapter", lora(target_modules=targets))
    expected = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tied), adapter)
    with torch.inference_mode():
        wanted = expected(IDS).logits
        for mode in ("merge", "apply"):
            assert (load(tied, adapter, mode)(IDS).logits - wanted).abs().max() < 1e-4
        near = load(tied, adapter, "merge", quantize="int8")(IDS).logits  # no more than 8 bits away
        assert (near - wanted).abs().mean() < 0.1 * wanted.abs().mean()


@pytest.mark.parametrize("kind", ["lora", "dora", "modules_to_save"])
def test_the_engine_answers_alike_merged_and_applied(kind: str, base: Path, tmp_path: Path) -> None:
    """With shared prefixes and without; the independent answer is that of transformers on the merged weights."""
    adapter = write(base, tmp_path / kind, HAND[kind]())
    by_hand(base, adapter).save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "merged")
    specs = [ModelSpec(str(base), adapter=str(adapter), adapter_mode=mode) for mode in ("merge", "apply")]  # type: ignore[arg-type]
    engines = [HFEngine(ModelSpec(str(tmp_path / "merged")), share=False), *map(HFEngine, specs)]
    plain, *others = [engine.choose(questions(3), lambda *_: None) for engine in engines]
    for other in others:
        for one, two in zip(plain, other, strict=True):
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
    texts = [engine.generate([Generate("The red boat", 8)], lambda *_: None)[0].texts for engine in engines]
    assert texts[0] == texts[1] == texts[2]
    assert len({engine.describe().fingerprint for engine in engines[1:]}) == 1
    assert [engine.describe().adapter.partition(":")[2] for engine in engines[1:]] == ["", "apply"]


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_merged_weights_are_quantized_and_an_applied_adapter_is_not(quantize: str, base: Path, tmp_path: Path) -> None:
    adapter = write(base, tmp_path / "adapter", lora())
    by_hand(base, adapter).save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "merged")
    merged = open_checkpoint(ModelSpec(str(tmp_path / "merged"), quantize=quantize)).load()
    bits: dict[str, Any] = {"load_in_8bit": True}
    if quantize == "nf4":
        bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    made: Any = BitsAndBytesConfig
    narrow = AutoModelForCausalLM.from_pretrained(base, quantization_config=made(**bits), device_map={"": "cpu"})
    checkpoint._prepare_quantized(narrow)
    applied = peft.PeftModel.from_pretrained(narrow, adapter).train(False)
    with torch.inference_mode():
        for mode, expected in (("merge", merged), ("apply", applied)):
            found = load(base, adapter, mode, quantize=quantize)
            assert any("8bit" in type(m).__name__ or "4bit" in type(m).__name__ for m in found.modules())
            assert (found(IDS).logits - expected(IDS).logits).abs().max() < 1e-2, mode


def test_further_tokens_come_with_their_embeddings_and_the_adapters_tokenizer(base: Path, tmp_path: Path) -> None:
    folder = tiny.write_qwen2(tmp_path / "qwen2")
    tokenizer = open_checkpoint(ModelSpec(str(folder))).tokenizer.tok  # type: ignore[attr-defined]
    tokenizer.add_tokens(["<|lamp|>", "<|boat|>"], special_tokens=True)
    rows = max(len(tokenizer), 386)
    adapter = write(folder, tmp_path / "adapter", lora(modules_to_save=["embed_tokens", "lm_head"]), resize=rows)
    tokenizer.save_pretrained(adapter)
    opened = open_checkpoint(ModelSpec(str(folder), adapter=str(adapter)))
    assert opened.tokenizer.encode_special("<|boat|>") == [len(tokenizer) - 1]
    assert opened.load().get_output_embeddings().weight.shape[0] == rows
    assert any("those in the adapter's folder" in note for note in opened.notes)
    expected = AutoModelForCausalLM.from_pretrained(folder)
    expected.resize_token_embeddings(rows, mean_resizing=False)
    expected = peft.PeftModel.from_pretrained(expected, adapter).train(False)
    with torch.inference_mode():
        assert (opened.load()(IDS).logits - expected(IDS).logits).abs().max() < 1e-4
    copied = write(folder, tmp_path / "copied", lora())
    for name in ("tokenizer.json", "tokenizer_config.json"):  # as training tools store them with every adapter
        shutil.copy(folder / name, copied)
    same = open_checkpoint(ModelSpec(str(folder), adapter=str(copied)))
    assert same.tokenizer.fingerprint == open_checkpoint(ModelSpec(str(folder))).tokenizer.fingerprint
    assert not any("tokenizer" in note for note in same.notes)
    bare = write(folder, tmp_path / "bare", lora())
    tokenizer.add_tokens([f"<|{number}|>" for number in range(20)], special_tokens=True)
    tokenizer.save_pretrained(bare)
    assert "was saved without its embeddings" in refusal(folder, bare)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("mode", ["merge", "apply"])
def test_an_adapter_of_qwen_1s_original_code(mode: str, dora: bool, tmp_path: Path) -> None:
    """In its names, with one matrix for query, key and value, and embeddings saved whole, as its script of 2023 wrote them;
    against a checkpoint whose original tensors were changed by hand."""
    base = tiny.write_qwen1(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = lora(target_modules=["c_attn", "c_proj", "w1", "w2"], modules_to_save=["wte", "lm_head"], use_dora=dora)
    config.save_pretrained(adapter)
    stored, changed = {}, dict(tensors)
    for name, weight in tensors.items():
        path = f"base_model.model.{name.removesuffix('.weight')}"
        if name in ("transformer.wte.weight", "lm_head.weight"):
            changed[name] = stored[f"{path}.weight"] = weight + 0.1 * torch.randn(weight.shape, generator=generator)
        elif re.search(r"c_attn.weight|c_proj.weight|w1.weight|w2.weight", name):
            down = 0.3 * torch.randn(4, weight.shape[1], generator=generator)
            up = 0.3 * torch.randn(weight.shape[0], 4, generator=generator)
            stored |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
            changed[name] = weight + 16 / 4 * up @ down
            if dora:
                lengths = 1 + torch.rand(weight.shape[0], generator=generator)
                stored[f"{path}.lora_magnitude_vector"] = lengths
                changed[name] = changed[name] * (lengths / changed[name].norm(dim=1))[:, None]
    save_file(stored, adapter / "adapter_model.safetensors")
    by_hand = Path(shutil.copytree(base, tmp_path / "changed"))
    save_file(changed, by_hand / "model.safetensors", metadata={"format": "pt"})
    with torch.inference_mode():
        found, expected, bare = (
            model(IDS).logits
            for model in (
                load(base, adapter, mode),
                *(open_checkpoint(ModelSpec(str(f))).load() for f in (by_hand, base)),
            )
        )
    assert (found - expected).abs().max() < 1e-3 < 0.1 < (bare - expected).abs().max()
    edit(adapter, rank_pattern={"w1": 8})
    assert "only LoRA with one rank and alpha" in refusal(base, adapter)


# ------------------------------------------------------------------------------------------------------ what does not fit
def edit(folder: Path, **keys: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def drop(folder: Path, part: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if part not in name}, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: edit(f, target_modules=["query_key_value"]), "not found in the base model"),
        (lambda f: edit(f, r=8), "lora_A.weight is [4, 64] in it and [8, 64] in the model"),
        (lambda f: edit(f, target_modules=["q_proj"]), "the model has no place for model.layers.0.mlp.down_proj.lora_A.weight"),
        (lambda f: drop(f, "layers.1."), "it lacks model.layers.1.mlp.down_proj.lora_A.weight (8 tensors)"),
        (lambda f: edit(f, modules_to_save=["lm_head"]), "it lacks lm_head.weight"),
        (lambda f: edit(f, task_type="SEQ_CLS"), "an adapter for SEQ_CLS, not for a language model"),
        (lambda f: edit(f, peft_type="NO_SUCH"), "knows no adapter of type 'NO_SUCH'"),
        (lambda f: edit(f, peft_type="PREFIX_TUNING"), "adapters of type PREFIX_TUNING are no change of weights"),
        (lambda f: edit(f, peft_type="XLORA"), "adapters of type XLORA are no change of weights"),
        (lambda f: edit(f, alora_invocation_tokens=[5]), "switched on by a text"),
        (lambda f: edit(f, layer_replication=[[0, 2]]), "repeats layers"),
        (lambda f: edit(f, use_later_invention=True), "does not know its setting use_later_invention"),
        (lambda f: edit(f, use_later_invention=False), None),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json:1: not valid JSON"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "holds no weights of an adapter"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"version https://git-lfs..." * 9), "git-lfs pointer"),
        (lambda f: (f / "adapter_config.json").unlink(), "has no adapter_config.json, it is no adapter"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(
    change: Callable[[Path], object], says: str | None, base: Path, tmp_path: Path
) -> None:
    adapter = write(base, tmp_path / "adapter", lora())
    change(adapter)
    if says is None:
        load(base, adapter)
    else:
        assert says in refusal(base, adapter)


def test_an_adapter_of_another_base(base: Path, tmp_path: Path) -> None:
    wide = tiny.write_llama(tmp_path / "wide", hidden=128)
    deep = tiny.write_llama(tmp_path / "deep", layers=3)
    assert "lora_A.weight is [4, 128] in it and [4, 64] in the model; the adapter is of another base" in refusal(
        base, write(wide, tmp_path / "of_wide", lora())
    )
    assert "no place for model.layers.2" in refusal(base, write(deep, tmp_path / "of_deep", lora()))
    adapter = write(base, tmp_path / "of_base", lora())
    assert "it lacks model.layers.2" in refusal(deep, adapter)
    notes = open_checkpoint(ModelSpec(str(deep), adapter=str(adapter))).notes
    assert any("says that its base is" in note and note.endswith("base") for note in notes)


def test_names_that_are_no_adapter(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "it is a model, pass it with -c" in refusal(base, base)
    assert "--adapter ./none/there does not exist" in refusal(base, Path("./none/there").absolute()).replace(
        str(Path.cwd()), "."
    )
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    assert "--adapter needs peft; run: pip install -e '.[peft]'" in refusal(base, tmp_path)


def test_an_adapter_in_the_place_of_a_model(base: Path, tmp_path: Path) -> None:
    adapter = write(base, tmp_path / "adapter", lora())
    with pytest.raises(CheckpointError) as refused:
        open_checkpoint(ModelSpec(str(adapter)))
    assert f"pass its base model and the adapter: -c {base} --adapter {adapter}" in str(refused.value)


def test_an_adapter_of_a_hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By id and revision; its weights are fetched when they are needed."""
    from huggingface_hub import constants

    adapter = write(base, tmp_path / "adapter", lora())
    given = {path.name: path.read_bytes() for path in adapter.iterdir()}
    with LoopbackHub(models={"me/my-lora": Repo(given, revisions={"main", "v2", MAIN})}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        opened = open_checkpoint(ModelSpec(str(base), adapter="me/my-lora@v2"))
        assert opened.name == "base+my-lora" and opened.adapter is not None
        assert not list(opened.adapter.folder.glob("*.safetensors"))
        assert torch.equal(opened.load()(IDS).logits, load(base, adapter)(IDS).logits)
        assert "me/my-lora has no revision v9" in refusal(base, Path("me/my-lora@v9"))
        assert "is neither a folder here nor a model on the hub" in refusal(base, Path("me/none"))


def test_weights_in_the_older_format(base: Path, tmp_path: Path) -> None:
    adapter = write(base, tmp_path / "adapter", lora())
    expected = load(base, adapter)(IDS).logits
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    assert torch.equal(load(base, adapter)(IDS).logits, expected)


# ------------------------------------------------------------------------------------------------------- what results say
def test_an_adapter_that_lies_beside_a_model_is_named_and_not_applied(base: Path, tmp_path: Path) -> None:
    """transformers applies it, where peft is installed, without a word."""
    folder = Path(shutil.copytree(base, tmp_path / "both"))
    write(base, folder, lora())
    opened = open_checkpoint(ModelSpec(str(folder)))
    with torch.inference_mode():
        assert torch.equal(opened.load()(IDS).logits, AutoModelForCausalLM.from_pretrained(base)(IDS).logits)
    assert any("adapter_config.json lies beside the model and is not applied" in note for note in opened.notes)
    with torch.inference_mode():
        adapted = load(folder, folder)(IDS).logits
    assert not torch.equal(adapted, opened.load()(IDS).logits)


def test_table_signature_and_run(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = write(base, tmp_path / "my-lora", lora())
    words = ["-c", base, "-d", "demo", "--subjects", "formal_logic", "--limit", "2", "--max-seq-len", "4096"]
    runs = {}
    for name, more in {"bare": [], "merged": [], "applied": ["--adapter-mode", "apply"]}.items():
        own = ["--adapter", adapter, *more] if name != "bare" else []
        runs[name] = run_script("mmlu", [*words, *own], tmp_path / "results", capsys)
        assert runs[name].status == 0, runs[name].err
    content = (adapter / "adapter_model.safetensors").read_bytes()
    label = adapters.open_adapter(ModelSpec(str(base), adapter=str(adapter)))
    assert label is not None and label.label == f"my-lora@{label.fingerprint[:8]}" and content
    assert f"|adapter:{label.label}" in runs["merged"].signature
    assert f"|adapter:{label.label}:apply" in runs["applied"].signature
    assert "adapter" not in runs["bare"].signature
    assert not [run for run in runs.values() if "trust:" in run.signature or "whole" in run.out]
    assert "base+my-lora" in runs["merged"].out and "base+my-lora(apply)" in runs["applied"].out
    assert f"adapter my-lora (LORA, {label.fingerprint[:8]}) is merged into the weights of base" in runs["merged"].out
    logprobs = {
        name: [row["response"]["logprobs"] for _, row in sorted(run.samples.items())] for name, run in runs.items()
    }
    for one, two, bare in zip(logprobs["merged"], logprobs["applied"], logprobs["bare"], strict=True):
        assert one == pytest.approx(two, abs=1e-4) and one != pytest.approx(bare, abs=1e-2)
    tensors = load_file(adapter / "adapter_model.safetensors")
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] * 1.001}, adapter / "adapter_model.safetensors")
    assert HFEngine(ModelSpec(str(base), adapter=str(adapter))).describe().adapter != label.label


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--adapter-mode", "apply"], "--adapter-mode says how an adapter is used; name one with --adapter"),
        (
            ["--engine", "api", "--base-url", "http://127.0.0.1:9/v1", "--adapter", "x"],
            "--adapter is the server's own setting",
        ),
    ],
)
def test_options_that_do_not_go_together(
    words: Sequence[str], says: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_script("mmlu", ["-c", base, "-d", "demo", *words], tmp_path, capsys)
    assert run.status == 2 and says in run.err
