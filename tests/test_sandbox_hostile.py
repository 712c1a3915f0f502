"""Hostile programs: none passes, none does harm, each gets its verdict, and nothing of it is left behind."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hostile import ENTRY_POINT, TEST, Hostile
from hostile.escape import ESCAPES
from hostile.forgery import FORGERIES
from hostile.objects import OBJECTS
from hostile.resources import GLUTTONS
from qwen_eval.sandbox import Program, Sandbox, Verdict
from sandboxes import linux, opened, processes_of

HOSTILE = [*FORGERIES, *OBJECTS, *GLUTTONS, *ESCAPES]
HONEST = Program(
    "def answer(x): return x * 7919 + 104729 if type(x) is int else [x[0], x[0] * 7919]", TEST, ENTRY_POINT
)
MEMORY = 256 << 20
# CPU seconds and seconds by the clock: for programs that never end, and for all others, on a busy machine too
IMPATIENT, PATIENT = (0.4, 2.0), (5.0, 60.0)
# what a tier is known not to block; none of it reaches anything outside the sandbox
KNOWN_GAPS = {
    "bubblewrap": {"many_files"},  # it cannot limit the files of a tmpfs, only their bytes
    "user-namespaces": {"thread_bomb"} if os.geteuid() == 0 else set(),  # no limit of threads binds uid 0
}

pytestmark = linux


@dataclass
class Surroundings:
    """What the programs are shown to attack, and what must be untouched after them."""

    folder: Path
    server: socket.socket
    datagrams: socket.socket
    victim: subprocess.Popen[bytes]

    def program(self, hostile: Hostile) -> Program:
        """The program, with the ids and paths that it attacks put in."""
        names = {
            "HARNESS": os.getpid(),
            "VICTIM": self.victim.pid,
            "SECRET": str(self.folder / "secret"),
            "TARGET": str(self.folder / "target"),
            "FOLDER": str(self.folder),
            "PORT": self.server.getsockname()[1],
            "NAME": f"\0hostile{os.getpid()}",
            "TESTS": str(Path(__file__).parent),
        }
        told = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        if hostile.script:
            return Program(told + hostile.source, hostile.script)
        return Program(told + hostile.source, TEST, ENTRY_POINT)

    def harm(self) -> list[str]:
        """What has changed that should not have."""
        found = [] if [path.name for path in self.folder.iterdir()] == ["secret"] else ["the folder was written to"]
        if (self.folder / "secret").read_text(encoding="ascii") != "untouched":
            found.append("the secret was changed")
        if self.victim.poll() is not None:
            found.append("another process was killed")
        for listener, receive in ((self.server, self.server.accept), (self.datagrams, lambda: self.datagrams.recv(9))):
            try:
                receive()
                found.append(f"something came in at {listener.getsockname()}")
            except BlockingIOError:
                pass
        return found


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    folder = tmp_path_factory.mktemp("hostile")
    for open_to_all in (folder, *folder.parents):
        if open_to_all.name.startswith("pytest"):
            open_to_all.chmod(0o777)  # so that nothing but the sandbox protects it
    (folder / "secret").write_text("untouched", encoding="ascii")
    (folder / "secret").chmod(0o666)
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    os.environ["HOSTILE_SECRET"] = "never to be inherited"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract,
    ):
        datagrams.bind(server.getsockname())
        abstract.bind(f"\0hostile{os.getpid()}")
        for each in (server, datagrams):
            each.setblocking(False)
        yield Surroundings(folder, server, datagrams, victim)
    victim.kill()
    victim.wait()
    del os.environ["HOSTILE_SECRET"]


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Callable[..., Sandbox]]:
    """Opens the sandbox of a tier, "" for the strongest, with limits of time; skips where there is none. What it
    leaves behind is an error."""
    pools: dict[tuple[str, tuple[float, float]], Sandbox] = {}

    def sandbox(tier: str, limits: tuple[float, float] = PATIENT) -> Sandbox:
        if (tier, limits) not in pools:
            cpu, wall = limits
            only = [tier] if tier else []
            pools[tier, limits] = opened(workers=2, cpu_seconds=cpu, wall_seconds=wall, memory_bytes=MEMORY, only=only)
        return pools[tier, limits]

    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    yield sandbox
    for each in pools.values():
        each.close()
    assert processes_of(os.getpid()) == []
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts


def wrong(hostile: Hostile, verdict: Verdict) -> str:
    """What is wrong with a verdict, "" for nothing."""
    right = verdict.status == hostile.status and any(text in verdict.detail for text in hostile.says)
    return "" if right else f"{hostile.name}: {verdict}"


def known(hostile: Hostile) -> bool:
    """Whether a program is meaningful on this machine: its system call numbers are those of x86_64."""
    return platform.machine() == "x86_64" or '"syscall"' not in hostile.source


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_hostile_program_between_honest_ones(
    hostile: Hostile, surroundings: Surroundings, sandboxes: Callable[..., Sandbox]
) -> None:
    if not known(hostile):
        pytest.skip("system calls have other numbers here")
    sandbox = sandboxes("", IMPATIENT if hostile.status == "timeout" else PATIENT)
    if hostile.name in KNOWN_GAPS.get(sandbox.tier.partition("+")[0], ()):
        pytest.skip(f"a known gap of {sandbox.tier}")
    before, verdict, after = sandbox.check([HONEST, surroundings.program(hostile), HONEST])
    assert not wrong(hostile, verdict)
    assert (before.status, after.status) == ("passed", "passed")
    assert surroundings.harm() == []


@pytest.mark.parametrize(
    "tier", ["user-namespaces+seccomp", "landlock+seccomp", pytest.param("bubblewrap+seccomp", marks=pytest.mark.slow)]
)
def test_hostile_programs_in_the_other_tiers(
    tier: str, surroundings: Surroundings, sandboxes: Callable[..., Sandbox]
) -> None:
    sandbox = sandboxes(tier)
    gaps = KNOWN_GAPS.get(tier.partition("+")[0], set())
    # time limits are the same code in every tier; waiting for them once is enough
    tried = [each for each in HOSTILE if each.status != "timeout" and each.name not in gaps and known(each)]
    verdicts = sandbox.check([surroundings.program(each) for each in tried])
    assert [text for each, verdict in zip(tried, verdicts, strict=True) if (text := wrong(each, verdict))] == []
    assert sandbox.check([HONEST])[0].status == "passed"
    assert surroundings.harm() == []


@pytest.mark.parametrize("tier", ["namespaces", "user-namespaces", pytest.param("bubblewrap", marks=pytest.mark.slow)])
def test_without_the_filter_of_system_calls_nothing_gets_out(
    tier: str, surroundings: Surroundings, sandboxes: Callable[..., Sandbox]
) -> None:
    # an old kernel or another architecture: the namespaces alone keep programs in, though they may try more in there
    sandbox = sandboxes(tier, IMPATIENT)  # some wait for what the filter would have refused
    tried = [each for each in HOSTILE if each.status != "timeout"]
    verdicts = sandbox.check([surroundings.program(each) for each in tried])
    assert {verdict.status for verdict in verdicts} <= {"failed", "timeout", "infrastructure"}
    assert surroundings.harm() == []


def test_a_program_sees_nothing_of_the_one_before(sandboxes: Callable[..., Sandbox]) -> None:
    leave = """
