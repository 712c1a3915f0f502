"""Every benchmark of the README's tables for one checkpoint in one process, the model loaded once a precision; then the
tables.

python eval/suite.py -c Qwen/Qwen-7B --chat-checkpoint Qwen/Qwen-7B-Chat    base and chat protocols
python eval/suite.py -c Qwen/Qwen-7B --dry-run                              what would be done and about how long it takes
python eval/suite.py -c demo                                                the embedded demonstration

Takes every option the benchmarks share and hands it on; -d DIR holds one folder a benchmark (DIR/mmlu, DIR/gsm8k ...). What
was answered before is not asked again: after a stop the same command goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import ceval
import cmmlu
import gsm8k
import humaneval
import long_ppl
import mmlu
import plugin_eval
import report
import wmt22
from qwen_eval import options, schema, terminal
from qwen_eval.data import demo
from qwen_eval.main import Script, exit_with
from qwen_eval.runs import estimate, store
from qwen_eval.runs import results as results_csv
from qwen_eval.runs import run as runner

# (script, folder below -d, options of its own) in the order of the tables
BASE: tuple[tuple[ModuleType, str, tuple[str, ...]], ...] = (
    (mmlu, "mmlu", ()),
    (ceval, "ceval", ()),
    (cmmlu, "cmmlu", ()),
    (gsm8k, "gsm8k", ()),
    (humaneval, "humaneval", ()),
    (wmt22, "wmt22", ()),
    (long_ppl, "long_ppl", ("--grid", "readme")),
)
CHAT: tuple[tuple[ModuleType, str, tuple[str, ...]], ...] = (
    (mmlu, "mmlu", ("--chat",)),
    (ceval, "ceval", ("--chat",)),
    (gsm8k, "gsm8k", ("--chat",)),
    (gsm8k, "gsm8k", ("--chat", "--shots", "4")),
    (humaneval, "humaneval", ("--chat",)),
    (plugin_eval, "plugin", ()),
)
# options of the precision table's rows; a checkpoint that is stored in BF16 has answered the first one by then
PRECISIONS = {
    "bf16": ("--dtype", "bfloat16"),
    "int8": ("--dtype", "bfloat16", "--quantize", "int8"),
    "nf4": ("--dtype", "bfloat16", "--quantize", "nf4"),
}


class Job(NamedTuple):
    """One run: its script and arguments."""

    script: Script
    options: argparse.Namespace

    @property
    def model(self) -> tuple[str, str, str]:
        """What has to be loaded: the checkpoint, the type of its numbers and its quantization."""
        return self.options.checkpoint_path, self.options.dtype, self.options.quantize

    def benchmark(self) -> schema.Benchmark:
        """What is asked. Raises InputError for bad data."""
        made = runner.marked(self.script.build(self.options), self.options)
        return runner.limited(made, self.options.limit)


def plan(args: argparse.Namespace, shared: Sequence[str]) -> list[Job]:
    """All jobs: base protocols on -c, chat protocols on --chat-checkpoint, MMLU in the other precisions. Jobs of one model
    stand together. Raises InputError for a precision that cannot be had."""
    chat = args.chat_checkpoint or (demo.NAME if args.checkpoint_path == demo.NAME else None)
    jobs = [(job, args.checkpoint_path) for job in BASE] + [(job, chat) for job in CHAT if chat]
    for precision in precisions(args, shared):
        jobs.append(((mmlu, "mmlu", PRECISIONS[precision]), args.checkpoint_path))
    planned = []
    for (script, folder, own), checkpoint in jobs:
        words = ["-c", checkpoint]
        if args.data:
            words += ["-d", args.data if args.data == demo.NAME else str(Path(args.data) / folder)]
        options = script.parser().parse_args([*words, *shared, *own])
        rows = script.rows(options) if script is long_ppl else [options]
        planned += [Job(script.SCRIPT, row) for row in rows]
    return planned


def precisions(args: argparse.Namespace, shared: Sequence[str]) -> list[str]:
    """The precisions that MMLU is asked in beside the checkpoint's own: the named ones; without a name all, if bitsandbytes is
    installed and the command names no --quantize, --dtype or --engine for everything. Raises InputError for an unknown
    name."""
    if args.precisions is None:
        fixed = any(word.split("=")[0] in ("--quantize", "--dtype", "--engine") for word in shared)
        return [] if fixed or importlib.util.find_spec("bitsandbytes") is None else list(PRECISIONS)
    for name in args.precisions:
        if name not in (*PRECISIONS, "none"):
            raise schema.InputError(f"--precisions: {name!r} is not one of {', '.join(PRECISIONS)} or none")
    return [name for name in args.precisions if name != "none"]


def show(jobs: Sequence[Job], speed: float | None) -> None:
    """Prints the plan: a line a job with its items, tokens and time, and what the times rest on. Raises InputError for bad
    data, so that it is said before hours of work."""
    results: dict[str, list[dict[str, str]]] = {}
    lines, total, measured = [["", "model", "precision", "items", "read", "written", "time"]], 0.0, True
    for job in jobs:
        benchmark = job.benchmark()
        output = job.options.output_dir
        results = results or {name: results_csv.read_results(output / f"{name}.csv") for name in report.BENCHMARKS}
        todo = estimate.work(benchmark)
        path = job.options.checkpoint_path  # results name a hub id, or a folder without the way to it
        found = estimate.speeds(results, path) or estimate.speeds(results, Path(path).name)
        measured &= len(found) == len(estimate.ASSUMED)
        given = {} if speed is None else {"read": speed, "write": speed / 10}
        time = estimate.seconds(todo, {**estimate.ASSUMED, **found, **given})
        total += time
        name = f"{benchmark.name} {benchmark.mode} {benchmark.shots}-shot"
        precision = job.options.quantize if job.options.quantize != "none" else job.options.dtype
        model = [job.options.checkpoint_path, precision.replace("auto", "own")]
        lines.append([name, *model, f"{todo.items:,}", f"{todo.read:,}", f"{todo.written:,}", estimate.clock(time)])
    basis = (
        f"at {speed:,.0f} tokens read a second, a tenth of it written"
        if speed
        else "at the speed of this model's earlier runs"
        if measured
        else "at {read:,.0f} tokens read and {write:,.0f} written a second, assumed where nothing was measured; "
        "--speed N says otherwise".format(**estimate.ASSUMED)
    )
    below = ["", f"about {estimate.clock(total)} {basis}; replies at their longest", ""]
    print("\n".join([*terminal.aligned(lines), *below]), flush=True)


def run(jobs: Sequence[Job]) -> int:
    """Runs the jobs in order; the model stays loaded while it is the same. One that cannot be run (no sandbox for programs,
    a precision that this machine has not) is named, and the others go on. Returns the exit status: 2 when one was left out.
    Raises CheckpointError when the checkpoint itself cannot be loaded."""
    engine: schema.Engine | None = None
    loaded: tuple[str, str, str] | None = None
    failed: list[str] = []
    for job in jobs:
        try:
            if job.model != loaded:
                engine = loaded = None  # its memory is free before the next is loaded
                engine, loaded = runner.open_engine(job.options), job.model
            assert engine is not None
            engine.extend(options.model_spec(job.options))  # the long-context rows differ in this alone
            runner.run(job.options, job.script.build, job.script.finish, engine)
        except schema.InputError as error:
            if isinstance(error, schema.CheckpointError) and job.options.quantize == "none":
                raise
            name = f"{job.script.build.__module__} {options.mode(job.options)} {job.options.quantize}"
            failed.append(f"{name}: {' '.join(str(error).split())}")
    for line in failed:
        print(f"suite: left out: {line}", file=sys.stderr)
    return 2 if failed else 0


def renew(paths: Sequence[Path], results: Path) -> None:
    """The tables of the files, made from the results folder; a file that is not there is made with the five tables of the
    README."""
    made = report.read(results, report.PUBLISHED)
    for path in paths:
        if not path.exists():
            store.write_text(path, report.blank(made, report.language(path)))
    report.rewrite(paths, made)


def main() -> None:
    parser = options.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("-c", "--checkpoint-path", default=options.DEFAULT_CHECKPOINT["base"], metavar="MODEL")
    add("--chat-checkpoint", metavar="MODEL", help="for the chat protocols (demo: the same)")
    add("-d", "--data", metavar="DIR", help="one folder a benchmark below it, or demo; without it the hub")
    add(
        "--precisions",
        type=options.names,
        metavar="P,P",
        help="MMLU also in these: bf16,int8,nf4 (the default where bitsandbytes is installed) or none",
    )
    add("--dry-run", action="store_true", help="print the plan with the estimated time, and stop")
    add("--speed", type=options.seconds, metavar="N", help="tokens a second, for the estimate")
    add("--readme", type=Path, action="append", metavar="FILE", help="whose tables are made anew at the end (several times); "
        "one that is not there is made (default: the READMEs and RESULTS.md, where the results go to results/)")  # fmt: skip
    args, shared = parser.parse_known_args()
    exit_with(parser.prog, lambda: work(args, shared))


def work(args: argparse.Namespace, shared: Sequence[str]) -> int:
    """Plan, runs, tables. Returns the exit status."""
    jobs = plan(args, shared)
    show(jobs, args.speed)
    if args.dry_run:
        return 0
    status = run(jobs)
    output = jobs[0].options.output_dir
    paths = args.readme or [path for path in report.FILES if output == Path("results") and path.exists()]
    if paths:
        renew(paths, output)
    return status


if __name__ == "__main__":
    main()
