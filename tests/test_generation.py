"""Generated texts against the simplest loop: the whole sequence again for every token, one text at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from qwen_eval.engines.local import blocked, generation
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.engines.local.sampling import Reply
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import DoesNotFit, Generate, Generated, ModelSpec

WORDS = "the red boat and blue sail to island of seven lamps keeper lights at dusk 问题 岛上 灯".split()  # noqa: SIM905
BUILDERS = {
    "qwen1": lambda folder: tiny.write_qwen1(folder, positions=4096),
    "qwen1 with LogN": lambda folder: tiny.write_qwen1(folder, positions=4096, logn=True),
    "llama": lambda folder: tiny.write_llama(folder, positions=4096),
    "qwen3": lambda folder: tiny.write_qwen3(folder, positions=4096),
    "mistral with a short window": lambda folder: tiny.write_mistral(folder, positions=4096, sliding_window=24),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(root / str(index)) for index, (name, build) in enumerate(BUILDERS.items())}


def prompts(count: int, seed: int = 0, **options: object) -> list[Generate]:
    """Prompts after a long shared prefix, of different lengths and budgets."""
    rng = np.random.default_rng(seed)
    shots = ("Question: " + " ".join(WORDS * 8) + "\n\n",)
    return [
        Generate(
            "Question: " + " ".join(rng.choice(WORDS, int(rng.integers(1, 30)))) + "\nAnswer:",
            int(rng.integers(1, 24)),
            shots=shots if index % 3 else (),
            key=str(index),
            **options,  # type: ignore[arg-type]
        )
        for index in range(count)
    ]


def naive(spec: ModelSpec, requests: Sequence[Generate]) -> list[tuple[str, str]]:
    """(text, reason) by recomputing everything for every token."""
    checkpoint = open_checkpoint(spec)
    model, tokenizer = checkpoint.load(), checkpoint.tokenizer
    answers = []
    for request in requests:
        prompt = tokenizer.encode(request.text())
        ids, reason = list(prompt), "length"
        before = tokenizer.decode(prompt, skip_special=True)
        text = ""
        while len(ids) - len(prompt) < request.max_tokens:
            with torch.inference_mode():
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token in tokenizer.eos_ids:
                reason = "eos"
                break
            ids.append(token)
            text = tokenizer.decode(ids, skip_special=True)[len(before) :]
            cuts = [text.find(stop) for stop in request.stop if stop in text]
            if cuts:
                text, reason = text[: min(cuts)], "stop"
                break
        answers.append((text, reason))
    return answers


def ask(engine: HFEngine, requests: Sequence[Generate]) -> list[Generated]:
    done: dict[int, Generated] = {}
    answers = engine.generate(requests, done.__setitem__)
    assert sorted(done) == list(range(len(requests))) and all(done[index] is answers[index] for index in done)
    return answers


@pytest.mark.parametrize("name", BUILDERS)
def test_texts_equal_the_plain_loop(name: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "MIN_SAVING", 64)  # these prompts are short, but must still share
    requests = prompts(9)
    spec = ModelSpec(str(checkpoints[name]))
    engine = HFEngine(spec)
    answers = ask(engine, requests)
    assert [(item.texts[0], item.end_reasons[0]) for item in answers] == naive(spec, requests)
    shared = engine.runtime.tokens_computed < engine.runtime.tokens_in_prompts
    assert shared and not engine.notes


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_texts_do_not_depend_on_the_batch(size: int, checkpoints: dict[str, Path]) -> None:
    """Few slots and many prompts: texts leave, others take their place and are moved."""
    requests = prompts(20, seed=3)
    spec = ModelSpec(str(checkpoints["qwen1"]))
    expected = [item.texts for item in ask(HFEngine(spec), requests)]
    assert [item.texts for item in ask(HFEngine(spec, batch_size=size), requests)] == expected


@pytest.mark.parametrize("burst", [2, 7])
def test_texts_do_not_depend_on_how_often_the_device_is_asked(
    burst: int, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU several tokens are generated between two checks; texts end within a burst, by length, by stop string, by
    eos."""
    requests = [*prompts(12, seed=3), *prompts(12, seed=4, stop=("e",))]
    spec = ModelSpec(str(checkpoints["qwen1"]))
    one_by_one = HFEngine(spec, batch_size=5)
    expected = ask(one_by_one, requests)
    monkeypatch.setattr(generation, "BURST", {"cpu": burst})
    engine = HFEngine(spec, batch_size=5)
    answers = ask(engine, requests)
    assert [item.texts for item in answers] == [item.texts for item in expected]
    assert [item.end_reasons for item in answers] == [item.end_reasons for item in expected]
    assert {"length", "stop"} <= {item.end_reasons[0] for item in answers}
    # ended texts were continued to the end of the burst
    assert engine.runtime.tokens_computed > one_by_one.runtime.tokens_computed


