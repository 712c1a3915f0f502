"""An end to Python code of a stranger that runs in this process: a chat template that loops for certain messages only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Passed(BaseException):
    """The time is over. No Exception: whatever the code catches, it does not catch this."""


@contextmanager
def on_frames(file: str, seconds: float) -> Iterator[None]:
    """While the block runs, this thread raises Passed from code of a file of this name after so many seconds of CPU time."""
    end = time.thread_time() + seconds

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != file:
            return None
        if time.thread_time() > end:
            raise Passed
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)
