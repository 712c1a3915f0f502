"""Verdicts and outcomes, from how processes ended and what they wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from .inside.plain import MESSAGE_BYTES, pack_plain, unpack_plain
from .inside.role import TEXT
from .inside.wire import WireError
from .records import Outcome, RunStatus, Verdict


def verdict(reply: Mapping[str, Any], written: bytes) -> Verdict:
    """The verdict on a candidate: reply of its zygote, and what the checker wrote."""
    cpu = reply["cpu"]
    if reply["status"] == "refused":
        return Verdict("failed", reply["detail"], cpu)
    if reply["status"] != "finished":
        return Verdict(reply["status"], reply["detail"], cpu, reply.get("by_clock", False))
    if not written:
        if reply["checker"].startswith("killed"):
            # by its limits: the candidate may only send values, but it may send many
            return Verdict("timeout", f"the checker was {reply['checker']} over what the program returned", cpu)
        return Verdict("failed", f"the checker {reply['checker'] or 'was silent'} without a verdict", cpu)
    found = json.loads(written)  # written by the checker, which is trusted
    status, detail = found["status"], found["detail"]
    if status == "gone":
        return Verdict("failed", f"the program {_ended(reply)} {detail}", cpu)
    if status == "broken":
        return Verdict("infrastructure", detail, cpu)
    return Verdict(status, detail, cpu)


def outcome(reply: Mapping[str, Any], written: bytes) -> Outcome:
    """The outcome of a snippet: reply of its zygote, and what the snippet's process wrote, which is untrusted."""
    cpu = reply["cpu"]
    if reply["status"] == "refused":
        return Outcome("died", detail=reply["detail"], cpu_seconds=cpu)
    if reply["status"] != "finished":
        by_clock = reply.get("by_clock", False)
        return Outcome(reply["status"], detail=reply["detail"], cpu_seconds=cpu, by_clock=by_clock)
    if not written:
        return Outcome("died", detail=f"the program {_ended(reply)}", cpu_seconds=cpu)
    try:
        status, kind, text, value, state = _snippet_result(written)
    except WireError as error:
        return Outcome("died", detail=f"the program wrote {error}", cpu_seconds=cpu)
    detail = f"{kind}: {text}" if kind else text
    if status == "broken":
        return Outcome("infrastructure", detail=f"the setup raised {detail}", cpu_seconds=cpu)
    return Outcome(status, value, state, detail, cpu)


def _snippet_result(written: bytes) -> tuple[RunStatus | Literal["broken"], str, str, Any, dict[str, Any]]:
    """What a snippet's process wrote: status, error type, error text, value and variables. WireError for other bytes."""
    parts = unpack_plain(written, MESSAGE_BYTES)
    kinds = [type(part) for part in parts] if type(parts) is tuple else []
    if kinds != [str, str, str, bytes, dict] or parts[0] not in ("ok", "raised", "broken"):
        raise WireError("a malformed result")
    status, kind, text, value, state = parts
    variables = {}
    for name, data in state.items():
        if type(data) is not bytes:
            raise WireError("a malformed result")
        variables[name] = unpack_plain(data)
    return status, kind[:TEXT], text[:TEXT], unpack_plain(value) if value else None, variables


def not_plain(value: Any) -> str:
    """Why a value can never be a snippet's value; "" where it can."""
    try:
        pack_plain(value)
    except WireError as error:
        return str(error)
    return ""


def _ended(reply: Mapping[str, Any]) -> str:
    ended = reply["candidate"]
    return f"was {ended}" if ended.startswith("killed") else ended or "closed its pipes"