def test_a_stop_string_cuts_where_it_begins_even_across_tokens(checkpoints: dict[str, Path]) -> None:
    spec = ModelSpec(str(checkpoints["qwen1"]))
    plain = ask(HFEngine(spec), [Generate("Question: the boat\nAnswer:", 60)])[0].texts[0]
    # a piece of the text that no single token holds: it begins inside one and ends inside another
    for start in range(8, 20):
        stop = plain[start : start + 7]
        if plain.find(stop) == start:
            answer = ask(HFEngine(spec), [Generate("Question: the boat\nAnswer:", 60, stop=("never", stop))])[0]
            assert (answer.texts[0], answer.end_reasons[0]) == (plain[:start], "stop")


def test_the_first_space_of_a_reply_is_kept(checkpoints: dict[str, Path]) -> None:
    """A SentencePiece tokenizer that decodes a reply alone drops its first space: code would lose its indentation."""
    tokenizer = open_checkpoint(ModelSpec(str(checkpoints["llama"]))).tokenizer
    prompt = tokenizer.encode("def f():\n")
    reply = Reply(0, 0, np.array(prompt), 50, ("never",), frozenset())
    whole = tokenizer.encode("def f():\n    return red")
    assert whole[: len(prompt)] == prompt
    assert tokenizer.decode(whole[len(prompt) :]) != "    return red"
    for token in whole[len(prompt) :]:
        reply.add(token, tokenizer)
    reply.max_tokens = len(whole) - len(prompt) + 1
    reply.add(whole[-1], tokenizer)
    assert reply.text.startswith("    return red")


def test_samples_depend_on_seed_item_and_number_alone(checkpoints: dict[str, Path]) -> None:
    spec = ModelSpec(str(checkpoints["qwen1"]))
    requests = prompts(5, temperature=1.0, samples=4)
    first = [item.texts for item in ask(HFEngine(spec, seed=7), requests)]
    again = [item.texts for item in ask(HFEngine(spec, batch_size=3, seed=7), requests[::-1])][::-1]
    assert first == again
    assert len(set(first[0])) > 1
    assert first != [item.texts for item in ask(HFEngine(spec, seed=8), requests)]


def test_sampling_follows_the_distribution(tmp_path: Path) -> None:
    """2,000 first tokens at temperature 0.7 against the model's own probabilities (chi-squared over common tokens)."""
    from scipy.stats import chisquare

    spec = ModelSpec(str(tiny.write_qwen1(tmp_path, spread=0.3, positions=4096)))
    engine = HFEngine(spec)
    request = Generate("the red boat", 1, samples=2000, temperature=0.7, key="x")
    tokenizer = engine.checkpoint.tokenizer
    with torch.inference_mode():
        logits = engine.checkpoint.load()(torch.tensor([tokenizer.encode("the red boat")])).logits[0, -1]
    odds = (logits.double() / 0.7).softmax(-1).numpy()
    texts = ask(engine, [request])[0].texts
    words = [tokenizer.decode([index], skip_special=True) for index in range(tokenizer.vocab_size)]
    likely = [index for index in np.argsort(-odds)[:40] if index < len(words) and odds[index] * 2000 >= 5]
    common = [index for index in likely if words.count(words[index]) == 1]
    common = [index for index in common if words[index] and "�" not in words[index] and index not in tokenizer.eos_ids]
    seen = [texts.count(words[index]) for index in common]
    rest = 2000 - sum(seen)
    expected = [2000 * odds[index] for index in common]
    assert len(common) >= 3
    assert chisquare([*seen, rest], [*expected, 2000 - sum(expected)]).pvalue > 1e-4


def test_running_out_of_memory_halves_the_batch_and_changes_no_text(checkpoints: dict[str, Path]) -> None:
    requests = prompts(16, seed=5)
    spec = ModelSpec(str(checkpoints["qwen1"]))
    expected = [item.texts for item in ask(HFEngine(spec), requests)]
    engine = HFEngine(spec)
    step, calls = engine.runtime.forward_step, []

    def sometimes(tokens: Sequence[int], *rest: object) -> torch.Tensor:
        calls.append(len(tokens))
        if len(tokens) > 3 and len(calls) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        return step(tokens, *rest)  # type: ignore[arg-type]

    engine.runtime.forward_step = sometimes  # type: ignore[method-assign]
    assert [item.texts for item in ask(engine, requests)] == expected
    assert max(calls) > 3 and calls[-1] <= 3


