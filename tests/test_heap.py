"""Freed memory that the next pass takes again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EVAL = Path(__file__).resolve().parents[1] / "eval"
FAULTS = """
import resource, torch
from qwen_eval.engines.local import heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):  # what the layers of a pass make and free, some of it at once
        for size in (4, 12, 30, 12, 4, 20):  # MiB
            wide = torch.ones(size << 18)
            two = torch.ones(size << 18), wide + 1
            del wide, two
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    import os
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

faults()
given_back = faults()
print(heap.keep_freed_pages())
faults()
kept = faults()
heap.return_freed_pages()
faults()
print(given_back, kept, faults())
heap.keep_freed_pages()
before = held()
blocks = [torch.ones(16 << 20) for _ in range(8)]  # 64 MiB each
assert held() - before > 400e6
del blocks
print(held() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts Linux's page faults")
def test_freed_blocks_are_taken_again_and_large_ones_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(EVAL)}
    )
    assert done.returncode == 0, done.stderr
    taken, counts, left = done.stdout.strip().splitlines()
    if taken == "False":
        pytest.skip("not glibc")
    before, kept, returned = map(int, counts.split())
    assert kept < before / 20 and returned > before / 2, counts
    assert int(left) < 20e6
