"""Programs that try to pass a test they do not solve, to use more than they may, or to get out of the sandbox.

They are text and run nowhere but in the sandbox. Each is bounded, so that a sandbox that fails survives it too: a fork
bomb stops by itself, the process that is killed exists for that, what is written is small and has its own folder.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hostile:
    """A program that does not solve the task, the verdict it must get, and what the verdict must say (one of). script:
    the test where that is a script."""

    name: str
    source: str
    status: str = "failed"
    says: tuple[str, ...] = ("",)
    script: str = ""


ENTRY_POINT = "answer"
TEST = """
# what_a_test_says
def check(candidate):
    for number in range(20):
        assert candidate(number) == number * 7919 + 104729
        assert candidate([number]) == [number, number * 7919]
"""
# for code that tries several ways out: what raised is blocked, what did not is named in the verdict
PRELUDE = """
import ctypes, os, sys

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def attempt(**ways):
    out = []
    for name, way in ways.items():
        try:
            if way() is not False:
                out.append(name)
        except (OSError, ImportError, ValueError, AttributeError, RuntimeError, MemoryError):
            pass
    raise SystemExit("ESCAPED by " + ", ".join(out) if out else "all ways blocked")
"""
