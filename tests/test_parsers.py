"""Every parser of files and of words on the command line, on arbitrary bytes and on valid files that were cut, spliced and
changed: a value, or a one-line InputError; nothing else, and quickly."""

from __future__ import annotations

import argparse
import gzip
import json
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import long_ppl
from examples import examples
from qwen_eval import options
from qwen_eval.data import choice, demo, files, long_texts, problems, translation
from qwen_eval.data.files import Source, text_lines
from qwen_eval.data.tools import agent_set, react_items
from qwen_eval.models import files as weights
from qwen_eval.models import tokenizers
from qwen_eval.models.window import parse_windows
from qwen_eval.runs import files as durable
from qwen_eval.runs import results, samples
from qwen_eval.schema import InputError
from qwen_eval.tasks import agent

HEAD = ",".join(results.COLUMNS)
CHOICE = b"1,Which lamp?,red,blue,None,0.50,A\n"
VALID: dict[str, bytes] = {
    "csv": b"Which lamp is lit?,red,blue,None,0.50,A\n" * 2,
    "ceval": b"id,question,A,B,C,D,answer\n" + CHOICE,
    "cmmlu": b"\xef\xbb\xbf,Question,A,B,C,D,Answer\n" + CHOICE,
    "gsm8k": b'{"question": "2+2?", "answer": "4\\n#### 4"}\n',
    "humaneval": b'{"task_id": "H/0", "prompt": "def f(x):\\n", "entry_point": "f", "canonical_solution": "    return x\\n", '
    b'"test": "def check(f): assert f(1)"}\n',
    "lines": "one\ntwo\n三\n".encode(),
    "shots": b'{"direction": "en-zh", "source": "a", "target": "b"}\n',
    "react": b'{"prompt": "Question: x", "response": "Thought: y\\nAction: z\\nAction Input: {}"}\n',
    "agent": (demo.FOLDER / "data/plugin/hfagent.jsonl").read_bytes(),
    "documents": b'{"text": "a long text"}\n',
    "completions": b'{"task_id": "H/0", "completion": "    return x"}\n',
    "samples": b'{"id": "a/0", "response": {"kind": "chosen", "logprobs": [0, 1], "shots_used": 1, "prompt_tokens": 2}}\n',
    "results": f"{HEAD}\n{','.join('1' for _ in results.COLUMNS)}\n".encode(),
    "json": b'{"model_type": "qwen", "eos_token_id": [1, 2]}',
    "index": b'{"weight_map": {"a": "model.safetensors"}}',
    "safetensors": struct.pack("<Q", 50) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'[:50] + b"1234",
    "ranks": b"YQ== 0\nYg== 1\n",
}


def mutated(valid: bytes) -> st.SearchStrategy[bytes]:
    """Arbitrary bytes; a valid file with bytes inserted or replaced; and pieces that such files are made of."""
    pieces = st.sampled_from(
        [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"\r", b"\0", b"\\u0000", b"\\ud800", b"null", b"1e999", b"-1",
         b"NaN",
         b"\xff", b"\xef\xbb\xbf", b"'", b"=", b"9" * 5000, b"[" * 2000, b"{}", b" ", b"{{", b"{a.b}", valid]
    )  # fmt: skip
    places = st.integers(0, len(valid))
    spliced = st.builds(lambda i, j, new: valid[: min(i, j)] + new + valid[max(i, j) :], places, places, pieces)
    short = st.builds(lambda i, new: valid[:i] + new + valid[i:], places, st.binary(max_size=4))
    return st.one_of(spliced, short, st.binary(max_size=60), st.lists(pieces, max_size=8).map(b"".join))


def choices(layout: choice.Layout, split: str) -> Callable[[Path], object]:
    return lambda path: choice.parse(layout, split, "anatomy", files.read_file(path, "again"))


PARSERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "mmlu": ("csv", choices(choice.MMLU, "test")),
    "ceval": ("ceval", choices(choice.CEVAL, "val")),
    "ceval's test": ("ceval", choices(choice.CEVAL, "test")),
    "cmmlu": ("cmmlu", choices(choice.CMMLU, "dev")),
    "gsm8k": ("gsm8k", lambda path: problems._math("test", problems._lines(path, "again"), "again")),
    "humaneval": ("humaneval", lambda path: problems._tasks(problems._lines(path, "again"))),
    "wmt22": ("lines", translation._lines),
    "text lines": ("lines", text_lines),
    "translation shots": ("shots", translation.translation_shots),
    "react": ("react", lambda path: react_items(path, positive=True)),
    "hfagent": ("agent", agent_set),
    "agent prompt": ("lines", agent.read_template),
    "documents": ("documents", lambda path: long_texts.documents(Source(path))),
    "completions": ("completions", lambda path: problems.completions(path, ["H/0"])),
    "samples": ("samples", lambda path: [samples.stored_response(row) for row in samples.read_samples(path).values()]),
    "results": ("results", results.read_results),
    "config": ("json", weights.read_json),
    "index": ("index", lambda path: weights._indexed(path, {"model.safetensors"})),
    "safetensors": ("safetensors", weights._check_safetensors),
    "ranks": ("ranks", lambda path: tokenizers._parse_ranks(path, path.read_bytes())),
}


@contextmanager
def file_of(content: bytes, suffix: str = "") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        path.write_bytes(content)
        yield path


def refused_or_read(parse: Callable[[Any], object], given: Any, *allowed: type[Exception]) -> None:
    try:
        parse(given)
    except (InputError, *allowed) as error:
        assert str(error)


def test_the_valid_files_are_valid() -> None:
    for name, (kind, parse) in PARSERS.items():
        if name not in ("agent prompt", "safetensors", "ranks"):  # these three have tests of their own
            with file_of(VALID[kind]) as path:
                parse(path)


@pytest.mark.parametrize("name", PARSERS)
@examples(60)
@given(st.data())
def test_any_file_is_read_or_refused(name: str, given_data: st.DataObject) -> None:
    kind, parse = PARSERS[name]
    with file_of(given_data.draw(mutated(VALID[kind]))) as path:
        refused_or_read(parse, path)


@examples(60)
@given(mutated(gzip.compress(VALID["humaneval"])))
def test_any_packed_file_is_read_or_refused(content: bytes) -> None:
    with file_of(content, ".gz") as path:
        refused_or_read(lambda path: problems._tasks(problems._lines(path, "again")), path)


WORDS = {
    "whole number": options.whole_number,
    "count": options.count,
    "temperature": options.temperature,
    "seconds": options.seconds,
    "batch size": options.auto_or_number,
    "names": options.names,
    "lengths": long_ppl.lengths,
    "grid": long_ppl.grid,
}
TEXTS = st.one_of(st.text(max_size=30), st.text("0123456789,.+-eE_ ²三naifuto", max_size=12))


@pytest.mark.parametrize("name", WORDS)
@examples()
@given(TEXTS)
def test_any_word_on_the_command_line_is_read_or_refused(name: str, text: str) -> None:
    refused_or_read(WORDS[name], text, argparse.ArgumentTypeError)


@examples()
@given(TEXTS, st.integers(1, 4))
def test_any_window_is_read_or_refused(text: str, layers: int) -> None:
    refused_or_read(lambda text: parse_windows(text, layers, 64), text, ValueError)


LONG = 100_000
ENDLESS = [
    b"[",
    b"{",
    b'{"a":',
    b'"',
    b"\\",
    b",",
    b"a",
    b" ",
    b"\n",
    b'"",',
    b"9",
    b"-",
    b"<<",
    b"YQ== ",
    b"\xe4",
    b"{x}",
]


@pytest.mark.parametrize("name", PARSERS)
def test_a_hundred_kilobytes_of_anything_take_linear_time(name: str) -> None:
    kind, parse = PARSERS[name]
    for piece in ENDLESS:
        for content in (
            piece * (LONG // len(piece)),
            VALID[kind][:20] + piece * (LONG // len(piece)) + VALID[kind][20:],
        ):
            with file_of(content) as path:
                start = time.process_time()
                refused_or_read(parse, path)
                assert time.process_time() - start < 5, piece


@examples(60)
@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=6))
def test_samples_come_back_as_they_were_stored(pairs: list[tuple[str, str]]) -> None:
    rows = [{"id": name, "response": {"kind": "text", "text": text}} for name, text in pairs]
    with file_of(durable.json_lines(rows)) as path:
        assert samples.read_samples(path) == {row["id"]: json.loads(json.dumps(row)) for row in rows}
