"""Which isolation is chosen where, and that nothing of it outlives the harness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leftovers import processes_of
from qwen_eval.sandbox import Program, Sandbox, tier
from qwen_eval.schema import InputError

EVAL = Path(__file__).resolve().parents[1] / "eval"
TEST = "def check(candidate): assert candidate() == 1"
linux = pytest.mark.skipif(sys.platform != "linux", reason="isolation is known on Linux alone")


@linux
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_harness_is_ended(by: signal.Signals, tmp_path: Path) -> None:
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
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert harness.stdout is not None
    first = harness.stdout.readline()
    if first != "running\n":
        harness.wait()
        pytest.skip(first or "no isolation")
    time.sleep(0.3)
    assert processes_of(harness.pid, patience=0) != []
    harness.send_signal(by)
    _, errors = harness.communicate(timeout=20)
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
            time.sleep(20)
        os._exit(0)
def f(): return 1
"""
    known = processes_of(os.getpid(), patience=0)
    sandbox = Sandbox(workers=1, only=["limits"], allow_unsandboxed=True)
    with sandbox:
        sandbox.check([Program(source, TEST, "f")])
        assert len(processes_of(os.getpid(), patience=0.5, known=known)) == 2  # the zygote's own
    assert processes_of(os.getpid(), known=known) == []


@linux
def test_a_machine_that_allows_no_namespaces_gets_landlock() -> None:
    # as in a container whose own filter forbids new namespaces
    script = f"""
import ctypes, struct, sys
sys.path.insert(0, {str(EVAL)!r})
from qwen_eval.sandbox.inside import linux, seccomp
from qwen_eval.sandbox import Program, Sandbox
step, deny = seccomp._step, seccomp._deny()
unshare, clone = {{"x86_64": (272, 56), "aarch64": (97, 220)}}[linux.machine()]
new = step(0x45, 0x7E020000, 0, 1)
steps = [step(0x20, 0), step(0x15, unshare, 0, 1), deny, step(0x15, 435, 0, 1), seccomp._deny(38),
         step(0x15, clone, 0, 3), step(0x20, 16), new, deny, step(0x06, 0x7FFF0000)]
program = b"".join(steps)
linux.prctl(38, 1)
linux.prctl(22, 2, ctypes.byref(seccomp._Program(len(steps), program)))
with Sandbox(workers=1) as sandbox:
    test = "def check(candidate): assert candidate() == 1"
    print(sandbox.tier, sandbox.check([Program("def f(): return 1", test, "f")])[0].status)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    if "programs cannot be isolated" in ran.stderr:
        pytest.skip(ran.stderr.strip().rpartition("\n")[2])
    assert ran.stdout == "landlock+seccomp passed\n", ran.stderr


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs every test as one")
def test_an_ordinary_user_gets_namespaces_too() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(EVAL)!r})
from qwen_eval.sandbox import tier
print(tier())
"""
    for python in (sys.executable, "/usr/bin/python3"):
        command = [python, "-B", "-c", script]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=120, user=65534, group=65534, cwd="/")
        except OSError:
            continue
        assert ran.stdout in ("user-namespaces+seccomp\n", "bubblewrap+seccomp\n"), ran.stderr
        return
    pytest.skip("no interpreter that another user may start")


def test_the_name_of_the_tier() -> None:
    try:
        name = tier()
    except InputError as error:
        pytest.skip(str(error))
    with Sandbox(workers=1) as sandbox:
        assert sandbox.tier == name
