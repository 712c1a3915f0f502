"""Ours against baselines, interleaved, and the ratios of one run."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True)
class Timing:
    """One run of one side. cpu, wall: seconds; CPU seconds are the process's, all threads together, None where they say
    nothing. answers: plain lists,
    None where there is nothing to compare. tokens: computed, and in the prompts. peak: GiB above the weights."""

    cpu: float | None
    wall: float
    answers: Any = None
    tokens: tuple[int, int] | None = None
    peak: float | None = None


Call: TypeAlias = Callable[[], Timing]


@dataclass(frozen=True)
class Contest:
    """What is timed: ours and the baselines by name, each a call that does all the work.

    apart: (baseline, our answers, theirs) -> how far apart they are; raises SystemExit where that is not the same work.
    scale: by baseline, what its seconds are multiplied by where it did only a part of the work (its name says so). more:
    further cells of the rows, computed once, after the timings. repeat: at most so many repetitions. alone: what stands in
    the table in place of a baseline where there is none. A baseline's family is its name up to the first comma:
    after the first repetition only the fastest of a family goes on.
    """

    stage: str
    model: str
    items: int
    ours: Call
    baselines: Mapping[str, Call]
    apart: Callable[[str, Any, Any], float] = lambda name, ours, theirs: 0.0
    scale: Mapping[str, float] = field(default_factory=dict)
    more: Callable[[], Mapping[str, str]] = dict
    repeat: int | None = None
    alone: str = ""


class Timings(Protocol):
    def get(self, contest: str, side: str, repetition: int) -> Timing | None: ...

    def add(self, contest: str, side: str, repetition: int, timing: Timing) -> None: ...


def timed(call: Callable[[], Any], tokens: Callable[[], tuple[int, int]] | None = None) -> Call:
    """A side that runs in this process: `call` does the work and returns the answers. tokens: how many it computed since
    it was last asked, and how many the prompts have."""

    def run() -> Timing:
        cpu, wall = time.process_time(), time.perf_counter()
        answers = call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return Timing(cpu, wall, answers, tokens() if tokens else None)

    return run


def compete(contest: Contest, repeat: int, record: Timings) -> list[dict[str, str]]:
    """One row a baseline. Raises SystemExit when the answers are not the same."""
    ours: list[Timing] = []
    theirs: dict[str, list[Timing]] = {name: [] for name in contest.baselines}
    furthest = dict.fromkeys(contest.baselines, 0.0)

    def run(side: str, call: Call, repetition: int) -> Timing:
        stored = record.get(contest.stage, side, repetition)
        timing = stored or call()
        if stored is None:
            record.add(contest.stage, side, repetition, timing)
        seconds = f"{timing.wall:.1f} seconds" if timing.cpu is None else f"{timing.cpu:.1f} CPU seconds"
        said = f"{contest.stage}, repetition {repetition}: {side} {seconds}"
        print(said + (", stored before" if stored else ""), file=sys.stderr, flush=True)
        return timing

    running = list(contest.baselines)
    for repetition in range(1, min(repeat, contest.repeat or repeat) + 1):
        ours.append(run("ours", contest.ours, repetition))
        for name in running:
            theirs[name].append(run(name, contest.baselines[name], repetition))
            apart = contest.apart(name, ours[-1].answers, theirs[name][-1].answers)
            furthest[name] = max(furthest[name], apart)
        running = fastest_of_families({name: theirs[name][0].cpu or 0.0 for name in contest.baselines})
    more = contest.more()
    if not theirs:
        return [{**_row(contest, contest.alone, ours, []), **more}]
    return [
        {**_row(contest, name, ours, timings), "furthest": f"{furthest[name]:.1e}", **more}
        for name, timings in theirs.items()
    ]


def fastest_of_families(seconds: Mapping[str, float]) -> list[str]:
    """The fastest name of each family, in the given order."""
    best: dict[str, str] = {}
    for name, value in seconds.items():
        family = name.split(",")[0]
        if family not in best or value < seconds[best[family]]:
            best[family] = name
    return [name for name in seconds if name in best.values()]


def _row(contest: Contest, name: str, ours: list[Timing], theirs: list[Timing]) -> dict[str, str]:
    """The medians, and the median of the repetitions' ratios."""
    row = {"stage": contest.stage, "baseline": name, "model": contest.model, "items": str(contest.items)}
    ours = ours[: len(theirs) or None]
    row["repetitions"] = str(len(ours))
    scale = contest.scale.get(name, 1.0)
    for unit in ("cpu", "wall"):
        row[f"ours_{unit}_s"] = f"{statistics.median(getattr(one, unit) for one in ours):.2f}"
        if theirs and getattr(theirs[0], unit) is not None:
            pairs = [(getattr(a, unit), getattr(b, unit) * scale) for a, b in zip(ours, theirs, strict=True)]
            row[f"baseline_{unit}_s"] = f"{statistics.median(b for _, b in pairs):.2f}"
            row[f"ratio_{unit}"] = f"{statistics.median(b / a for a, b in pairs):.2f}"
    if ours[-1].tokens:
        row["tokens_computed"], row["tokens_in_prompts"] = map(str, ours[-1].tokens)
    for column, timings in (("ours_peak_gib", ours), ("baseline_peak_gib", theirs)):
        peaks = [timing.peak for timing in timings if timing.peak is not None]
        row[column] = f"{statistics.median(peaks):.2f}" if peaks else ""
    return row
