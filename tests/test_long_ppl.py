"""Perplexity against the 2023 code's recorded figures, exact values, and the plain forward; window attention."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import long_ppl
import tiny
from known import work
from qwen_eval.engines.chunks import Chunk, cut
from qwen_eval.engines.local import measuring
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.export import export_qwen2
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.models.window import default_windows, parse_windows, window_attention
from qwen_eval.runs import results
from qwen_eval.schema import DataError, InputError, Measure, ModelSpec
from shared import shared

TEXT = " ".join(tiny.CORPUS) * 6


def recorded_documents() -> tuple[str, ...]:
    """Document k is lines 200k to 200k + 199 of a reference, whole documents only (checkpoints/README)."""
    lines = (shared("data/wmt22") / "generaltest2022.zh-en.ref.A.en").read_text(encoding="utf-8").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return tuple("\n".join(lines[start : start + 200]) for start in range(0, len(lines) - 199, 200))


def check_recorded(lengths: set[int]) -> float:
    """Every recorded cell of these lengths; returns the largest relative difference of a perplexity."""
    cells = [
        row
        for row in json.loads(shared("checkpoints/golden/ppl_original.json").read_text())
        if row["length"] in lengths
    ]
    engine = HFEngine(ModelSpec(str(shared("checkpoints/qwen1-tiny"))))
    documents = recorded_documents()
    furthest = 0.0
    for row in cells:
        switch = {True: "on", False: "off"}
        spec = ModelSpec("", dynamic_ntk=switch[row["dynamic_ntk"]], logn=switch[row["logn"]])
        engine.extend(spec)
        (cell,) = engine.measure([Measure(documents, row["length"], max_tokens=20_000)], lambda *_: None)
        assert (sum(cell.tokens), sum(cell.chunks)) == (row["scored_tokens"], row["chunks"])
        perplexity = math.exp(sum(cell.nll) / sum(cell.tokens))
        assert perplexity == pytest.approx(row["perplexity"], rel=1e-4)
        furthest = max(furthest, abs(perplexity / row["perplexity"] - 1))
    return furthest


def test_recorded_perplexities() -> None:
    """All four combinations of NTK and LogN at twice the trained length, on one loaded model."""
    check_recorded({512})


@pytest.mark.slow
def test_all_recorded_perplexities(record_property: Callable[[str, object], None]) -> None:
    record_property("difference", check_recorded({128, 256, 512, 1024, 2048, 4096}))


@pytest.mark.slow
def test_the_published_table_in_miniature(tmp_path: Path) -> None:
    """The README's four rows on a model trained on 256 tokens, by the command line: the recorded figures, and their shape."""
    lengths = [128, 256, 512, 1024, 2048, 4096]
    for index, text in enumerate(recorded_documents()):
        (tmp_path / f"{index:02}.txt").write_text(text, encoding="utf-8")
    words = ["-c", str(shared("checkpoints/qwen1-tiny")), "-d", str(tmp_path), "-o", str(tmp_path), "--quiet"]
    words += [
        "--grid",
        "readme",
        "--lengths",
        ",".join(map(str, lengths)),
        "--documents",
        "all",
        "--max-tokens",
        "20000",
    ]
    assert work("long_ppl", *words) == 0
    cells: dict[tuple[str, int], float] = {}
    for row in results.read_results(tmp_path / "long_ppl.csv"):
        if row["metric"] == "perplexity":
            low, value, high = (float(row[name]) for name in ("ci_low", "value", "ci_high"))
            assert low < value < high
            cells[row["context"], int(row["group"])] = value
    assert set(cells) == {(context, length) for context in long_ppl.README for length in lengths}
    for row in json.loads(shared("checkpoints/golden/ppl_original.json").read_text()):
        on = [name for name in ("dynamic_ntk", "logn") if row[name]]
        if (label := "+".join(on) or "none") in long_ppl.README:
            assert cells[label, row["length"]] == pytest.approx(row["perplexity"], rel=1e-4)
    none, ntk, logn, window = ([cells[context, length] for length in lengths] for context in long_ppl.README)
    assert none[1:] == sorted(none[1:]) and none[-1] > 1.4 * none[1]  # rises past the trained length
    assert all(helped < plain for helped, plain in zip(ntk[2:], none[2:], strict=True)) and ntk[-1] < 1.25 * ntk[1]
    assert all(hurt > helped for hurt, helped in zip(logn[2:], ntk[2:], strict=True))  # a little, here
    assert window[-1] < ntk[-1] and window[0] == none[0]


