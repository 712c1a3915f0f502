"""Files that survive a crash: whole or not at all, appended line by line, and one writer at a time.

Standard library only. Every failure to write is an InputError of one line; what was written before stays.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen_eval.schema import InputError

SYNC_SECONDS = 2.0  # what a loss of power may cost; a kill or a crash of the program costs nothing
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

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
    """Holds the lock file `path` while the block runs. The lock is the kernel's (flock) and ends with the process, however
    that ends; a file left by a crash is locked by nobody. On NFS Linux makes it a lock of the server's; where a file
    system has none the block runs without, and a warning says so.

    busy: what to raise as InputError where another process holds it; None waits.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path, busy)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: whoever waits for it finds it gone and makes another
        os.close(descriptor)


def _acquire(path: Path, busy: str | None) -> int:
    """The descriptor of the locked file. Raises InputError with the text `busy`, OSError."""
    import fcntl  # not on Windows, where --help and the reports work all the same

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(busy) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                _log.warning("%s: no locks on this file system; let no second process write here", path.parent)
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed it between our opening and locking it


class Appender:
    """A file of lines that grows by whole lines. Whoever opens it holds a lock of his own."""

    def __init__(self, path: Path) -> None:
        """Opens the file and drops a last line that a crash cut. Raises InputError."""
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
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
        """Flushes what the disk has not taken yet."""
        with writing(self.path):
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)


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
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as one line of JSON in UTF-8."""
    # lone surrogates (a model can write half a character) have no UTF-8: JSON's own escapes carry them
    try:
        return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode("ascii") + b"\n"


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all. Raises InputError when the folder cannot be written."""
    write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all. Raises InputError when the folder cannot be written."""
    write_whole(path, text.encode("utf-8"))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all. Raises InputError when the folder cannot be written."""
    write_whole(path, b"".join(map(json_line, rows)))
