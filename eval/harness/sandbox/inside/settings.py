"""What the harness tells a zygote: how to isolate (once), and how much a program may use (with each)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """How programs are isolated. Travels as JSON.

    mode: "namespaces", "bubblewrap", "landlock" or "limits". user_namespace: make one first, for want of the right to
    make the others. uid: the first of three user ids to change to, None to stay the same user. readable: files and
    folders that programs can read; hidden: folders below them that they cannot (installed packages, which may hold a
    benchmark's answers); packages: folders in or beside those that they can; path: the import path. seccomp: filter
    system calls. bwrap: bubblewrap's executable; code: the folder that holds this package.
    """

    mode: str
    user_namespace: bool
    uid: int | None
    readable: tuple[str, ...]
    hidden: tuple[str, ...]
    packages: tuple[str, ...]
    path: tuple[str, ...]
    seccomp: bool
    bwrap: str
    code: str

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        """The settings that `dataclasses.asdict` and JSON made of themselves."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


@dataclass(frozen=True)
class Budget:
    """What one program may use: CPU time after start-up and wall time (seconds), address space (bytes)."""

    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int


# the files a role starts with, in this order from 3 up; the checker has VERDICT too, and nobody else
PAYLOAD, INPUT, OUTPUT, STATUS, VERDICT = 3, 4, 5, 6, 7
