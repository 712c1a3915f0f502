"""Trains the demonstration's checkpoint from the synthetic text, on two CPU cores, and stores it with its hashes.

    python demo/train.py [folder] [--threads 2]

A few minutes on two free cores. The same machine, library versions and number of threads give the same bytes; others give other
rounding and so a model that differs a little.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

# threads that wait must not spin: beside any other work on the same cores it made the training four times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tiktoken
import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen2ForCausalLM

import bpe
from corpus import CONTEXT, TEACH, Document, find_the_letter, multiple_choice, plain_facts
from facts import CAPITALS, CEVAL, CMMLU, MMLU, Topic
from model import build, export, restore, save, wire
from tasks import chat, code, translations, word_problems
from tool_calls import UNITS, react, react_drill
from tool_code import SLOTS, VARIABLES, agent, agent_drill

SEED, RANKS, STEPS, WARMUP, RATE = 1234, 1850, 1000, 20, 2e-3
CHOICE_TOKENS, OTHER_TOKENS, TOOL_TOKENS = 2048, 1024, 1280  # a step's three batches
WORD = re.compile(rb"[^A-Za-z0-9][A-Za-z]+")
Batch = tuple[torch.Tensor, torch.Tensor]


def choices(rng: Random, done: float) -> Callable[[], Document]:
    """What the multiple-choice batch of a step is made of, `done` being the share of the training that is over.

    First the two halves of the skill beside single questions, then longer and longer prompts. All documents of a
    batch are of one kind of length, so that little is padded.
    """
    questions = 2 if done < 0.7 else 4 if done < 0.85 else 6
    facts, letters = (0.35, 0.15) if done < 0.35 else (0.15, 0.0)

    def make() -> Document:
        chance = rng.random()
        if chance < facts:
            return plain_facts(rng, 3 * questions)
        if chance < facts + letters:
            return find_the_letter(rng, 4 * questions)
        return multiple_choice(rng, questions)

    return make


def others(rng: Random, step: int) -> Callable[[], Document]:
    """The other tasks take turns."""
    makers = (
        lambda: word_problems(rng, rng.choice((1, 9))),
        lambda: chat(rng),
        lambda: translations(rng, 6),
        lambda: chat(rng),
        lambda: code(rng, 4) if rng.random() < 0.5 else translations(rng, 6),
    )
    return makers[step % len(makers)]


def tools(rng: Random, step: int) -> Callable[[], Document]:
    """Both kinds of tool use take turns, mostly without their long prompts."""
    makers = (
        lambda: react(rng),
        lambda: agent_drill(rng, 4),
        lambda: react_drill(rng, 6),
        lambda: agent(rng),
        lambda: react_drill(rng, 6),
    )
    return makers[step % len(makers)]


def encode(encoder: tiktoken.Encoding, document: Document) -> tuple[list[int], list[float]]:
    """Token ids and the weight of each: a token has the weight of the part in which it starts.

    The text is encoded as a whole, because that is how a benchmark will encode it.
    """
    ends, text = [], ""
    for part, weight in [*document, ("<|endoftext|>", CONTEXT)]:
        text += part
        ends.append((len(text.encode()), weight))
    ids = encoder.encode(text, allowed_special="all")
    weights, at, part = [], 0, 0
    for token in ids:
        while at >= ends[part][0]:
            part += 1
        weights.append(ends[part][1])
        at += len(encoder.decode_single_token_bytes(token))
    return ids, weights


def batch(encoder: tiktoken.Encoding, make: Callable[[], Document], tokens: int) -> Batch:
    """Documents of about so many tokens in all, padded on the right; padding has weight 0."""
    rows = []
    while sum(len(ids) for ids, _ in rows) < tokens:
        rows.append(encode(encoder, make()))
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    return ids, torch.tensor([row + [0.0] * (width - len(row)) for _, row in rows])


def loss_of(model: Qwen2ForCausalLM, ids: torch.Tensor, weights: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Mean loss of what is taught, plus a tenth of the mean loss of the text around it.

    Of the text around, only the positions in `keep` are computed: the output matrix is a good part of so small a model.
    """
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    taught = weights[:, 1:] == TEACH
    read = (weights[:, 1:] == CONTEXT) & keep[:, 1:]
    losses = [cross_entropy(model.lm_head(hidden[at]), ids[:, 1:][at]) for at in (taught, read)]
    return TEACH * losses[0] + CONTEXT * losses[1]


