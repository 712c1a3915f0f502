"""What names the weights of a checkpoint: the SHA-256 of every file's whole content, computed once and remembered.

A file is known again by path, device, inode, size, mtime and ctime in nanoseconds. What was computed lies in the folder
qwen-eval of the user's cache folder, or in the one that QWEN_EVAL_CACHE names; where that cannot be written, files are hashed
every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qwen_eval.schema import CheckpointError

_CHUNK = 1 << 20  # bytes read at a time
# A file changed once more within one tick of the file system's clock keeps its times: what is younger is not remembered.
_SETTLED_NS = 2_000_000_000
_HUB_BLOB = re.compile(r"[0-9a-f]{64}")  # large files lie in the hub's cache under their SHA-256, as the hub sent it


def fingerprint(paths: Sequence[Path]) -> str:
    """16 hex digits that name the weights: a hash of every file's name and the SHA-256 of its content. Raises CheckpointError
    for a file that cannot be read, changes meanwhile, or is not what the hub says it is."""
    ordered = sorted(paths, key=lambda path: path.name)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sums = list(pool.map(sha256, ordered))
    lines = (f"{path.name}:{content}\n" for path, content in zip(ordered, sums, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def sampled(paths: Sequence[Path]) -> str:
    """The fingerprint that versions before 0.3 stored: of every file its name, size and 512 blocks of 4 KiB (the whole file up
    to 2 MiB). Equal for files that differ only between the blocks; it serves to find runs of that time."""
    block, blocks = 4096, 512
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda item: item.name):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as stream:
            if size <= block * blocks:
                digest.update(stream.read())
                continue
            for number in range(blocks):
                stream.seek((size - block) * number // (blocks - 1))
                digest.update(stream.read(block))
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where sums are remembered: $QWEN_EVAL_CACHE, else qwen-eval in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("QWEN_EVAL_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "qwen-eval"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content in hexadecimal, remembered. Raises CheckpointError."""
    full = path.resolve()
    try:
        known = _identity(full)
        remembered = _recall(full, known)
        if remembered:
            return remembered
        digest, chunk = hashlib.sha256(), bytearray(_CHUNK)
        with full.open("rb", buffering=0) as stream:
            while size := stream.readinto(chunk):
                digest.update(memoryview(chunk)[:size])
        after = _identity(full)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); make it readable") from None
    if after != known:
        raise CheckpointError(f"{path} changed while it was read; wait until whatever writes it has ended")
    found = digest.hexdigest()
    if full.parent.name == "blobs" and _HUB_BLOB.fullmatch(full.name) and found != full.name:
        raise CheckpointError(
            f"{path}: its content is not what the hub has (its SHA-256); delete {full} and get it again"
        )
    _remember(full, known, found)
    return found


def _identity(path: Path) -> dict[str, int]:
    """What changes when a file's content does."""
    stat = path.stat()
    return {
        "device": stat.st_dev,
        "inode": stat.st_ino,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "ctime_ns": stat.st_ctime_ns,
    }


def _entry(path: Path) -> Path:
    """The file that remembers a file's sum."""
    return cache_folder() / "sha256" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _recall(path: Path, identity: dict[str, int]) -> str:
    """The sum remembered of a file that is still the same, "" where there is none."""
    try:
        entry = json.loads(_entry(path).read_text(encoding="utf-8"))
        same = entry["path"] == str(path) and entry["file"] == identity
        return entry["sha256"] if same and re.fullmatch("[0-9a-f]{64}", entry["sha256"]) else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none, or damaged
        return ""


def _remember(path: Path, identity: dict[str, int], content: str) -> None:
    """Writes a sum down, in one step, as several processes may do it at once. A folder that cannot be written is no error."""
    if time.time_ns() - max(identity["mtime_ns"], identity["ctime_ns"]) < _SETTLED_NS:
        return
    entry = _entry(path)
    with contextlib.suppress(OSError, UnicodeError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=entry.parent, delete=False) as file:
            json.dump({"path": str(path), "file": identity, "sha256": content}, file)
        Path(file.name).replace(entry)
