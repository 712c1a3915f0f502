"""Untrusted programs, each run in the strongest isolation the machine offers.

    with Sandbox() as sandbox:
        verdicts = sandbox.check([Program(source, test, entry_point, context)])  # a test of one function
        verdicts = sandbox.check([Program(source, script, context=setup)])  # of functions and classes by name

A pool of zygotes (client.py, inside/zygote.py), each isolated once, forks for every program a process for the candidate
and one for its checker (inside/). The candidate answers over a pipe, by plain values and numbers for its objects, which
stay where they are (inside/proxies.py); the checker alone holds the pipe that carries the verdict.
"""

from __future__ import annotations

from qwen_eval.sandbox.pool import Sandbox, run_code, tier
from qwen_eval.sandbox.records import Outcome, Program, Snippet, Verdict
from qwen_eval.sandbox.results import not_plain

__all__ = ["Outcome", "Program", "Sandbox", "Snippet", "Verdict", "not_plain", "run_code", "tier"]
