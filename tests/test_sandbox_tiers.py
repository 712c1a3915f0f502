"""Which tier is chosen, and that no process of it outlives the harness."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.sandbox import Program, Sandbox, tier, tiers
from qwen_eval.sandbox.client import Zygote
from qwen_eval.schema import InputError
from sandboxes import linux, processes_of

EVAL = Path(__file__).resolve().parents[1] / "eval"
TEST = "def check(candidate): assert candidate() == 1"


@linux
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_harness_is_terminated(by: signal.Signals, tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(EVAL)!r})
from qwen_eval.sandbox import Program, Sandbox
from qwen_eval.schema import InputError
test = "def check(candidate): assert candidate() == 1"
quick = Program("def f(): return 1", test, "f")
source = "import threading\\nthreading.Thread(target=lambda: list(iter(int, 1))).start()\\nwhile True: pass"
endless = Program(source, test, "f")
try:
    sandbox = Sandbox(workers=2, cpu_seconds=600, wall_seconds=600)
except InputError as error:
    print(error, flush=True)
    sys.exit(2)
with sandbox:
    sandbox.check([quick, endless, endless], lambda index, verdict: print("running", flush=True))
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    harness = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # what a shell starts in the background ignores Ctrl-C, and so would what the suite starts
        preexec_fn=(lambda: signal.signal(by, signal.SIG_DFL)) if by != signal.SIGKILL else None,
    )
    assert harness.stdout is not None
    first = harness.stdout.readline()
    if first != "running\n":
        harness.wait()
        pytest.skip(first or "no isolation")
    assert processes_of(harness.pid, patience=0) != []
    harness.send_signal(by)
    _, errors = harness.communicate(timeout=200)  # far below the programs' own limits
    assert processes_of(harness.pid) == []
    assert list(tmp_path.iterdir()) == []
    assert ("KeyboardInterrupt" in errors) == (by == signal.SIGINT)


def test_without_isolation_programs_run_only_on_demand() -> None:
    sources = {
        "def f(): return 1": "passed",
        "def f(): return 2": "failed",
        "class Y:\n    __eq__ = lambda *a: True\ndef f(): return Y()": "failed",
        "def f():\n    while True: pass": "timeout",
        "import os\nos._exit(0)": "failed",
    }
    with pytest.raises(InputError, match="--allow-unsandboxed"):
        Sandbox(only=["limits"])
    with Sandbox(workers=1, only=["limits"], allow_unsandboxed=True, cpu_seconds=0.5) as sandbox:
        assert sandbox.tier == "limits"
        verdicts = sandbox.check([Program(source, TEST, "f") for source in sources])
    assert [verdict.status for verdict in verdicts] == list(sources.values())


@linux
def test_with_limits_alone_no_process_is_left_either() -> None:
    # two generations that leave the group, as a daemon does; bounded by the sleep
    source = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
def f(): return 1
"""
    known = processes_of(os.getpid(), patience=0)
    sandbox = Sandbox(workers=1, only=["limits"], allow_unsandboxed=True)
    with sandbox:
        sandbox.check([Program(source, TEST, "f")])
        deadline = time.monotonic() + 30
        while len(left := processes_of(os.getpid(), patience=0, known=known)) > 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(left) == 2  # the zygote's own
    assert processes_of(os.getpid(), known=known) == []


# as in a container whose own filter forbids new namespaces
WITHOUT_NAMESPACES = """
import ctypes, struct, sys
sys.path.insert(0, FOLDER)
from qwen_eval.sandbox.inside import linux, seccomp
from qwen_eval.sandbox import Program, Sandbox
step, deny = seccomp._step, seccomp._deny()
unshare, clone = {"x86_64": (272, 56), "aarch64": (97, 220)}[linux.machine()]
new = step(0x45, 0x7E020000, 0, 1)
steps = [step(0x20, 0), step(0x15, unshare, 0, 1), deny, step(0x15, 435, 0, 1), seccomp._deny(38),
         step(0x15, clone, 0, 3), step(0x20, 16), new, deny, step(0x06, 0x7FFF0000)]
program = b"".join(steps)
linux.prctl(38, 1)
linux.prctl(22, 2, ctypes.byref(seccomp._Program(len(steps), program)))
"""
LANDLOCK = """
with Sandbox(workers=1) as sandbox:
    test = "def check(candidate): assert candidate() == 1"
    print(sandbox.tier, sandbox.check([Program(PROGRAM, test, "f")])[0].status)
"""