def reference(query: Tensor, key: Tensor, value: Tensor, window: int, scale: float) -> Tensor:
    """The whole L x S matrix in float64, masked."""
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1).double(), value.repeat_interleave(repeat, 1).double()
    past = key.shape[2] - query.shape[2]
    places = torch.arange(query.shape[2])[:, None] + past
    keys = torch.arange(key.shape[2])[None, :]
    scores = query.double() @ key.transpose(-1, -2) * scale
    scores = scores.masked_fill((keys > places) | (keys <= places - window), float("-inf"))
    return scores.softmax(-1) @ value


@pytest.mark.parametrize("past", [0, 7, 700])
@pytest.mark.parametrize("window", [1, 5, 512, 5000])
@pytest.mark.parametrize("length", [1, 3, 1300])
def test_window_attention_equals_a_masked_softmax(length: int, window: int, past: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 4, length, 8)
    key, value = torch.randn(2, 2, 2, length + past, 8)
    ours = window_attention(query, key, value, window, 0.3)
    torch.testing.assert_close(ours.double(), reference(query, key, value, window, 0.3), atol=1e-5, rtol=0)


def test_a_window_of_everything_is_full_attention_exactly() -> None:
    query, key, value = torch.randn(3, 1, 2, 600, 8)
    full = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
    assert torch.equal(window_attention(query, key, value, 600, 0.3), full)


def test_windows_by_default_grow_with_depth() -> None:
    sizes = default_windows(32, 2048)
    assert sizes[0] == 1024 and sizes[-1] == 4096 and list(sizes) == sorted(sizes)
    assert parse_windows("100", 3, 64) == (100, 100, 100) and parse_windows("1, 2,3", 3, 64) == (1, 2, 3)
    for wrong in ("0", "1,2", "x", ""):
        with pytest.raises(ValueError, match=r"number of keys|sizes for"):
            parse_windows(wrong, 3, 64)


def naive(spec: ModelSpec, length: int) -> float:
    """Mean loss of every chunk by one forward pass with all logits."""
    checkpoint = open_checkpoint(spec)
    model, ids = checkpoint.load(), checkpoint.tokenizer.encode(TEXT)
    total, scored = 0.0, 0
    for start in range(0, len(ids) - length + 1, length):
        chunk = torch.tensor([ids[start : start + length]])
        with torch.inference_mode():
            logits = model(chunk).logits[0, :-1].double().log_softmax(-1)
        total -= float(logits.gather(1, chunk[0, 1:, None]).sum())
        scored += length - 1
    return total / scored


BUILDERS = {
    "qwen1": tiny.write_qwen1,
    "llama": tiny.write_llama,
    "qwen3": tiny.write_qwen3,
    "mistral": tiny.write_mistral,
}
ON = {"dynamic_ntk": "on", "logn": "on", "train_length": 64}


@pytest.mark.parametrize("options", [{}, ON, {**ON, "window": "40,20"}], ids=["none", "ntk+logn", "ntk+logn+window"])
@pytest.mark.parametrize("name", BUILDERS)
def test_slices_pieces_and_batches_change_nothing(
    name: str, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"sliding_window": None} if name == "mistral" else {}
    spec = ModelSpec(str(BUILDERS[name](tmp_path, positions=4096, **extra)), **options)
    expected = naive(spec, 100)
    monkeypatch.setattr(measuring, "LOGITS", 5000)
    for engine in (HFEngine(spec), HFEngine(spec, batch_size=1)):
        (cell,) = engine.measure([Measure((TEXT,), 100)], lambda *_: None)
        assert cell.nll[0] / cell.tokens[0] == pytest.approx(expected, abs=1e-5)
    # as when a chunk does not fit
    engine = HFEngine(spec)
    ids = np.array(engine.checkpoint.tokenizer.encode(TEXT)[:100], dtype=np.int32)
    chunk = Chunk(ids, 99, 0)
    with torch.inference_mode():
        (whole,) = measuring._losses(engine.runtime, [chunk], 5000)
        pieces = measuring._in_pieces(engine.runtime, chunk, 5000, 23)
    assert pieces == pytest.approx(whole, abs=1e-3)


