"""How every script starts and ends: its arguments, then its work, then its exit status.

Exit status 0 when done, 2 for bad input (one line that names the thing and the remedy), 130 when interrupted; what was
answered by then is stored.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from qwen_eval import schema, terminal
from qwen_eval.runs import run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from qwen_eval import options
    from qwen_eval.schema import Benchmark, Engine, Scored

    Build = Callable[[argparse.Namespace], Benchmark]
    OpenStandIn = Callable[[argparse.Namespace], Engine | None]
    OnFinish = Callable[[argparse.Namespace, str, Sequence[Scored]], list[str]]


class Script(NamedTuple):
    """What a benchmark script gives the runner.

    parser: makes its command line. build: arguments -> Benchmark (raises InputError for bad data). finish: called at the end
    with the run's id and all scored samples, returns lines for the table (C-Eval's submission file, say). stand_in: gives
    an engine that answers in a model's place (translations from a file), or None for the one the arguments name.
    """

    parser: Callable[[], options.Parser]
    build: Build
    finish: OnFinish | None = None
    stand_in: OpenStandIn | None = None


def main(script: Script) -> NoReturn:
    """Runs a script: parses its arguments, builds the benchmark, answers it and exits with the status."""
    parser = script.parser()
    args = parser.parse_args()
    exit_with(
        parser.prog,
        lambda: run.run(args, script.build, script.finish, script.stand_in(args) if script.stand_in else None),
    )


def exit_with(program: str, work: Callable[[], int]) -> NoReturn:
    """Does the work and exits with the status it returns, with nothing on stdout that a terminal would obey. Bad input is
    one line and status 2; Ctrl-C one line and 130, as is a request to end (SIGTERM 143, a closed terminal 129)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets escapes for what it cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable(), contextlib.redirect_stdout(terminal.Printable(sys.stdout)):
            sys.exit(work())
    except schema.InputError as error:
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
