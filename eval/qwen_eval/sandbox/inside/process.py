"""Starts a role (candidate, checker, snippet) in a process of its own, and kills it with everything it started."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from . import bubblewrap, candidate, checker, limits, linux, namespaces, snippet
from .role import ENDED, ENDED_FORM, FAILED, STARTED, STARTED_FORM, TEXT, lock
from .scratch import NUMBER, Scratch
from .settings import NOBODY, STATUS, Budget, Settings

_ROLES = {"candidate": candidate.run, "checker": checker.run, "snippet": snippet.run}
_RULESET, _LAST = 9, 256  # Landlock's rules lie beside a role's files; a zygote has no file beyond _LAST
_UID_STEP = {"candidate": 0, "snippet": 0, "checker": 1}
_INIT_STEP = 2
_PRELOADED = (
    "bisect", "collections.abc", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq",
    "itertools", "math", "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip


class SetupError(Exception):
    """A process could not be isolated as promised; nothing untrusted ran in it."""


@dataclass(frozen=True)
class World:
    """What all processes of a zygote share: how they are isolated, and as file descriptors the zygote's own process
    namespace, Landlock's rules and the open folders of the import path (relocated.py), where there are such; and the folder for
    temporary files where there is one."""

    settings: Settings
    own_namespace: int | None = None
    ruleset: int | None = None
    held: tuple[int, ...] = ()
    scratch: Scratch | None = None


class Child:
    """A role's process. `status` becomes readable when it has reported something; then call `listen`."""

    def __init__(self, pid: int, status: socket.socket, direct: bool) -> None:
        self.pid = pid  # of the process to kill: the role's own, or the one that it cannot outlive
        self.status = status
        self.open = True
        self.role_pid = pid if direct else None
        self.ended: tuple[int, float] | None = None  # wait status, CPU seconds
        self._records = bytearray()
        self._used = 0.0
        self._started_at: float | None = None

    def listen(self) -> None:
        """Reads what the process reports. Raises SetupError if it could not be isolated."""
        with contextlib.suppress(BlockingIOError):
            data, ancillary, _, _ = self.status.recvmsg(4096, socket.CMSG_SPACE(12))
            self._records += data
            self.open = bool(data)
            for level, kind, value in ancillary:
                # the kernel says who wrote, as seen from here: the process in its own process namespace
                if data[:1] == STARTED and (level, kind) == (socket.SOL_SOCKET, getattr(socket, "SCM_CREDENTIALS", -1)):
                    self.role_pid = struct.unpack("3i", value[:12])[0]
        if self._records[:1] == STARTED and len(self._records) > STARTED_FORM.size:
            self._started_at = STARTED_FORM.unpack_from(self._records, 1)[0]
            del self._records[: 1 + STARTED_FORM.size]
        if self._records[:1] == ENDED and len(self._records) > ENDED_FORM.size:
            self.ended = ENDED_FORM.unpack_from(self._records, 1)
        if self._records[:1] == FAILED and b"\n" in self._records:
            raise SetupError(self._records[1:].partition(b"\n")[0].decode("utf-8", "replace"))
        if not self.open and self._started_at is None:
            raise SetupError("the process ended before it was isolated")

    def cpu(self) -> float:
        """CPU seconds used since start-up, as far as is known."""
        if self.ended is None and self.role_pid is not None and sys.platform == "linux":
            used = linux.cpu_seconds(self.role_pid)
            if used is None:
                self.await_end(0.1)  # it has ended and is about to say so
            else:
                self._used = used
        if self.ended is not None:
            self._used = max(self._used, self.ended[1])
        return max(0.0, self._used - (self._started_at or 0.0))

    def await_end(self, seconds: float) -> None:
        """Gives the process some time to end by itself and notes how it did."""
        deadline = time.monotonic() + seconds
        while self.ended is None and time.monotonic() < deadline:
            if self.open:
                self.status.settimeout(max(0.001, deadline - time.monotonic()))
                with contextlib.suppress(TimeoutError):
                    self.listen()
            if not self.open and self.ended is None and not self._reap(os.WNOHANG):
                time.sleep(0.002)

    def end(self) -> None:
        """Kills the process and all it started, and waits until none is left."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reap(0)
        self.status.close()

    def _reap(self, options: int) -> bool:
        if self.pid:
            pid, status, usage = os.wait4(self.pid, options)
            if pid == 0:
                return False
            self.pid = 0
            if self.ended is None:
                self.ended = (status, usage.ru_utime + usage.ru_stime)
        return True


def start(world: World, role: str, budget: Budget, files: Mapping[int, int]) -> Child:
    """Starts a role with its files (number there -> number here; these are closed here). OSError when it cannot."""
    ours, theirs = socket.socketpair()
    if hasattr(socket, "SO_PASSCRED"):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ours.setblocking(False)
    settings = world.settings
    parent = os.getpid()
    # the checker runs trusted text; it stays in the zygote's namespaces, where no candidate is
    apart = settings.mode == "namespaces" and role != "checker"
    try:
        if apart:
            linux.unshare(linux.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            _begin(world, role, apart, budget, {**files, STATUS: theirs.fileno()}, parent)
        if apart and world.own_namespace is not None:
            linux.setns(world.own_namespace, linux.CLONE_NEWPID)
    finally:
        theirs.close()
        for fd in files.values():
            os.close(fd)
    return Child(pid, ours, direct=not apart and settings.mode != "bubblewrap")


def _begin(world: World, role: str, apart: bool, budget: Budget, files: dict[int, int], parent: int) -> NoReturn:
    """The new process: its files to their places, then the role; apart: behind an init, in namespaces of its own."""
    settings = world.settings
    try:
        if world.ruleset is not None:
            files[_RULESET] = world.ruleset
        files |= {number: number for number in world.held}
        if world.scratch is not None and role != "checker":
            os.chdir(world.scratch.folder)
            files[NUMBER] = os.open(world.scratch.folder, os.O_PATH | os.O_DIRECTORY)
            os.environ["TMPDIR"] = os.environ["HOME"] = f"/proc/self/fd/{NUMBER}"
        _place(files)
        os.setsid()
        ruleset = _RULESET if world.ruleset is not None else None
        uid = _uid(settings, role)
        if settings.mode == "bubblewrap":
            linux.die_with_parent(parent)
            command = bubblewrap.command(settings, role, budget, uid)
            os.execv(command[0], command)
        if apart:
            namespaces.private_tmp()
            pid = os.fork()
            if pid:
                _init(settings, pid)
            parent = 1
        lock(settings, budget, uid, parent, ruleset)
    except BaseException as error:
        _fail(error)
    _run(role)


def _uid(settings: Settings, role: str) -> int | None:
    if settings.uid is None or settings.uid == NOBODY:
        return settings.uid
    return settings.uid + _UID_STEP[role]


def _place(files: Mapping[int, int]) -> None:
    """Moves files to their numbers and closes every other one but the first three, which are /dev/null."""
    moved = {target: fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for target, fd in files.items()}
    for target, fd in moved.items():
        os.dup2(fd, target)
    for number in range(3, max(moved)):
        if number not in moved:
            with contextlib.suppress(OSError):
                os.close(number)
    os.closerange(max(moved) + 1, _LAST)


def _init(settings: Settings, role_pid: int) -> NoReturn:
    """The first process of a process namespace: waits for the role, tells how it ended, and takes all others along."""
    try:
        os.closerange(3, STATUS)
        os.closerange(STATUS + 1, _LAST)
        uid = settings.uid
        limits.become(uid if uid is None or uid == NOBODY else uid + _INIT_STEP)
        if settings.user_namespace:
            linux.drop_capabilities()
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        while True:
            pid, status, usage = os.wait3(0)
            if pid == role_pid:
                os.write(STATUS, ENDED + ENDED_FORM.pack(status, usage.ru_utime + usage.ru_stime))
                break
    finally:
        os._exit(0)


def _fail(error: BaseException) -> NoReturn:
    with contextlib.suppress(OSError):
        text = f"{type(error).__name__}: {error}"[:TEXT].replace("\n", " ")
        os.write(STATUS, FAILED + text.encode("utf-8", "replace") + b"\n")
    os._exit(1)


def _run(role: str) -> NoReturn:
    try:
        _ROLES[role]()
    finally:
        os._exit(0)


def run_alone(role: str, settings: str, budget: str, uid: str, harness: str) -> NoReturn:
    """A role in a fresh interpreter, started by bubblewrap; arguments as JSON. harness: for whoever looks at ps."""
    try:
        told = Settings.from_json(json.loads(settings))
        sys.path[:] = list(told.path)
        lock(told, Budget(**json.loads(budget)), json.loads(uid), None, None)
    except BaseException as error:
        _fail(error)
    _run(role)


def preload() -> None:
    """Imports what solutions import most, so that each program finds it in place at no cost."""
    for name in _PRELOADED:
        importlib.import_module(name)
