"""The process that runs a piece of code after some trusted preparation and tells its value and its variables.

Code and preparation share an interpreter, so the code can claim any value: for measures of what code computes with
tools we gave it, not for tests it could cheat.
"""

from __future__ import annotations

import ast
import contextlib
import os
from typing import Any

from .plain import MESSAGE_BYTES, VALUE_BYTES, pack_plain
from .role import TEXT, describe
from .settings import DONE, FINISHED, PAYLOAD, RESULT
from .wire import WireError, pack, read_all, unpack, write_all

_VALUE = ".value"  # no program can name it
_ROOM = 100 + 8 * TEXT  # of a message, for the status and the error


def run() -> None:
    """Runs the snippet that PAYLOAD holds and writes to RESULT (status, error type, error text, value, variables), values as
    `pack_plain` has them: status "ok", "raised", or "broken" where the preparation failed."""
    task = unpack(read_all(PAYLOAD))
    os.close(PAYLOAD)
    names: dict[str, Any] = {"__name__": "snippet"}
    status, error = "ok", ("", "")
    try:
        exec(compile(task["setup"], "<setup>", "exec", dont_inherit=True), names)
    except BaseException as raised:
        status, error = "broken", describe(raised)
    else:
        try:
            exec(compile(_recording(task["source"]), "<snippet>", "exec", dont_inherit=True), names)
        except BaseException as raised:
            status, error = "raised", describe(raised)
    value = b""
    try:
        value = pack_plain(names.pop(_VALUE, None))
    except WireError as raised:
        error = error if error[0] else ("", f"its last statement gave {raised}"[:TEXT])
    write_all(RESULT, pack((status, *error, value, _variables(names))))
    os.write(DONE, FINISHED)


def _variables(names: dict[str, Any]) -> dict[str, bytes]:
    """The variables that can leave, the smallest first where not all can; functions, modules and names with a leading
    underscore stay."""
    packed = {}
    for name, value in list(names.items()):
        if type(name) is str and not name.startswith("_"):
            with contextlib.suppress(WireError):
                packed[name] = pack_plain(value)
    found, left = {}, MESSAGE_BYTES - VALUE_BYTES - _ROOM
    for name, data in sorted(packed.items(), key=lambda item: len(item[1])):
        left -= len(data) + 4 * len(name) + 10
        if left < 0:
            break
        found[name] = data
    return {name: found[name] for name in packed if name in found}


def _recording(source: str) -> ast.Module:
    """The program, changed so that the value of the last expression or assignment executed outside functions and
    classes is kept. SyntaxError where it is no program."""
    tree = ast.parse(source, "<snippet>")
    tree.body = _record(tree.body)
    return ast.fix_missing_locations(tree)


def _record(body: list[ast.stmt]) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for statement in body:
        kept.append(statement)
        if isinstance(statement, ast.Expr):
            kept[-1] = ast.copy_location(ast.Assign(targets=[_slot()], value=statement.value), statement)
        elif isinstance(statement, ast.Assign):
            statement.targets.append(_slot())
        elif isinstance(statement, ast.AugAssign | ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.value is not None:
                name = ast.Name(statement.target.id, ast.Load())
                kept.append(ast.copy_location(ast.Assign(targets=[_slot()], value=name), statement))
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for field in ("body", "orelse", "finalbody"):
                if hasattr(statement, field):
                    setattr(statement, field, _record(getattr(statement, field)))
            for part in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
                part.body = _record(part.body)
    return kept


def _slot() -> ast.Name:
    return ast.Name(_VALUE, ast.Store())
