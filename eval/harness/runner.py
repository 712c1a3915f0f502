"""The pipeline behind every script: benchmark -> one engine call -> scores -> metrics -> CSV and a table.

It prints the final table on stdout; progress goes to stderr (answering.py). How a script starts and ends is entry.py's.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonlines

from harness import __version__, answering, arguments, demo, parallel, results_csv, store, tables
from harness.schema import Benchmark, Engine, EngineInfo, InputError, Sample
from harness.stand_in import StandIn

if TYPE_CHECKING:
    from harness.entry import Build, OnFinish


def run(args: argparse.Namespace, build: Build, finish: OnFinish | None = None, engine: Engine | None = None) -> int:
    """One benchmark from arguments to table. engine: one that is loaded already, None to open the one args name.

    Raises InputError for bad input; what was answered before is stored by then. Returns the exit status, 0.
    """
    if args.export:  # by the first process, where there are several
        if int(os.environ.get("RANK", "0")):
            return 0
        from harness.models.export import export_qwen2  # imports torch

        print(export_qwen2(arguments.model_spec(args), args.export))
        return 0
    team = parallel.join()
    if args.dump_prompts or args.rescore or (engine and engine.describe().engine == "file"):  # no work to share
        if not team.leads:
            return 0
        team = answering.ALONE
    benchmark = limited(marked(build(args), args), args.limit)
    if args.dump_prompts:
        dump_prompts(benchmark)
        return 0
    results_csv.read_results(
        args.output_dir / f"{benchmark.name}.csv"
    )  # one that cannot be added to shows before the work
    given = None
    if args.rescore:
        info, given = store.read_run(args.output_dir, args.rescore)
        engine = StandIn(info)
        benchmark = dataclasses.replace(benchmark, signature={**benchmark.signature, "replies": args.rescore})
    engine = engine or open_engine(args)
    info = engine.describe()
    if args.checkpoint_path == demo.NAME and not args.rescore:
        info = dataclasses.replace(info, model=demo.NAME, revision="demo")
    run_id = store.run_id(benchmark, info)
    if not team.leads:
        look = partial(check, engine, info, args)
        answering.contribute(benchmark, engine, args, run_id, look, team)
        return 0
    with store.run_lock(args.output_dir, run_id):
        lines = finished(benchmark, engine, info, args, run_id, given, finish, team)
    print(lines, end="\n\n")
    return 0


def finished(
    benchmark: Benchmark,
    engine: Engine,
    info: EngineInfo,
    args: argparse.Namespace,
    run_id: str,
    given: Mapping[str, Mapping[str, Any]] | None,
    finish: OnFinish | None,
    team: parallel.Team,
) -> str:
    """Answers, scores and stores a run; the table for the terminal."""
    checked = parallel.remark(team)
    if checked and not args.quiet:
        print(checked[0], file=sys.stderr)
    checked += other_prompts(benchmark, given)
    if benchmark.changed:
        checked.append(other_data(benchmark))
        if not args.quiet:
            print(tables.printable(checked[-1]), file=sys.stderr)

    started = time.monotonic()

    def look(samples: Sequence[Sample]) -> None:
        checked.extend(check(engine, info, args, samples))

    scored = answering.answer(benchmark, engine, args, run_id, given, look, team)
    execution = {
        "run_id": run_id,
        "timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": f"{time.monotonic() - started:.1f}",
        "tokens": results_csv.tokens_of(scored),
        **results_csv.memory_of(engine.usage()),
        "harness_version": __version__,
        "git_commit": git_commit(),
    }
    metrics = benchmark.metrics(scored)
    if metrics:
        from harness import precision

        metrics += precision.against_bf16(benchmark, info, scored, args.output_dir)
    rows = results_csv.result_rows(benchmark, info, metrics, execution)
    notes = list(dict.fromkeys([*benchmark.remarks(scored), *engine.notes, *checked]))
    if metrics:
        csv = args.output_dir / f"{benchmark.name}.csv"
        written = results_csv.append_results(csv, rows)
        notes.append(f"{'added to' if written else 'already in'} {csv}")
    manifest = {
        **execution,
        "signature": store.signature(benchmark, info),
        "model": dataclasses.asdict(info),
        "data": {"origin": benchmark.origin, "changed": list(benchmark.changed)},
        "usage": dict(engine.usage()),
        "processes": team.size,
        "command": arguments.command(),
        "notes": notes,
    }
    store.write_manifest(args.output_dir, run_id, manifest)
    notes.append(f"samples in {args.output_dir / 'samples' / (run_id + '.jsonl')}")
    if finish:
        notes += finish(args, run_id, scored)
    return tables.terminal(benchmark, metrics, title(benchmark, info), store.signature(benchmark, info), notes)


def check(engine: Engine, info: EngineInfo, args: argparse.Namespace, samples: Sequence[Sample]) -> list[str]:
    """The self-check's sentences about the samples to be asked, where this engine has one and nobody declined it."""
    from harness import self_check

    return self_check.check(engine, samples, info.precision) if info.engine == "hf" and not args.no_self_check else []


