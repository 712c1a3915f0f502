"""The gates of a command line, one a benchmark, corrected together: runs them, says what they came to, and how a program ends.

With --sequential the verdict is about the difference on these items and exact or sure at 95% (runs/gate.py); without, all items
are asked and the verdict is that of compare.py --max-loss, about questions of this kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from qwen_eval import terminal
from qwen_eval.compare import pairs
from qwen_eval.runs import find, gate, run, workers
from qwen_eval.runs.files import write_text
from qwen_eval.schema import Engine, InputError
from qwen_eval.stats import paired, sequential
from qwen_eval.tasks.benchmark import Benchmark

WORSE = 3  # exit status


@dataclass(frozen=True)
class Case:
    """One gate as it is reported."""

    name: str
    failed: bool
    line: str
    more: Sequence[str] = ()


class Gates:
    """The gates of a command. count: how many benchmarks are gated. mixed: whether benchmarks without a sequential gate are
    asked whole; else they are refused."""

    def __init__(self, args: argparse.Namespace, count: int, mixed: bool = False) -> None:
        gate.check_options(args)
        self.args, self.count, self._mixed = args, count, mixed
        self._whole: set[str] = set()
        self._verdicts: list[tuple[str, gate.Verdict]] = []
        self._results: dict[str, paired.Result] = {}
        self._lost: list[str] = []

    def prepare(self, benchmark: Benchmark) -> str:
        """Before a model is loaded: a warning where a sequential gate saves nothing, else "". Raises InputError for a baseline
        that is none of this benchmark's."""
        line = ""
        if benchmark.args.gate:
            baseline = gate.baseline_of(benchmark)
            if benchmark.args.sequential:
                try:
                    gate.view_of(benchmark, baseline)
                    line = gate.warning(benchmark)
                except InputError as error:
                    if not self._mixed:
                        raise
                    self._whole.add(benchmark.name)
                    line = f"{benchmark.name} is asked whole: {str(error).partition(';')[0]}"
        return line

    def run(
        self, benchmark: Benchmark, engine: Engine, processes: workers.Processes = workers.SINGLE
    ) -> run.Outcome | None:
        """Runs a benchmark, with its gate if one is asked for."""
        args = benchmark.args
        if not args.gate:
            return run.run(benchmark, engine, processes)
        if args.sequential and processes.size > 1:
            raise InputError("--sequential asks batch after batch in one process; start it without torchrun")
        baseline = gate.baseline_of(benchmark, engine.describe())
        if args.sequential and benchmark.name not in self._whole:
            worse = sum(verdict.worse for _, verdict in self._verdicts)
            levels = gate.Levels(sequential.worse_level(self.count, worse), sequential.LEVEL / self.count)
            outcome = run.run(benchmark, engine, processes, run.Gate(baseline, levels))
            if outcome and outcome.verdict:
                self._verdicts.append((_name(benchmark), outcome.verdict))
            return outcome
        outcome = run.run(benchmark, engine, processes)
        if outcome:
            joined = pairs.join(baseline, find.open_run(outcome.samples))
            if joined.missing or joined.other:
                raise InputError(f"{baseline.name} and this run are not over the same items")
            found = pairs.compare(joined, type(benchmark).facts())
            self._results |= {
                f"{name} ({benchmark.mode})" if name in self._results else name: one for name, one in found.items()
            }
        return outcome

    def finish(self) -> tuple[list[str], int]:
        """The verdicts in lines, and the exit status; writes the reports that were asked for."""
        cases = self._cases()
        if not cases:  # no gate, or not the first process
            return [], 0
        if self.args.junit:
            write_text(Path(self.args.junit), junit(cases))
        if self.args.gate_summary:
            with Path(self.args.gate_summary).open("a", encoding="utf-8") as file:
                file.write(markdown(cases))
        lines = [line for case in cases for line in (case.line, *(f"  {more}" for more in case.more))]
        return lines, WORSE if any(case.failed for case in cases) else 0

    def _cases(self) -> list[Case]:
        made = [Case(name, found.worse, _line(name, found), _more(found, self.count)) for name, found in self._verdicts]
        above = paired.losses_above(self._results, self.args.max_loss) if self._results else []
        for name, result in self._results.items():
            low, high = result.bounds(paired.LEVEL)
            verdict = "FAIL" if name in above else "PASS"
            line = f"{verdict} {name}: loss {result.loss:.2f} [{low:.2f}, {high:.2f}], allowed {self.args.max_loss:g}"
            made.append(Case(name, name in above, line, ("as compare.py --max-loss: about questions of this kind",)))
        return made


def _name(benchmark: Benchmark) -> str:
    return f"{benchmark.name} {benchmark.mode} {benchmark.shot_count}-shot"


def _line(name: str, found: gate.Verdict) -> str:
    word = (
        f"worse by more than {found.max_loss:g} points"
        if found.worse
        else f"not worse by more than {found.max_loss:g} points"
    )
    return (
        f"{'FAIL' if found.worse else 'PASS'} {name}, {found.metric} ({found.average}): {word} than {found.baseline}, after "
        f"{found.asked:,} of {found.count:,} items ({100 * found.asked / found.count:.1f}%)"
    )


def _more(found: gate.Verdict, count: int) -> list[str]:
    lines = []
    if found.complete:
        lines.append(f"difference {found.difference:+.2f} points, exact: all items were asked")
    else:
        sure = "certain, whatever the other answers are" if found.exact else "at most a 5% chance of a wrong verdict"
        lines += [
            f"difference about {found.difference:+.2f} points, at least {found.low:+.2f}, at most {found.high:+.2f}: {sure}",
            "stopped early: no row of results (its items are no random sample); the same command without --gate asks "
            "the others",
        ]
    lines.append("the difference is that on this set of items; compare.py --max-loss is about questions of this kind")
    if count > 1:
        lines.append(f"one of {count} gates, corrected together: each verdict has its part of the 5%")
    return [*lines, *found.notes]


# ---------------------------------------------------------------------------------------------------------- reports
def junit(cases: Sequence[Case]) -> str:
    """The verdicts as JUnit XML, one case a gate."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    failures = sum(case.failed for case in cases)
    lines.append(f'<testsuite name="qwen-eval gate" tests="{len(cases)}" failures="{failures}" errors="0">')
    for case in cases:
        lines.append(f'  <testcase classname="gate" name={_attribute(case.name)}>')
        text = "\n".join([case.line, *case.more])
        if case.failed:
            lines.append(f"    <failure message={_attribute(case.line)}/>")
        lines.append(f"    <system-out>{_attribute(text)[1:-1]}</system-out>")
        lines.append("  </testcase>")
    return "\n".join([*lines, "</testsuite>", ""])


def _attribute(text: str) -> str:
    return quoteattr(terminal.escape_controls(text), {'"': "&quot;"})


def markdown(cases: Sequence[Case]) -> str:
    """The verdicts as a list in Markdown, as a job's summary shows it."""
    lines = ["### Gate", ""]
    for case in cases:
        lines.append(f"- {'❌' if case.failed else '✅'} {case.line}")
        lines += [f"  - {line}" for line in case.more]
    return "\n".join([*lines, "", ""])
