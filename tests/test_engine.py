"""The engine's choices against brute force: every prompt and option whole, one at a time, the model's own attention."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

import tiny
from qwen_eval.engines import plan
from qwen_eval.engines.local import runtime, trie
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import Choose, InputError, ModelSpec

LETTERS = (" A", " B", " C", " D")
WORDS = (
    "the red boat and blue sail to island of seven lamps keeper lights at dusk 问题 岛上 有几盏 灯 答案".split()  # noqa: SIM905
)


def questions(count: int, options: Sequence[str] = LETTERS, end: str = "Answer:", seed: int = 0) -> list[Choose]:
    """Made-up 3-shot questions in three subjects; some share a passage, one is asked twice, lengths vary widely."""
    rng = np.random.default_rng(seed)

    def text(words: int) -> str:
        return " ".join(rng.choice(WORDS, words))

    subjects = [
        (f"About {text(2)}.\n\n", tuple(f"Q: {text(9)}\n{end}{options[0]}\n\n" for _ in range(3))) for _ in range(3)
    ]
    made = []
    for index in range(count):
        header, shots = subjects[index % 3]
        passage = "A passage: " + " ".join(WORDS) + ". " if index % 4 == 0 else ""
        made.append(Choose(header, shots, f"Q: {passage}{text(int(rng.integers(1, 30)))}\n{end}", tuple(options)))
    return [*made, made[0]]


def brute_force(spec: ModelSpec, requests: Sequence[Choose]) -> list[list[float]]:
    """Sum of the float32 log-probabilities of the tokens an option adds to what all options share."""
    checkpoint = open_checkpoint(spec)
    model = checkpoint.load()
    answers = []
    for request in requests:
        full = [checkpoint.tokenizer.encode(request.prompt() + option) for option in request.options]
        shared = 0
        while shared < min(map(len, full)) - 1 and len({tuple(ids[: shared + 1]) for ids in full}) == 1:
            shared += 1
        scores = []
        for ids in full:
            with torch.inference_mode():
                logits = model(torch.tensor([ids[:-1]])).logits[0].float().log_softmax(-1)
            scores.append(sum(float(logits[index - 1, ids[index]]) for index in range(shared, len(ids))))
        answers.append(scores)
    return answers


BUILDERS = {
    "qwen1": lambda folder: tiny.write_qwen1(folder, positions=4096),
    "qwen1 with NTK and LogN": lambda folder: tiny.write_qwen1(folder, positions=4096, dynamic_ntk=True, logn=True),
    "llama, SentencePiece": lambda folder: tiny.write_llama(folder, positions=4096),
    "mistral, byte-level": lambda folder: tiny.write_mistral(folder, positions=4096, sliding_window=None),
    "qwen3, byte-level": lambda folder: tiny.write_qwen3(folder, positions=4096),
}
# without a space after a full-width colon SentencePiece has no single token for a letter, and long options are several
FORMS = {
    "letters": (LETTERS, "Answer:"),
    "after a colon": (("A", "B", "C", "D"), "答案："),
    "words": ((" red boat", " sail", " the island of lamps"), "Answer:"),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(root / str(index)) for index, (name, build) in enumerate(BUILDERS.items())}


def logprobs(engine: HFEngine, requests: Sequence[Choose]) -> np.ndarray:
    done: dict[int, object] = {}
    chosen = engine.choose(requests, done.__setitem__)
    assert sorted(done) == list(range(len(requests))) and all(done[index] is chosen[index] for index in done)
    return np.array([item.logprobs for item in chosen])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BUILDERS)
def test_shared_prefixes_change_nothing(name: str, form: str, checkpoints: dict[str, Path]) -> None:
    options, end = FORMS[form]
    requests = questions(14, options, end)
    spec = ModelSpec(str(checkpoints[name]))
    expected = np.array(brute_force(spec, requests))
    engine = HFEngine(spec)
    np.testing.assert_allclose(logprobs(engine, requests), expected, atol=1e-4)
    assert engine.runtime.tokens_computed < 0.75 * engine.runtime.tokens_in_prompts and not engine.notes
    np.testing.assert_allclose(logprobs(HFEngine(spec, share=False), requests), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen1", "mistral, byte-level", "qwen3, byte-level"])
def test_nothing_is_computed_twice(name: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Subjects, passages in them, words that questions begin with: many levels, in packs that mix them, against brute
    force. The last layer is computed only where it is read."""
    monkeypatch.setattr(trie, "NODE_COST", 0)  # share even the shortest runs
    monkeypatch.setattr(trie, "MERGE_COST", 0)
    requests = questions(48, seed=4)
    spec = ModelSpec(str(checkpoints[name]))
    engine = HFEngine(spec)
    assert engine.runtime.features.replaced  # rows of its own, before those counted here
    encoded = plan.encode_requests(requests, engine.checkpoint.tokenizer, 4096)
    ids = [row.ids.tolist() for item in encoded for row in item.rows]
    distinct = {tuple(own[:length]) for own in ids for length in range(1, len(own) + 1)}
    feed_forward, rows = engine.runtime.model.base_model.layers[-1].mlp, []
    feed_forward.register_forward_hook(lambda _, inputs, out: rows.append(out.shape[1]))
    scores = logprobs(engine, requests)
    np.testing.assert_allclose(scores[:12], np.array(brute_force(spec, requests[:12])), atol=1e-4)
    assert engine.runtime.tokens_computed <= 1.02 * len(distinct)
    # a row per question, one for each pack that scores nothing, and those of the check before the first pack
    assert sum(rows) < len(requests) + 40 < engine.runtime.tokens_computed / 10


