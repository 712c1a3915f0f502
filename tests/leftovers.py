"""What a sandbox must not leave behind. Linux."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path


def processes_of(pid: int, patience: float = 60.0, known: Collection[str] = ()) -> list[str]:
    """The sandbox processes that the process `pid` started and its zombies, but for the known ones, after giving them
    some seconds to go."""
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
