"""A fresh interpreter that isolates itself once and then forks a process for each program it is given.

Two processes: the first watches the harness and goes when it goes; the second, first process of its own process
namespace where there are namespaces, does the work, so that its end is the end of everything below it. Solutions, tests
and verdicts are open files that it passes on unread: a candidate is a copy of this process and must not find in its
memory what a test expects.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from . import landlock, limits, linux, namespaces, relocated, seccomp
from .process import SetupError, World, preload
from .scratch import Scratch
from .settings import Budget, Settings
from .supervise import HarnessGone, check, run

_OPEN_FILES = 256
_LENGTH = struct.Struct("<I")


def main() -> None:
    """Serves the harness on standard input, a socket, until it closes it. argv[1]: the harness's process id."""
    harness = int(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    try:
        settings = Settings.from_json(receive(control)[0])
        if settings.uid is not None:
            settings = replace(settings, uid=limits.usable_uid(settings.uid))
        preload()
        sys.path[:] = list(settings.path)
        if settings.user_namespace and settings.uid is not None:
            limits.become(settings.uid)  # in a user namespace there is no other user to change to
            linux.prctl(linux.PR_SET_DUMPABLE, 1)  # the change took it away, and with it the files of /proc/self
            settings = replace(settings, uid=None)
        if settings.mode == "namespaces":
            namespaces.enter(settings)
    except (OSError, TypeError, ValueError, EOFError) as error:
        send(control, {"ready": False, "detail": str(error)})
        return
    scratch = Scratch(settings.scratch, settings.uid) if settings.scratch else None
    try:
        parent = os.getpid()
        worker = os.fork()
        if worker == 0:
            _work(control, settings, parent, scratch)
        control.close()
        _watch(harness, worker)
    finally:
        if scratch:
            scratch.remove()


def _watch(harness: int, worker: int) -> None:
    """Waits for the worker's end, and brings it about when the harness has gone without closing the socket."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while os.waitpid(worker, os.WNOHANG)[0] == 0:
        if os.getppid() != harness:
            os.kill(worker, signal.SIGKILL)
        if sys.platform == "linux":
            signal.sigtimedwait({signal.SIGCHLD}, 1.0)
        else:
            time.sleep(0.2)


def _work(control: socket.socket, settings: Settings, parent: int, scratch: Scratch | None) -> NoReturn:
    """The process that forks programs. It ends when the harness closes the socket."""
    try:
        if sys.platform == "linux":
            # in a new process namespace the parent's number cannot be seen
            linux.die_with_parent(None if settings.mode == "namespaces" else parent)
            linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        own_namespace = ruleset = None
        if settings.mode == "namespaces":
            own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            namespaces.build_root(settings)
            null = os.open(os.devnull, os.O_RDWR)  # on the read-only mount: nobody can change its mode through this one
            for number in range(3):
                os.dup2(null, number)
            os.close(null)
        elif settings.mode == "landlock":
            writable = [str(scratch.top), *([str(scratch.shared)] if scratch.shared else [])] if scratch else []
            writable += [os.devnull, "/dev/zero"]
            ruleset = landlock.ruleset(_expanded(settings), list({*settings.readable, *settings.path}), writable)
        held: list[int] = []
        if settings.mode in ("landlock", "limits") and settings.uid is not None and sys.platform == "linux":
            held = relocated.hold(settings.path)
        if settings.seccomp:
            seccomp.program(os.getpid(), settings.guard_attributes)  # fails here if at all, and is kept for all
        world = World(settings, own_namespace, ruleset, tuple(held), scratch)
        gc.collect()
        gc.freeze()
        os.dup2(1, 2)
        send(control, {"ready": True, "detail": ""})
    except OSError as error:
        send(control, {"ready": False, "detail": str(error)})
        os._exit(1)
    with contextlib.suppress(HarnessGone, EOFError, OSError):
        while True:
            request, files = receive(control)
            if scratch:
                scratch.renew()
            reply = _serve(world, control, request, files)
            _sweep(settings)
            if scratch:
                scratch.renew()  # also what was left by processes that were swept
            send(control, reply)
    os._exit(0)


def _serve(world: World, control: socket.socket, request: dict[str, Any], files: list[int]) -> dict[str, Any]:
    work = check if request["kind"] == "check" else run
    try:
        return work(world, control, Budget(**request["budget"]), *files)
    except (SetupError, OSError) as error:
        return {"status": "infrastructure", "detail": str(error), "cpu": 0.0}


def _expanded(settings: Settings) -> list[str]:
    """The readable files without the hidden folders, for rules that hold for all that lies below a folder."""

    def expand(path: str) -> list[str]:
        if path in settings.hidden:
            return []
        if not any(hidden.startswith(path + "/") for hidden in settings.hidden):
            return [path]
        return [found for entry in os.scandir(path) for found in expand(entry.path)]

    found = {real for path in settings.readable for real in expand(os.path.realpath(path))}
    return sorted({*found, *settings.packages, *(f"/dev/{name}" for name in ("null", "zero", "random", "urandom"))})


def _sweep(settings: Settings) -> None:
    """Ends processes that left a program's group, where neither a namespace nor a filter holds them: they are ours
    now, and there is at most one program at a time."""
    if settings.mode not in ("limits", "bubblewrap") or sys.platform != "linux":
        return
    for _ in range(100):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(stat.read_bytes().rpartition(b")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [root]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def send(control: socket.socket, message: dict[str, Any]) -> None:
    """Sends a message."""
    text = json.dumps(message).encode("ascii")
    control.sendall(_LENGTH.pack(len(text)) + text)


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message and the files that came with it; EOFError when there is none."""
    size = array.array("i").itemsize
    data, ancillary, _, _ = control.recvmsg(_LENGTH.size, socket.CMSG_SPACE(4 * size))
    files = array.array("i")
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files.frombytes(value[: len(value) - len(value) % size])
    data += _exactly(control, _LENGTH.size - len(data))
    return json.loads(_exactly(control, _LENGTH.unpack(data)[0])), list(files)


def _exactly(control: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = control.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
