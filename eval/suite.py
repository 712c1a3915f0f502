"""Runs every benchmark of the README's tables for one checkpoint in one process, with the model loaded once per precision,
and regenerates the tables.

python eval/suite.py -c Qwen/Qwen-7B --chat-checkpoint Qwen/Qwen-7B-Chat    base and chat protocols
python eval/suite.py -c Qwen/Qwen-7B --dry-run                              the plan with estimated times
python eval/suite.py -c Qwen/Qwen-7B --only mmlu,gsm8k                      some of the benchmarks; --skip wmt22: all but some
python eval/suite.py -c demo                                                the embedded demonstration
python eval/suite.py --table main                                           the commands for the models of a published table

-d DIR has one folder per benchmark (DIR/mmlu, DIR/gsm8k ...). A benchmark without data is an error before anything is loaded;
with --skip-missing it is left out. --own FILE adds a benchmark of your own. An option is passed on to the benchmarks that have
it. Stored answers are not asked again: after an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import report
from qwen_eval import options, terminal
from qwen_eval.compare.gating import Gates
from qwen_eval.data import demo
from qwen_eval.engines.open import open_engine
from qwen_eval.main import exit_with
from qwen_eval.report import published_models
from qwen_eval.report.lines import read_published
from qwen_eval.runs import estimate, run
from qwen_eval.runs.files import write_text
from qwen_eval.runs.results import read_results
from qwen_eval.schema import CheckpointError, DataMissing, Engine, InputError
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.facts import Table
from qwen_eval.tasks.load import known

# options of the precision table's rows; for a checkpoint stored in BF16 the first is answered already
PRECISIONS = {
    "bf16": ("--dtype", "bfloat16"),
    "int8": ("--dtype", "bfloat16", "--quantize", "int8"),
    "nf4": ("--dtype", "bfloat16", "--quantize", "nf4"),
}


class Job:
    """One run: a benchmark and its options. name: how it is called where it is left out."""

    def __init__(self, kind: type[Benchmark], args: argparse.Namespace) -> None:
        self.kind, self.args = kind, args
        self.name = f"{kind.name} {options.mode(args)} {args.quantize}"

    @property
    def model(self) -> tuple[str, ...]:
        """What has to be opened: checkpoint, dtype and quantization, with the chat format and the recipe that it is for."""
        args = self.args
        format = getattr(args, "template", None) or ""
        return args.checkpoint_path, args.dtype, args.quantize, format, args.recipe

    @cached_property
    def benchmark(self) -> Benchmark:
        """The benchmark, built once. Raises DataMissing where its data is not there, InputError for bad data."""
        folder = self.args.data and Path(self.args.data)
        if folder and self.args.data != demo.NAME and not folder.exists():
            raise DataMissing(f"{folder} is missing")
        made = self.kind(self.args)
        run.prepare(made)
        return made


def plan(args: argparse.Namespace, shared: Sequence[str], kinds: Mapping[str, type[Benchmark]]) -> list[Job]:
    """All jobs: base protocols on -c, chat protocols on --chat-checkpoint, then other precisions. Jobs with the same model are
    consecutive. shared: options for all that have them. Raises InputError for an unknown precision or benchmark."""
    chosen = selected(args, kinds)
    base = args.checkpoint_path or options.DEFAULT_CHECKPOINT["base"]
    chat = args.chat_checkpoint or (base if base == demo.NAME or args.mode == "chat" else None)
    wanted: list[tuple[type[Benchmark], str, Sequence[str]]] = []
    for mode, checkpoint in (("base", base), ("chat", chat)):
        for kind in chosen if checkpoint and args.mode in (None, mode) else ():
            format = ["--template", args.template] if mode == "chat" and args.template else []
            wanted += [(kind, str(checkpoint), [*own, *format]) for own in runs_of(kind, mode)]
    for precision in precisions(args, shared) if args.mode != "chat" else ():
        wanted += [(kind, base, PRECISIONS[precision]) for kind in chosen if kind.precisions]
    planned = []
    for kind, checkpoint, own in wanted:
        words = ["-c", checkpoint]
        if args.data and not (args.data == demo.NAME and kind.demo_folder() is None):
            words += ["-d", args.data if args.data == demo.NAME else str(Path(args.data) / (kind.folder or kind.name))]
        found, _ = kind.parser().parse_known_args([*words, *shared, *own])
        planned += [Job(kind, row) for row in kind.variants(found)]
    return planned


def selected(args: argparse.Namespace, kinds: Mapping[str, type[Benchmark]]) -> list[type[Benchmark]]:
    """The benchmarks that --only and --skip leave. Raises InputError for a name that there is not."""
    for option, names in (("--only", args.only), ("--skip", args.skip)):
        if names == []:
            raise InputError(f"{option} names no benchmark; there are {', '.join(kinds)}")
        for name in names or ():
            if name not in kinds:
                raise InputError(f"{option}: there is no benchmark {name!r}; there are {', '.join(kinds)}")
    return [kind for name, kind in kinds.items() if name in (args.only or kinds) and name not in (args.skip or ())]


def runs_of(kind: type[Benchmark], mode: str) -> Sequence[Sequence[str]]:
    """The options of a benchmark's runs in a mode; by default a single run in every mode that it has."""
    usual = {name: (("--chat",),) if name == "chat" and "base" in kind.shots else ((),) for name in kind.shots}
    return (kind.suite or usual).get(mode, ())


