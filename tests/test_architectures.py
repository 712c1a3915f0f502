"""The engine on tiny checkpoints of many architectures, against plain forwards of transformers, each prompt alone.

Every architecture is computed right: behind shared prefixes where all of its attention is known, and told where it is not.
Twelve of them, one of each kind, are in the fast suite; all run with `make test-architectures`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import architectures
from qwen_eval.engines.local import generation
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import Choose, Generate, InputError, Measure, ModelSpec

SHOTS = tuple(
    f"Question: how many lamps are on the {colour} boat?\nA. seven\nB. the last\nAnswer: {letter}\n\n"
    for colour, letter in zip(("red", "blue", "red and blue"), "ABA", strict=True)
)
ASKED = ("the keeper at dusk", "the island", "seven lamps and a boat and an answer", "灯")
DOCUMENT = "The keeper is counting the boats: one, two, three, four. At dusk the red boat sails to the island. " * 12

# One of each kind in the fast suite: what it shares, or a part of the reason why not.
SAMPLE = {
    "mistral": "window 24",
    "gemma3_text": "2 layers: window 24; 2 layers: full",
    "gemma2": "soft cap 2",
    "gpt_oss": "sinks",
    "qwen2_moe/windows": "window 24",  # in the mask only
    "deepseek_v3": "values of 12 for keys of 24",
    "phi3/longrope": "full",
    "gemma3n_text": "window 24",
    "falcon_h1": "the model's own attention: its tokens reach each other",
    "llama4_text": "the model's own attention: its attention counts the places",
    "bloom": "values of 16 for keys of 24",  # ALiBi in the keys
    "mamba": "the model's own attention: its attention is code of its own",
}


def reference(folder: Path, name: str) -> Any:
    """transformers' own model. Falcon's eager attention adds ALiBi twice."""
    kind = "sdpa" if name.startswith("falcon") else "eager"
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=kind)
    except ValueError:  # it has one attention only
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.train(False)


@torch.inference_mode()
def plain(model: Any, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [length, vocabulary] of one forward pass, as if it were the model's first: transformers keeps the
    table of the longest sequence that a "dynamic" rotation has seen."""
    for module in model.modules():
        if getattr(module, "rope_type", None) == "dynamic":
            module.max_seq_len_cached, module.inv_freq = module.original_max_seq_len, module.original_inv_freq
    logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.float().log_softmax(-1)


def option_log_probability(model: Any, tokenizer: Any, request: Choose, option: int) -> float:
    """The log-probability of an option: of its tokens beyond those that all options of the request begin with."""
    full = [list(tokenizer.encode(request.prompt() + text)) for text in request.options]
    shared = next(place for place in range(len(full[0])) if len({tuple(ids[: place + 1]) for ids in full}) > 1)
    scores = plain(model, full[option][:-1])
    return sum(float(scores[place - 1, full[option][place]]) for place in range(shared, len(full[option])))


def compare(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> HFEngine:
    """Every verb of the engine against the reference; returns the engine."""
    monkeypatch.setattr(generation, "MIN_SAVING", 64)  # these prompts are short
    spec = ModelSpec(str(folder), dtype="float32", max_seq_len=2048)
    engine = HFEngine(spec)
    tokenizer, model = engine.checkpoint.tokenizer, reference(folder, name)
    asked = [Choose("About lamps.\n\n", SHOTS, f"Question: {what}?\nAnswer:", (" A", " B")) for what in ASKED]
    expected = [[option_log_probability(model, tokenizer, request, option) for option in (0, 1)] for request in asked]
    chosen = engine.choose(asked, lambda *_: None)
    plainly = HFEngine(spec, share=False).choose(asked[:2], lambda *_: None)
    for found, values in zip([*chosen, *plainly], [*expected, *expected[:2]], strict=True):
        assert found.logprobs == pytest.approx(values, abs=1e-4)

    texts = [Generate(request.prompt(), 6, key=request.question) for request in asked[:3]]
    for request, answer in zip(texts, engine.generate(texts, lambda *_: None), strict=True):
        ids = list(tokenizer.encode(str(request.prompt)))
        written: list[int] = []
        for _ in range(request.max_tokens):
            written.append(int(plain(model, ids + written)[-1].argmax()))
            if written[-1] in tokenizer.eos_ids:
                break
        before = tokenizer.decode(ids, skip_special=True)
        assert answer.texts[0] == tokenizer.decode(ids + written, skip_special=True)[len(before) :]

    ids = list(tokenizer.encode(DOCUMENT))[:300]
    assert len(ids) == 300
    scores = plain(model, ids)
    loss = -sum(float(scores[place, ids[place + 1]]) for place in range(299))
    whole = engine.measure([Measure((DOCUMENT,), 300)], lambda *_: None)[0]
    assert whole.tokens[0] == 299 and whole.nll[0] == pytest.approx(loss, abs=299e-5)
    pieces = Measure((DOCUMENT,), 300, max_memory=1e-6)
    if engine.runtime.features.replaced:
        assert engine.measure([pieces], lambda *_: None)[0].nll[0] == pytest.approx(loss, abs=299e-5)
    else:
        with pytest.raises(InputError, match="cannot read them in pieces"):
            engine.measure([pieces], lambda *_: None)
    return engine


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = architectures.write(tmp_path, name)
    engine = compare(folder, name, monkeypatch)
    assert SAMPLE[name] in str(engine.runtime.features)
    told = any("cannot share" in note for note in engine.notes)
    assert told != engine.runtime.features.replaced  # it says why nothing is shared


@pytest.mark.slow
@pytest.mark.architectures
@pytest.mark.parametrize("name", [name for name in architectures.SETTINGS if name not in SAMPLE])
def test_the_others(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not architectures.known(name):
        pytest.skip("this transformers has it not")
    compare(architectures.write(tmp_path, name), name, monkeypatch)
