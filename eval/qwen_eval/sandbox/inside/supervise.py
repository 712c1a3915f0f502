"""Runs one program within its limits and reports how it ended. All its processes are gone when this returns."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import Any

from .process import Child, World, start
from .scratch import Overfull
from .settings import DONE, GONE, INPUT, OUTPUT, PAYLOAD, RESULT, Budget

_CPUS = os.cpu_count() or 1
_LOOK_SECONDS = 0.05  # between two looks at a program's temporary files


class HarnessGone(Exception):
    """The process that asked has ended or closed its end."""


class TimeUp(Exception):
    """A limit was reached; the text says which. by_clock: whether that of time by the clock."""

    def __init__(self, text: str, by_clock: bool = False) -> None:
        super().__init__(text)
        self.by_clock = by_clock


class Watch:
    """Waits on behalf of one program, within its limits. `guarded` is the process whose CPU time counts."""

    def __init__(self, world: World, control: socket.socket, budget: Budget, guarded: Child, *others: Child) -> None:
        self.scratch = world.scratch
        self.control = control
        self.budget = budget
        self.guarded = guarded
        self.children = (guarded, *others)
        self.deadline = time.monotonic() + budget.wall_seconds

    def wait_for(self, fd: int) -> bytes:
        """The byte that comes over a pipe, b"" when its writer has gone. TimeUp, SetupError, HarnessGone."""
        while True:
            statuses = {child.status: child for child in self.children if child.open}
            waited_for: list[int | socket.socket] = [fd, self.control, *statuses]
            ready = select.select(waited_for, [], [], self._patience())[0]
            if self.control in ready:  # nothing is ever sent to a zygote that is busy
                raise HarnessGone
            for status, child in statuses.items():
                if status in ready:
                    child.listen()
            self.enforce()
            if fd in ready:
                return os.read(fd, 1)

    def enforce(self) -> None:
        """TimeUp when a limit is reached."""
        if self.guarded.cpu() >= self.budget.cpu_seconds:
            raise TimeUp(f"more than {self.budget.cpu_seconds:g} s of CPU time")
        if time.monotonic() >= self.deadline:
            raise TimeUp(f"more than {self.budget.wall_seconds:g} s of wall time", by_clock=True)
        if self.scratch:
            self.scratch.enforce()

    def _patience(self) -> float:
        """Seconds in which no limit can be reached."""
        cpu_left = (self.budget.cpu_seconds - self.guarded.cpu()) / _CPUS
        most = _LOOK_SECONDS if self.scratch else cpu_left
        return max(0.0, min(self.deadline - time.monotonic(), max(0.005, cpu_left), most))


def check(world: World, control: socket.socket, budget: Budget, *files: int) -> dict[str, Any]:
    """How a candidate and its checker ended; the checker's verdict is in its file. files: the candidate's payload, the
    checker's, the file for the verdict.

    status "finished" (candidate, checker: how each has ended, "" while it ran) or "timeout" (detail: which limit);
    CPU seconds of the candidate.
    """
    solution, test, verdict = files
    calls_out, calls_in = os.pipe()
    answers_out, answers_in = os.pipe()
    done_out, done_in = os.pipe()
    with _Children(done_out) as children:
        candidate = children.start(
            world, "candidate", budget, {PAYLOAD: solution, INPUT: calls_out, OUTPUT: answers_in}
        )
        checks = {PAYLOAD: test, INPUT: answers_out, OUTPUT: calls_in, RESULT: verdict, DONE: done_in}
        checker = children.start(world, "checker", budget, checks)
        watch = Watch(world, control, budget, candidate, checker)
        try:
            word = watch.wait_for(done_out)
            if word == GONE:
                candidate.await_end(0.5)
                watch.enforce()
            elif not word:
                checker.await_end(1.0)
        except TimeUp as error:
            return _timeout(candidate, error)
        except Overfull as error:
            return _overfull(candidate, error)
        return _finished(candidate) | {"checker": _manner(checker)}


def run(world: World, control: socket.socket, budget: Budget, *files: int) -> dict[str, Any]:
    """How a snippet ended, as `check` does. files: its payload, the file for its result."""
    payload, result = files
    done_out, done_in = os.pipe()
    with _Children(done_out) as children:
        snippet = children.start(world, "snippet", budget, {PAYLOAD: payload, RESULT: result, DONE: done_in})
        watch = Watch(world, control, budget, snippet)
        try:
            watch.wait_for(done_out)
            snippet.await_end(0.5)
            watch.enforce()
        except TimeUp as error:
            return _timeout(snippet, error)
        except Overfull as error:
            return _overfull(snippet, error)
        return _finished(snippet)


class _Children:
    """The processes of one program; on exit all are gone and the pipe `done` is closed."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._started: list[Child] = []

    def start(self, world: World, role: str, budget: Budget, files: dict[int, int]) -> Child:
        self._started.append(start(world, role, budget, files))
        return self._started[-1]

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._done)
        for child in self._started:
            child.end()


def _timeout(candidate: Child, error: TimeUp) -> dict[str, Any]:
    return {"status": "timeout", "detail": str(error), "cpu": candidate.cpu(), "by_clock": error.by_clock}


def _overfull(candidate: Child, error: Overfull) -> dict[str, Any]:
    return {"status": "refused", "detail": f"the program had {error}", "cpu": candidate.cpu()}


def _finished(candidate: Child) -> dict[str, Any]:
    return {"status": "finished", "detail": "", "cpu": candidate.cpu(), "candidate": _manner(candidate)}


def _manner(child: Child) -> str:
    """How a process ended, in words; "" when it has not."""
    if child.ended is None:
        return ""
    status = child.ended[0]
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) - 128
    if number > 0:  # a signal; bubblewrap reports one as 128 and its number
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exited with status {os.WEXITSTATUS(status)}"