def precisions(args: argparse.Namespace, shared: Sequence[str]) -> list[str]:
    """The precisions in which MMLU is run besides the checkpoint's own: those of --precisions; without it all, if bitsandbytes
    is installed and the command fixes no --quantize, --dtype or --engine. Raises InputError for an unknown name."""
    if args.precisions is None:
        fixed = any(word.split("=")[0] in ("--quantize", "--dtype", "--engine") for word in shared)
        return [] if fixed or importlib.util.find_spec("bitsandbytes") is None else list(PRECISIONS)
    for name in args.precisions:
        if name not in (*PRECISIONS, "none"):
            raise InputError(f"--precisions: {name!r} is not one of {', '.join(PRECISIONS)} or none")
    return [name for name in args.precisions if name != "none"]


def with_data(jobs: Sequence[Job], skip: bool) -> tuple[list[Job], dict[str, str]]:
    """The jobs whose data is there, and what is left out with the reason. skip: whether that is wanted; if not, raises
    DataMissing. Raises InputError for bad data, before hours of work."""
    ready: list[Job] = []
    missing: dict[str, str] = {}
    for job in jobs:
        try:
            job.benchmark  # noqa: B018  # builds it
        except DataMissing as error:
            missing.setdefault(job.kind.name, " ".join(str(error).split()))
        else:
            ready.append(job)
    if missing and not skip:
        first = next(iter(missing.values()))
        raise DataMissing(
            f"no data of {', '.join(missing)} ({first}); leave them out with --skip-missing, or give the data"
        )
    return ready, missing


def protocol(benchmark: Benchmark) -> str:
    """`mmlu base 5-shot`."""
    return f"{benchmark.name} {benchmark.mode} {benchmark.shot_count}-shot"


class Speeds:
    """How fast models were in earlier runs. given: tokens read a second, a tenth of it written; None for what was measured, or
    assumed."""

    def __init__(self, output: Path, kinds: Mapping[str, type[Benchmark]], given: float | None) -> None:
        self._writes = {name: kind.writes for name, kind in kinds.items()}
        self._results = {name: read_results(output / f"{name}.csv") for name in kinds}
        self._given = given
        self._measured = True

    def seconds(self, job: Job, work: estimate.Work) -> float:
        """How long a job takes."""
        path = job.args.checkpoint_path  # results have a hub id, the last part of a folder's path or a file's name
        names = (path, Path(path).name, Path(path).stem)
        found = next((one for name in names if (one := estimate.speeds(self._results, self._writes, name))), {})
        self._measured &= len(found) == len(estimate.ASSUMED)
        given = {} if self._given is None else {"read": self._given, "write": self._given / 10}
        return estimate.seconds(work, {**estimate.ASSUMED, **found, **given})

    @property
    def basis(self) -> str:
        """Of the times given so far."""
        if self._given:
            return f"at {self._given:,.0f} tokens read a second, a tenth of it written"
        if self._measured:
            return "at the speed of this model's earlier runs"
        assumed = "at {read:,.0f} tokens read and {write:,.0f} written a second, assumed where nothing was measured"
        return assumed.format(**estimate.ASSUMED) + "; --speed N says otherwise"


def show(jobs: Sequence[Job], speeds: Speeds, every: bool) -> None:
    """Prints what is to come with its time, and the basis of it, in one line. every: with a table of all jobs, their items and
    tokens, above it."""
    lines, total = [["", "model", "precision", "items", "read", "written", "time"]], 0.0
    for job in jobs:
        work = estimate.work(job.benchmark)
        time = speeds.seconds(job, work)
        total += time
        precision = job.args.quantize if job.args.quantize != "none" else job.args.dtype
        model = [job.args.checkpoint_path, precision.replace("auto", "own")]
        counts = [f"{work.items:,}", f"{work.read:,}", f"{work.written:,}"]
        lines.append([protocol(job.benchmark), *model, *counts, estimate.duration(time)])
    runs = f"{len(jobs)} run{'s' if len(jobs) > 1 else ''}"
    kinds_asked = ", ".join(dict.fromkeys(job.kind.name for job in jobs))
    below = f"{runs} of {kinds_asked}: about {estimate.duration(total)} {speeds.basis}; replies at their longest"
    print("\n".join([*(terminal.aligned(lines) if every else []), below, ""]), flush=True)


