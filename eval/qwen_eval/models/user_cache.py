"""What was computed once and holds for later runs: JSON files in the folder qwen-eval of the user's cache folder, or in the one
that QWEN_EVAL_CACHE names. Nothing depends on it: what cannot be read or written is computed again."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def folder() -> Path:
    """$QWEN_EVAL_CACHE, else qwen-eval in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("QWEN_EVAL_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "qwen-eval"


def recall(kind: str, name: str) -> Any:
    """The content remembered under a kind and a name, None where there is none or it is damaged."""
    try:
        return json.loads(_entry(kind, name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def remember(kind: str, name: str, content: Any) -> None:
    """Writes content down in one step, as several processes may do it at once."""
    entry = _entry(kind, name)
    with contextlib.suppress(OSError, UnicodeError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=entry.parent, delete=False) as file:
            json.dump(content, file)
        Path(file.name).replace(entry)


def _entry(kind: str, name: str) -> Path:
    return folder() / kind / f"{name}.json"
