"""The engine on tiny checkpoints of many architectures, against forward passes of transformers over each prompt alone.

python tools/sweep.py                 all of tests/architectures.py, and writes the tables of docs/architectures.md
python tools/sweep.py llama gemma2    these, and prints their rows only
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "eval"), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

import architectures  # noqa: E402
from qwen_eval.engines.local import generation  # noqa: E402
from qwen_eval.engines.local import reference as references  # noqa: E402
from qwen_eval.engines.local.engine import HFEngine  # noqa: E402
from qwen_eval.schema import Choose, Generate, InputError, Measure, ModelSpec  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
MARK = "<!-- from here on written by tools/sweep.py -->\n"

SHOTS = tuple(
    f"Question: how many lamps are on the {colour} boat?\nA. seven\nB. the last\nAnswer: {letter}\n\n"
    for colour, letter in zip(("red", "blue", "red and blue"), "ABA", strict=True)
)
ASKED = [
    Choose("About lamps.\n\n", SHOTS, f"Question: {what}?\nAnswer:", (" A", " B"))
    for what in ("the keeper at dusk", "the island", "seven lamps and a boat and an answer", "灯")
]
TEXTS = [Generate(request.prompt(), 6, key=request.question) for request in ASKED[:3]]
DOCUMENT = "The keeper is counting the boats: one, two, three, four. At dusk the red boat sails to the island. " * 12
LENGTH = 300  # tokens of it

# One of each kind, in the fast tests and in bfloat16: what it shares, or a part of the reason why it does not.
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
    "roberta": "the model's own attention: its positions are not counted from 0",
    "bloom": "values of 16 for keys of 24",  # ALiBi in the keys
    "mamba": "the model's own attention: its attention is code of its own",
}


@dataclass(frozen=True)
class Row:
    """What was found of an architecture in float32.

    replaced: whether the engine's attention takes the place of the model's. told: whether the run says that nothing is shared.
    attention: what the engine puts in the place of the model's, or why nothing. shared, unshared: the largest difference of
    an option's log-probability. texts: how many of TEXTS are those of a loop without a cache. whole, pieces: difference of the
    loss in nats a token, of a text read at once and in pieces; None where pieces are refused, with `refusal`.
    """

    name: str
    replaced: bool
    told: bool
    attention: str
    shared: float
    unshared: float
    texts: int
    whole: float
    pieces: float | None
    refusal: str


def plain_model(folder: Path, name: str) -> Any:
    """transformers' own model in float32. Falcon's eager attention adds ALiBi twice."""
    kind = "sdpa" if name.startswith("falcon") else "eager"
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=kind)
    except ValueError:  # it has one attention only
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.train(False)


@torch.inference_mode()
def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    """Of the next token [length, vocabulary], by one forward pass, as if it were the model's first: transformers keeps the
    table of the longest sequence that a "dynamic" rotation has seen."""
    for module in model.modules():
        if getattr(module, "rope_type", None) == "dynamic":
            module.max_seq_len_cached, module.inv_freq = module.original_max_seq_len, module.original_inv_freq
    logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.float().log_softmax(-1)


def option_tokens(tokenizer: Any, request: Choose) -> tuple[list[list[int]], int]:
    """Prompt and option as tokens, for each option; and where the options first differ."""
    full = [list(tokenizer.encode(request.prompt() + text)) for text in request.options]
    return full, next(place for place in range(len(full[0])) if len({tuple(ids[: place + 1]) for ids in full}) > 1)


def option_log_probability(model: Any, tokenizer: Any, request: Choose, option: int) -> float:
    """The log-probability of an option: of its tokens beyond those that all options of the request begin with."""
    full, shared = option_tokens(tokenizer, request)
    scores = log_probabilities(model, full[option][:-1])
    return sum(float(scores[place - 1, full[option][place]]) for place in range(shared, len(full[option])))


def sweep(folder: Path, name: str) -> Row:
    """Every verb of the engine against transformers, in float32."""
    generation.MIN_SAVING = 64  # these prompts are short
    spec = ModelSpec(str(folder), dtype="float32", max_seq_len=2048)
    engine = HFEngine(spec)
    tokenizer, model = engine.checkpoint.tokenizer, plain_model(folder, name)
    expected = [[option_log_probability(model, tokenizer, request, option) for option in (0, 1)] for request in ASKED]
    shared = _furthest(engine, ASKED, expected)
    unshared = _furthest(HFEngine(spec, share=False), ASKED[:2], expected[:2])
    replies = engine.generate(TEXTS, lambda *_: None)
    texts = [_text(model, tokenizer, request) for request in TEXTS]
    ids = list(tokenizer.encode(DOCUMENT))[:LENGTH]
    scores = log_probabilities(model, ids)
    loss = -sum(float(scores[place, ids[place + 1]]) for place in range(LENGTH - 1))
    whole, pieces, refusal = _loss(engine), None, ""
    try:
        pieces = _loss(engine, max_memory=1e-6)
    except InputError as error:
        refusal = str(error)
    return Row(
        name,
        engine.runtime.features.replaced,
        any("cannot share" in note for note in engine.notes),
        str(engine.runtime.features),
        shared,
        unshared,
        sum(reply.texts[0] == text for reply, text in zip(replies, texts, strict=True)),
        abs(whole - loss) / (LENGTH - 1),
        None if pieces is None else abs(pieces - loss) / (LENGTH - 1),
        refusal,
    )


def _furthest(engine: HFEngine, requests: Sequence[Choose], expected: Sequence[Sequence[float]]) -> float:
    """The largest difference of an option's log-probability from those expected."""
    chosen = engine.choose(requests, lambda *_: None)
    pairs = zip(chosen, expected, strict=True)
    return max(abs(a - b) for found, values in pairs for a, b in zip(found.logprobs, values, strict=True))