import os
found = [os.path.join(folder, name) for folder in ("/tmp", "/dev/shm") if os.path.isdir(folder) for name in os.listdir(folder)]
open("/tmp/left", "w").close()
os.environ["LEFT"] = "here"
def answer(x): raise SystemExit(str(found) + str("LEFT" in os.environ.copy() and os.getpid() < 0))
"""
    sandbox = sandboxes("")
    if sandbox.tier.startswith("landlock"):
        pytest.skip("nothing can be written at all")
    for _ in range(2):
        (verdict,) = sandbox.check([Program(leave, TEST, ENTRY_POINT)])
        assert verdict.detail.startswith("SystemExit: []False")


@pytest.mark.slow
def test_values_made_to_be_slow_to_compare_stop_the_checker_alone(sandboxes: Callable[..., Sandbox]) -> None:
    # a set of integers with one and the same hash, a million of them
    source = """
import os, struct
step = 2**61 - 1
items = b"".join(b"i" + struct.pack("<I", 11) + (step * (i + 1)).to_bytes(11, "little") for i in range(900_000))
body = b"t\\2\\0\\0\\0s\\5\\0\\0\\0valueS" + struct.pack("<I", 900_000) + items
def answer(x):
    for piece in (struct.pack("<I", len(body)), body): os.write(5, piece)
"""
    verdict, honest = sandboxes("", IMPATIENT).check([Program(source, TEST, ENTRY_POINT), HONEST])
    assert verdict.status == "timeout"
    assert honest.status == "passed"
