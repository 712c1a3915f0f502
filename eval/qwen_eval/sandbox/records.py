"""Inputs and results of the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CheckStatus = Literal["passed", "failed", "timeout", "infrastructure"]
RunStatus = Literal["ok", "raised", "died", "timeout", "infrastructure"]


@dataclass(frozen=True)
class Program:
    """A candidate and its test, in one of two ways.

    With an entry_point (HumanEval): test is the benchmark's text that defines `check(candidate)`, entry_point the
    function it is called with, and context trusted code that the test may use (the prompt, whose helper functions
    three tests call); it runs beside the test, never the candidate's version of it. Plain values alone cross.

    Without one (MBPP): test is a script, context its setup, run before it with the same names. Both may use any function,
    class or constant of the candidate's module by its name, and objects of the candidate's classes; inside/proxies.py
    documents what such an object can do and who decides. Builtin names refer to the builtins, except those in
    overrides, which the candidate is asked to define (MBPP asks for a function `sum`). The test's names are not the module's:
    a global variable that the script sets is not seen by the candidate's functions.

    source: the candidate's whole module (for HumanEval prompt + completion), untrusted.
    """

    source: str
    test: str
    entry_point: str = ""
    context: str = ""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """passed; failed (the detail says why: an exception's type and text, or how the process ended); timeout;
    infrastructure (the sandbox or the test failed, or the test relies on what the
    candidate's process alone could decide: the candidate is not judged). cpu_seconds: CPU time
    of the candidate after start-up. by_clock: whether a timeout was the limit by the clock."""

    status: CheckStatus
    detail: str = ""
    cpu_seconds: float = 0.0
    by_clock: bool = False


@dataclass(frozen=True)
class Snippet:
    """Untrusted code, and trusted code that prepares names for it (tools, inputs)."""

    source: str
    setup: str = ""


@dataclass(frozen=True)
class Outcome:
    """The result of a snippet: ok, raised (detail: the exception), died (its process ended), timeout, infrastructure.

    value: of the last expression or assignment executed outside functions, None where it is no plain value. state: the
    variables that are plain values, inputs among them, also after an exception.
    """

    status: RunStatus
    value: Any = None
    state: Mapping[str, Any] = field(default_factory=dict)
    detail: str = ""
    cpu_seconds: float = 0.0
    by_clock: bool = False
