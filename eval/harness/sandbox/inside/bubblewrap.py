"""Bubblewrap's command line for one role, for where only its executable may make namespaces."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from .namespaces import TMP_BYTES
from .settings import Budget, Settings

ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the order of a set may decide a verdict; let it be the same every time
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_HOME = "/.sandbox"
_START = "import sys; sys.path.insert(0, sys.argv[1]); from inside.process import run_alone; run_alone(*sys.argv[2:])"


def command(settings: Settings, role: str, budget: Budget, uid: int | None) -> list[str]:
    """The command that runs a role isolated, its files (settings.PAYLOAD and so on) inherited."""
    arguments = [settings.bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    arguments += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv"]
    if uid is None:
        arguments += ["--unshare-user"]
    else:
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    for name, value in ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    python = os.path.realpath(sys.executable)
    links = []
    for path in sorted({python, *settings.readable, *(os.path.realpath(path) for path in settings.readable)}):
        if os.path.realpath(path) == path:
            arguments += ["--ro-bind", path, path]
        else:
            links.append(path)
    for path in settings.hidden:
        if os.path.isdir(path):
            arguments += ["--perms", "0755", "--tmpfs", path]
    for path in settings.packages:
        arguments += ["--ro-bind", path, path]
    for path in settings.hidden:
        if os.path.isdir(path):
            arguments += ["--remount-ro", path]
    for path in links:
        if os.path.realpath(os.path.dirname(path)) == os.path.dirname(path):
            arguments += ["--symlink", os.path.realpath(path), path]
    for name in ("null", "zero", "full", "random", "urandom"):
        arguments += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    arguments += ["--ro-bind", os.path.join(settings.code, "inside"), f"{_HOME}/inside"]
    arguments += ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    inner = [python, "-s", "-S", "-B", "-X", "utf8", "-c", _START, _HOME]
    return [*arguments, "--", *inner, role, json.dumps(asdict(settings)), json.dumps(asdict(budget)), json.dumps(uid)]
