"""What the tests of the extractors share: the hand-labelled corpora, the recorded answers, hostile texts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from shared import shared

CORPORA = Path(__file__).parent / "corpora"
LENGTHS = [
    pytest.param(10_000, id="10k"),
    pytest.param(100_000, id="100k", marks=pytest.mark.slow),
]
SECONDS_PER_CHARACTER = 2e-4  # ten times the slowest extractor; a quadratic one exceeds it already at 10,000


def corpus(name: str) -> list[dict[str, Any]]:
    """The rows of one of our own hand-labelled corpora."""
    return [json.loads(line) for line in (CORPORA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def golden(name: str) -> list[dict[str, Any]]:
    """The rows that a script of 2023 answered; skips without the shared data."""
    return json.loads(shared(f"golden/{name}.json").read_text(encoding="utf-8"))


def label(row: dict[str, Any]) -> str:
    """A short name for a row in the output of pytest."""
    return f"{row['about']}: {' '.join(row['reply'].split())[:60]}"


def texts(*pieces: str) -> st.SearchStrategy[str]:
    """Arbitrary texts, and texts made of the pieces that mean something to an extractor."""
    return st.one_of(
        st.text(max_size=300),
        st.lists(st.one_of(st.sampled_from(pieces), st.text(max_size=3)), max_size=40).map("".join),
    )


REPEATED = (
    "A ", "(", "(A", "1,", "1", "1,111", " ", "\n", "\n ", "<think>", "</think>", "the answer is ", "答案", "选", "A、", "A, ",
    "A and ", "not ", "```", "```\n", "\\boxed{", "\\frac{1", "\\text{", "三", "十", "万", "1万", "三点", "$", "*", "-", "'",
    '"', "{", "[", "def ", "def f(x):\n", "def f(", "x = '", "Action: ", "\nAction: ", "Action Input:", "{a:", "one ",
    "1 ", "1/", "2^", "1e5", "\ue000", "｡", ".", ":", "=", "A.\n", "b ", "import ", "@a\n", '"""', "# ",
    "x\n\nQuestion ", "²", "\\", "<|a|>", "'<|a|>' ", "<|", "Q:\n", "\nQ: x", "Human: 2\n", "#### ", "#### 1. a\n",
    "\\boxed{1} ", "a. ", "```python\n", "    ```\n", "> ", "'''\n", "\nAction:\n", "analysis", "assistantfinal",
    "<|channel|>analysis",
)  # fmt: skip


def long_texts(length: int) -> list[str]:
    """Texts of that length that make a pattern backtrack if it can."""
    return [
        *((piece * (length // len(piece) + 1))[:length] for piece in REPEATED),
        "The answer is" + " " * length,
        "def f(x):\n" + "\n" * length + "  x",
        "def" + " " * length + "f(x):\n    pass",
        "Action: a\nAction Input: " + "[" * length,
        "Action: a\nAction Input: {a:[" + "1," * 3_900 + "]}",
        "\\frac{" + "1" * length + "}",
    ]


def quick(function: Callable[..., Any], text: str, *arguments: Any) -> Any:
    """The function's value for a long text; fails if it takes too long."""
    start = time.process_time()
    value = function(text, *arguments)
    assert time.process_time() - start < SECONDS_PER_CHARACTER * max(10_000, len(text)), (function.__name__, text[:20])
    return value
