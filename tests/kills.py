"""Runs of the scripts that are killed: each in a process forked from this one, which has torch and the model's code loaded,
so that two hundred starts cost no more than their work."""

from __future__ import annotations

import contextlib
import json
import os
import random
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_eval.runs import results
from shared import REPOSITORY

# a time, a duration, the memory of the last start (none where it had nothing to ask), the checkout at that moment
MEASURED = ("timestamp", "seconds", "peak_memory_gb", "weights_gb", "resident_gb", "git_commit")


def preload() -> None:
    """Imports what every script would import after the fork. Nothing is computed: no thread is started here."""
    import sacrebleu  # noqa: F401
    import torch
    import transformers.models.auto.modeling_auto
    import transformers.models.auto.tokenization_auto  # noqa: F401

    torch.set_num_threads(1)


def start(script: str, words: Sequence[str], output: Path) -> int:
    """Starts `python eval/SCRIPT.py WORDS -o OUTPUT`; returns the process id. What it prints goes to OUTPUT.log."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        # torch replaces the thread pool that a fork lost when it is next used, and two threads at once fail at that
        sys.modules["torch"].set_num_threads(1)
        sys.argv = [f"{script}.py", *words, "-o", str(output), "--quiet"]
        runpy.run_path(str(REPOSITORY / "eval" / f"{script}.py"), run_name="__main__")
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    raise AssertionError("not reached")


def wait(pid: int, seconds: float, output: Path | None = None, size: int = 0) -> int | None:
    """The exit status of the process, None if it is still running after that many seconds. output, size: the
    seconds count only once that folder's sample files hold more than that many bytes."""
    deadline = time.monotonic() + seconds
    while True:
        if output is not None and stored(output) <= size:
            deadline = time.monotonic() + seconds
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


def stored(output: Path) -> int:
    """The bytes of a folder's sample files."""
    return sum(path.stat().st_size for path in (output / "samples").glob("*.jsonl"))


@dataclass
class Left:
    """The contents of an output folder: CSV rows without measured values, samples by id."""

    rows: list[dict[str, str]] = field(default_factory=list)
    samples: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: int = 0  # of the sample files, complete ones


def left(script: str, output: Path) -> Left:
    """Reads the folder as it is. Raises AssertionError for a CSV with part of a run, or a sample stored twice."""
    name = "plugin" if script == "plugin_eval" else script
    rows = [
        {name: text for name, text in row.items() if name not in MEASURED}
        for row in results.read_results(output / f"{name}.csv")
    ]
    found = Left(rows)
    for path in sorted((output / "samples").glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                row = json.loads(line)
                key = f"{path.stem} {row['id']}"
                assert key not in found.samples, f"{key} is stored twice"
                found.samples[key] = row
                found.lines += 1
    return found


def answers(samples: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What must not change: the answer, the texts, which option is best; log-probabilities agree to rounding only."""
    return {
        key: {
            "answer": row["answer"],
            "stats": row["stats"],
            "prompt": row["prompt"],
            "texts": row["response"].get("texts"),
        }
        for key, row in samples.items()
    }


def kill_often(script: str, words: Sequence[str], kills: int, folder: Path, seed: int) -> dict[str, int]:
    """Kills runs of a script `kills` times at random moments and lets each one finish in the end; each must leave the
    samples and the CSV of an undisturbed run. Returns counts: kills, runs, and the state in which kills found the
    run."""
    chance = random.Random(seed)
    reference = folder / "reference"
    begun = time.monotonic()
    status = wait(start(script, words, reference), 600)
    seconds = time.monotonic() - begun
    assert status == 0, (reference.with_suffix(".log")).read_text()
    expected = left(script, reference)
    assert expected.rows and expected.samples
    counts = {"kills": 0, "runs": 0, "before the first row": 0, "between rows": 0, "after the last row": 0}
    while counts["kills"] < kills:
        output = folder / f"run{counts['runs']}"
        before: dict[str, dict[str, Any]] = {}
        while True:
            pid = start(script, words, output)
            if counts["kills"] == kills:
                status = wait(pid, 600)
            elif (have := stored(output)) >= stored(reference) or chance.random() < 0.5:
                status = wait(pid, chance.uniform(0, seconds))
            else:  # a short run is mostly start-up: half of the kills wait for some rows
                status = wait(pid, chance.uniform(0, 0.02), output, chance.randrange(have, stored(reference)))
            if status is None:
                os.kill(pid, signal.SIGKILL)
                status = wait(pid, 60)
            assert status in (0, -signal.SIGKILL), output.with_suffix(".log").read_text()
            counts["kills"] += status != 0  # it may have ended just before
            now = left(script, output)
            lost = {key for key, row in before.items() if now.samples.get(key, {}).get("response") != row["response"]}
            assert not lost, f"lost or asked again: {lost}"
            before = now.samples
            if status == 0:
                break
            state = "before the first row" if not now.lines else "between rows"
            counts["after the last row" if now.lines == expected.lines else state] += 1
            assert len(now.rows) in (0, len(expected.rows)) or script == "long_ppl"  # its grid adds a run at a time
        counts["runs"] += 1
        assert answers(now.samples) == answers(expected.samples)
        assert now.rows == expected.rows
        assert not [path for path in output.rglob("*") if path.suffix in (".lock", ".tmp")]
    return counts