def test_window_attention_changes_the_figures_and_serves_every_script(tmp_path: Path) -> None:
    """Generation and multiple choice under a window equal the windowed model recomputed."""
    from qwen_eval.schema import Choose, Generate

    spec = ModelSpec(str(tiny.write_qwen1(tmp_path, positions=4096, spread=0.3)), window="12,30")
    engine = HFEngine(spec)
    prompt = TEXT[:400]
    model, ids = engine.checkpoint.load(), engine.checkpoint.tokenizer.encode(prompt)
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
    (chosen,) = engine.choose([Choose("", (), prompt, (" A", " B"))], lambda *_: None)
    letters = [engine.checkpoint.tokenizer.encode(letter)[0] for letter in (" A", " B")]
    np.testing.assert_allclose(chosen.logprobs, logits[letters].numpy(), atol=1e-4)
    (text,) = engine.generate([Generate(prompt, 6)], lambda *_: None)
    for _ in range(6):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert text.texts[0] == engine.checkpoint.tokenizer.decode(ids[-6:], skip_special=True)
    full = HFEngine(ModelSpec(str(tmp_path)))
    cells = [item.measure([Measure((TEXT,), 200)], lambda *_: None)[0].nll for item in (engine, full)]
    assert abs(cells[0][0] - cells[1][0]) > 1


