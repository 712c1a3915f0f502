"""Many programs at once, each isolated, with their verdicts in order."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from . import tiers
from .client import Zygote, ZygoteError
from .inside.settings import Budget
from .inside.wire import WireError
from .records import Outcome, Program, Snippet, Verdict
from .results import outcome, verdict

Item = TypeVar("Item")
Result = TypeVar("Result", Verdict, Outcome)

CPU_SECONDS, MEMORY_BYTES = 3.0, 1 << 30
WALL_SECONDS, WALL_BY_CPU = 10.0, 2.0  # by the clock, and at least so many times the limit of CPU time
BUSY = 1.5  # load average a CPU above which the clock says little about a program
AGAIN_SHARE, AGAIN_TIMES = (
    0.05,
    3.0,
)  # of the programs that may run again, and with how many times the limit by the clock


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy() -> bool:
    """Whether more processes want to run than the machine has CPUs for."""
    try:
        return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)
    except (OSError, AttributeError):  # it is not known
        return True


class Sandbox:
    """A pool of isolated processes for untrusted programs; a context manager. `tier` names the isolation.

    workers: programs at a time (default: CPUs). cpu_seconds: a program's CPU time after start-up, so that a loaded
    machine changes no verdict. wall_seconds: its time by the clock, for programs that wait (default: 10 s, at least twice
    the CPU time). memory_bytes: its address space. allow_unsandboxed: run with resource limits only where no isolation is
    available. only: names of tiers to choose from, for tests. Raises InputError where no isolation is available and running
    without is not allowed.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpu_seconds: float = CPU_SECONDS,
        wall_seconds: float | None = None,
        memory_bytes: int = MEMORY_BYTES,
        allow_unsandboxed: bool = False,
        only: Sequence[str] = (),
    ) -> None:
        self.workers = max(1, workers or available_cpus())
        wall = max(WALL_SECONDS, WALL_BY_CPU * cpu_seconds) if wall_seconds is None else wall_seconds
        self.budget = Budget(cpu_seconds, wall, memory_bytes)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._tier, first = tiers.choose(allow_unsandboxed, only)
        self._zygotes: dict[int, Zygote] = {0: first} if first else {}

    @property
    def tier(self) -> str:
        """The isolation in use: "namespaces+seccomp", "bubblewrap+seccomp", "landlock+seccomp", "limits" and so on."""
        return self._tier.name

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills every process of the pool, busy ones included."""
        with self._lock:
            self._closed.set()
            zygotes = list(self._zygotes.values())
            self._zygotes.clear()
        for zygote in zygotes:
            zygote.close()

    def check(self, programs: Sequence[Program], done: Callable[[int, Verdict], None] | None = None) -> list[Verdict]:
        """One verdict per program, in order. `done(index, verdict)` is called in this thread as each is final.

        The limit of CPU time is final. Programs that reached the limit by the clock while the machine was busy (more than
        BUSY processes a CPU wanted to run) run once more, with AGAIN_TIMES as long, the first AGAIN_SHARE of all programs
        (one at least), and that verdict counts. After an error or Ctrl-C the pool is closed. Raises RuntimeError if the
        pool is closed.
        """
        return self._map(programs, self._check, done)

    def run(self, snippets: Sequence[Snippet], done: Callable[[int, Outcome], None] | None = None) -> list[Outcome]:
        """One outcome per snippet, in order; retries and raises as `check` does."""
        return self._map(snippets, self._run, done)

    def _map(
        self,
        items: Sequence[Item],
        work: Callable[[int, Item, Budget], Result],
        done: Callable[[int, Result], None] | None,
    ) -> list[Result]:
        """work(slot, item, budget) for each item on as many slots as there are workers; some again at the end."""
        budget, patient = self.budget, replace(self.budget, wall_seconds=AGAIN_TIMES * self.budget.wall_seconds)
        most = max(1, int(AGAIN_SHARE * len(items)))
        again: dict[int, Result] = {}

        def first(index: int, result: Result) -> None:
            if result.status == "timeout" and result.by_clock and len(again) < most and busy():
                again[index] = result
            elif done:
                done(index, result)

        results = self._on_all_slots(
            list(range(len(items))), lambda slot, index: work(slot, items[index], budget), first
        )
        ignore: Callable[[int, Result], None] = lambda index, result: None  # noqa: E731
        repeated = lambda slot, index: work(slot, items[index], patient)  # noqa: E731
        results |= self._on_all_slots(list(again), repeated, done or ignore)
        return [results[index] for index in range(len(items))]

    def _on_all_slots(
        self, indices: Sequence[int], work: Callable[[int, int], Result], done: Callable[[int, Result], None]
    ) -> dict[int, Result]:
        """work(slot, index) for each index on as many slots as there are workers; done is called in this thread."""
        waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        finished: queue.SimpleQueue[tuple[int, Result | BaseException]] = queue.SimpleQueue()
        count = min(self.workers, len(indices))
        for index in indices:
            waiting.put(index)
        for _ in range(count):
            waiting.put(None)

        def worker(slot: int) -> None:
            while (index := waiting.get()) is not None:
                try:
                    finished.put((index, work(slot, index)))
                except BaseException as error:  # handed to the caller, who waits for this item
                    finished.put((index, error))

        results: dict[int, Result] = {}
        try:
            for slot in range(count):
                threading.Thread(target=worker, args=(slot,), daemon=True).start()
            for _ in indices:
                index, result = finished.get()
                if isinstance(result, BaseException):
                    raise result
                results[index] = result
                done(index, result)
        except BaseException:  # Ctrl-C too: whatever still runs is of no use
            self.close()
            raise
        return results

    def _check(self, slot: int, program: Program, budget: Budget) -> Verdict:
        solution = {"source": program.source, "entry_point": program.entry_point}
        test: dict[str, Any] = {"context": program.context, "test": program.test, "entry_point": program.entry_point}
        if not program.entry_point:
            test["overrides"] = program.overrides
        return verdict(*self._ask(slot, "check", budget, [solution, test]))

    def _run(self, slot: int, snippet: Snippet, budget: Budget) -> Outcome:
        return outcome(*self._ask(slot, "run", budget, [{"source": snippet.source, "setup": snippet.setup}]))

    def _ask(
        self, slot: int, kind: str, budget: Budget, payloads: list[dict[str, Any]]
    ) -> tuple[dict[str, Any], bytes]:
        """A zygote's reply and what was written; retried on a new zygote where the sandbox itself failed."""
        reply: dict[str, Any] = {}
        for _ in range(2):
            if self._closed.is_set():
                raise RuntimeError("the sandbox is closed")
            try:
                reply, written = self._zygote(slot).ask(kind, budget, payloads)
            except ZygoteError as error:
                reply, written = {"status": "infrastructure", "detail": str(error), "cpu": 0.0}, b""
            except WireError as error:
                return {"status": "refused", "detail": f"the program is {error}", "cpu": 0.0}, b""
            if reply["status"] != "infrastructure":
                return reply, written
            self._discard(slot)
        return reply, b""

    def _zygote(self, slot: int) -> Zygote:
        """The zygote of a slot, started if needed. Raises ZygoteError if it cannot be started."""
        with self._lock:
            if self._closed.is_set():
                raise ZygoteError("the sandbox is closed")
            zygote = self._zygotes.get(slot)
            if zygote is not None:
                return zygote
            zygote = self._zygotes[slot] = Zygote(tiers.for_slot(self._tier, slot))
        try:
            zygote.await_ready()
        except ZygoteError:
            self._discard(slot)
            raise
        return zygote

    def _discard(self, slot: int) -> None:
        with self._lock:
            zygote = self._zygotes.pop(slot, None)
        if zygote is not None:
            zygote.close()


def tier(allow_unsandboxed: bool = False) -> str:
    """The name of the strongest isolation that holds on this machine. InputError as Sandbox has it."""
    with Sandbox(workers=1, allow_unsandboxed=allow_unsandboxed) as sandbox:
        return sandbox.tier


def run_code(
    source: str, setup: str = "", cpu_seconds: float = CPU_SECONDS, allow_unsandboxed: bool = False
) -> Outcome:
    """Runs one piece of untrusted code after trusted `setup` and returns its value and variables; Sandbox.run for
    many."""
    with Sandbox(workers=1, cpu_seconds=cpu_seconds, allow_unsandboxed=allow_unsandboxed) as sandbox:
        return sandbox.run([Snippet(source, setup)])[0]
