"""The harness's end of a zygote: starts it, sends it requests, closes it. Not thread-safe, except for `close`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

from .inside.bubblewrap import ENVIRONMENT
from .inside.settings import Budget, Settings
from .inside.wire import MAX_BYTES, pack

_CODE = Path(__file__).resolve().parent
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from inside.zygote import main; main()"
_LENGTH = struct.Struct("<I")
_START_SECONDS = 60.0
_GRACE_SECONDS = 60.0  # beyond a program's wall time until its zygote counts as lost
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")  # without them some interpreters do not start


class ZygoteError(Exception):
    """A zygote cannot be started or has ended; the message says why."""


class Zygote:
    """A process that isolates itself once and forks a process for each program. Raises ZygoteError if it cannot start."""

    def __init__(self, settings: Settings) -> None:
        self.control, theirs = socket.socketpair()
        self._errors = _anonymous_file()  # for a start that fails; from then on nothing writes to it
        environment = {**ENVIRONMENT, **{name: os.environ[name] for name in _PASSED_ON if name in os.environ}}
        arguments = ["-s", "-S", "-B", "-X", "utf8", "-c", _START, str(_CODE), str(os.getpid())]
        try:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=environment,
                cwd="/",
                start_new_session=True,  # the harness handles Ctrl-C
            )
        except OSError as error:
            self.control.close()
            self._errors.close()
            raise ZygoteError(f"{sys.executable}: {error.strerror}") from error
        finally:
            theirs.close()
        try:
            self._send(asdict(settings), [], _START_SECONDS)
        except ZygoteError:
            self.close()
            raise

    def await_ready(self) -> None:
        """Waits until the zygote is isolated. Raises ZygoteError if it cannot be."""
        try:
            reply = self._receive()
        except ZygoteError as error:
            self._errors.seek(0)
            last = self._errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            self.close()
            raise ZygoteError(f"{error} {last}".strip()) from error
        if not reply["ready"]:
            self.close()
            raise ZygoteError(reply["detail"])

    def ask(self, kind: str, budget: Budget, payloads: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], bytes]:
        """How one program ended (inside/supervise.py), and what its checker or itself wrote. Raises ZygoteError if the
        zygote is lost, WireError if a payload is too large."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(_anonymous_file()) for _ in (*payloads, "result")]
            for file, payload in zip(files, payloads, strict=False):
                file.write(pack(payload))
                file.seek(0)
            request = {"kind": kind, "budget": asdict(budget)}
            self._send(request, [file.fileno() for file in files], budget.wall_seconds + _GRACE_SECONDS)
            reply = self._receive()
            # the writers have ended; the file offset is shared with them
            files[-1].seek(0)
            return reply, files[-1].read(MAX_BYTES + 1)

    def close(self) -> None:
        """Ends it and everything it runs; can be called from another thread and more than once."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.control.close()
        self._errors.close()

    def _send(self, message: dict[str, Any], files: list[int], timeout: float) -> None:
        text = json.dumps(message).encode("ascii")
        data = _LENGTH.pack(len(text)) + text
        try:
            self.control.settimeout(timeout)
            sent = socket.send_fds(self.control, [data], files) if files else 0
            self.control.sendall(data[sent:])
        except OSError as error:
            raise ZygoteError(f"a sandbox process is lost: {error}") from error

    def _receive(self) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = json.loads(self._exactly(_LENGTH.unpack(self._exactly(_LENGTH.size))[0]))
        except (OSError, ValueError) as error:
            raise ZygoteError(f"a sandbox process is lost: {error}") from error
        return reply

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.control.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise ZygoteError("a sandbox process has ended")
            data += piece
        return bytes(data)


def _anonymous_file() -> IO[bytes]:
    """An anonymous temporary file."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("sandbox"), "w+b")
    return cast(IO[bytes], tempfile.TemporaryFile())
