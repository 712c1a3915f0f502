"""The responses of an earlier run, for --rescore: read whole, or a line that says what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from qwen_eval.runs import manifest
from qwen_eval.runs.find import parse_signature
from qwen_eval.runs.samples import withheld
from qwen_eval.schema import EngineInfo, InputError
from qwen_eval.tasks.benchmark import Benchmark


def read(benchmark: Benchmark) -> tuple[EngineInfo, dict[str, dict[str, Any]]]:
    """The engine's description and the rows by sample id of the run that --rescore names. Raises InputError where it is not
    there, is unfinished, or has no answer for some of the items that are asked."""
    name, output = benchmark.args.rescore, benchmark.args.output_dir
    info, rows = manifest.read_run(output, name)
    about = manifest.read_manifest(output, name)
    number = parse_signature(str(about.get("signature", ""))).get("n", "")
    if number.isdecimal() and len(rows) < int(number):
        raise InputError(f"run {name} is unfinished: {len(rows)} of {number} items are answered; {_finish(about)}")
    lacking = [sample for sample in benchmark.asked if sample.id not in rows]
    if lacking:
        has = f"run {name} has no answer for {len(lacking)} of the {len(benchmark.asked)} items"
        raise InputError(f"{has}; {_remedy(benchmark, rows, about)}")
    kept = sum(not withheld(rows[sample.id]) for sample in benchmark.asked)
    if kept < len(benchmark.asked):
        raise InputError(
            f"run {name} was kept in little space, {len(benchmark.asked) - kept} of its replies are not there; rescore it "
            "where it was made, or run it again"
        )
    return info, rows


def _finish(about: Mapping[str, Any]) -> str:
    command = about.get("command")
    return "finish it with its own command" + (f": {command}" if command else "")


def _remedy(benchmark: Benchmark, rows: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The options with which the items are those that the run has answered."""
    size, has = Counter[str](), Counter[str]()
    first = True  # whether of every group the first ones are there
    for sample in benchmark.asked:
        answered = sample.id in rows
        first &= not answered or has[sample.group] == size[sample.group]
        size[sample.group] += 1
        has[sample.group] += answered
    groups = [group for group in size if has[group]]
    limit = max(has.values(), default=0)
    options = []
    if len(groups) < len(size) and benchmark.has_subjects:
        options.append(f"--subjects {','.join(groups)}")
    if any(has[group] < size[group] for group in groups):
        options.append(f"--limit {limit}")
    fits = first and groups and all(has[group] == min(limit, size[group]) for group in groups)
    if fits and (len(groups) == len(size) or benchmark.has_subjects):
        return f"it asked a part of them: add {' '.join(options)}"
    command = f" ({about['command']})" if about.get("command") else ""
    return f"give the data and the options that it was made with{command}"
