"""What a run of the bench is asked to do, and the code it measures."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qwen_eval.runs.commit import git_commit

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ("eval", "tools/bench")  # the code that is measured and the code that measures


@dataclass(frozen=True)
class Settings:
    """folder: where checkpoints are built. shared: the folder with real data and the real tokenizer, None without.
    items: questions a subject, None for each stage's own number. subjects: of MMLU against lm-evaluation-harness. shape:
    (width, layers), None for each stage's own. repeat: interleaved repetitions."""

    folder: Path
    shared: Path | None
    items: int | None
    subjects: int
    shape: tuple[int, int] | None
    repeat: int

    def shaped(self, width: int, layers: int) -> tuple[int, int]:
        """The shape asked for, else a stage's own."""
        return self.shape or (width, layers)

    def key(self, stage: str) -> str:
        """Names what a stored timing is good for: stage, settings, code, machine. Where one differs, so does the name."""
        settings: dict[str, Any] = {
            name: value for name, value in vars(self).items() if name not in ("folder", "repeat")
        }
        parts = [stage, json.dumps(settings, default=str, sort_keys=True), code(), machine()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def code() -> str:
    """A hash of the code that is measured and of the code that measures."""
    digest = hashlib.sha256()
    for folder in MEASURED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def commit() -> str:
    """The checkout's commit, with + when measured or measuring code was changed since; empty outside a checkout."""
    return git_commit(MEASURED, untracked=True)


def machine() -> str:
    """The processor, the threads in use and torch, no names."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    processor = names[0].strip() if names else platform.processor() or platform.machine()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{processor}, {threads}, torch {torch.__version__}"
