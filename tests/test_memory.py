"""Perplexity within a memory limit: the peak of a process of its own stays below it, and the figures are the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import tiny
from bench import child
from known import work
from qwen_eval.engines.local import budget, measuring
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models import memory
from qwen_eval.schema import Measure, ModelSpec

LENGTH = 16_384
LIMIT = 0.15  # GiB
READ = f"""
import json, sys, torch
torch.set_num_threads(1)
from bench import child
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models import memory
from qwen_eval.schema import Measure, ModelSpec
engine = HFEngine(ModelSpec(sys.argv[1], dynamic_ntk="on", logn="on", device="cpu"))
text = open(sys.argv[2]).read()
def measure(length, limit):
    (cell,) = engine.measure([Measure((text,), length, max_tokens=1, max_memory=limit)], lambda *_: None)
    return sum(cell.nll) / sum(cell.tokens)
measure(128, 0)
found = []
for limit in ({LIMIT}, 0):
    before = memory.resident("cpu")  # without the pages that the pass before left for the next one
    child.reset_peak()
    loss = measure({LENGTH}, limit)
    found.append([loss, (child.peak_resident() - before) / 2**30])
print(json.dumps(found))
"""


@pytest.mark.skipif(not child.STATUS.exists(), reason="peak memory is read from /proc")
def test_a_long_chunk_stays_within_the_limit_and_gives_the_same_figure(tmp_path: Path) -> None:
    checkpoint = tiny.write_qwen1(tmp_path / "model", hidden=256, heads=4, seq_length=1024, positions=LENGTH)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(tiny.CORPUS) * 200, encoding="utf-8")
    done = child.spawn([sys.executable, "-c", READ, str(checkpoint), str(text)])
    (limited, low), (whole, high) = json.loads(done.answers[0])
    assert low < LIMIT < high, (low, high)
    assert limited == pytest.approx(whole, abs=1e-5)


def test_free_memory_is_the_limit_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of 256 tokens, and the option reaches the engine."""
    pieces: list[int] = []
    whole_chunk, in_pieces = measuring._losses, measuring._in_pieces

    def note_whole(runtime, batch, slices):
        pieces.append(len(batch[0].ids))
        return whole_chunk(runtime, batch, slices)

    def note(runtime, chunk, slices, piece):
        pieces.append(piece)
        return in_pieces(runtime, chunk, slices, piece)

    monkeypatch.setattr(measuring, "_losses", note_whole)
    monkeypatch.setattr(measuring, "_in_pieces", note)
    checkpoint = tiny.write_qwen1(tmp_path / "model", positions=4096)
    text = " ".join(tiny.CORPUS) * 20
    engine = HFEngine(ModelSpec(str(checkpoint)))
    request = Measure((text,), 600, max_tokens=1)
    (whole,) = engine.measure([request], lambda *_: None)
    monkeypatch.setattr(measuring, "free_bytes", lambda device: 2**20)
    (limited,) = engine.measure([request], lambda *_: None)
    assert pieces == [600, 256] and limited.nll == pytest.approx(whole.nll, rel=1e-6)
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": text}) + "\n")
    words = f"-c {checkpoint} -d {tmp_path / 'one.jsonl'} -o {tmp_path} --lengths 600 --max-memory 0.001"
    monkeypatch.setattr(measuring, "free_bytes", lambda device: float("inf"))
    assert work("long_ppl", *words.split(), "--quiet", "--no-self-check") == 0
    assert set(pieces[2:]) == {256}


def test_a_container_s_limit_counts_as_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 2000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert memory.free_bytes(cpu) == 2000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, free in (("max", 2000 * 1024), ("5000", 4000)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert memory.free_bytes(cpu) == free
    (tmp_path / "meminfo").unlink()
    assert memory.free_bytes(cpu) == float("inf")


def test_a_piece_leaves_room_for_the_keys_and_values() -> None:
    """By hand: 100 tokens of 4 x (9 x 2 + 3 x 4) = 120 bytes, and their keys and values of 48 bytes a token."""
    config = SimpleNamespace(hidden_size=2, intermediate_size=4)
    assert budget.token_bytes(config, 4) == 120
    assert budget.token_bytes(config, 4, in_pieces=True) == 144
    assert budget.piece_that_fits(120, 144, 48, 100, 12_000) == 100
    assert budget.piece_that_fits(120, 144, 48, 100, 11_999) == (11_999 - 4800) // 144
    assert budget.piece_that_fits(120, 144, 48, 100, 4800) <= 0


def test_numbers_of_a_config_may_be_missing_listed_or_refused() -> None:
    """Mamba has no heads, Gemma-3n a list, Gemma-4 raises for what differs by layer."""

    class Config:
        intermediate_size = (64, 256)

        @property
        def head_dim(self) -> int:
            raise RuntimeError("it differs by layer")

    assert [budget.number(Config(), name) for name in ("intermediate_size", "head_dim", "hidden_size")] == [256, 0, 0]
