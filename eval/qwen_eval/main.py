"""How every script starts and ends: its arguments, then its work, then its exit status.

Exit status 0 when done, 2 for bad input (one line that names the thing and the remedy), 130 when interrupted; what was
answered by then is stored.
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
from qwen_eval.engines.open import open_engine
from qwen_eval.engines.replay import GivenTexts
from qwen_eval.runs import run, workers
from qwen_eval.schema import InputError
from qwen_eval.tasks.benchmark import SCRIPTS, Benchmark
from qwen_eval.tasks.load import check, load


def main(kind: type[Benchmark]) -> NoReturn:
    """Runs the script of a benchmark: parses its arguments, does what they ask for and exits with the status."""
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
    if name == "run" and words:
        _run_file(Path(words[0]), words[1:])
    if name not in scripts:
        fail("qwen-eval", f"there is no {name!r}; {usage}")
    options.program = f"qwen-eval {name}"
    sys.argv = [options.program, *words]
    sys.path.insert(0, str(SCRIPTS))  # as Python does for a script
    runpy.run_path(str(scripts[name]), run_name="__main__")
    sys.exit(0)


def _run_file(path: Path, words: Sequence[str]) -> NoReturn:
    """Runs the benchmark that a file defines; of several the one that the first word names."""
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
    """What a benchmark's command line asks for. Returns the exit status, 0. Raises InputError for bad input."""
    if args.export:
        return export(args)
    rows = kind.variants(args)
    team = workers.join()
    if (args.dump_prompts or args.rescore) and not team.leads:  # no work to share
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
    given = first.given_texts()
    if given and not team.leads:
        return 0
    engine = GivenTexts(*given) if given else open_engine(rows[0])
    for row in rows:
        if len(rows) > 1:
            engine.extend(options.model_spec(row))
        run.run(first if row is rows[0] else kind(row), engine, workers.ALONE if given else team)
    return 0


def export(args: argparse.Namespace) -> int:
    """Writes a Qwen-1 checkpoint in Qwen2's format, by the first process where there are several."""
    if int(os.environ.get("RANK", "0")):
        return 0
    from qwen_eval.models.export import export_qwen2  # imports torch

    print(export_qwen2(options.model_spec(args), args.export))
    return 0


def exit_with(program: str, work: Callable[[], int]) -> NoReturn:
    """Does the work and exits with the status it returns, with nothing on stdout that a terminal would obey. Bad input is
    one line and status 2; Ctrl-C one line and 130, as is a request to end (SIGTERM 143, a closed terminal 129)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets escapes for what it cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable(), contextlib.redirect_stdout(terminal.Printable(sys.stdout)):
            sys.exit(work())
    except InputError as error:
        fail(program, str(error))
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f"\n{program}: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(128 + number)
    except BrokenPipeError:  # the reader of the table has enough; everything is stored
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """A request to end (SIGTERM, SIGHUP) ends the work as Ctrl-C does, once; a second one ends it at once. What a caller
    ignores (nohup) stays ignored."""

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
    """One line on stderr and exit status 2."""
    print(f"{program}: {terminal.printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)
