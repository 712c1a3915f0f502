"""A read-only root with nothing in it but an interpreter, in namespaces of its own. Linux."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from . import linux
from .settings import Settings

_STAGE = "/proc"  # where the new root is built: it always exists and no file that we show lies below it
_DEVICES = ("null", "zero", "full", "random", "urandom")
_SAFE = linux.MS_NOSUID | linux.MS_NODEV
_MOUNT_FLAGS = 0xF  # ro, nosuid, nodev, noexec: the same in statvfs(2) and mount(2)
TMP_BYTES = 32 << 20
TMP_FILES = 1024


def enter(settings: Settings) -> None:
    """New namespaces for this process, and a process id namespace for its children. OSError where one is refused."""
    if settings.user_namespace:
        uid, gid = os.geteuid(), os.getegid()
        linux.unshare(linux.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"1000 {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"1000 {gid} 1", encoding="ascii")
    spaces = (linux.CLONE_NEWNS, linux.CLONE_NEWPID, linux.CLONE_NEWNET, linux.CLONE_NEWIPC, linux.CLONE_NEWUTS)
    linux.unshare(sum(spaces))


def build_root(settings: Settings) -> None:
    """Replaces the root by a read-only one that holds the readable files, /dev/null and its like, and an empty /tmp.

    There is no /proc: nothing that we run needs one, and it is the best place to attack from.
    """
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", _STAGE, "tmpfs", _SAFE, "mode=0755,size=4m,nr_inodes=4096")
    links = []
    shown: list[str] = []
    for path in sorted({*settings.readable, *(os.path.realpath(path) for path in settings.readable)}):
        if os.path.realpath(path) != path:
            links.append(path)
        elif not _already_visible(path, shown):
            _show(path)
            shown.append(path)
    for path in settings.hidden:
        _hide(path, [package for package in settings.packages if package.startswith(path + "/")])
    for path in settings.packages:
        if not os.path.lexists(_STAGE + path):
            _show(path)
    for name in _DEVICES:
        _show(f"/dev/{name}", device=True)
    for path in links:
        _link(path)
    Path(_STAGE, "tmp").mkdir(exist_ok=True)
    linux.mount(None, _STAGE, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | _SAFE)
    os.chdir(_STAGE)
    linux.pivot_here()


def private_tmp() -> None:
    """An empty /tmp, of bounded size and number of files, that only this process and its children see and that goes
    with them; other means of communication of System V and POSIX are private too."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC)
    options = f"mode=1777,size={TMP_BYTES},nr_inodes={TMP_FILES}"
    linux.mount("tmpfs", "/tmp", "tmpfs", _SAFE | linux.MS_NOEXEC, options)
    os.chdir("/tmp")


def _already_visible(path: str, shown: list[str]) -> bool:
    """Whether a folder that is shown holds `path`, on the same file system (mounts below a folder are not shown)."""
    return any(path.startswith(f"{above}/") and os.lstat(above).st_dev == os.lstat(path).st_dev for above in shown)


def _show(path: str, device: bool = False) -> None:
    """Mounts a file or folder of the old root at the same place in the new one, read-only."""
    target = _STAGE + path
    with contextlib.suppress(FileExistsError):
        if os.path.isdir(path):
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o444))
    linux.mount(path, target, None, linux.MS_BIND)
    # a user namespace may not take away the flags that the mount came with
    flags = (os.statvfs(target).f_flag & _MOUNT_FLAGS) | linux.MS_NOSUID | (0 if device else linux.MS_NODEV)
    linux.mount(None, target, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | flags)


def _hide(path: str, packages: list[str]) -> None:
    """Covers a folder by an empty one that shows these packages alone."""
    target = _STAGE + path
    if not os.path.isdir(target):
        return
    linux.mount("tmpfs", target, "tmpfs", _SAFE, "mode=0755,size=1m,nr_inodes=1024")
    for package in packages:
        _show(package)
    linux.mount(None, target, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | _SAFE)


def _link(path: str) -> None:
    """A symbolic link in the new root for a path that leads over one in the old."""
    parent = os.path.dirname(_STAGE + path)
    # a link made before must not lead us out of the new root, and what is shown already needs no link
    if os.path.realpath(parent) == parent and not os.path.lexists(_STAGE + path):
        with contextlib.suppress(OSError):
            os.makedirs(parent, exist_ok=True)
            os.symlink(os.path.realpath(path), _STAGE + path)
