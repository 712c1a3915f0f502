"""Makes the tables of README.md from results/*.csv (ours) and results/published.csv (figures others published).

    python eval/report.py            rewrites what stands between <!-- table:NAME --> and <!-- /table:NAME -->
    python eval/report.py --show main    prints one table
    python eval/report.py --check    changes nothing; exit status 3 when a table is stale

Tables: main, chat, wmt22, mmlu, ceval, cmmlu, plugin, hfagent. Our rows carry 95% intervals and a footnote with the
signature that made them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from harness import arguments, figures, runner, store
from harness.report_tables import TABLES, long_ppl, our_lines, published_lines, read_published, render
from harness.schema import InputError

MARKED = re.compile(r"(<!-- table:([a-z0-9_]+) -->\n)(.*?)(<!-- /table:\2 -->)", re.DOTALL)
STALE = 3  # exit status


def regenerate(text: str, make: Callable[[str], str]) -> str:
    """The text with what stands between every pair of markers made anew. make: table name -> Markdown.

    Raises InputError for a marker of no known table or one that is not closed.
    """
    opened = re.findall(r"<!-- table:([a-z0-9_]+) -->", text)
    closed = [match.group(2) for match in MARKED.finditer(text)]
    if opened != closed:
        missing = next((name for name in opened if name not in closed), opened[0])
        raise InputError(f"the marker <!-- table:{missing} --> has no <!-- /table:{missing} --> after it; add it")
    return MARKED.sub(lambda match: match.group(1) + make(match.group(2)) + match.group(4), text)


def tables(results: Path) -> Callable[[str], str]:
    """Renders a table by name from a results folder. Raises InputError for files that cannot be read."""
    published = read_published(results / "published.csv")
    names = {column.benchmark for table in TABLES for column in table.columns} | {"long_ppl"}
    ours = {name: store.read_results(results / f"{name}.csv") for name in sorted(names)}
    known = {table.name: table for table in (*TABLES, long_ppl(ours["long_ppl"], published))}

    def make(name: str) -> str:
        if name not in known:
            raise InputError(f"there is no table {name!r}; the tables are {', '.join(known)}")
        table = known[name]
        return render(table, published_lines(table, published) + our_lines(table, ours))

    return make


def run(args: argparse.Namespace) -> int:
    """Rewrites, checks or shows tables; returns the exit status."""
    if args.figures:
        published = read_published(args.results / "published.csv")
        for path in figures.long_ppl(published, store.read_results(args.results / "long_ppl.csv"), args.figures):
            print(path)
        return 0
    if args.show:
        print(tables(args.results)(args.show), end="")
        return 0
    try:
        before = args.readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{args.readme} cannot be read ({error}); name the file with --readme") from error
    after = regenerate(before, tables(args.results))
    if args.check:
        stale = [
            old.group(2)
            for old, new in zip(MARKED.finditer(before), MARKED.finditer(after), strict=True)
            if old.group(0) != new.group(0)
        ]
        if stale:
            print(f"{args.readme}: stale tables: {', '.join(stale)}; run python eval/report.py", file=sys.stderr)
            return STALE
        print(f"{args.readme}: all tables are up to date")
        return 0
    if after != before:
        args.readme.write_text(after, encoding="utf-8")
    print(f"{args.readme}: {'tables rewritten' if after != before else 'all tables were up to date'}")
    return 0


def main() -> None:
    parser = arguments.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 3 when a table is stale")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw the figures there (PNG and SVG)")
    parser.add_argument("--show", metavar="TABLE", help="print one table, change nothing")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE", help="default: README.md")
    args = parser.parse_args()
    runner.exit_with(parser.prog, lambda: run(args))


if __name__ == "__main__":
    main()
