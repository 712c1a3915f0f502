"""The process that runs a candidate's module and answers calls of its function. Untrusted.

It never sees the tests: they are in the checker's process, and this one was made before they were read. All that it
can do is to answer a call with a value.
"""

from __future__ import annotations

import linecache
import os
import sys
import types
from typing import Any

from .answers import CandidateEnd
from .role import describe
from .settings import INPUT, OUTPUT, PAYLOAD
from .wire import WireError, pack, read_all, read_message, unpack, write_message

MODULE = "solution"
FILE = f"<{MODULE}>"


def run() -> None:
    """Loads the module in PAYLOAD, reports that, and answers calls until the pipe is closed."""
    task = unpack(read_all(PAYLOAD))
    os.close(PAYLOAD)
    try:
        names = load(task["source"])
    except BaseException as error:
        write_message(OUTPUT, failure(error))
        return
    if not task["entry_point"]:
        write_message(OUTPUT, pack(("loaded",)))
        CandidateEnd(names).serve()
        return
    if task["entry_point"] not in names:
        write_message(OUTPUT, pack(("error", "NameError", f"name '{task['entry_point']}' is not defined")))
        return
    function = names[task["entry_point"]]
    write_message(OUTPUT, pack(("loaded",)))
    while (request := read_message(INPUT)) is not None:
        write_message(OUTPUT, _answer(function, request))


def load(source: str) -> dict[str, Any]:
    """Runs a module's source and returns its names. Raises whatever the module raises."""
    module = types.ModuleType(MODULE)
    module.__file__ = FILE
    sys.modules[MODULE] = module
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)  # for tracebacks and inspect
    exec(compile(source, FILE, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def failure(error: BaseException) -> bytes:
    """The reply that tells of an error."""
    return pack(("error", *describe(error)))


def _answer(function: Any, request: bytes) -> bytes:
    """The reply to a call: its value, and its arguments again where the call changed them."""
    args, kwargs = unpack(request)
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return failure(error)
    try:
        changed = None if pack((args, kwargs)) == request else (args, kwargs)
        return pack(("value", value, changed))
    except WireError as error:
        return pack(("unfit", str(error)))
    except BaseException as error:  # from an iterator's own code
        return failure(error)
