"""Files that survive a crash: whole or not at all, appended line by line, and one writer at a time.

Every failure to write is an InputError of one line; what was written before stays. On Windows, too, where no folder can be
flushed to the disk: a name that was put in its place may be lost there with the power, and the old file is found.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonlines
from filelock import FileLock, Timeout

from qwen_eval.schema import InputError

SYNC_SECONDS = 2.0  # what a loss of power may cost; a kill or a crash of the program costs nothing
LEAVING_SECONDS = 0.2  # after which a lock that another process has is in use, not on its way to be given back
_BINARY = getattr(os, "O_BINARY", 0)  # Windows writes two bytes for a line feed without it
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_NO_FLUSH = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of a folder

_log = logging.getLogger("harness")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write (full disk, read-only folder) into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another folder with --output-dir "
            "(answers already stored are kept, the same command goes on from there)"
        ) from error


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Holds the lock file `path` while the block runs. The lock is the kernel's (flock; on Windows LockFile) and ends with
    the process, however that ends; a file left by a crash is locked by nobody. On NFS Linux makes it a lock of the
    server's; where a file system has none the block runs without, and a warning says so.

    busy: what to raise as InputError where another process holds it; None waits. Raises InputError, too, where the file
    cannot be made.
    """
    lock = FileLock(path, timeout=LEAVING_SECONDS if busy else -1, fallback_to_soft=False)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(busy) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("%s: no locks on this file system; let no second process write here", path.parent)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            path.unlink()  # while it is held: whoever waits for it finds it gone and makes another
        lock.release()


class Appender:
    """A file of lines that grows by whole lines. Whoever opens it holds a lock of his own."""

    def __init__(self, path: Path) -> None:
        """Opens the file and drops a last line that a crash cut. Raises InputError."""
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.ftruncate(self._file, whole)
        self._synced = time.monotonic()

    def append(self, line: bytes) -> None:
        """Adds one line, which ends in a line feed, whole or not at all. Raises InputError."""
        with writing(self.path):
            size = os.fstat(self._file).st_size
            left = memoryview(line)
            try:
                while left:  # a disk that is nearly full takes a part, and refuses with the next call
                    left = left[os.write(self._file, left) :]
            except BaseException:
                os.ftruncate(self._file, size)
                raise
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()

    def close(self) -> None:
        """Flushes what the disk has not taken yet; nothing the second time."""
        descriptor, self._file = self._file, -1
        if descriptor < 0:
            return
        with writing(self.path):
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Puts `content` in place of the file, at once, also across a loss of power. Raises InputError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")  # one name: what a crash left is written over
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flushes a folder's names to the disk, where the system can (Windows opens no folder, some file systems flush none)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The rows as lines of JSON in UTF-8."""
    content = io.BytesIO()  # the writer puts down a line in two parts, and what goes to the disk goes at once
    with jsonlines.Writer(content, dumps=_json) as writer:
        writer.write_all(rows)
    return content.getvalue()


def _json(row: Mapping[str, Any]) -> bytes:
    # lone surrogates (a model can write half a character) have no UTF-8: JSON's own escapes carry them
    try:
        return json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row).encode("ascii")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all. Raises InputError when the folder cannot be written."""
    write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all. Raises InputError when the folder cannot be written."""
    write_whole(path, text.encode("utf-8"))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all. Raises InputError when the folder cannot be written."""
    write_whole(path, json_lines(rows))