def other_data(benchmark: Benchmark) -> str:
    """A warning that names the data that is not the official one."""
    first, count = benchmark.changed[0], len(benchmark.changed)
    more = f" and {count - 1} more" if count > 1 else ""
    return (
        f"warning: {benchmark.name}'s data is not the official one: {first}{more}; no figure is comparable with others"
    )


def other_prompts(benchmark: Benchmark, given: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """With --rescore, a sentence about items whose replies answered another prompt than this recipe's, where there are."""
    asked = [(given[sample.id], sample.request) for sample in benchmark.samples if given and sample.id in given]
    other = sum(
        store.prompt_hash(row["prompt"]) != store.prompt_hash(store.prompt_of(request)) for row, request in asked
    )
    return [f"{other} of {len(asked)} replies answered another prompt than this recipe's"] if other else []


def dump_prompts(benchmark: Benchmark) -> None:
    """Every sample's prompt on stdout, one JSON object a line."""
    with jsonlines.Writer(sys.stdout) as writer:
        for sample in benchmark.samples:
            writer.write({"id": sample.id, "group": sample.group, "prompt": store.prompt_of(sample.request)})


def title(benchmark: Benchmark, info: EngineInfo) -> str:
    """`MMLU  Qwen/Qwen-7B  base, 5-shot, recipe default, bf16, dynamic_ntk+logn`."""
    protocol = f"{benchmark.mode}, {benchmark.shots}-shot, recipe {benchmark.recipe}, {info.precision}"
    protocol += f", {info.context}" if info.context != "none" else ""
    return f"{benchmark.name}  {info.model}  {protocol}" + ("  (partial)" if benchmark.partial else "")


def marked(benchmark: Benchmark, args: argparse.Namespace) -> Benchmark:
    """The benchmark with its data named as the demonstration's in the signature, where it is."""
    if not arguments.on_demo_data(args, benchmark.name):
        return benchmark
    named = {**benchmark.signature, "data": f"demo-{benchmark.signature['data']}"}
    return dataclasses.replace(benchmark, signature=named, origin="demo", changed=())


def limited(benchmark: Benchmark, limit: int | None) -> Benchmark:
    """The benchmark with the first `limit` samples of every group, marked partial when that leaves any out."""
    if limit is None:
        return benchmark
    taken: dict[str, int] = defaultdict(int)
    samples: list[Sample] = []
    for sample in benchmark.samples:
        taken[sample.group] += 1
        if taken[sample.group] <= limit:
            samples.append(sample)
    partial = benchmark.partial or len(samples) < len(benchmark.samples)
    return dataclasses.replace(benchmark, samples=samples, partial=partial)


def open_engine(args: argparse.Namespace) -> Engine:
    """The engine that the arguments name; weights are loaded when they are first needed. Raises CheckpointError, and
    InputError for a server that does not answer."""
    if args.engine == "api":
        return _open_api(args)
    if args.base_url:
        raise InputError("--base-url names a server; add --engine api, or leave it out")
    spec = arguments.model_spec(args)
    if args.engine == "vllm":
        from harness.engines.vllm import VLLMEngine

        return VLLMEngine(spec, args.tensor_parallel_size, args.seed)
    if args.tensor_parallel_size > 1:
        raise InputError(
            "--tensor-parallel-size is vLLM's; add --engine vllm, or start several processes with torchrun"
        )
    from harness.engines.hf import HFEngine  # imports torch: seconds that --help and bad data need not wait for

    return HFEngine(spec, args.batch_size, seed=args.seed)


def _open_api(args: argparse.Namespace) -> Engine:
    """The engine that asks a server. Without -c only the server knows the model."""
    if not args.base_url:
        raise InputError("--engine api needs the server's address: --base-url http://HOST:PORT/v1")
    from harness.engines.api import APIEngine
    from harness.engines.server import Server

    server = Server(args.base_url, args.api_key_env, args.request_timeout, args.concurrency)
    spec = arguments.model_spec(args) if args.checkpoint_path else None
    return APIEngine(spec, server, args.served_model, args.concurrency, args.seed)


def git_commit() -> str:
    """The harness's own commit, with + when the checkout has changes; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if commit and git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