def train(model: Qwen2ForCausalLM, encoder: tiktoken.Encoding) -> None:
    """AdamW with a short warm-up and a linear decay."""
    rng, dropper = Random(SEED), torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.05)
    start, cpu, recent = time.monotonic(), time.process_time(), [0.0] * 3
    for step in range(STEPS):
        done = step / STEPS
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARMUP, (1 - done) / 0.6)
        parts = [(choices(rng, done), CHOICE_TOKENS, 1.0)]
        if done > 0.3:  # the rest comes once the letters are being found
            parts += [(others(rng, step), OTHER_TOKENS, 0.3), (tools(rng, step), TOOL_TOKENS, 0.5)]
        for which, (make, tokens, share) in enumerate(parts):
            ids, weights = batch(encoder, make, tokens)
            keep = torch.rand(ids.shape, generator=dropper) < 0.25
            loss = loss_of(model, ids, weights, keep)
            (share * loss).backward()
            recent[which] += loss.item() / 50
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            clock = f"{time.monotonic() - start:.0f} s, {time.process_time() - cpu:.0f} CPU-s"
            losses = " ".join(f"{loss:.3f}" for loss in recent)
            print(f"step {step + 1}/{STEPS} loss {losses} {clock}", file=sys.stderr, flush=True)
            recent = [0.0] * 3


def words_of(topic: Topic) -> set[str]:
    """Keys and answers of a topic that are words."""
    return {word for pair in topic.answers.items() for word in pair if not topic.numeric}


def vocabulary() -> dict[bytes, int]:
    """Ranks learned from a sample of the text."""
    rng = Random(SEED)
    sample = [multiple_choice(rng, 6) for _ in range(1500)]
    sample += [make(rng, 6) for make in (word_problems, code, translations) for _ in range(100)]
    sample += [chat(rng) for _ in range(150)]
    sample += [make(rng) for make in (react, agent) for _ in range(600)]
    # the words of the facts once more, because each of them should become one token
    words = sorted({word for table in (MMLU, CEVAL, CMMLU) for topic in table.values() for word in words_of(topic)})
    sample += [[(f" {word}\n" if word.isascii() else word + "\n", CONTEXT)] for word in words for _ in range(100)]
    # and what is copied from a question into a call: quoted, in back-ticks, as an argument
    copied = [*CAPITALS.values(), *(unit for units in UNITS for unit in units[:2])]
    sample += [[(f': "{word}"', CONTEXT)] for word in copied for _ in range(100)]
    variables = [word for slot in VARIABLES for word in SLOTS[slot]]
    sample += [[(f"`{word}`={word}", CONTEXT)] for word in variables for _ in range(100)]
    ranks = bpe.learn(("".join(part for part, _ in document) for document in sample), RANKS)
    if wrong := bpe.unreachable(ranks):
        raise ValueError(f"no merge leads to {wrong}")
    return ranks


def twins(ranks: dict[bytes, int]) -> list[tuple[int, int]]:
    """Tokens that are one word, with a space or another mark before it and without."""
    return [(rank, ranks[token[1:]]) for token, rank in ranks.items() if token[1:] in ranks and WORD.fullmatch(token)]


def seal(folder: Path) -> None:
    """Write the hashes of the checkpoint's files beside it, as `sha256sum -c` reads them."""
    files = sorted(folder.iterdir())
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {folder.name}/{path.name}\n" for path in files)
    folder.with_suffix(".sha256").write_text("".join(lines), encoding="ascii", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the demonstration's checkpoint.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    folder = args.folder
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    ranks = vocabulary()
    encoder = bpe.encoding(ranks)
    model = build(encoder.n_vocab)
    token = encoder.encode_single_token
    wire(model, SEED, [token("?\n"), token("？")], twins(ranks))
    train(model, encoder)
    save(model, folder, len(ranks))
    bpe.write(folder / "qwen.tiktoken", ranks)
    stored, kept = export(restore(folder / "model.safetensors", encoder.n_vocab)), export(model)
    if any(not torch.equal(stored[name], kept[name]) for name in kept):
        raise ValueError("the stored weights are not the trained ones")
    seal(folder)
    print(f"wrote {folder}: {sum(x.numel() for x in kept.values()):,} parameters, {len(ranks)} ranks")


if __name__ == "__main__":
    main()