def test_a_prompt_leaves_room_for_its_reply(checkpoints: dict[str, Path]) -> None:
    spec = ModelSpec(str(checkpoints["qwen1"]), max_seq_len=64)
    shots = ("one two three four\n",) * 6
    long = " ".join(WORDS * 3)
    kept, cut, whole = ask(
        HFEngine(spec),
        [
            Generate("the boat", 20, shots=shots),
            Generate(long, 20, overflow="keep_last"),
            Generate("the boat", 20, shots=shots, overflow="none"),
        ],
    )
    assert 0 < kept.shots_used < 6 and kept.prompt_tokens <= 44 and not kept.truncated
    assert cut.truncated and cut.prompt_tokens == 44
    assert whole.shots_used == 6 and whole.prompt_tokens > 44
    tokens = 20 + len(HFEngine(spec).tokenizer.encode(long))
    with pytest.raises(DoesNotFit, match=f"takes {tokens} tokens, and the context limit is 64"):
        ask(HFEngine(spec), [Generate(long, 20, shots=shots)])
    for overflow in ("drop_shots", "keep_last"):
        with pytest.raises(DoesNotFit, match="the context limit is 64"):
            ask(HFEngine(spec), [Generate("the boat", 64, overflow=overflow)])


def test_chat_replies_end_at_the_end_of_a_turn(checkpoints: dict[str, Path]) -> None:
    spec = ModelSpec(str(checkpoints["qwen1"]))
    engine = HFEngine(spec)
    messages = ({"role": "user", "content": "the red boat"},)
    ids = engine.checkpoint.tokenizer.chat_ids(messages)
    (answer,) = ask(engine, [Generate(messages, 5)])
    assert answer.prompt_tokens == len(ids)
    with torch.inference_mode():
        token = int(engine.checkpoint.load()(torch.tensor([ids])).logits[0, -1].argmax())
    ended = HFEngine(spec)
    ended.checkpoint.tokenizer.stop_ids = (token,)
    assert ask(ended, [Generate(messages, 5)])[0].end_reasons == ("eos",)
    assert ask(ended, [Generate(messages, 5)])[0].texts == ("",)


@pytest.mark.parametrize(("dtype", "bias"), [("bfloat16", 8.0), ("float16", 64.0)])
def test_in_16_bits_decoding_is_as_near_to_float32_as_sdpa(
    dtype: str, bias: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large biases of queries and keys, as Qwen's, make scores whose differences 16 bits do not hold."""
    monkeypatch.setattr(blocked, "block", lambda model: None)
    folder = tiny.write_qwen1(tmp_path, hidden=256, heads=2, layers=4, positions=4096, seq_length=2048, dtype=dtype)
    engine = HFEngine(ModelSpec(str(folder), device="cpu"))
    model = engine.runtime.model
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in model.model.layers:
            common = torch.randn(256) * bias
            layer.self_attn.k_proj.bias.data = common.to(model.dtype)
            layer.self_attn.q_proj.bias.data = (0.7 * common).to(model.dtype)
    exact = copy.deepcopy(model).float()
    steps: list[tuple[int, torch.Tensor]] = []
    forward = engine.runtime.forward_step

    def noted(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        logits = forward(tokens, *rest)
        steps.append((int(tokens[0]), logits[0].clone()))
        return logits

    monkeypatch.setattr(engine.runtime, "forward_step", noted)
    request = Generate(
        "How many lamps are on the island of the seven lamps, and how many on the boats? " * 3, 24, key="1"
    )
    prompt = list(engine.checkpoint.tokenizer.encode(str(request.prompt)))
    engine.generate([request], lambda *_: None)
    ids = torch.tensor([[*prompt, *(token for token, _ in steps)]])
    with torch.inference_mode():
        wanted, sdpa = (one(input_ids=ids).logits[0, len(prompt) :].float().log_softmax(-1) for one in (exact, model))
    ours = torch.stack([logits for _, logits in steps]).float().log_softmax(-1)

    def divergence(found: torch.Tensor) -> float:
        return float((wanted.exp() * (wanted - found)).sum(-1).mean())

    assert len(steps) > 16 and divergence(ours) < 1.5 * divergence(sdpa)
