"""A read-only root with nothing in it but an interpreter, in namespaces of its own. Linux."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from . import limits, linux
from .relocated import relocate
from .settings import Settings

_STAGE = Path("/proc")  # where the new root is built: it always exists and no file that we show lies below it
_DEVICES = ("null", "zero", "full", "random", "urandom")
_SAFE = linux.MS_NOSUID | linux.MS_NODEV
_SYSTEM = ("usr", "lib", "lib64", "etc")  # below / and the same on every machine
_MOUNT_FLAGS = 0xF  # ro, nosuid, nodev, noexec: the same in statvfs(2) and mount(2)
TMP_BYTES = limits.FILE_BYTES
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
    socket.sethostname("sandbox")


def split(paths: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """The real files and folders among and behind some paths, and the system's paths that lead to them over symbolic
    links; others are not needed, as the import path has real folders."""
    given = {Path(path) for path in paths}
    real = {path.resolve() for path in given}
    return sorted(real), sorted(path for path in given - real if path.parts[1] in _SYSTEM)


def hidden(settings: Settings, real: Iterable[Path]) -> list[Path]:
    """The hidden folders that lie in one of these."""
    found = {Path(path) for path in settings.hidden}
    return sorted(path for path in found if path.is_dir() and any(folder in path.parents for folder in real))


def build_root(settings: Settings) -> None:
    """Replaces the root by a read-only one that holds the readable files, /dev/null and its like, and an empty /tmp, and
    moves this interpreter's import path and loaded modules along.

    There is no /proc: nothing that we run needs it, and it offers the largest attack surface.
    """
    os.umask(0o022)  # the folders that are made here are for every user
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", str(_STAGE), "tmpfs", _SAFE, "mode=0755,size=4m,nr_inodes=4096")
    real, links = split(settings.readable)
    shown: list[Path] = []
    for path in real:
        if not _already_visible(path, shown):
            _show(path, settings.inside(path))
            shown.append(path)
    for folder in hidden(settings, real):
        _hide(settings, folder)
    for package in map(Path, settings.packages):
        if not _staged(settings.inside(package)).exists():
            _show(package, settings.inside(package))
    for name in _DEVICES:
        _show(Path("/dev", name), Path("/dev", name), device=True)
    for link in links:
        _link(link)
    for place in ("/tmp", "/dev/shm"):
        _staged(Path(place)).mkdir(exist_ok=True)
    _read_only(_STAGE, _SAFE)
    relocate(lambda path: settings.inside(path.resolve()), settings.path_inside())  # the old root still has the links
    os.chdir(_STAGE)
    linux.pivot_here()


def private_tmp() -> None:
    """An empty /tmp, of bounded size and number of files, that only this process and its children see and that goes
    with them; other means of communication of System V and POSIX are private too."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC)
    options = f"mode=1777,size={TMP_BYTES},nr_inodes={TMP_FILES}"
    linux.mount("tmpfs", "/tmp", "tmpfs", _SAFE | linux.MS_NOEXEC, options)
    linux.mount("/tmp", "/dev/shm", None, linux.MS_BIND)  # named semaphores lie there; one limit for both
    os.chdir("/tmp")


def _staged(path: Path) -> Path:
    return _STAGE / path.relative_to("/")


def _already_visible(path: Path, shown: list[Path]) -> bool:
    """Whether a folder that is shown holds `path`, on the same file system (mounts below a folder are not shown)."""
    return any(above in path.parents and above.stat().st_dev == path.stat().st_dev for above in shown)


def _show(path: Path, place: Path, device: bool = False) -> None:
    """Mounts a file or folder of the old root at a place in the new one, read-only."""
    target = _staged(place)
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    linux.mount(str(path), str(target), None, linux.MS_BIND)
    # a user namespace may not take away the flags that the mount came with
    flags = os.statvfs(target).f_flag & _MOUNT_FLAGS
    _read_only(target, flags | linux.MS_NOSUID | (0 if device else linux.MS_NODEV))


def _hide(settings: Settings, folder: Path) -> None:
    """Covers a folder by an empty one that shows the packages alone."""
    target = _staged(settings.inside(folder))
    linux.mount("tmpfs", str(target), "tmpfs", _SAFE, "mode=0755,size=1m,nr_inodes=1024")
    for package in map(Path, settings.packages):
        if folder in package.parents:
            _show(package, settings.inside(package))
    _read_only(target, _SAFE)


def _read_only(target: Path, flags: int) -> None:
    linux.mount(None, str(target), None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | flags)


def _link(path: Path) -> None:
    """A symbolic link in the new root for a path that leads over one in the old."""
    staged = _staged(path)
    # a link made before must not lead us out of the new root, and what is shown already needs no link
    if staged.parent.resolve() == staged.parent and not staged.is_symlink() and not staged.exists():
        with contextlib.suppress(OSError):  # its folder is shown, and so are the links in it
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.symlink_to(path.resolve())
