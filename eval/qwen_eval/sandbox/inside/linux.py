"""System calls of Linux that Python 3.10 does not offer. OSError where one fails or the system has none."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38

# architecture -> numbers of the calls that libc does not wrap everywhere
_NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126},
    "aarch64": {"pivot_root": 41, "capset": 91},
}
_COMMON = {"landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446}

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def machine() -> str:
    """The architecture, as the kernel names it."""
    return platform.machine()


def _call(function: str, *arguments: object) -> int:
    if _libc is None:
        raise OSError(f"{function}: not on this system")
    result: int = getattr(_libc, function)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


def syscall(name: str, *arguments: object) -> int:
    """A system call by name; integers go as long, everything else as ctypes has it."""
    number = _COMMON.get(name) or _NUMBERS.get(machine(), {}).get(name)
    if number is None or _libc is None:
        raise OSError(f"{name}: not known on {machine()}")
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *values)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def unshare(flags: int) -> None:
    """Leaves the namespaces named by the CLONE_NEW flags for new ones."""
    _call("unshare", ctypes.c_int(flags))


def setns(fd: int, flags: int) -> None:
    """Enters the namespace that a file of /proc/PID/ns stands for."""
    _call("setns", ctypes.c_int(fd), ctypes.c_int(flags))


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""

    def text(value: str | None) -> bytes | None:
        return None if value is None else os.fsencode(value)

    _call("mount", text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data))


def pivot_here() -> None:
    """Makes the current folder the root of this mount namespace and lets the old one go."""
    syscall("pivot_root", b".", b".")
    _call("umount2", b".", ctypes.c_int(MNT_DETACH))
    os.chdir("/")


def prctl(option: int, *values: object) -> None:
    """prctl(2); missing arguments are 0."""
    filled = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in (*values, 0, 0, 0, 0)[:4]]
    _call("prctl", ctypes.c_int(option), *filled)


def die_with_parent(parent: int | None) -> None:
    """Asks for SIGKILL when the parent ends; ends at once if it is no longer `parent` (None: it cannot be told)."""
    prctl(PR_SET_PDEATHSIG, 9)
    if parent is not None and os.getppid() != parent:
        os._exit(71)


def drop_capabilities() -> None:
    """Gives up every capability of this process, for good once no new privileges can be gained."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    syscall("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def cpu_seconds(pid: int) -> float | None:
    """CPU time of another process, all its threads, in seconds; None when it has gone. No signal and no limit of its
    own can hide it."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for the CPU clock of process `pid`
    except OSError:
        return None
