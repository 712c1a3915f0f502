"""One run: a benchmark's requests to an engine, its responses to scores, figures, rows of the CSV and a table.

The table is printed on stdout; progress goes to stderr (answer.py). main.py has how a script starts and ends.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval import __version__, options, terminal
from qwen_eval.data import demo
from qwen_eval.engines.replay import StandIn
from qwen_eval.runs import (
    answer,
    effort,
    find,
    former,
    gate,
    manifest,
    precision,
    prompts,
    results,
    samples,
    starts,
    stored,
    unanswered,
    workers,
)
from qwen_eval.runs.commit import git_commit
from qwen_eval.runs.rehearsal import rehearse
from qwen_eval.runs.signature import prompt_hash, prompt_of, run_id, signature
from qwen_eval.schema import Engine, EngineInfo, InputError, Metric, Sample, Trusted, Unanswered
from qwen_eval.stats import intervals
from qwen_eval.tasks import judging
from qwen_eval.tasks.benchmark import Benchmark

Rows = Mapping[str, Mapping[str, Any]]  # stored rows by sample id

UNTESTED = Trusted("untested", (), {"declined": True})  # by --no-self-check


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to. headline: the figure shown first, None where none could be computed. samples: the sample file.
    verdict: of its sequential gate."""

    benchmark: Benchmark
    info: EngineInfo
    headline: Metric | None
    samples: Path
    verdict: gate.Verdict | None = None


@dataclasses.dataclass(frozen=True)
class Gate:
    """A sequential gate: the run that this one is held against, and the chances of a wrong verdict."""

    baseline: find.Run
    levels: gate.Levels


def run(
    benchmark: Benchmark, engine: Engine, processes: workers.Processes = workers.SINGLE, gated: Gate | None = None
) -> Outcome | None:
    """Answers what is not stored yet, scores and stores it, and prints the table. processes: those that share the work; all
    but rank 0 answer their share, print nothing and return None. gated: stops as soon as the gate's verdict is sure; what is
    not answered then leaves the run unfinished, without table and figures.

    Raises InputError for bad input; what was answered until then is stored.
    """
    benchmark.too_long = _too_long(benchmark, engine, processes)
    info = prompts.with_day(benchmark, engine, engine.describe())
    if benchmark.args.checkpoint_path == demo.NAME and info.engine != "file":
        adapted = "".join(info.model.partition("+")[1:])
        info = dataclasses.replace(info, model=demo.NAME + adapted, revision="demo")
    if processes.is_first:
        return _run_locked(benchmark, engine, info, processes, gated=gated)
    name, day = processes.broadcast(None)
    prompts.set_day(benchmark, engine, day)
    answer.answer_share(benchmark, engine, name, lambda asked: _trust(benchmark, engine, asked), processes)
    return None


def _too_long(benchmark: Benchmark, engine: Engine, processes: workers.Processes) -> Mapping[str, Unanswered]:
    """The items that do not fit the context, found by the first process before the weights are downloaded or read. Raises
    InputError in that process; the others end without a word."""
    found: Mapping[str, Unanswered] = {}
    error: InputError | None = None
    if processes.is_first:
        try:
            found = unanswered.find(benchmark, engine)
        except InputError as problem:
            error = problem
    found, failed = processes.broadcast((found, error is not None))
    if error:
        raise error
    if failed:
        raise SystemExit(2)
    return found


def rescore(benchmark: Benchmark) -> None:
    """Scores the stored responses of another run under this benchmark's recipe; no model is asked.

    Raises InputError, before anything is written, for a run that does not exist or is unfinished, and for items that it has not
    answered.
    """
    info, given = stored.read(benchmark)
    prompt = manifest.read_manifest(benchmark.args.output_dir, benchmark.args.rescore).get("prompt")
    benchmark.too_long = {
        sample.id: response
        for sample in benchmark.asked
        if isinstance(response := samples.stored_response(given[sample.id]), Unanswered)
    }
    _run_locked(benchmark, StandIn(info, prompt), info, workers.SINGLE, given)


def dump_prompts(benchmark: Benchmark) -> None:
    """Prints every sample's prompt on stdout, one JSON object per line."""
    with jsonlines.Writer(sys.stdout) as writer:
        for sample in benchmark.asked:
            writer.write({"id": sample.id, "group": sample.group, "prompt": prompt_of(sample.request)})


def prepare(benchmark: Benchmark) -> None:
    """Checks before the work what could fail after it: that the CSV can be appended to, and that responses can be scored and
    figures computed. Raises InputError."""
    results.read_results(benchmark.args.output_dir / f"{benchmark.name}.csv")
    rehearse(benchmark)


