"""How often the interval of every figure that a table shows holds the true value: `make coverage`.

python tools/simulate_intervals                     all figures, into docs/intervals.md (minutes)
python tools/simulate_intervals --only macro ppl    some of them
python tools/simulate_intervals --draws 4000        more draws a setting (default 1,000)

Every figure is drawn many times from a model with a known true value, in several settings, at the sizes that tables have. Ours
is the code of eval/qwen_eval/stats itself. Beside it stand a textbook's method and the one that evalstats 0.3.3 chooses
(`pip install -e '.[coverage]'`; on the first draws of a setting, since it takes one at a time). Exit status 1 where a figure's
mean coverage at 50 units or more is below 0.945 by more than two standard errors.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT / "tools"), str(ROOT / "eval")]  # not this folder itself

from simulate_intervals import methods  # noqa: E402
from simulate_intervals.figures import FIGURES  # noqa: E402
from simulate_intervals.methods import VERSION  # noqa: E402
from simulate_intervals.table import PAGE, WANTED, lines_of, rows_of, write  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="draws a setting (default 1,000)")
    parser.add_argument("--only", nargs="+", choices=tuple(FIGURES), metavar="NAME", help=", ".join(FIGURES))
    args = parser.parse_args()
    if args.draws < 10:
        parser.error("--draws takes 10 or more")
    if not methods.PEER:
        print(
            f"evalstats {VERSION} is not installed (pip install -e '.[coverage]'): its columns stay empty",
            file=sys.stderr,
        )
    started, short = time.process_time(), []
    tables: dict[str, str] = {}
    for seed, (name, figure) in enumerate(FIGURES.items()):
        if args.only and name not in args.only:
            continue
        rows = list(rows_of(figure, seed, args.draws))
        short += [f"{figure.name} at {row.size}: {row.ours[0]:.4f}" for row in rows if row.short]
        tables[name] = "\n".join(lines_of(figure, rows))
        print(tables[name], flush=True)
    print(f"{time.process_time() - started:.0f} s of CPU time", file=sys.stderr)
    for line in short:
        print(f"below {WANTED}: {line}", file=sys.stderr)
    if methods.PEER:
        write(tables, args.draws)
        print(f"written to {PAGE.relative_to(ROOT)}", file=sys.stderr)
    else:
        print(f"not written to {PAGE.relative_to(ROOT)}, whose columns of evalstats would be lost", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
