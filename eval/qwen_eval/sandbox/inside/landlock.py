"""Landlock: only the named files can be read and none written, without any privilege. Linux 6.2 and newer."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

from . import linux

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE = 1 << 1
# to write, remove (folders, files), make (folders, files, links), move and truncate; no devices, sockets or pipes
_WRITE = _WRITE_FILE | sum(1 << bit for bit in (4, 5, 7, 8, 12, 13, 14))
_TRUNCATING = 3  # the first version whose rights cover the truncation of a file
_RIGHTS = {3: 0x7FFF, 5: 0xFFFF}  # version -> every right to files that it knows
_PATH_BENEATH, _VERSION_QUERY = 1, 1


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """The version of Landlock; OSError where there is none or it does not cover truncation."""
    found = linux.syscall("landlock_create_ruleset", None, 0, _VERSION_QUERY)
    if found < _TRUNCATING:
        raise OSError(f"landlock: version {found}, {_TRUNCATING} is needed")
    return found


def ruleset(readable: list[str], listable: list[str], writable: list[str]) -> int:
    """A ruleset's file descriptor: what lies at or below `readable` can be read, `listable` folders listed, and files made,
    changed and removed below `writable` ones; a file among these can be written."""
    rights = _RIGHTS[5 if version() >= 5 else 3]
    handled = (ctypes.c_uint64 * 1)(rights)
    ruleset_fd = linux.syscall("landlock_create_ruleset", ctypes.byref(handled), ctypes.sizeof(handled), 0)
    for path in readable:
        _allow(ruleset_fd, path, _READ_FILE | _READ_DIR)
    for path in writable:
        _allow(ruleset_fd, path, _WRITE | _READ_FILE | _READ_DIR)
    for path in listable:
        if Path(path).is_dir():
            _allow(ruleset_fd, path, _READ_DIR)
    return ruleset_fd


def _allow(ruleset_fd: int, path: str, allowed: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            allowed &= _READ_FILE | _WRITE_FILE
        rule = _PathBeneath(allowed, fd)
        linux.syscall("landlock_add_rule", ruleset_fd, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)


def restrict(ruleset_fd: int) -> None:
    """Puts this process under the rules, for good."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.syscall("landlock_restrict_self", ruleset_fd, 0)
