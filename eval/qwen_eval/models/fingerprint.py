"""What names the weights of a checkpoint: the SHA-256 of every file's whole content, computed once and remembered.

A file is recognised by path, device, inode, size, mtime and ctime in nanoseconds (user_cache.py); where nothing can be
remembered, files are hashed every time.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qwen_eval.models import user_cache
from qwen_eval.schema import CheckpointError

_KIND = "sha256"  # among what is remembered
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


def state(paths: Sequence[Path]) -> str:
    """Names the state of files without reading them: another one where a file may have changed. "" where that cannot be told:
    a file is missing, or so young that it may change without a change of its times."""
    try:
        found = [(str(path.resolve()), _identity(path)) for path in sorted(paths)]
    except OSError:
        return ""
    if any(not _settled(identity) for _, identity in found):
        return ""
    return hashlib.sha256(repr(found).encode("utf-8", "surrogatepass")).hexdigest()


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


def _name(path: Path) -> str:
    """What a file's sum is remembered under."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def _recall(path: Path, identity: dict[str, int]) -> str:
    """The sum remembered of a file that is still the same, "" where there is none."""
    match user_cache.recall(_KIND, _name(path)):
        case {"path": known, "file": then, "sha256": str(content)} if (known, then) == (str(path), identity):
            return content if re.fullmatch("[0-9a-f]{64}", content) else ""
    return ""


def _remember(path: Path, identity: dict[str, int], content: str) -> None:
    """Writes a sum down, unless the file may change again without a change of its times."""
    if _settled(identity):
        user_cache.remember(_KIND, _name(path), {"path": str(path), "file": identity, "sha256": content})


def _settled(identity: dict[str, int]) -> bool:
    return time.time_ns() - max(identity["mtime_ns"], identity["ctime_ns"]) >= _SETTLED_NS
