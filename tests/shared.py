"""Where tests find the shared data: real benchmark files, recorded logits, the real tokenizer. It is not part of the
repository; tests that need it skip without it and say so. `make shared` fetches what a hub has of it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

MISSING = "(set SHARED_DIR)"  # ends every skip reason for lack of these files
REPOSITORY = Path(__file__).resolve().parents[1]


def folder() -> Path:
    """Where the shared data is looked for."""
    return Path(os.environ.get("SHARED_DIR") or REPOSITORY.parent / "shared")


def shared(path: str = "") -> Path:
    """The path of a file or folder of the shared data, SHARED_DIR (by default ../shared beside the repository).

    Where it is missing the test skips; with REQUIRE_SHARED=1 in the environment it fails.
    """
    found = folder() / path
    if found.exists():
        return found
    why = f"shared data: {found} is missing {MISSING}"
    if os.environ.get("REQUIRE_SHARED") == "1":
        pytest.fail(why)
    pytest.skip(why)


def humaneval() -> list[dict[str, str]]:
    """The problems of HumanEval; skips without the shared data."""
    with gzip.open(shared("data/humaneval/HumanEval.jsonl.gz"), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
