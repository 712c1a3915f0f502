"""Freed memory that the next pass reuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EVAL = Path(__file__).resolve().parents[1] / "eval"
SIZES = (4, 12, 30, 12, 4, 20)  # MiB; with three blocks of each at a time less than the heap keeps
# The C library's own account of its heap, for blocks of known sizes: no clock, and no page faults, of which a busy machine
# has more. arena: bytes that it holds from the kernel; mapped: bytes in blocks that have a mapping of their own.
ACCOUNT = """
import ctypes, json, sys
from qwen_eval.engines.local import heap

NAMES = "arena ordblks smblks hblks mapped usmblks fsmblks uordblks fordblks keepcost".split()
class Account(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]

libc = ctypes.CDLL(None)
if not hasattr(libc, "mallinfo2"):
    raise SystemExit("not glibc 2.33 or newer")
libc.mallinfo2.restype = Account
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def held():
    found = libc.mallinfo2()
    return [found.arena, found.mapped]

def a_pass():
    # what the layers of a pass make and free, some of it at once
    steps = []
    for size in json.loads(sys.argv[1]):
        blocks = [libc.malloc(size << 20) for _ in range(3)]
        steps.append(held())
        for block in (blocks[1], blocks[0], blocks[2]):
            libc.free(block)
    return steps

def account():
    a_pass()  # fetches what the next one finds, or gives back what the one before had
    return {"before": held(), "steps": a_pass(), "after": held()}

taken = heap.keep_freed_pages()
kept = account()
before = held()[1]
block = libc.malloc(200 << 20)
large = [held()[1] - before]
libc.free(block)
large.append(held()[1] - before)
heap.return_freed_pages()
print(json.dumps({"taken": taken, "kept": kept, "large": large, "returned": account()}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the account is that of Linux's C library")
def test_freed_blocks_are_reused_and_large_ones_returned() -> None:
    command = [sys.executable, "-c", ACCOUNT, json.dumps(SIZES)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(EVAL)})
    if "not glibc" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["taken"]
    kept, returned = found["kept"], found["returned"]
    # a pass asks the kernel for nothing and gives nothing back
    assert all(step == kept["before"] == kept["after"] for step in kept["steps"]), kept
    assert kept["after"][0] > 90 * 2**20 > returned["after"][0], (kept, returned)
    # or each block has a mapping of its own, which ends with it
    mapped = [after - returned["before"][1] for _, after in returned["steps"]]
    assert mapped == pytest.approx([3 * size * 2**20 for size in SIZES], rel=0.01), returned
    assert returned["after"] == returned["before"], returned
    assert found["large"] == [pytest.approx(200 * 2**20, rel=0.01), 0]