@linux
def test_a_machine_that_allows_no_namespaces_gets_landlock() -> None:
    script = f"FOLDER = {str(EVAL)!r}\nPROGRAM = 'def f(): return 1'\n{WITHOUT_NAMESPACES}{LANDLOCK}"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    if "programs cannot be isolated" in ran.stderr:
        pytest.skip(ran.stderr.strip().rpartition("\n")[2])
    assert ran.stdout == "landlock+seccomp passed\n", ran.stderr


# what another user must be able to do for these tests; in a container and under some distributions' rules it may not
NEW_NAMESPACES = """
import ctypes, os, sys
assert sys.version_info >= (3, 10)
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0x10000000, 0x00020000):  # a user namespace, and in it one of mounts
    if libc.unshare(flags):
        sys.exit("an ordinary user may make no namespaces here: " + os.strerror(ctypes.get_errno()))
"""


@pytest.fixture
def open_copy() -> Iterator[Path]:
    """A folder with the harness that every user can read, wherever the checkout is."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    shutil.copytree(EVAL / "qwen_eval", folder / "qwen_eval", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield folder
    shutil.rmtree(folder)


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs every test as one")
def test_an_ordinary_user_gets_namespaces_too(open_copy: Path) -> None:
    def run(python: str, code: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-B", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, user=65534, group=65534, cwd="/")

    why = "no interpreter that another user may start"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            able = run(python, NEW_NAMESPACES)
        except OSError:
            continue
        script = (
            f"import sys\nsys.path.insert(0, {str(open_copy)!r})\nfrom qwen_eval.sandbox import tier\nprint(tier())"
        )
        ran = run(python, script)
        if able.returncode == 0:
            assert ran.stdout == "user-namespaces+seccomp\n", ran.stderr
            return
        if ran.stdout == "bubblewrap+seccomp\n":  # its executable alone may make some
            return
        why = able.stderr.strip().rpartition("\n")[2]
    pytest.skip(why)


@linux
def test_an_ordinary_user_s_other_threads_keep_no_program_from_starting_one(open_copy: Path) -> None:
    """The kernel's limit of threads counts all of the user's, and without namespaces programs run as that user."""
    program = "import threading\ndef f():\n    threading.Thread(target=int).start()\n    return 1"
    busy = (
        "import threading\nfor _ in range(80): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    script = f"FOLDER = {str(open_copy)!r}\nPROGRAM = {program!r}\n{WITHOUT_NAMESPACES}{busy}{LANDLOCK}"
    other: dict[str, Any] = {} if os.geteuid() else {"user": 65534, "group": 65534}
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            command = [python, "-B", "-c", script]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", **other)
        except OSError:  # it lies where another user may not look
            continue
        if "programs cannot be isolated" not in ran.stderr:
            assert ran.stdout == "landlock+seccomp passed\n", ran.stderr
            return
    pytest.skip("no interpreter that another user may start, or no isolation for it")


def test_the_name_of_the_tier() -> None:
    try:
        name = tier()
    except InputError as error:
        pytest.skip(str(error))
    with Sandbox(workers=1) as sandbox:
        assert sandbox.tier == name


def test_a_tier_is_probed_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    probes: list[Zygote] = []
    probe = tiers._probe

    def counted(zygote: Zygote) -> list[str]:
        probes.append(zygote)
        return probe(zygote)

    monkeypatch.setattr(tiers, "_probe", counted)
    monkeypatch.setattr(tiers, "_probed", {})
    try:
        name = tier()
    except InputError as error:
        pytest.skip(str(error))
    first = len(probes)
    with Sandbox(workers=1) as sandbox:
        assert sandbox.check([Program("def f(): return 1", TEST, "f")])[0].status == "passed"
    assert (tier(), sandbox.tier, len(probes)) == (name, name, first)


def test_a_failed_probe_is_remembered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "_probed", {})
    monkeypatch.setattr(tiers, "_probe", lambda zygote: ["read files"])
    wanted = [each.name for each in tiers.wanted() if each.settings.mode != "limits"]
    for _ in range(2):
        with pytest.raises(InputError, match="programs c"):
            Sandbox(workers=1, only=wanted)
        monkeypatch.setattr(tiers, "_probe", lambda zygote: [])
