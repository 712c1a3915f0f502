"""Sandboxes for tests, and the processes that one must not leave behind."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.sandbox import Sandbox
from qwen_eval.schema import InputError

linux = pytest.mark.skipif(sys.platform != "linux", reason="isolation is known on Linux alone")


def opened(**options: Any) -> Sandbox:
    """A sandbox; the test skips where this machine has no isolation of the kind."""
    try:
        return Sandbox(**options)
    except InputError as error:
        pytest.skip(str(error))


def processes_of(pid: int, patience: float = 60.0, known: Collection[str] = ()) -> list[str]:
    """The sandbox processes that the process `pid` started and its zombies, except the known ones, after giving them a
    few seconds to exit."""
    deadline = time.monotonic() + patience
    while (found := [each for each in _now(pid) if each not in known]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _now(pid: int) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            state, parent = (
                (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            )
            sandboxed = b"inside.zygote" in b" ".join(arguments) or b"/.sandbox" in arguments
            if (sandboxed and str(pid).encode() in arguments) or (state == "Z" and int(parent) == pid):
                found.append(f"{folder.name} {b' '.join(arguments)[:200]!r}")
    return found
