"""What every role does first: the process is locked down before it reads a byte of what it is to run."""

from __future__ import annotations

import os
import random
import struct
import sys
import time

from . import landlock, limits, linux, seccomp
from .settings import STATUS, Budget, Settings

TEXT = 500  # characters of an error's text that are kept

# records on STATUS: started, with the CPU time used so far; ended, with wait status and CPU time; failed, then a text
STARTED, ENDED, FAILED = b"R", b"X", b"E"
STARTED_FORM, ENDED_FORM = struct.Struct("<d"), struct.Struct("<id")


def lock(settings: Settings, budget: Budget, uid: int | None, parent: int | None, ruleset: int | None) -> None:
    """Drops every right that this process does not need, in an order in which each step is still allowed, and says
    on STATUS that it is done. parent: the process to die with. ruleset: Landlock's rules. OSError where a step fails."""
    os.umask(0o077)
    limits.default_signals()
    limits.become(uid)
    if settings.user_namespace:
        linux.drop_capabilities()
    if sys.platform == "linux":
        linux.die_with_parent(parent)  # after the change of user, which takes it back
    limits.apply(budget, settings.shared_user)
    if ruleset is not None:
        landlock.restrict(ruleset)
        os.close(ruleset)
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
    if settings.seccomp:
        seccomp.install(settings.guard_attributes)
    random.seed(0)  # the same verdict in every run, as far as the program lets it
    sys.argv = [""]
    os.write(STATUS, STARTED + STARTED_FORM.pack(time.process_time()))
    os.close(STATUS)


def describe(error: BaseException) -> tuple[str, str]:
    """The type's name and the text of an error, both cut, whatever its own code does."""
    try:
        return str(type(error).__name__)[:TEXT], str(error)[:TEXT]
    except BaseException:
        return "Exception", "(its text raises)"
