"""Speed and memory of the engine against other ways to the same answers: one command, one table, ratios of one run.

    python tools/bench                                all stages but those for a GPU, as `make bench`
    python tools/bench --items 5 --repeat 1 --dry     a quick look
    python tools/bench --stages mmlu-2023,gsm8k       some stages

Ours and each baseline compute the same items with the same weights, threads and prompts; repetitions are interleaved (ours,
baselines, ours, ...) and the ratio is the median of the repetitions' ratios. The answers are compared, so a ratio is only
printed for equal work. Rows are added to results/bench.csv, the table is written into BENCHMARKS.md.

Every timing is kept in results/bench-run/ as it comes: a bench that was stopped goes on where it stopped when the same
command is given again, as long as settings, code and machine are the same; --overwrite measures again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT / "tools"), str(ROOT / "eval")]  # not this folder itself: its files would shadow libraries

from bench import table  # noqa: E402
from bench.contest import compete  # noqa: E402
from bench.record import Record  # noqa: E402
from bench.settings import Settings, commit, machine  # noqa: E402
from bench.stages import STAGES, USUAL  # noqa: E402
from qwen_eval import main, options, terminal  # noqa: E402

RUN = ROOT / "results/bench-run"


def stages(text: str) -> list[str]:
    """Comma-separated names of stages, for argparse."""
    found = options.names(text)
    unknown = [name for name in found if name not in STAGES]
    if unknown or not found:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is no stage; there are {', '.join(STAGES)}"
        )
    return found


def shape(text: str) -> tuple[int, int]:
    """WIDTHxLAYERS, for argparse."""
    width, _, layers = text.partition("x")
    found = options.whole_number(width), options.whole_number(layers)
    if found[0] % 64:
        raise argparse.ArgumentTypeError(f"{text!r}: the width has to be a multiple of 64, a head's size")
    return found


def parser() -> options.Parser:
    """The command line."""
    made = options.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, number = made.add_argument, options.whole_number
    which = f"of {', '.join(STAGES)} (default: all but those for a GPU)"
    add("--stages", type=stages, default=USUAL, metavar="A,B", help=which)
    add(
        "--items", type=number, help="questions a subject (default: each stage's own, 25 or 30; fewer shrink the ratio)"
    )
    add("--subjects", type=number, default=12, help="subjects in mmlu-lmeval, of all lengths (default 12; 57 are all)")
    add("--shape", type=shape, metavar="WIDTHxLAYERS", help="of the model (default: each stage's own)")
    add("--repeat", type=number, default=3, help="interleaved repetitions (default 3)")
    add("--overwrite", action="store_true", help="measure again what is kept from a run that was stopped")
    add("--dry", action="store_true", help="print only, write no table and keep no timing")
    return made


def run_stage(name: str, settings: Settings, kept: Path, overwrite: bool) -> tuple[list[dict[str, str]], bool]:
    """The stage's rows, and whether any of it was measured now. kept: the folder of stored timings."""
    record = Record(kept / f"{name}-{settings.key(name)}.jsonl", overwrite)
    done = record.rows(settings.repeat)
    if done is not None:
        print(f"{name}: measured before, kept in {kept}", file=sys.stderr)
        return done, False
    common = {
        "timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git_commit": commit(),
        "machine": machine(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    rows = []
    for contest in STAGES[name](settings):
        rows += [{**common, **row} for row in compete(contest, settings.repeat, record)]
    record.finish(settings.repeat, rows)
    return rows, True


def run(args: argparse.Namespace) -> int:
    """The stages one after another, each written down when it is done. Returns the exit status."""
    root = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    shown: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            folder=Path(folder),
            shared=root if root.is_dir() else None,
            items=args.items,
            subjects=args.subjects,
            shape=args.shape,
            repeat=args.repeat,
        )
        for name in args.stages:
            rows, new = run_stage(name, settings, Path(folder) if args.dry else RUN, args.overwrite)
            shown += rows
            if new and not args.dry:
                table.append(ROOT / "results/bench.csv", rows)
                table.rewrite(ROOT / "BENCHMARKS.md", table.markdown(table.newest(ROOT / "results/bench.csv")))
    figures = ("ours_cpu_s", "baseline_cpu_s", "ratio_cpu", "ratio_wall")
    cells = [["", "ours CPU s", "baseline CPU s", "times faster", "wall"]]
    cells += [[f"{row['stage']} / {row['baseline']}", *(row.get(name, "") for name in figures)] for row in shown]
    print("\n".join(terminal.aligned(cells)))
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}, commit {commit()}")
    return 0


if __name__ == "__main__":
    made = parser()
    parsed = made.parse_args()
    main.exit_with("bench", lambda: run(parsed))
