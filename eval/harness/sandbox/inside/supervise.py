"""Runs one program and watches it: what it sends, what it uses, how it ends. Everything is gone when it returns."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from .process import Child, World, start
from .settings import INPUT, OUTPUT, PAYLOAD, VERDICT, Budget
from .wire import MAX_BYTES

_VERDICT_BYTES = 16 << 10
_CPUS = os.cpu_count() or 1


class HarnessGone(Exception):
    """The process that asked has ended or closed its end."""


class TimeUp(Exception):
    """A limit was reached; the text says which."""


class Watch:
    """Waits for bytes on behalf of one program, within its limits. `guarded` is the process whose CPU time counts."""

    def __init__(self, control: socket.socket, budget: Budget, guarded: Child, *others: Child) -> None:
        self.control = control
        self.budget = budget
        self.guarded = guarded
        self.children = (guarded, *others)
        self.deadline = time.monotonic() + budget.wall_seconds

    def read(self, fd: int, enough: Callable[[bytearray], bool]) -> bytes:
        """Bytes of a pipe until they are enough or its writers have gone. TimeUp, SetupError, HarnessGone."""
        data = bytearray()
        while not enough(data):
            statuses = {child.status: child for child in self.children if child.open}
            ready = select.select([fd, self.control, *statuses], [], [], self._patience())[0]
            if self.control in ready:  # nothing is ever sent to a zygote that is busy
                raise HarnessGone
            for status, child in statuses.items():
                if status in ready:
                    child.listen()
            if fd in ready:
                piece = os.read(fd, 1 << 16)
                if not piece:
                    break
                data += piece
            self.enforce()
        return bytes(data)

    def enforce(self) -> None:
        """TimeUp when a limit is reached."""
        if self.guarded.cpu() >= self.budget.cpu_seconds:
            raise TimeUp(f"more than {self.budget.cpu_seconds:g} s of CPU time")
        if time.monotonic() >= self.deadline:
            raise TimeUp(f"more than {self.budget.wall_seconds:g} s of wall time")

    def _patience(self) -> float:
        """Seconds in which no limit can be reached."""
        cpu_left = (self.budget.cpu_seconds - self.guarded.cpu()) / _CPUS
        return max(0.0, min(self.deadline - time.monotonic(), max(0.005, cpu_left)))


def check(world: World, control: socket.socket, budget: Budget, solution: int, test: int) -> dict[str, Any]:
    """Status, detail and CPU seconds of a candidate (its payload in the file `solution`) under a test (in `test`)."""
    calls_out, calls_in = os.pipe()
    answers_out, answers_in = os.pipe()
    verdict_out, verdict_in = os.pipe()
    children: list[Child] = []
    try:
        files = {PAYLOAD: solution, INPUT: calls_out, OUTPUT: answers_in}
        children.append(start(world, "candidate", budget, files))
        files = {PAYLOAD: test, INPUT: answers_out, OUTPUT: calls_in, VERDICT: verdict_in}
        children.append(start(world, "checker", budget, files))
        candidate, checker = children
        watch = Watch(control, budget, candidate, checker)
        try:
            raw = watch.read(verdict_out, lambda data: data[-1:] == b"\n" or len(data) > _VERDICT_BYTES)
            status, detail = _verdict(raw, watch, candidate, checker)
        except TimeUp as error:
            status, detail = "timeout", str(error)
        return {"status": status, "detail": detail, "cpu": candidate.cpu()}
    finally:
        os.close(verdict_out)
        for child in children:
            child.end()


def _verdict(raw: bytes, watch: Watch, candidate: Child, checker: Child) -> tuple[str, str]:
    """Status and detail from what the checker wrote. TimeUp where the candidate's end was a limit's doing."""
    if not raw:
        checker.await_end(1.0)
        if checker.ended and os.WIFSIGNALED(checker.ended[0]):
            return "timeout", f"the checker was {_manner(checker)}: what the candidate returned is too much to compare"
        return "failed", "the checker ended without a verdict"
    try:
        verdict = json.loads(raw)
        status, detail = verdict["status"], verdict["detail"]
    except (ValueError, KeyError, TypeError):
        return "failed", "the checker's verdict is unreadable"
    if status == "gone":
        candidate.await_end(0.5)
        watch.enforce()
        return "failed", f"the program {_manner(candidate)} {detail}"
    return status, detail


def _manner(child: Child) -> str:
    """How a process ended, in words."""
    if child.ended is None:
        return "closed its pipes"
    status = child.ended[0]
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) - 128
    if number > 0:  # a signal; bubblewrap reports one as 128 and its number
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exited with status {os.WEXITSTATUS(status)}"


def run(world: World, control: socket.socket, budget: Budget, snippet: int) -> tuple[dict[str, Any], bytes]:
    """How a snippet's process went ("sent", "timeout", "died"), and the message that it sent, unread."""
    message_out, message_in = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    children: list[Child] = []
    try:
        files = {PAYLOAD: snippet, INPUT: nothing, OUTPUT: message_in}
        children.append(start(world, "snippet", budget, files))
        child = children[0]
        watch = Watch(control, budget, child)
        try:
            raw = watch.read(message_out, _whole)
            if _whole(raw) and len(raw) <= MAX_BYTES + 8:
                return {"status": "sent", "detail": "", "cpu": child.cpu()}, raw[4:]
            child.await_end(0.5)
            watch.enforce()
            status, detail = "died", f"the program {_manner(child)}"
        except TimeUp as error:
            status, detail = "timeout", str(error)
        return {"status": status, "detail": detail, "cpu": child.cpu()}, b""
    finally:
        os.close(message_out)
        for child in children:
            child.end()


def _whole(data: bytes | bytearray) -> bool:
    """Whether a message is complete, or too long to be one."""
    return len(data) > MAX_BYTES + 8 or (len(data) >= 4 and len(data) >= 4 + struct.unpack_from("<I", data)[0])
