"""Programs that try to use up time, memory, processes, files, or never to end."""

from __future__ import annotations

from . import PRELUDE, Hostile

GLUTTONS = [
    Hostile(
        "fork_bomb",  # at most 200 processes, each alive for two seconds
        """
import os, time
made = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(2)
            os._exit(0)
        made += 1
    except OSError:
        pass
raise SystemExit(f"ESCAPED by making {made} processes" if made > 64 else "few or no processes")
""",
        says=("SystemExit: few or no processes",),
    ),
    Hostile(
        "thread_bomb",  # at most 2000 threads
        """
import threading, time
threading.stack_size(65536)
made = 0
for _ in range(2000):
    try:
        threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
        made += 1
    except RuntimeError:
        break
raise SystemExit(f"ESCAPED by making {made} threads" if made > 100 else "few threads")
""",
        says=("SystemExit: few threads",),
    ),
    Hostile("memory_bomb", "def answer(x): return len(bytearray(1 << 35))", says=("MemoryError",)),
    Hostile("memory_by_and_by", "kept = []\nwhile True: kept.append(bytearray(1 << 20))", says=("MemoryError",)),
    Hostile(
        "memory_in_many_places",
        PRELUDE
        + """
import mmap
attempt(
    memfd=lambda: os.memfd_create("x"),
    shared=lambda: call("shmget", 0, 1 << 20, 0o1666),
    message=lambda: call("msgget", 0, 0o1666),
    semaphore=lambda: call("semget", 0, 1, 0o1666),
    mapping=lambda: mmap.mmap(-1, 1 << 32),
    locked=lambda: call("mlockall", 3),
)
""",
        says=("all ways blocked",),
    ),
    Hostile("endless_loop", "while True: pass", "timeout"),
    Hostile("endless_loop_in_a_call", "def answer(x):\n    while True: pass", "timeout"),
    Hostile(
        "endless_loop_that_ignores_signals",
        """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, lambda *a: None)
    except (OSError, ValueError):
        pass
def answer(x):
    while True:
        try:
            while True: pass
        except BaseException:
            pass
""",
        "timeout",
    ),
    Hostile("endless_loop_in_c", "def answer(x): return sum(range(10**13))", "timeout"),
    Hostile("endless_match", "import re\ndef answer(x): return re.match('(a+)+b', 'a' * 60)", "timeout"),
    Hostile(
        "endless_threads",
        """
import threading
def burn():
    while True: sum(range(10**9))
for _ in range(3): threading.Thread(target=burn).start()
def answer(x): threading.Event().wait()
""",
        "timeout",
    ),
    Hostile("endless_output", "while True: print('x' * 1_000_000)", "timeout"),
    Hostile(
        "endless_text_of_an_error",
        """
class E(Exception):
    def __str__(self):
        while True: pass
raise E
""",
        "timeout",
    ),
    Hostile("endless_sleep", "import time\ntime.sleep(1e6)", "timeout"),
    Hostile(
        "endless_wait_with_signals_blocked",
        """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
def answer(x): signal.sigwait({signal.SIGUSR1})
""",
        "timeout",
    ),
    Hostile(
        "alarm_and_timer",
        """
import os, signal
signal.setitimer(signal.ITIMER_REAL, 0.05)
signal.setitimer(signal.ITIMER_PROF, 0.05)
def answer(x):
    while True: pass
""",
        says=("killed by SIG",),
    ),
    Hostile("recursion", "def answer(x): return answer(x)", says=("RecursionError",)),
    Hostile(
        "recursion_without_limit",
        "import sys\nsys.setrecursionlimit(2**31 - 1)\ndef answer(x): kept = bytes(100_000); return answer([x]) + 1",
        # which of them depends on what it was that found no memory; the last is the interpreter's own mistake
        says=("MemoryError", "killed by SIG", "SystemError: error return without exception set"),
    ),
    Hostile(
        "huge_number_printed",
        "import sys\nsys.set_int_max_str_digits(0)\ndef answer(x): print(7 ** 20_000_000)",
        "timeout",
    ),
    Hostile("huge_number_as_text", "def answer(x): return str(10 ** 5000)", says=("ValueError",)),
    Hostile(
        "disk",  # at most 800 MB; /tmp and /dev/shm may be one place, whose files are then written twice
        """
import os
written = 0
for folder in ("/tmp", "/dev/shm", "/var/tmp", "/"):
    for number in range(10):
        try:
            with open(os.path.join(folder, f"fill{number}"), "wb", buffering=0) as file:
                for _ in range(20):
                    written += file.write(bytes(1 << 20))
        except OSError:
            pass
raise SystemExit(f"ESCAPED by writing {written} bytes" if written > 200 << 20 else "little written")
""",
        says=("SystemExit: little written", "MiB or 1024 temporary files"),
    ),
    Hostile(
        "many_files",
        """
import os
made = 0
for number in range(5000):
    try:
        os.mkdir(f"/tmp/{number}")
        made += 1
    except OSError:
        pass
raise SystemExit(f"ESCAPED by making {made} files" if made > 2000 else "few files")
""",
        says=("SystemExit: few files",),
    ),
    Hostile(
        "many_open_files",
        """
import os
opened = 0
try:
    for _ in range(1000):
        os.open(os.devnull, os.O_RDONLY)
        opened += 1
except OSError:
    pass
raise SystemExit(f"ESCAPED by opening {opened} files" if opened > 64 else "few files")
""",
        says=("SystemExit: few files",),
    ),
    Hostile(
        "threads_that_outlive_the_main_one",
        """
import os, threading, time
def live():
    while True:
        time.sleep(0.01)
        open("/tmp/alive", "a").close()
for daemon in (False, True):
    threading.Thread(target=live, daemon=daemon).start()
def answer(x): raise SystemExit(0)
""",
        says=("SystemExit: 0",),
    ),
    Hostile(
        "main_thread_that_ends_first",
        """
import ctypes, threading, time
threading.Thread(target=lambda: time.sleep(1e6)).start()
ctypes.CDLL(None).pthread_exit(None)
""",
        "timeout",
    ),
    Hostile(
        "raised_limits",
        PRELUDE
        + """
import resource
def raised(which):
    return lambda: resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
attempt(
    cpu=raised(resource.RLIMIT_CPU),
    memory=raised(resource.RLIMIT_AS),
    processes=raised(resource.RLIMIT_NPROC),
    files=raised(resource.RLIMIT_NOFILE),
    size=raised(resource.RLIMIT_FSIZE),
)
""",
        says=("all ways blocked",),
    ),
]