@contextmanager
def rewritten(folder: Path) -> Iterator[dict[str, Tensor]]:
    """A checkpoint's tensors; changes to them are written back."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    yield tensors
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_uniform_model_has_the_vocabulary_as_perplexity(tmp_path: Path) -> None:
    folder = tiny.write_qwen1(tmp_path, positions=4096)
    with rewritten(folder) as tensors:
        tensors["lm_head.weight"].zero_()
        vocabulary = len(tensors["lm_head.weight"])
    engine = HFEngine(ModelSpec(str(folder)))
    for length in (2, 64, 300):
        (cell,) = engine.measure([Measure((TEXT,), length)], lambda *_: None)
        assert math.exp(sum(cell.nll) / sum(cell.tokens)) == pytest.approx(vocabulary, rel=1e-6)


def test_a_model_that_knows_the_cycle_tends_to_one(tmp_path: Path) -> None:
    """The embedding of token t carries it untouched to the output, whose row for t + 1 answers to it alone."""
    folder = tiny.write_qwen1(tmp_path, positions=4096, spread=0.0, hidden=512, heads=8)
    cycle = open_checkpoint(ModelSpec(str(folder))).tokenizer.encode("abcdefgh")
    with rewritten(folder) as tensors:
        vocabulary, width = tensors["lm_head.weight"].shape
        basis = torch.linalg.qr(torch.randn(max(vocabulary, width), width, generator=torch.Generator().manual_seed(0)))[
            0
        ]
        marks = torch.nn.functional.normalize(basis[:vocabulary], dim=1)
        tensors["transformer.wte.weight"].copy_(marks)
        for token, successor in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            tensors["lm_head.weight"][successor] = marks[token] * 20
    engine = HFEngine(ModelSpec(str(folder)))
    (cell,) = engine.measure([Measure(("abcdefgh" * 40,), 80)], lambda *_: None)
    assert 1 <= math.exp(sum(cell.nll) / sum(cell.tokens)) < 1.01


def test_a_qwen2_copy_has_the_perplexity_of_its_original(tmp_path: Path) -> None:
    """All of the README's rows, below and past the trained length of 64 tokens, on the same weights in Qwen2's format."""
    original = tiny.write_qwen1(tmp_path / "original", positions=4096, seq_length=64)
    export_qwen2(ModelSpec(str(original)), tmp_path / "copy")
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": TEXT}) + "\n")
    figures = []
    for folder in (original, tmp_path / "copy"):
        words = f"-c {folder} -d {tmp_path / 'text.jsonl'} -o {tmp_path / folder.name} --quiet --lengths 32,64,100,400"
        work("long_ppl", *words.split(), "--grid", "readme", "--train-length", "64")
        rows = results.read_results(tmp_path / folder.name / "long_ppl.csv")
        figures.append({(row["context"], row["metric"], row["group"]): float(row["value"]) for row in rows})
    assert len(figures[0]) == 4 * 4 * 5 and figures[0] == pytest.approx(figures[1], rel=1e-6)
    ours = {key[0]: value for key, value in figures[0].items() if key[1:] == ("perplexity", "400")}
    assert len(set(ours.values())) == 4


def documents(lengths: list[int]) -> list[np.ndarray]:
    return [np.arange(length, dtype=np.int32) + 1000 * index for index, length in enumerate(lengths)]


def test_same_documents_give_every_length_the_same_text() -> None:
    given = documents([70, 64, 10, 33])
    texts = []
    for length in (8, 16, 32):
        chunks = list(cut(Measure((), length, same_as=32), given))
        texts.append(np.concatenate([chunk.ids for chunk in chunks]))
        assert all(len(chunk.ids) == length and chunk.scored == length - 1 for chunk in chunks)
    assert all(np.array_equal(texts[0], other) for other in texts[1:])
    assert set(np.concatenate([given[0][:64], given[1], given[3][:32]])) == set(texts[0])


def test_all_documents_drop_a_short_rest_and_stop_after_max_tokens() -> None:
    given = documents([70, 64, 10, 33])
    chunks = list(cut(Measure((), 32), given))
    assert [(chunk.document, int(chunk.ids[0]) % 1000) for chunk in chunks] == [
        (0, 0),
        (0, 32),
        (1, 0),
        (1, 32),
        (3, 0),
    ]
    assert len(list(cut(Measure((), 32, max_tokens=32), given))) == 2
    assert len(list(cut(Measure((), 32, max_tokens=31), given))) == 1


def test_a_stride_scores_every_token_of_the_windows_once() -> None:
    (ids,) = documents([50])
    chunks = list(cut(Measure((), 20, stride=5), [ids]))
    scored = np.concatenate([chunk.ids[-chunk.scored :] for chunk in chunks])
    assert np.array_equal(scored, ids[1 : 1 + len(scored)]) and len(scored) == 49


def test_the_readme_grid_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.txt").write_text(TEXT[index * 50 :], encoding="utf-8")
    (folder / "3.txt").write_text("short", encoding="utf-8")
    checkpoint = tiny.write_qwen1(tmp_path / "model", positions=4096)
    words = [
        "-c",
        str(checkpoint),
        "-d",
        str(folder),
        "-o",
        str(tmp_path),
        "--quiet",
        "--lengths",
        "64,128",
        "--grid",
        "readme",
    ]
    assert work("long_ppl", *words) == 0
    out = capsys.readouterr().out
    assert "1 documents are too short for length 128" in out and "|window:32,128" in out
    rows = results.read_results(tmp_path / "long_ppl.csv")
    cells = {(row["context"], row["group"]): row for row in rows if row["metric"] == "perplexity"}
    assert {context for context, _ in cells} == set(long_ppl.README) and {group for _, group in cells} == {"64", "128"}
    assert cells["none", "64"]["value"] == cells["dynamic_ntk+logn", "64"]["value"] != cells["none", "128"]["value"]
    assert all(float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"]) for row in cells.values())
    # again: everything is stored, nothing is computed, no row is added
    work("long_ppl", *words)
    assert results.read_results(tmp_path / "long_ppl.csv") == rows


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    checkpoint = str(tiny.write_qwen1(tmp_path / "model"))
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "short"}) + "\n")
    common = ["-c", checkpoint, "-o", str(tmp_path), "--quiet", "-d", str(tmp_path / "one.jsonl")]
    with pytest.raises(DataError, match="no document has 64 tokens"):
        work("long_ppl", *common, "--lengths", "64")
    with pytest.raises(InputError, match="--stride 64"):
        work("long_ppl", *common, "--lengths", "64", "--stride", "64")
    (tmp_path / "one.jsonl").write_text('{"txt": 1}\n')
    with pytest.raises(DataError, match=r"one\.jsonl:1"):
        work("long_ppl", *common)
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": TEXT}) + "\n")
    with pytest.raises(InputError, match="--window"):
        work("long_ppl", *common, "--lengths", "64", "--window", "1,2,3")