def _run_locked(
    benchmark: Benchmark,
    engine: Engine,
    info: EngineInfo,
    processes: workers.Processes,
    given: Rows | None = None,
    gated: Gate | None = None,
) -> Outcome:
    """Runs as rank 0 under the run's lock and prints the table. given: rows whose responses are used."""
    name, output = run_id(benchmark, info), benchmark.args.output_dir
    path = output / "samples" / f"{name}.jsonl"
    verdict: gate.Verdict | None = None
    tested: list[Trusted | None] = []
    with samples.run_lock(output, name):
        if benchmark.args.overwrite:
            samples.discard(output, name)
        start, prompt = prompts.first_start(benchmark, engine, info, name)
        processes.broadcast((name, start.day))
        info = dataclasses.replace(info, day=start.day)
        if gated:

            def check(asked: Sequence[Sample]) -> None:
                _same_prompt(info, start, prompt)
                effort.begin(output, name)
                tested.append(_trust(benchmark, engine, asked))

            verdict = gate.sequentially(benchmark, engine, name, gated.baseline, gated.levels, check)
            if not verdict.complete:
                _print_notes(engine.notes, benchmark.args.quiet)
                return Outcome(benchmark, info, None, path, verdict)
        table, metrics = _run_and_store(benchmark, engine, info, name, processes, given, start, prompt, tested)
    print(table, end="\n\n")
    shown = next((metric for metric in metrics if (metric.metric, metric.group) == benchmark.headline), None)
    return Outcome(benchmark, info, shown or next(iter(metrics), None), path, verdict)


def _run_and_store(
    benchmark: Benchmark,
    engine: Engine,
    info: EngineInfo,
    name: str,
    processes: workers.Processes,
    given: Rows | None,
    start: starts.Start,
    prompt: Any,
    tested: list[Trusted | None],
) -> tuple[str, list[Metric]]:
    """Answers, scores and stores a run. prompt: its first prompt, as it is now. tested: what the engine's test of itself came
    to, where it was before this. Returns the table for the terminal, and the figures."""
    args = benchmark.args
    notes = workers.notes(processes)
    _print_notes(notes[:1], args.quiet)
    notes += _other_prompts(benchmark, given)
    notes += former.notes(benchmark, info)
    notes += prompts.notes(info, start, prompt)
    changed = _changed_data(benchmark)
    _print_notes(changed, args.quiet)
    notes += changed
    count = 0

    def check(asked: Sequence[Sample]) -> None:
        nonlocal count
        count = len(asked)
        if asked:
            _same_prompt(info, start, prompt)
            effort.begin(args.output_dir, name)
        tested.append(_trust(benchmark, engine, asked))

    scored = answer.answer(benchmark, engine, name, given, check, processes)
    info, trusted = _with_trust(benchmark, info, name, tested[0] if tested else None)
    doubts = [*start.doubts, *(_exchanged(engine, count) if count and info.known_by else [])]
    notes += doubts
    execution = {
        "run_id": name,
        "timestamp": datetime.now(timezone.utc).strftime(starts.TIME),
        "seconds": f"{effort.seconds(args.output_dir, name):.1f}",
        "tokens": results.tokens_of(scored),
        **effort.memory(args.output_dir, name, results.memory_of(engine.usage())),
        "harness_version": __version__,
        "git_commit": git_commit(),
        "started": start.started,
        "prompt": start.prompt if start.prompt is not None else prompt,
        **({"doubts": doubts} if doubts else {}),
        **({"system_fingerprints": prints} if (prints := results.system_fingerprints(scored)) else {}),
    }
    metrics = list(benchmark.metrics(scored))
    if metrics:
        metrics += unanswered.share(scored)
        metrics += precision.against_bf16(benchmark, info, scored, args.output_dir)
    said = [
        *unanswered.remark(benchmark),
        *judging.remark(scored),
        *benchmark.remarks(scored),
        *intervals.without(metrics),
        *_unverified(benchmark),
    ]
    notes = list(dict.fromkeys([*_moved(prints), *said, *engine.notes, *notes]))
    if metrics:
        csv = args.output_dir / f"{benchmark.name}.csv"
        written = results.append_results(csv, results.result_rows(benchmark, info, metrics, execution))
        notes.append(f"{'added to' if written else 'already in'} {csv}")
    _write_manifest(benchmark, engine, info, name, {**execution, **trusted}, notes, processes)
    starts.remove(args.output_dir, name)
    effort.end(args.output_dir, name)
    notes.append(f"samples in {args.output_dir / 'samples' / (name + '.jsonl')}")
    notes += benchmark.finish(name, scored)
    line = signature(benchmark, info)
    return terminal.table(benchmark.headline[0], metrics, _title(benchmark, info), line, notes), metrics


