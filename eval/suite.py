"""Every benchmark of the README's tables for one checkpoint in one process, the model loaded once a precision; then the
tables.

python eval/suite.py -c Qwen/Qwen-7B --chat-checkpoint Qwen/Qwen-7B-Chat    base and chat protocols
python eval/suite.py -c Qwen/Qwen-7B --dry-run                              what would be done and about how long it takes
python eval/suite.py -c demo                                                the embedded demonstration

Takes every option the benchmarks share and hands it on; -d DIR holds one folder a benchmark (DIR/mmlu, DIR/gsm8k ...). With
--own FILE a benchmark of your own is asked, too. What was answered before is not asked again: after a stop the same command
goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import report
from qwen_eval import options, terminal
from qwen_eval.data import demo
from qwen_eval.engines.open import open_engine
from qwen_eval.main import exit_with
from qwen_eval.runs import estimate, run
from qwen_eval.runs.files import write_text
from qwen_eval.runs.results import read_results
from qwen_eval.schema import CheckpointError, Engine, InputError
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.load import known

# options of the precision table's rows; a checkpoint that is stored in BF16 has answered the first one by then
PRECISIONS = {
    "bf16": ("--dtype", "bfloat16"),
    "int8": ("--dtype", "bfloat16", "--quantize", "int8"),
    "nf4": ("--dtype", "bfloat16", "--quantize", "nf4"),
}


class Job:
    """One run: a benchmark and its options."""

    def __init__(self, kind: type[Benchmark], args: argparse.Namespace) -> None:
        self.kind, self.args = kind, args

    @property
    def model(self) -> tuple[str, str, str]:
        """What has to be loaded: the checkpoint, the type of its numbers and its quantization."""
        return self.args.checkpoint_path, self.args.dtype, self.args.quantize

    @cached_property
    def benchmark(self) -> Benchmark:
        """What is asked, made once. Raises InputError for bad data."""
        made = self.kind(self.args)
        run.prepare(made)
        return made


def plan(args: argparse.Namespace, shared: Sequence[str], kinds: Mapping[str, type[Benchmark]]) -> list[Job]:
    """All jobs: base protocols on -c, chat protocols on --chat-checkpoint, then what is asked in other precisions. Jobs of one
    model stand together. Raises InputError for a precision that cannot be had."""
    chat = args.chat_checkpoint or (demo.NAME if args.checkpoint_path == demo.NAME else None)
    wanted: list[tuple[type[Benchmark], str, Sequence[str]]] = []
    for mode, checkpoint in (("base", args.checkpoint_path), ("chat", chat)):
        for kind in kinds.values() if checkpoint else ():
            wanted += [(kind, str(checkpoint), own) for own in runs_of(kind, mode)]
    for precision in precisions(args, shared):
        wanted += [(kind, args.checkpoint_path, PRECISIONS[precision]) for kind in kinds.values() if kind.precisions]
    planned = []
    for kind, checkpoint, own in wanted:
        words = ["-c", checkpoint]
        if args.data and not (args.data == demo.NAME and kind.demo_folder() is None):
            words += ["-d", args.data if args.data == demo.NAME else str(Path(args.data) / (kind.folder or kind.name))]
        planned += [Job(kind, row) for row in kind.variants(kind.parser().parse_args([*words, *shared, *own]))]
    return planned


def runs_of(kind: type[Benchmark], mode: str) -> Sequence[Sequence[str]]:
    """The options of a benchmark's runs in a mode; of one that says nothing a single run in every mode that it has."""
    usual = {name: (("--chat",),) if name == "chat" and "base" in kind.shots else ((),) for name in kind.shots}
    return (kind.suite or usual).get(mode, ())


def precisions(args: argparse.Namespace, shared: Sequence[str]) -> list[str]:
    """The precisions that MMLU is asked in beside the checkpoint's own: the named ones; without a name all, if bitsandbytes is
    installed and the command names no --quantize, --dtype or --engine for everything. Raises InputError for an unknown
    name."""
    if args.precisions is None:
        fixed = any(word.split("=")[0] in ("--quantize", "--dtype", "--engine") for word in shared)
        return [] if fixed or importlib.util.find_spec("bitsandbytes") is None else list(PRECISIONS)
    for name in args.precisions:
        if name not in (*PRECISIONS, "none"):
            raise InputError(f"--precisions: {name!r} is not one of {', '.join(PRECISIONS)} or none")
    return [name for name in args.precisions if name != "none"]