@pytest.mark.parametrize("name", ["qwen1 with NTK and LogN", "llama, SentencePiece"])
def test_the_batch_size_changes_nothing(name: str, checkpoints: dict[str, Path]) -> None:
    requests = questions(40, seed=1)
    spec = ModelSpec(str(checkpoints[name]))
    scores = [logprobs(HFEngine(spec, batch_size=size), requests) for size in (1, 7, 64, None)]
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-4)
        assert (other.argmax(1) == scores[0].argmax(1)).all()


def test_behind_a_short_sliding_window_prefixes_are_shared(tmp_path: Path) -> None:
    spec = ModelSpec(str(tiny.write_mistral(tmp_path, positions=4096, sliding_window=32)))
    requests = questions(8)
    engine = HFEngine(spec)
    np.testing.assert_allclose(logprobs(engine, requests), np.array(brute_force(spec, requests)), atol=1e-4)
    assert engine.runtime.tokens_computed < 0.75 * engine.runtime.tokens_in_prompts and not engine.notes
    assert str(engine.runtime.features) == "2 layers: window 32"


def test_a_model_with_a_recurrent_layer_is_run_whole(tmp_path: Path) -> None:
    """Mamba has no attention to replace at all."""
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    vocab, _, eos = tiny.write_byte_tokenizer(tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": vocab, "eos_token_id": eos}
    MambaForCausalLM(MambaConfig(**sizes)).save_pretrained(tmp_path)
    spec = ModelSpec(str(tmp_path), max_seq_len=4096)
    requests = questions(5)
    engine = HFEngine(spec)
    np.testing.assert_allclose(logprobs(engine, requests), np.array(brute_force(spec, requests)), atol=1e-4)
    assert engine.notes


def test_a_last_layer_of_another_kind_is_computed_whole(checkpoints: dict[str, Path]) -> None:
    """One that scales its branches, as Granite's does: the check on a short input finds that our block differs from its
    own."""
    spec = ModelSpec(str(checkpoints["qwen1"]))
    requests = questions(10)

    def scaled() -> HFEngine:
        engine = HFEngine(spec)
        engine.runtime.model.base_model.layers[-1].__class__ = Scaled
        return engine

    engine, plain = scaled(), scaled()
    plain._share = False
    np.testing.assert_allclose(logprobs(engine, requests), logprobs(plain, requests), atol=1e-4)
    assert engine.runtime.tokens_computed < engine.runtime.tokens_in_prompts
    assert not np.allclose(logprobs(engine, requests), logprobs(HFEngine(spec), requests), atol=1e-3)


class Scaled(Qwen2DecoderLayer):
    """Adds half of what its feed-forward part gives."""

    def forward(self, hidden_states: torch.Tensor, **kwargs: object) -> torch.Tensor:
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden = hidden_states + attended
        return hidden + 0.5 * self.mlp(self.post_attention_layernorm(hidden))


def test_isolated_tokens_in_the_model_s_own_precision(tmp_path: Path) -> None:
    """qwen2023 takes the softmax in the model's precision: in bfloat16 probabilities have eight bits."""
    spec = ModelSpec(str(tiny.write_qwen1(tmp_path, dtype="bfloat16", positions=4096)))
    request = Choose("h\n", (), "Q: the red boat\nAnswer:", LETTERS, scoring="isolated")
    engine = HFEngine(spec)
    (scores,) = logprobs(engine, [request])
    ids = engine.checkpoint.tokenizer.encode(request.prompt())
    letters = [engine.checkpoint.tokenizer.encode(option)[0] for option in LETTERS]
    with torch.inference_mode():
        expected = engine.checkpoint.load()(torch.tensor([ids])).logits[0, -1].softmax(-1)[letters]
    assert expected.dtype == torch.bfloat16
    np.testing.assert_allclose(np.exp(scores), expected.double().numpy(), rtol=0.02)
    assert all(
        torch.tensor(value, dtype=torch.float64).to(torch.bfloat16).double() == pytest.approx(value, rel=1e-9)
        for value in np.exp(scores)
    )


def test_running_out_of_memory_halves_the_batch_and_loses_nothing(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = questions(30, seed=2)
    spec = ModelSpec(str(checkpoints["qwen1"]))
    expected = logprobs(HFEngine(spec), requests)
    engine = HFEngine(spec)
    forward, sizes = engine.runtime.forward_packed, []

    def sometimes(own: list, *rest: object, **options: object) -> torch.Tensor:
        sizes.append(len(own))
        if len(own) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        return forward(own, *rest, **options)

    monkeypatch.setattr(engine.runtime, "forward_packed", sometimes)
    np.testing.assert_allclose(logprobs(engine, requests), expected, atol=1e-4)
    assert max(sizes) > 3 and sizes[-1] <= 3


@pytest.mark.parametrize(("free", "size", "tokens"), [(float("inf"), None, 2048), (1e6, None, 256), (1e6, 3, None)])
def test_an_automatic_batch_fits_free_memory(
    free: float, size: int | None, tokens: int | None, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size that was asked for is left alone until memory really runs out."""
    requests = questions(30, seed=2)
    spec = ModelSpec(str(checkpoints["qwen1"]))
    expected = logprobs(HFEngine(spec), requests)
    monkeypatch.setattr(runtime, "free_bytes", lambda _: free)
    engine = HFEngine(spec, batch_size=size)
    passes, forward = [], engine.runtime.forward_packed
    monkeypatch.setattr(
        engine.runtime, "forward_packed", lambda own, *rest: passes.append(sum(map(len, own))) or forward(own, *rest)
    )
    np.testing.assert_allclose(logprobs(engine, requests), expected, atol=1e-4)
    assert engine.runtime.max_tokens == (tokens or sys.maxsize)
    assert tokens is None or max(passes) <= tokens


def test_one_question_that_does_not_fit_is_an_error(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HFEngine(ModelSpec(str(checkpoints["qwen1"])))

    def never(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (made up)")

    monkeypatch.setattr(engine.runtime, "forward_packed", never)
    with pytest.raises(InputError, match="--max-seq-len"):
        engine.choose(questions(3), lambda *_: None)


def test_shots_that_do_not_fit_are_dropped_and_counted(checkpoints: dict[str, Path]) -> None:
    requests = questions(12)
    tokenizer = HFEngine(ModelSpec(str(checkpoints["qwen1"]))).tokenizer
    alone = max(len(tokenizer.encode(request.prompt(len(request.shots)))) for request in requests)
    whole = max(len(tokenizer.encode(request.prompt())) for request in requests)
    limit = (alone + whole) // 2
    engine = HFEngine(ModelSpec(str(checkpoints["qwen1"]), max_seq_len=limit))
    chosen = engine.choose(requests, lambda *_: None)
    kept = {item.shots_used for item in chosen}
    assert len(kept) > 1 and min(kept) < 3
    assert all(item.prompt_tokens <= limit and not item.truncated for item in chosen)
