"""Which isolation this machine offers, determined by running a probe that tries to escape."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_eval.schema import InputError

from . import view
from .client import Zygote, ZygoteError
from .inside.settings import Budget, Settings
from .results import outcome

_FIRST_UID, _UIDS_OF_A_HARNESS, _UIDS_OF_A_ZYGOTE = 1_900_000_000, 1024, 4
_BUDGET = Budget(cpu_seconds=5.0, wall_seconds=30.0, memory_bytes=1 << 30)

# what a program must not be able to do; `leaks` lists what the probe could
_PROBE = """
import os

leaks = []


def attempt(what, action):
    try:
        action()
    except Exception:
        return
    leaks.append(what)


def connect():
    import socket
    socket.create_connection(("127.0.0.1", port), timeout=2).close()


def read():
    with open(secret, "rb") as file:
        file.read(1)


def write():
    with open(target, "wb") as file:
        file.write(b"here")


def look():
    with open(f"/proc/{harness}/environ", "rb") as file:
        file.read(1)


def fill():
    bytearray(memory)


attempt("open a connection", connect)
attempt("read files", read)
attempt("write files", write)
attempt("read another process's environment", look)
attempt("signal another process", lambda: os.kill(harness, 0))
attempt("take more memory than allowed", fill)
if os.getuid() == 0:
    leaks.append("act as root")
"""


# what honest programs do and what a machine's layout can keep them from: a tier in which it fails would give wrong verdicts
_HONEST = """
import getpass, tempfile, threading
import plistlib, wave  # read late
if numpy:
    import numpy, numpy.fft, numpy.random
    numpy.linalg.det(numpy.eye(2))
thread = threading.Thread(target=int)
thread.start()
thread.join()
if semaphores:
    import multiprocessing
    with multiprocessing.Lock():
        pass
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("x")
getpass.getuser()
"""


@dataclass(frozen=True)
class Tier:
    """A kind of isolation. name: its layers, as results record them. settings: how a zygote gets there."""

    name: str
    settings: Settings


def wanted() -> Iterator[Tier]:
    """Every kind of isolation to try here, the strongest first; resource limits alone, the last, are no isolation."""
    root = os.geteuid() == 0
    readable = view.library()
    folders, paths = view.packages()
    base = Settings(
        mode="namespaces",
        user_namespace=False,
        uid=_FIRST_UID + os.getpid() % 100_000 * _UIDS_OF_A_HARNESS if root else None,
        readable=tuple(readable),
        hidden=tuple(view.hidden()),
        packages=tuple(folders),
        path=(*view.import_path(), *paths),
        mounts=tuple(view.mounts(readable, folders)),
        seccomp=True,
        bwrap=shutil.which("bwrap") or "",
        code=str(Path(__file__).resolve().parent),
        scratch="",
    )
    if sys.platform == "linux":
        for seccomp, suffix in ((True, "+seccomp"), (False, "")):
            plain = replace(base, seccomp=seccomp)
            if root:
                yield Tier("namespaces" + suffix, plain)
                # a container's root may lack the right to make others; another user may not find the interpreter
                yield Tier("user-namespaces" + suffix, replace(plain, user_namespace=True))
            yield Tier("user-namespaces" + suffix, replace(plain, user_namespace=True, uid=None))
            if base.bwrap:
                yield Tier("bubblewrap" + suffix, replace(plain, mode="bubblewrap"))
        base = replace(base, scratch=tempfile.gettempdir())
        yield Tier("landlock+seccomp", replace(base, mode="landlock"))
        yield Tier("limits+seccomp", replace(base, mode="limits"))
    yield Tier("limits", replace(base, mode="limits", seccomp=False))


def choose(allow_unsandboxed: bool, only: Sequence[str] = ()) -> tuple[Tier, Zygote | None]:
    """The strongest isolation that contains the probe here, and a zygote that is ready if the tier has just been probed,
    which happens once per process. only: consider these names alone.

    Raises InputError if no tier holds and programs may not run unsandboxed.
    """
    reasons: dict[str, str] = {}
    for tier in wanted():
        if only and tier.name not in only:
            continue
        if tier.settings.mode == "limits" and not allow_unsandboxed:
            continue
        try:
            return tier, _proven(tier)
        except ZygoteError as error:
            if str(error) not in reasons.values():
                reasons.setdefault(tier.name, str(error))
    tried = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "this system has none that we know"
    raise InputError(
        f"programs cannot be isolated on this machine ({tried}); install bubblewrap, allow unprivileged user namespaces, "
        "put Python where every user can read it, or accept the risk of running them with limits only: --allow-unsandboxed"
    )


def for_slot(tier: Tier, slot: int) -> Settings:
    """The settings of the zygote number `slot` of this harness, with user ids that none of its other zygotes uses."""
    if tier.settings.uid is None:
        return tier.settings
    offset = slot * _UIDS_OF_A_ZYGOTE % _UIDS_OF_A_HARNESS
    return replace(tier.settings, uid=tier.settings.uid + offset)


_probed: dict[Settings, str] = {}  # why programs cannot be isolated with these settings, "" where they can


def _proven(tier: Tier) -> Zygote | None:
    """The zygote of this kind that has just contained the probe, None where an earlier one has. ZygoteError when it has
    not or cannot be started."""
    reason = _probed.get(tier.settings)
    if reason:
        raise ZygoteError(reason)
    if reason is not None:
        return None
    try:
        zygote = _probed_zygote(tier)
    except ZygoteError as error:
        _probed[tier.settings] = str(error)
        raise
    _probed[tier.settings] = ""
    return zygote


def _probed_zygote(tier: Tier) -> Zygote:
    zygote = Zygote(for_slot(tier, 0))
    zygote.await_ready()
    try:
        leaks, fault = _probe(zygote), _honest(zygote, tier.settings)
    except ZygoteError:
        zygote.close()
        raise
    if leaks and tier.settings.mode != "limits":
        zygote.close()
        raise ZygoteError(f"programs could {', '.join(leaks)}")
    if fault:
        zygote.close()
        raise ZygoteError(f"an honest program fails there: {fault}")
    return zygote


def _honest(zygote: Zygote, settings: Settings) -> str:
    """Why an honest program fails, "" where it does not."""
    setup = f"numpy, semaphores = {bool(settings.packages)}, {settings.mode != 'landlock' or not settings.shared_user}"
    reply, message = zygote.ask("run", _BUDGET, [{"setup": setup, "source": _HONEST}])
    found = outcome(reply, message)
    return "" if found.status == "ok" else f"{found.status} {found.detail}"


def _probe(zygote: Zygote) -> list[str]:
    """What the probe managed to do that it should not. Raises ZygoteError if the probe itself failed."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        os.chmod(folder, 0o777)  # noqa: PTH101
        secret, target = Path(folder, "secret"), Path(folder, "target")
        secret.write_text("x", encoding="ascii")
        names = {"port": server.getsockname()[1], "secret": str(secret), "target": str(target)}
        names |= {"harness": os.getpid(), "memory": 2 * _BUDGET.memory_bytes}
        setup = "\n".join(f"{name} = {value!r}" for name, value in names.items())
        reply, message = zygote.ask("run", _BUDGET, [{"setup": setup, "source": _PROBE}])
        written = target.exists()
    found = outcome(reply, message)
    if found.status != "ok":
        raise ZygoteError(f"the probe {found.status}: {found.detail}")
    return [*map(str, found.state["leaks"]), *(["write files"] if written else [])]