def show(jobs: Sequence[Job], speed: float | None, kinds: Mapping[str, type[Benchmark]]) -> None:
    """Prints the plan: a line a job with its items, tokens and time, and what the times rest on. Raises InputError for bad
    data, so that it is said before hours of work."""
    output = jobs[0].args.output_dir
    writes = {name: kind.writes for name, kind in kinds.items()}
    results = {name: read_results(output / f"{name}.csv") for name in kinds}
    lines, total, measured = [["", "model", "precision", "items", "read", "written", "time"]], 0.0, True
    for job in jobs:
        benchmark = job.benchmark
        work = estimate.work(benchmark)
        path = job.args.checkpoint_path  # results name a hub id, or a folder without the way to it
        found = estimate.speeds(results, writes, path) or estimate.speeds(results, writes, Path(path).name)
        measured &= len(found) == len(estimate.ASSUMED)
        given = {} if speed is None else {"read": speed, "write": speed / 10}
        time = estimate.seconds(work, {**estimate.ASSUMED, **found, **given})
        total += time
        name = f"{benchmark.name} {benchmark.mode} {benchmark.shot_count}-shot"
        precision = job.args.quantize if job.args.quantize != "none" else job.args.dtype
        model = [job.args.checkpoint_path, precision.replace("auto", "own")]
        lines.append([name, *model, f"{work.items:,}", f"{work.read:,}", f"{work.written:,}", estimate.duration(time)])
    basis = (
        f"at {speed:,.0f} tokens read a second, a tenth of it written"
        if speed
        else "at the speed of this model's earlier runs"
        if measured
        else "at {read:,.0f} tokens read and {write:,.0f} written a second, assumed where nothing was measured; "
        "--speed N says otherwise".format(**estimate.ASSUMED)
    )
    below = ["", f"about {estimate.duration(total)} {basis}; replies at their longest", ""]
    print("\n".join([*terminal.aligned(lines), *below]), flush=True)


def run_all(jobs: Sequence[Job]) -> int:
    """Runs the jobs in order; the model stays loaded while it is the same. One that cannot be run (no sandbox for programs,
    a precision that this machine has not) is named, and the others go on. Returns the exit status: 2 when one was left out.
    Raises CheckpointError when the checkpoint itself cannot be loaded."""
    engine: Engine | None = None
    loaded: tuple[str, str, str] | None = None
    failed: list[str] = []
    for job in jobs:
        try:
            benchmark = job.benchmark
            if job.model != loaded:
                engine = loaded = None  # its memory is free before the next is loaded
                engine, loaded = open_engine(job.args), job.model
            assert engine is not None
            engine.extend(options.model_spec(job.args))  # the long-context rows differ in this alone
            run.run(benchmark, engine)
            del job.benchmark  # its prompts need not be kept
        except InputError as error:
            if isinstance(error, CheckpointError) and job.args.quantize == "none":
                raise
            name = f"{job.kind.name} {options.mode(job.args)} {job.args.quantize}"
            failed.append(f"{name}: {' '.join(str(error).split())}")
    for line in failed:
        print(f"suite: left out: {line}", file=sys.stderr)
    return 2 if failed else 0


def renew(paths: Sequence[Path], results: Path, kinds: dict[str, type[Benchmark]]) -> None:
    """The tables of the files, made from the results folder; a file that is not there is made with the five tables of the
    README."""
    made = report.read(results, report.PUBLISHED, kinds)
    for path in paths:
        if not path.exists():
            write_text(path, report.blank(made, report.language_of(path)))
    report.rewrite(paths, made)


def main() -> None:
    parser = options.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("-c", "--checkpoint-path", default=options.DEFAULT_CHECKPOINT["base"], metavar="MODEL")
    add("--chat-checkpoint", metavar="MODEL", help="for the chat protocols (demo: the same)")
    add("-d", "--data", metavar="DIR", help="one folder a benchmark below it, or demo; without it the hub")
    add("--own", type=Path, action="append", default=[], metavar="FILE", help="a benchmark of your own (several times)")
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
    kinds = known(args.own)
    jobs = plan(args, shared, kinds)
    show(jobs, args.speed, kinds)
    if args.dry_run:
        return 0
    status = run_all(jobs)
    output = jobs[0].args.output_dir
    paths = args.readme or [path for path in report.FILES if output == Path("results") and path.exists()]
    if paths:
        renew(paths, output, kinds)
    return status


if __name__ == "__main__":
    main()
