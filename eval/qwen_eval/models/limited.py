"""A first try of what a checkpoint's files ask for, in a copy of this process with limits of time and memory.

Config, tokenizer and chat template are programs of a stranger: loops without end, normalizers that double a text forty
times, a hundred thousand layers. Much of it runs in libraries that cannot be interrupted, so it is tried in a child first.
Linux alone: elsewhere a process that has threads cannot be copied safely.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from qwen_eval.schema import CheckpointError

Stage: TypeAlias = tuple[str, int, Callable[[], object]]  # what is tried, CPU seconds, the work

MEMORY_BYTES = 3 << 30  # beyond what this process has
WALL_SECONDS = 300.0
_REMEDY = "its files are damaged or not what they seem; get them again from a source that you trust"
_NO_MEMORY = 9  # exit status


def attempt(where: Path, stages: Sequence[Stage]) -> bool:
    """Does the work of some stages in a child process, one after the other. Returns whether all of it was done. Raises
    CheckpointError, which names `where` and the stage, where one takes more CPU time than it may, more than MEMORY_BYTES, or
    crashes. Any other error is left for whoever does the same again; so is a child that waits for something."""
    if sys.platform != "linux":
        return False
    progress, told = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():  # of threads that are not copied: the child waits for none
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _child(stages, told)
    os.close(told)
    try:
        reached, status = _watch(pid, progress)
    finally:
        os.close(progress)
    if status is None or status == 0 or reached >= len(stages):
        return status == 0
    what, seconds, _ = stages[reached]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != _NO_MEMORY:
        return False
    limit = f"more than {MEMORY_BYTES >> 30} GiB of memory"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        limit = f"more than {seconds} s of CPU time" if number == signal.SIGXCPU else f"{limit}, or crashes"
    raise CheckpointError(f"{where}: {what} takes {limit}; {_REMEDY}")


def _watch(pid: int, progress: int) -> tuple[int, int | None]:
    """How many stages a child has finished, and its wait status; None where it had to be ended for its time by the clock."""
    reached, deadline = 0, time.monotonic() + WALL_SECONDS
    status: int | None = None
    try:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([progress], [], [], left)[0]:
                continue
            data = os.read(progress, 64)
            reached += len(data)
            if not data:  # it has ended
                status = os.waitpid(pid, 0)[1]
                pid = 0
                break
    finally:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return reached, status


def _child(stages: Sequence[Stage], told: int) -> NoReturn:
    import resource  # which Windows has not

    def lower(which: int, value: int, soft_only: bool = False) -> None:
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, hard if soft_only else value))

    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # where memory is short before the limit, this process is the one to go
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        lower(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_BYTES)
        lower(resource.RLIMIT_CORE, 0)
        _single_thread()
        for _, seconds, work in stages:
            lower(resource.RLIMIT_CPU, int(time.process_time()) + 1 + seconds, soft_only=True)
            work()
            os.write(told, b".")
        status = 0
    except BaseException as error:  # the same again in the parent says what it is
        status = _NO_MEMORY if out_of_memory(error) else 1
    finally:
        os._exit(status)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is that memory was short."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _single_thread() -> None:
    """One thread for what follows: those of a copied process are gone, and a library would wait for them."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