def show_table(args: argparse.Namespace, shared: Sequence[str], kinds: Mapping[str, type[Benchmark]]) -> None:
    """Prints for every model of a published table its figures, the command that makes ours, what it needs, and which figures
    cannot be compared. Raises InputError for a table that there is not."""
    tables = report.read(Path("results"), report.PUBLISHED, dict(kinds)).tables
    if args.table not in tables:
        raise InputError(f"--table: there is no table {args.table!r}; the tables are {', '.join(tables)}")
    table = tables[args.table]
    speeds = Speeds(Path("results"), kinds, args.speed)
    models = report.PUBLISHED.parent / "models.csv"
    for model in published_models.models(table, read_published(report.PUBLISHED), models):
        lines = [f"{model.name}: {', '.join(f'{head} {value}' for head, value in model.figures.items())}"]
        if model.closed:
            lines.append(f"cannot be run: {model.closed}")
        else:
            lines += _requirements(args, shared, kinds, table, model, speeds)
        print("\n    ".join(lines), end="\n\n", flush=True)
    print("\n".join([*table.notes, f"Times {speeds.basis}, and with replies at their longest."]))


def _requirements(
    args: argparse.Namespace,
    shared: Sequence[str],
    kinds: Mapping[str, type[Benchmark]],
    table: Table,
    model: published_models.Model,
    speeds: Speeds,
) -> list[str]:
    """The command for a published model, and what it needs."""
    words = ["-c", model.checkpoint, "--mode", table.mode, "--only", ",".join(model.benchmarks)]
    words += ["--precisions", "none"] if table.mode == "base" and table.by != "precision" else []
    words += [*model.options, *(["-d", args.data] if args.data else []), *shared]
    own, rest = parse(options.parser("", {}, writes=("base", "chat")), words)
    ready, missing = with_data(plan(own, rest, kinds), skip=True)
    time = sum(speeds.seconds(job, estimate.work(job.benchmark)) for job in ready)
    needs = [f"weights of {model.weights:.1f} GB in 16 bits, {2 * model.weights:.1f} GB in float32"]
    needs += [f"about {estimate.duration(time)}"] if ready else []
    needs += [f"no data of {', '.join(missing)} here, so no time for it"] if missing else []
    lines = [f"python eval/suite.py {shlex.join(words)}", "; ".join(needs)]
    if model.unknown:
        lines.append(f"not comparable: {', '.join(model.unknown)}")
    return [*lines, model.note] if model.note else lines


def run_all(jobs: Sequence[Job], gates: Gates) -> tuple[list[run.Outcome], dict[str, str]]:
    """Runs the jobs in order; consecutive jobs share the loaded model. A job that cannot be run (no sandbox for programs, a
    precision that the machine does not support) is left out, and the others are run. Returns what the runs came to, and what
    was left out with the reason. Raises CheckpointError when the checkpoint itself cannot be loaded."""
    engine: Engine | None = None
    loaded: tuple[str, ...] | None = None
    outcomes: list[run.Outcome] = []
    failed: dict[str, str] = {}
    for job in jobs:
        try:
            benchmark = job.benchmark
            if job.model != loaded:
                engine = loaded = None  # frees its memory before the next is loaded
                engine, loaded = open_engine(job.args), job.model
            assert engine is not None
            engine.extend(options.model_spec(job.args))  # the only difference between the long-context rows
            outcome = gates.run(benchmark, engine)
            if outcome:
                outcomes.append(outcome)
            del job.benchmark  # frees its prompts
        except InputError as error:
            if isinstance(error, CheckpointError) and job.args.quantize == "none":
                raise
            failed[job.name] = " ".join(str(error).split())
    return outcomes, failed