def _text(model: Any, tokenizer: Any, request: Generate) -> str:
    """A reply by a loop that computes the whole text for every token."""
    ids = list(tokenizer.encode(str(request.prompt)))
    written: list[int] = []
    for _ in range(request.max_tokens):
        written.append(int(log_probabilities(model, ids + written)[-1].argmax()))
        if written[-1] in tokenizer.eos_ids:
            break
    return str(tokenizer.decode(ids + written, skip_special=True)[len(tokenizer.decode(ids, skip_special=True)) :])


def _loss(engine: HFEngine, max_memory: float | None = None) -> float:
    """The summed loss of the beginning of DOCUMENT, in nats. max_memory: GiB."""
    limit = {} if max_memory is None else {"max_memory": max_memory}
    (found,) = engine.measure([Measure((DOCUMENT,), LENGTH, **limit)], lambda *_: None)
    assert found.tokens[0] == LENGTH - 1
    return float(found.nll[0])


def narrow(folder: Path, name: str) -> tuple[float, float]:
    """In bfloat16, the largest difference of an option's log-probability from float32: the engine's, and that of transformers
    with scores in float32 until after the softmax."""
    engine = HFEngine(ModelSpec(str(folder), dtype="bfloat16", max_seq_len=2048))
    tokenizer, exact = engine.checkpoint.tokenizer, plain_model(folder, name)
    expected = [[option_log_probability(exact, tokenizer, request, option) for option in (0, 1)] for request in ASKED]
    ours = _furthest(engine, ASKED, expected)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).train(False)
    context = engine.checkpoint.context
    theirs = 0.0
    for request, values in zip(ASKED, expected, strict=True):
        full, shared = option_tokens(tokenizer, request)
        for ids, value in zip(full, values, strict=True):
            length = len(ids) - 1
            attention, _ = references.attentions(model, context, length)
            scores = references.log_probabilities(
                model, np.array(ids[:-1], dtype=np.int64), length, attention, context, length
            )
            found = sum(float(scores[place - 1, ids[place]]) for place in range(shared, len(ids)))
            theirs = max(theirs, abs(found - value))
    return ours, theirs


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| architecture | attention | shared | not shared | texts equal | perplexity | in pieces |",
        "|:--|:--|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        pieces = "refused" if row.pieces is None else f"{row.pieces:.1e}"
        texts = f"{row.texts} of {len(TEXTS)}"
        cells = (row.name, row.attention, f"{row.shared:.1e}", f"{row.unshared:.1e}", texts, f"{row.whole:.1e}", pieces)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def narrow_table(found: Sequence[tuple[str, float, float]]) -> str:
    """The figures in bfloat16 in Markdown."""
    lines = [f"| {name} | {ours:.1e} | {theirs:.1e} |" for name, ours, theirs in found]
    return "| architecture | engine | transformers |\n|:--|--:|--:|\n" + "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    asked = parser.parse_args().names
    names = [name for name in asked or architectures.SETTINGS if architectures.known(name)]
    rows, in_16_bits = [], []
    with tempfile.TemporaryDirectory() as made:
        for name in names:
            folder = architectures.write(Path(made) / name.replace("/", "-"), name)
            rows.append(sweep(folder, name))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
            if name in SAMPLE:
                in_16_bits.append((name, *narrow(folder, name)))
    if asked:
        print(narrow_table(in_16_bits))
        return 0
    written = (
        f"{MARK}\ntransformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, on a CPU, in float32:\n\n"
        f"{table(rows)}\nIn bfloat16, the largest difference from float32:\n\n{narrow_table(in_16_bits)}"
    )
    PAGE.write_text(PAGE.read_text(encoding="utf-8").split(MARK)[0] + written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
