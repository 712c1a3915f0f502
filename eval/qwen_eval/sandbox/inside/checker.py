"""The process that runs a task's test and alone writes the verdict. The candidate runs in another one, behind a pipe.

The test is the benchmark's own text. What the candidate sends is read as plain values (wire.py), so that none of its
objects, classes or patches ever meets a comparison here.
"""

from __future__ import annotations

import builtins
import json
import os
from typing import Any, NoReturn

from .faults import CandidateError, Gone, Unfit, Unsuited
from .role import TEXT, describe
from .script import Script
from .settings import DONE, FINISHED, GONE, INPUT, OUTPUT, PAYLOAD, RESULT
from .wire import WireError, pack, read_all, read_message, unpack, write_all, write_message


def run() -> None:
    """Judges the task that PAYLOAD holds and writes the verdict to RESULT: {"status": ..., "detail": ...}."""
    task = unpack(read_all(PAYLOAD))
    os.close(PAYLOAD)
    if task["entry_point"]:
        status, detail = judge(task["context"], task["test"], task["entry_point"])
    else:
        status, detail = judge_script(task["context"], task["test"], task["overrides"])
    write_all(RESULT, json.dumps({"status": status, "detail": detail[: 2 * TEXT]}).encode("ascii"))
    os.write(DONE, GONE if status == "gone" else FINISHED)


def judge(context: str, test: str, entry_point: str) -> tuple[str, str]:
    """Status ("passed", "failed", "gone": the candidate's process ended, "broken": the task itself is unfit) and why."""
    try:
        names: dict[str, Any] = {"__name__": "test"}
        exec(compile(context, "<context>", "exec", dont_inherit=True), names)
        code = compile(test, "<test>", "exec", dont_inherit=True)
        names[entry_point] = call
        exec(code, names)
        check = names["check"]
    except BaseException as error:
        return _broken(error)
    if (bad := _awaited()) is not None:
        return bad
    try:
        check(call)
    except Gone:
        return "gone", "during a call"
    except Unfit as error:
        return "failed", str(error)
    except Unsuited as error:
        return "broken", str(error)
    except BaseException as error:
        return "failed", _message_of(error) + _line_of(error, test)
    return "passed", ""


def judge_script(setup: str, test: str, overrides: tuple[str, ...]) -> tuple[str, str]:
    """As `judge`, for a test that is a script and uses the candidate's names. An error before it has used any of them
    is the test's own."""
    try:
        script = Script(setup, test, overrides)
    except Unsuited as error:
        return "broken", str(error)
    except BaseException as error:
        return _broken(error)
    if (bad := _awaited()) is not None:
        return bad
    try:
        script.run()
    except BaseException as error:
        fault = script.end.fault
        if isinstance(fault, Gone):
            return "gone", "during a call"
        if fault is not None:
            return "broken" if isinstance(fault, Unsuited) else "failed", str(fault)
        if not script.end.asked:
            return _broken(error)
        status, detail = "failed", _message_of(error) + _line_of(error, test)
    else:
        status, detail = "passed", ""
        if not script.end.asked:
            return "broken", "the test uses nothing of the candidate's"
    if found := script.end.overruled(status == "passed"):
        return "broken", f"the verdict hangs on {found} of the candidate's, which is not trusted with the test's values"
    return status, detail


def _broken(error: BaseException) -> tuple[str, str]:
    return "broken", "the test itself: {}: {}".format(*describe(error))


def _awaited() -> tuple[str, str] | None:
    """Waits until the candidate's module is loaded; status and detail where it is not."""
    try:
        _expect("loaded", _next())
    except Gone:
        return "gone", "while its module was loaded"
    except Unfit as error:
        return "failed", str(error)
    except BaseException as error:
        return "failed", _message_of(error)
    return None


def call(*args: Any, **kwargs: Any) -> Any:
    """The candidate's function, as the test sees it: plain values in, a plain value out, and its changes of the
    arguments made here too. Raises what it raised: the language's own exceptions as such, others as CandidateError."""
    try:
        request = pack((args, kwargs))
    except WireError as error:
        raise Unsuited(f"the test passes {error}, which cannot cross to the candidate's process") from error
    try:
        write_message(OUTPUT, request)
    except OSError as error:
        raise Gone from error
    reply = _next()
    _expect("value", reply)
    if len(reply) != 3:
        raise Unfit("a malformed answer")
    _, value, changed = reply
    if changed is not None:
        try:
            for old, new in zip((args, kwargs), changed, strict=True):
                _change(old, new)
        except (TypeError, ValueError) as error:
            raise Unfit("a malformed answer") from error
    return value


def _next() -> tuple[Any, ...]:
    try:
        message = read_message(INPUT)
        reply = None if message is None else unpack(message)
    except WireError as error:
        raise Unfit(f"the candidate sent {error}") from error
    except OSError as error:
        raise Gone from error
    if message is None:
        raise Gone
    if type(reply) is not tuple or not reply:
        raise Unfit("a malformed answer")
    return reply


def _expect(kind: str, reply: tuple[Any, ...]) -> None:
    """Raises the error that a reply of another kind reports."""
    if reply[0] == kind and type(reply[0]) is str:
        return
    if reply[0] == "error" and [type(part) for part in reply] == [str, str, str]:
        _raise(reply[1], reply[2])
    if reply[0] == "unfit" and [type(part) for part in reply] == [str, str]:
        raise Unfit(f"the candidate returned {reply[1][:TEXT]}")
    raise Unfit("a malformed answer")


def _raise(name: str, text: str) -> NoReturn:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            error = kind(text)
        except TypeError:  # UnicodeDecodeError and others want more than a text
            raise CandidateError(f"{name}: {text}") from None
        raise error
    raise CandidateError(f"{name}: {text}")


def _change(old: Any, new: Any) -> None:
    """Makes the mutable values in `old` equal to those of `new`, keeping the objects that are there."""
    if type(old) is tuple and type(new) is tuple:
        for before, after in zip(old, new, strict=True):
            _change(before, after)
    elif type(old) is list and type(new) is list:
        merged = [_merged(before, after) for before, after in zip(old, new, strict=False)]
        old[:] = merged + new[len(old) :]
    elif type(old) is dict and type(new) is dict:
        items = {key: _merged(old[key], after) if key in old else after for key, after in new.items()}
        old.clear()
        old.update(items)
    elif type(old) is set and type(new) is set:
        old.clear()
        old.update(new)
    elif type(old) is bytearray and type(new) is bytearray:
        old[:] = new


def _merged(before: Any, after: Any) -> Any:
    if type(before) is type(after) and type(before) in (list, dict, set, bytearray):
        _change(before, after)
        return before
    return after


def _message_of(error: BaseException) -> str:
    name, text = describe(error)
    if type(error) is KeyError and error.args:
        text = str(error.args[0])  # its own text would be quoted twice
    told = text if type(error) is CandidateError else f"{name}: {text}"
    return told.rstrip(": ")


def _line_of(error: BaseException, test: str) -> str:
    """The line of the test at which it stopped, "" where that is not known."""
    lines = test.split("\n")
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<test>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" at: {lines[line - 1].strip()[:TEXT]}" if line else ""