def summary(outcomes: Iterable[run.Outcome], left_out: Mapping[str, str]) -> list[str]:
    """One table of all runs: the first figure of each, and where its samples are; below it what was left out."""
    lines = [["", "model", "precision", "n", "figure", "", "95% interval", "samples"]]
    for outcome in outcomes:
        benchmark, metric = outcome.benchmark, outcome.headline
        name = protocol(benchmark)
        extension = f", {outcome.info.context}" if outcome.info.context != "none" else ""
        partial = f"{len(benchmark.asked)}{' (partial)' if benchmark.partial else ''}"
        if outcome.verdict and not outcome.verdict.complete:
            partial = f"{outcome.verdict.asked} of {outcome.verdict.count}"
        figure = [metric.metric, terminal.number(metric), terminal.interval(metric)] if metric else ["none", "", ""]
        how = f"{outcome.info.precision}{extension}"
        lines.append([name, outcome.info.model, how, partial, *figure, str(outcome.samples)])
    return [*(terminal.aligned(lines) if len(lines) > 1 else []), *(f"left out: {n}: {r}" for n, r in left_out.items())]


def update_tables(paths: Sequence[Path], results: Path, kinds: dict[str, type[Benchmark]]) -> None:
    """Regenerates the tables of the files from the results folder; a missing file is created with the five tables of the
    README."""
    made = report.read(results, report.PUBLISHED, kinds)
    for path in paths:
        if not path.exists():
            write_text(path, report.blank(made, report.language_of(path)))
    report.rewrite(paths, made)


def own_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that are the suite's own."""
    add = parser.add_argument_group("the suite").add_argument
    add(
        "--chat-checkpoint", metavar="MODEL", help="for the chat protocols (demo, and with --mode chat: the same as -c)"
    )
    add("--template", metavar="NAME|FILE", help="of the chat protocols, as in their scripts")
    add("--only", type=options.names, metavar="A,B", help="only these benchmarks")
    add("--skip", type=options.names, metavar="A,B", help="all benchmarks but these")
    add("--mode", choices=("base", "chat"), help="only the base or only the chat protocols")
    add("--skip-missing", action="store_true", help="leave out benchmarks whose data is not there")
    add("--own", type=Path, action="append", default=[], metavar="FILE", help="a benchmark of your own (repeatable)")
    add(
        "--precisions",
        type=options.names,
        metavar="P,P",
        help="also run MMLU in these: bf16,int8,nf4 (default if bitsandbytes is installed) or none",
    )
    add("--table", metavar="TABLE", help="for every model of a published table (main, chat ...): the command that makes our "
        "row, what it needs, and what can be compared; nothing is run")  # fmt: skip
    add("--dry-run", action="store_true", help="print the plan with the estimated time, and stop")
    add("--speed", type=options.seconds, metavar="N", help="tokens a second, for the estimate")
    add("--readme", type=Path, action="append", metavar="FILE", help="file whose tables are regenerated at the end "
        "(repeatable); created if missing (default: the READMEs and RESULTS.md, if the results go to results/)")  # fmt: skip


def parse(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The suite's options from a command line (None: this process's), and the words that the benchmarks are given."""
    own_options(parser)
    args = parser.parse_args(words)
    alone = options.Parser(allow_abbrev=False, add_help=False)
    alone.add_argument("-c", "--checkpoint-path")
    alone.add_argument("-d", "--data")
    own_options(alone)
    return args, alone.parse_known_args(words)[1]


def main() -> None:
    parser = options.parser(str(__doc__), {}, writes=("base", "chat"))
    args, shared = parse(parser)
    exit_with(parser.prog, lambda: work(args, shared))


def work(args: argparse.Namespace, shared: Sequence[str]) -> int:
    """Plans, runs and updates the tables. Returns the exit status: 2 when something was left out that --skip-missing does not
    allow for, 3 when a gate found a run worse."""
    kinds = known(args.own)
    if args.table:
        show_table(args, shared, kinds)
        return 0
    jobs, left_out = with_data(plan(args, shared, kinds), args.skip_missing)
    if not jobs:
        raise InputError("nothing is left to run" + "".join(f"; {name}: {why}" for name, why in left_out.items()))
    show(jobs, Speeds(jobs[0].args.output_dir, kinds, args.speed), every=args.dry_run)
    if args.dry_run:
        print("\n".join(summary([], left_out)), end="\n" if left_out else "")
        return 0
    gates = Gates(args, len(jobs), mixed=True)
    for job in jobs:
        if line := gates.prepare(job.benchmark):
            print(line, file=sys.stderr)
    outcomes, failed = run_all(jobs, gates)
    print("\n".join(summary(outcomes, {**left_out, **failed})), flush=True)
    output = jobs[0].args.output_dir
    paths = args.readme or [path for path in report.FILES if output == Path("results") and path.exists()]
    if paths:
        update_tables(paths, output, kinds)
    lines, worse = gates.finish()
    print("\n".join(lines), end="\n" if lines else "")
    return 2 if failed else worse


if __name__ == "__main__":
    main()
