"""Where a program's temporary files lie when it cannot be given a file system of its own: a folder that is watched while the
program runs and emptied after it, and, where its user is its own, that user's files in /dev/shm (named semaphores)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from .limits import FILE_BYTES
from .settings import NOBODY

MAX_FILES = 1024
NUMBER = 19  # of the open folder, in the program
SHARED = Path("/dev/shm")


class Overfull(Exception):
    """The program has more temporary files than it may."""


class Scratch:
    """The folder of one zygote. uid: of its programs, None for this process's own."""

    def __init__(self, base: str, uid: int | None) -> None:
        self.uid = uid
        self.top = Path(tempfile.mkdtemp(prefix="qwen-eval-", dir=base))
        self.top.chmod(0o711)
        self.folder = self.top / "tmp"
        # another user's files may lie there, too
        self.shared = SHARED if uid not in (None, NOBODY) and SHARED.is_dir() else None

    def renew(self) -> None:
        """Empties the folder for the next program."""
        self._clear()
        self.folder.mkdir(mode=0o700)
        if self.uid is not None:
            os.chown(self.folder, self.uid, self.uid)

    def enforce(self) -> None:
        """Raises Overfull where there is too much."""
        count = size = 0
        for path in self._files():
            with contextlib.suppress(OSError):
                count, size = count + 1, size + path.lstat().st_blocks * 512
            if count > MAX_FILES or size > FILE_BYTES:
                raise Overfull(f"more than {FILE_BYTES >> 20} MiB or {MAX_FILES} temporary files")

    def remove(self) -> None:
        """Removes all of it."""
        self._clear()
        shutil.rmtree(self.top, ignore_errors=True)

    def _files(self) -> list[Path]:
        inside = [Path(at, name) for at, folders, files in os.walk(self.folder) for name in (*folders, *files)]
        return [*inside, *self._semaphores()]

    def _semaphores(self) -> list[Path]:
        found = []
        for path in self.shared.iterdir() if self.shared else ():
            with contextlib.suppress(OSError):
                if path.lstat().st_uid == self.uid:
                    found.append(path)
        return found

    def _clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self._semaphores():
            with contextlib.suppress(OSError):
                path.unlink()
