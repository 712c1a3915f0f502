"""A filter of system calls: no new processes or programs, no sockets, no signals to others, no way into the kernel that
a function from lists to numbers could need. Linux on x86_64 and aarch64."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct

from . import linux

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NEWEST = 463  # calls from this number on (Linux 6.13) are answered as unknown, like on an older kernel
_X32 = 0x40000000

# what a program may not do -> calls by name: (number on x86_64, number on aarch64)
_DENIED: dict[str, dict[str, tuple[int | None, int | None]]] = {
    "start programs or processes": {
        "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    },
    "touch other processes": {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
        "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_open": (434, 434),
        "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130),
        "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "setpriority": (141, 140),
        "ioprio_set": (251, 30), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
        "sched_setparam": (142, 118), "sched_setattr": (314, 274), "move_pages": (279, 239),
        "migrate_pages": (256, 238),
    },
    "reach the network": {"socket": (41, 198), "connect": (42, 203), "bind": (49, 200)},
    "change what is mounted where": {
        "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
        "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431),
        "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97),
        "setns": (308, 268), "statmount": (457, 457), "listmount": (458, 458),
        "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60),
        "quotactl_fd": (443, 443), "mknod": (133, None), "mknodat": (259, 33), "open_by_handle_at": (304, 265),
        "name_to_handle_at": (303, 264), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    },
    "change the machine": {
        "reboot": (169, 142), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
        "finit_module": (313, 273), "delete_module": (176, 106), "acct": (163, 89), "settimeofday": (164, 170),
        "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161),
        "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None), "syslog": (103, 116),
        "personality": (135, 92), "lookup_dcookie": (212, 18), "vhangup": (153, 58), "modify_ldt": (154, None),
    },
    "call seldom tried parts of the kernel": {
        "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427), "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219),
        "lsm_set_self_attr": (460, 460),
        "add_key": (248, 217), "request_key": (249, 218), "set_mempolicy": (238, 237), "mbind": (237, 235),
    },
    "use up what all users of the machine share": {
        "io_setup": (206, 0), "inotify_init": (253, None), "inotify_init1": (294, 26),
    },
    "hold memory that RLIMIT_AS does not count": {
        "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
        "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
        "semget": (64, 190), "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191), "mq_open": (240, 180),
        "mq_unlink": (241, 181),
    },
}  # fmt: skip
# Done by all who may read a file, and felt by everybody: to a program alone with its files it makes no difference whether
# they are done, so they are not, and it is told that they were.
_PRETENDED: dict[str, tuple[int | None, int | None]] = {"flock": (73, 32), "sync": (162, 81), "syncfs": (306, 267)}
_LOCKS_BY_FCNTL = (6, 7, 37, 38)  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW
# Landlock does not cover these, and where a program runs as the harness's own user nothing else does
_FILE_ATTRIBUTES: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
_CLONE, _CLONE3, _SOCKETPAIR, _PRCTL, _FCNTL, _IOCTL = (56, 220), (435, 435), (53, 199), (157, 167), (72, 25), (16, 29)
_KILL, _TGKILL, _PRLIMIT = (62, 129), (234, 131), (302, 261)
_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT, _SECOND_ARGUMENT_AT = 0, 4, 16, 24
# F_SETOWN, F_SETSIG, F_SETOWN_EX: a signal to anyone when a file is ready; F_SETLEASE, F_NOTIFY: others' use of a file
_DENIED_BY_FCNTL = (8, 10, 15, 1024, 1026)
_SEND_SIGNALS_BY_IOCTL = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _deny(error: int = errno.EPERM) -> bytes:
    return _step(_RETURN, _ERRNO | error)


def program(pid: int, guard_attributes: bool) -> bytes:
    """The filter for the process `pid`, in the kernel's own form; with `guard_attributes`, modes, owners, times and
    attributes of files stay too. OSError on another architecture."""
    name = linux.machine()
    if name not in _ARCHITECTURES:
        raise OSError(f"seccomp: no numbers for {name}")
    column = list(_ARCHITECTURES).index(name)
    head = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, _ARCHITECTURES[name], 1, 0),
        _step(_RETURN, _KILL_PROCESS),  # a call by another architecture's numbers
        _step(_LOAD, _NUMBER_AT),
    ]
    argument, allow = _step(_LOAD, _FIRST_ARGUMENT_AT), _step(_RETURN, _ALLOW)
    own = [
        *_rule(_KILL[column], argument, _step(_EQUAL, pid, 1, 0), _deny(), allow),
        *_rule(_TGKILL[column], argument, _step(_EQUAL, pid, 1, 0), _deny(), allow),
        *_rule(_PRLIMIT[column], argument, _step(_EQUAL, 0, 2, 0), _step(_EQUAL, pid, 1, 0), _deny(), allow),
    ]
    return b"".join([*head, *own, _common(name, column, guard_attributes)])


@functools.cache
def _common(name: str, column: int, guard_attributes: bool) -> bytes:
    """The part of the filter that does not depend on the process."""
    steps = []
    if name == "x86_64":
        steps += [_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL_PROCESS)]
    steps += [_step(_AT_LEAST, _NEWEST, 0, 1), _deny(errno.ENOSYS)]
    argument, allow = _step(_LOAD, _FIRST_ARGUMENT_AT), _step(_RETURN, _ALLOW)
    # a thread is no process: its memory and CPU time are counted with its process's
    thread = [_step(_ANY_BIT, _CLONE_NEW, 0, 1), _deny(), _step(_ANY_BIT, _CLONE_THREAD, 1, 0), _deny(), allow]
    steps += _rule(_CLONE[column], argument, *thread)
    # its flags lie in memory, where no filter sees them; libc falls back to clone
    steps += _rule(_CLONE3[column], _deny(errno.ENOSYS))
    # AF_UNIX, without datagrams: those could still be sent to a socket that another process has bound to a name
    second = _step(_LOAD, _SECOND_ARGUMENT_AT)
    pair = [argument, _step(_EQUAL, 1, 1, 0), _deny(), second, _step(_ANY_BIT, 2, 0, 1), _deny(), allow]
    steps += _rule(_SOCKETPAIR[column], *pair)
    for call, denied, pretended in ((_FCNTL, _DENIED_BY_FCNTL, _LOCKS_BY_FCNTL), (_IOCTL, _SEND_SIGNALS_BY_IOCTL, ())):
        answers = {**dict.fromkeys(denied, _deny()), **dict.fromkeys(pretended, _deny(0))}
        refused = [part for value, answer in answers.items() for part in (_step(_EQUAL, value, 0, 1), answer)]
        steps += _rule(call[column], second, *refused, allow)
    kept = [
        part
        for what in (linux.PR_SET_PDEATHSIG, linux.PR_SET_DUMPABLE)
        for part in (_step(_EQUAL, what, 0, 1), _deny())
    ]
    steps += _rule(_PRCTL[column], argument, *kept, allow)
    for numbers in _PRETENDED.values():
        steps += _rule(numbers[column], _deny(0))
    for calls in (*_DENIED.values(), *([_FILE_ATTRIBUTES] if guard_attributes else [])):
        for numbers in calls.values():
            steps += _rule(numbers[column], _deny())
    return b"".join([*steps, allow])


def _rule(number: int | None, *then: bytes) -> list[bytes]:
    """What to do with the call of this number; it must end in a return."""
    return [] if number is None else [_step(_EQUAL, number, 0, len(then)), *then]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install(guard_attributes: bool) -> None:
    """Filters this process from here on; what it may do can only shrink. OSError where the kernel refuses."""
    steps = program(os.getpid(), guard_attributes)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.prctl(linux.PR_SET_SECCOMP, 2, ctypes.byref(_Program(len(steps) // 8, steps)))
