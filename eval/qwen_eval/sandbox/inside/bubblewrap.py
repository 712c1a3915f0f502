"""Bubblewrap's command line for one role, for where only its executable may make namespaces."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from .namespaces import TMP_BYTES, hidden, split
from .settings import Budget, Settings

ENVIRONMENT = {
    "HOME": "/tmp",
    "USER": "sandbox",  # has no entry among the system's users
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the order of a set may decide a verdict; let it be the same every time
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_HOME = "/.sandbox"
_START = "import sys; sys.path.insert(0, sys.argv[1]); from inside.process import run_alone; run_alone(*sys.argv[2:])"


def command(settings: Settings, role: str, budget: Budget, uid: int | None) -> list[str]:
    """The command that runs a role isolated, its files (settings.PAYLOAD and so on) inherited."""
    arguments = [
        settings.bwrap,
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--hostname",
        "sandbox",
    ]
    arguments += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv"]
    if uid is None:
        arguments += ["--unshare-user"]
    else:
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    for name, value in ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    base = Path(sys.base_prefix).resolve()
    if (home := settings.inside(base)) != base:  # an interpreter that was moved may find neither its library nor itself
        arguments += ["--setenv", "PYTHONHOME", str(home), "--setenv", "LD_LIBRARY_PATH", str(home / "lib")]
    python = Path(sys.executable).resolve()
    real, links = split([str(python), *settings.readable])
    packages = [Path(path) for path in settings.packages]
    covered = [str(settings.inside(path)) for path in hidden(settings, real)]
    # it would make the folders above for its own user alone
    above = {parent for path in (*real, *packages) for parent in settings.inside(path).parents}
    for folder in sorted({*above, Path("/dev")} - {Path("/")}):
        arguments += ["--perms", "0755", "--dir", str(folder)]
    for path in real:
        arguments += ["--ro-bind", str(path), str(settings.inside(path))]
    for place in covered:
        arguments += ["--perms", "0755", "--tmpfs", place]
    for path in packages:
        arguments += ["--ro-bind", str(path), str(settings.inside(path))]
    for place in covered:
        arguments += ["--remount-ro", place]
    for link in links:
        if link.parent.resolve() == link.parent:
            arguments += ["--symlink", str(link.resolve()), str(link)]
    for name in ("null", "zero", "full", "random", "urandom"):
        arguments += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    arguments += ["--ro-bind", str(Path(settings.code, "inside")), f"{_HOME}/inside"]
    arguments += [
        "--perms",
        "1777",
        "--size",
        str(TMP_BYTES),
        "--tmpfs",
        "/tmp",
        "--perms",
        "1777",
        "--size",
        str(TMP_BYTES),
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/",
        "--chdir",
        "/tmp",
    ]
    inner = [str(settings.inside(python)), "-s", "-S", "-B", "-X", "utf8", "-c", _START, _HOME]
    there = replace(settings, path=tuple(settings.path_inside()))
    told = [role, json.dumps(asdict(there)), json.dumps(asdict(budget)), json.dumps(uid), sys.argv[1]]
    return [*arguments, "--", *inner, *told]
