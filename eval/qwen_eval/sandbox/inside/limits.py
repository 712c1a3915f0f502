"""Limits of a process and the change to an unprivileged user. Any POSIX system."""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import time
from pathlib import Path

from .settings import NOBODY, Budget

FILE_BYTES = 64 << 20  # of a file, and of all temporary files together where those are a program's own
OPEN_FILES = 64
THREADS = 64


def usable_uid(wanted: int) -> int:
    """`wanted` where this user namespace knows it and the two after it, else the id of the user nobody."""
    try:
        lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError:
        return NOBODY
    ranges = [tuple(map(int, line.split())) for line in lines]
    return wanted if any(first <= wanted and wanted + 3 <= first + count for first, _, count in ranges) else NOBODY


def become(uid: int | None) -> None:
    """Changes to user and group `uid` with no other groups, for good; None: nothing."""
    if uid is None:
        return
    os.setgroups([])
    if sys.platform == "linux":
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    else:
        os.setgid(uid)
        os.setuid(uid)


def threads_of_user() -> int:
    """How many threads this process's user runs, as far as /proc tells; 0 without it."""
    total, own = 0, f"Uid:\t{os.getuid()}\t"
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended
            continue
        if own in text:
            total += int(text.partition("Threads:")[2].split(maxsplit=1)[0])
    return total


def apply(budget: Budget, shared_user: bool = False) -> None:
    """Sets the limits of this process; none can be raised again by an unprivileged user. shared_user: whether its user runs
    other programs, too; the kernel counts their threads in RLIMIT_NPROC, and honest programs could start none beside them.

    The limit of CPU time is a whole number of seconds and only a backstop: the zygote reads the clock itself.
    """
    cpu = math.ceil(time.process_time() + budget.cpu_seconds) + 1
    wanted = {
        "RLIMIT_CPU": cpu,
        "RLIMIT_AS": budget.memory_bytes,
        "RLIMIT_DATA": budget.memory_bytes,
        "RLIMIT_FSIZE": FILE_BYTES,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_NPROC": THREADS + (threads_of_user() if shared_user else 0),
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_SIGPENDING": 128,
    }
    for name, value in wanted.items():
        which = getattr(resource, name, None)
        if which is None:
            continue
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (value, value))
        except ValueError:
            if sys.platform != "darwin":  # it refuses a limit of address space, and is not claimed to isolate
                raise


def default_signals() -> None:
    """Every signal as a fresh interpreter has it."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file too long is an OSError, as in a fresh interpreter
