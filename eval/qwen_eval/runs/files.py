"""Files that survive a crash: written atomically, appended to by whole lines, and by one writer at a time.

Every failure to write is an InputError of one line, and what was written before is kept. This holds on Windows, too, except
that it cannot flush a folder to disk: after a power loss the old content of a replaced file may be back.
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

SYNC_SECONDS = 2.0  # of work that a power loss may cost; a killed or crashed program loses nothing
RELEASE_SECONDS = 0.2  # how long another process may take to release a lock before it counts as in use
_BINARY = getattr(os, "O_BINARY", 0)  # without it Windows writes a line feed as two bytes
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_NO_FLUSH = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of a folder

_log = logging.getLogger("harness")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write `path` (full disk, read-only folder) into an InputError of one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder with "
            "--output-dir (stored answers are kept; the same command resumes from there)"
        ) from error


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Holds the lock file `path` while the block runs. The lock is the kernel's (flock; on Windows LockFile) and ends with
    the process, however that ends, so a file left by a crash is not locked. On NFS, Linux turns it into a lock of the
    server; on a file system without locks the block runs without one, and a warning says so.

    busy: message of the InputError where another process holds the lock; None: wait for it. Raises InputError, too, where
    the file cannot be created.
    """
    lock = FileLock(path, timeout=RELEASE_SECONDS if busy else -1, fallback_to_soft=False)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(busy) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("%s: this file system has no locks; run no second process that writes here", path.parent)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink()  # while it is held: a process that waits for it finds it gone and creates another
        lock.release()


class Appender:
    """A file that grows by whole lines. It takes no lock; its user does."""

    def __init__(self, path: Path) -> None:
        """Opens the file and drops a last line that a crash cut off. Raises InputError when it cannot be opened."""
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
        """Appends one line, which ends in a line feed, whole or not at all. Raises InputError when it cannot be written."""
        with writing(self.path):
            size = os.fstat(self._file).st_size
            left = memoryview(line)
            try:
                while left:  # a nearly full disk takes a part and fails at the next call
                    left = left[os.write(self._file, left) :]
            except BaseException:
                os.ftruncate(self._file, size)
                raise
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()

    def close(self) -> None:
        """Flushes to disk and closes; a second call does nothing. Raises InputError."""
        descriptor, self._file = self._file, -1
        if descriptor < 0:
            return
        with writing(self.path):
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the content of the file, so that a crash or a power loss leaves either the old or the new one. Raises
    InputError when the folder cannot be written."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")  # a fixed name, so that what a crash left is overwritten
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
    """Flushes a folder to disk, where the system can: Windows opens no folders, and some file systems flush none."""
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
    content = io.BytesIO()  # the writer makes two writes per line; the file gets one
    with jsonlines.Writer(content, dumps=_json) as writer:
        writer.write_all(rows)
    return content.getvalue()


def _json(row: Mapping[str, Any]) -> bytes:
    # lone surrogates (a model can generate half a character) have no UTF-8, but JSON can escape them
    try:
        return json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row).encode("ascii")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically. Raises InputError when the folder cannot be written."""
    write_atomically(
        path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    )


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 atomically. Raises InputError when the folder cannot be written."""
    write_atomically(path, text.encode("utf-8"))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object per line atomically. Raises InputError when the folder cannot be written."""
    write_atomically(path, json_lines(rows))
