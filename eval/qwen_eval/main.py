"""How every script starts and ends: arguments, work, exit status.

Exit status 0 when done, 3 when a gate found the run worse, 2 for bad input (one line that names the problem and the remedy),
130 when interrupted; all answers until then are stored.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from qwen_eval import __version__, options, terminal
from qwen_eval.compare.gating import Gates
from qwen_eval.engines.open import open_engine
from qwen_eval.engines.replay import GivenTexts
from qwen_eval.runs import run, workers
from qwen_eval.schema import InputError
from qwen_eval.tasks.benchmark import SCRIPTS, Benchmark
from qwen_eval.tasks.load import check, load


def main(kind: type[Benchmark]) -> NoReturn:
    """Runs the script of a benchmark: parses the arguments, does the work and exits with its status."""
    try:
        check(kind)
        parser = kind.parser()
    except InputError as error:
        fail(options.program or Path(sys.argv[0]).name, str(error))
    args = parser.parse_args()
    exit_with(parser.prog, lambda: work(kind, args))


def console() -> NoReturn:
    """The command qwen-eval: `qwen-eval NAME ...` is `python eval/NAME.py ...`, and `qwen-eval run FILE ...` runs the
    benchmark that a file defines."""
    scripts = {path.stem: path for path in sorted(SCRIPTS.glob("*.py"))}
    usage = f"usage: qwen-eval {{{','.join(scripts)}}} ... | qwen-eval run FILE ... (each with --help)"
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage)
        sys.exit(0)
    if name == "--version":
        print(f"qwen-eval {__version__}")
        sys.exit(0)
    if name == "run":
        if not words or words[0].startswith("-"):
            fail("qwen-eval run", "name the file of a benchmark: qwen-eval run FILE -c MODEL")
        _run_file(Path(words[0]), words[1:])
    if name not in scripts:
        fail("qwen-eval", f"there is no {name!r}; {usage}")
    options.program = f"qwen-eval {name}"
    sys.argv = [options.program, *words]
    sys.path.insert(0, str(SCRIPTS))  # as Python does for a script
    runpy.run_path(str(scripts[name]), run_name="__main__")
    sys.exit(0)


def _run_file(path: Path, words: Sequence[str]) -> NoReturn:
    """Runs the benchmark that a file defines; of several the one named by the first word."""
    program = f"qwen-eval run {path.name}"
    try:
        kinds = {kind.name: kind for kind in load(path)}
    except InputError as error:
        fail(program, str(error))
    if len(kinds) > 1:
        chosen = words[0] if words else ""
        if chosen not in kinds:
            fail(program, f"{path} defines {', '.join(kinds)}; name one: {program} {next(iter(kinds))} ...")
        kinds, words = {chosen: kinds[chosen]}, words[1:]
    options.program = program
    sys.argv = [program, *words]
    main(next(iter(kinds.values())))


def work(kind: type[Benchmark], args: argparse.Namespace) -> int:
    """Does what a benchmark's command line asks for. Returns the exit status: 0, or 3 where a gate found the run worse. Raises
    InputError for bad input."""
    if args.export:
        return export(args)
    rows = kind.variants(args)
    gates = Gates(args, len(rows))
    processes = workers.join()
    if (args.dump_prompts or args.rescore) and not processes.is_first:  # nothing to share
        return 0
    first = kind(rows[0])
    if args.dump_prompts:
        for row in rows:
            run.dump_prompts(first if row is rows[0] else kind(row))
        return 0
    run.prepare(first)
    if args.rescore:
        for row in rows:
            run.rescore(first if row is rows[0] else kind(row))
        return 0
    if (line := gates.prepare(first)) and not args.quiet:
        print(line, file=sys.stderr)
    given = first.given_texts()
    if given and not processes.is_first:
        return 0
    engine = GivenTexts(*given) if given else open_engine(rows[0])
    for row in rows:
        if len(rows) > 1:
            engine.extend(options.model_spec(row))
        gates.run(first if row is rows[0] else kind(row), engine, workers.SINGLE if given else processes)
    lines, status = gates.finish()
    print("\n".join(lines), end="\n" if lines else "")
    return status


def export(args: argparse.Namespace) -> int:
    """Writes a Qwen-1 checkpoint in Qwen2's format, by the first process where there are several."""
    if int(os.environ.get("RANK", "0")):
        return 0
    from qwen_eval.models.export import export_qwen2  # imports torch

    print(export_qwen2(options.model_spec(args), args.export))
    return 0


def exit_with(program: str, work: Callable[[], int]) -> NoReturn:
    """Does the work, with control characters on stdout escaped, and exits with the status that it returns. Bad input is one
    line and status 2; Ctrl-C one line and 130, SIGTERM 143, a closed terminal 129."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets escapes for characters it lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        with interrupted_by_signals(), contextlib.redirect_stdout(terminal.EscapingStream(sys.stdout)):
            sys.exit(work())
    except InputError as error:
        fail(program, str(error))
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f"\n{program}: interrupted; the same command resumes where this one stopped", file=sys.stderr)
        sys.exit(128 + number)
    except BrokenPipeError:  # the reader of the pipe closed it; everything is stored
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + 13)  # as a program that SIGPIPE ends, which Windows does not name


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt the block as Ctrl-C does; a second one kills the process. Signals that the caller ignores
    (nohup) stay ignored."""

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has the first
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}
    mine = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    for number in mine:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


def fail(program: str, message: str) -> NoReturn:
    """Prints one line on stderr and exits with status 2."""
    print(f"{program}: {terminal.escape_controls(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)