def _same_prompt(info: EngineInfo, start: starts.Start, prompt: Any) -> None:
    """Raises InputError where what is to be asked is not what was asked when the run first started."""
    if info.chat_template != "server":  # a server's template is its own affair, and told
        for line in prompts.changed(start, prompt):
            raise InputError(f"{line}; use --overwrite, or what wrote it before")


def _write_manifest(
    benchmark: Benchmark,
    engine: Engine,
    info: EngineInfo,
    name: str,
    execution: Mapping[str, Any],
    notes: Sequence[str],
    processes: workers.Processes,
) -> None:
    content = {
        **execution,
        "signature": signature(benchmark, info),
        "model": dataclasses.asdict(info),
        "data": {"origin": benchmark.origin, "changed": list(benchmark.changed)},
        "usage": dict(engine.usage()),
        "processes": processes.size,
        "command": options.command(),
        "notes": list(notes),
    }
    if benchmark.is_own():  # so that the run can be read without its code
        content["benchmark"] = benchmark.facts().as_json()
    manifest.write_manifest(benchmark.args.output_dir, name, content)


def _trust(benchmark: Benchmark, engine: Engine, asked: Sequence[Sample]) -> Trusted | None:
    """The engine's test of itself on the samples to be asked. None where nothing is asked or the engine has no
    test; --no-self-check declines it, which the marks say."""
    test = getattr(engine, "trust", None)
    if not asked or test is None:
        return None
    return UNTESTED if benchmark.args.no_self_check and engine.describe().engine == "hf" else test(asked)


def _with_trust(
    benchmark: Benchmark, info: EngineInfo, name: str, tested: Trusted | None
) -> tuple[EngineInfo, dict[str, Any]]:
    """The engine's description with what its test came to, and the same for the manifest. Where nothing was asked this time it
    is what the run's manifest says."""
    if tested is not None:
        return dataclasses.replace(info, trust=tested.marks), {"trust": dict(tested.result)}
    try:
        before = manifest.read_manifest(benchmark.args.output_dir, name)
    except InputError:
        return info, {}
    known = {"trust": before["trust"]} if "trust" in before else {}
    return dataclasses.replace(info, trust=before.get("model", {}).get("trust", info.trust)), known


def _changed_data(benchmark: Benchmark) -> list[str]:
    """A warning if some of the data is not the official one."""
    if not benchmark.changed:
        return []
    first, count = benchmark.changed[0], len(benchmark.changed)
    more = f" and {count - 1} more" if count > 1 else ""
    return [
        f"warning: {benchmark.name}'s data is not the official one: {first}{more}; no figure is comparable with others"
    ]


def _exchanged(engine: Engine, count: int) -> list[str]:
    """A warning if another model is served now than when the run's items were first asked."""
    change = engine.exchanged()
    if not change:
        return []
    return [f"warning: another model was served at the end ({change}): the last {count} answers may be of either"]


def _moved(prints: Mapping[str, int]) -> list[str]:
    """A warning if the server named several system fingerprints: something at its side changed between two replies."""
    if len(prints) < 2:
        return []
    counts = ", ".join(f"{name} {count}" for name, count in prints.items())
    return [f"warning: the server's system_fingerprint changed during the run (replies by fingerprint: {counts})"]


def _unverified(benchmark: Benchmark) -> list[str]:
    """A note if no checksums are known for the data of a benchmark of one's own."""
    if not benchmark.is_own() or benchmark.sums or benchmark.on_demo_data:
        return []
    return [f"no official checksums of {benchmark.name}'s data are known: its rows were taken as they are"]


def _other_prompts(benchmark: Benchmark, given: Rows | None) -> list[str]:
    """With --rescore, a note if stored replies answered another prompt than this recipe's."""
    asked = [(given[sample.id], sample.request) for sample in benchmark.asked if given and sample.id in given]
    other = sum(prompt_hash(row["prompt"]) != prompt_hash(prompt_of(request)) for row, request in asked)
    return [f"{other} of {len(asked)} replies answered another prompt than this recipe's"] if other else []


def _title(benchmark: Benchmark, info: EngineInfo) -> str:
    """`mmlu  Qwen/Qwen-7B  base, 5-shot, recipe default, bf16, dynamic_ntk+logn`."""
    protocol = f"{benchmark.mode}, {benchmark.shot_count}-shot, recipe {benchmark.recipe}, {info.precision}"
    protocol += f", {info.context}" if info.context != "none" else ""
    return f"{benchmark.name}  {info.model}  {protocol}" + ("  (partial)" if benchmark.partial else "")


def _print_notes(lines: Sequence[str], quiet: bool) -> None:
    """Prints notes on stderr unless `quiet`."""
    for line in () if quiet else lines:
        print(terminal.escape_controls(line), file=sys.stderr)
