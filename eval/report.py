"""Generates the tables of README.md, README_CN.md and RESULTS.md from results/*.csv (our runs) and results/published.csv
(published figures).

    python eval/report.py                      rewrites the text between <!-- table:NAME --> and <!-- /table:NAME -->
    python eval/report.py --check              changes nothing; exit status 3 when a table is stale
    python eval/report.py --show main          prints one table
    python eval/report.py --html FILE          one HTML page with runs, tables, figures and every sample
    python eval/report.py --csv DIR            the tables as CSV files
    python eval/report.py --figures DIR        models by benchmark, perplexity by length, accuracy by memory (PNG, SVG)
    python eval/report.py --eval-results DIR   evaluation results for the models' repositories on the hub

A file whose name ends in _CN.md gets its tables in Chinese. Our rows have 95% intervals and a footnote with their
signatures.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from qwen_eval import options
from qwen_eval.data import demo
from qwen_eval.main import exit_with
from qwen_eval.report import figures, hub_results, layout, page, render, verification
from qwen_eval.report import lines as table_lines
from qwen_eval.report import words as languages
from qwen_eval.runs.files import write_text
from qwen_eval.runs.manifest import own_benchmarks
from qwen_eval.runs.results import read_results
from qwen_eval.schema import InputError
from qwen_eval.tasks.benchmark import PACKAGE, Benchmark
from qwen_eval.tasks.facts import Facts, Table
from qwen_eval.tasks.load import known

MARKED = re.compile(r"(<!-- table:([a-z0-9_]+) -->\n)(.*?)(<!-- /table:\2 -->)", re.DOTALL)
STALE = 3  # exit status
FILES = (Path("README.md"), Path("README_CN.md"), Path("RESULTS.md"))
PUBLISHED = next(
    path / "results" / "published.csv" for path in (PACKAGE, PACKAGE.parents[1]) if (path / "results").is_dir()
)


class Report(NamedTuple):
    """A results folder: the benchmarks, our rows by benchmark, the tables by name and their lines."""

    folder: Path
    benchmarks: dict[str, Facts]
    results: dict[str, list[dict[str, str]]]
    tables: dict[str, Table]
    lines: dict[str, list[table_lines.Line]]

    def markdown(self, name: str, language: str = "en", folded: bool = False) -> str:
        """One table. Raises InputError for a name that no table has."""
        if name == "verification":
            return verification.markdown(self.folder / "verification.csv", language)
        if name not in self.tables:
            raise InputError(f"there is no table {name!r}; the tables are {', '.join(self.tables)}, verification")
        return render.markdown(self.tables[name], self.lines[name], language, folded)


def read(
    folder: Path, default_published: Path | None = None, kinds: dict[str, type[Benchmark]] | None = None
) -> Report:
    """The report of a results folder.

    default_published: the published figures where the folder has none. kinds: the known benchmark classes (None: the eight);
    others are described by their runs' manifests. Raises InputError for files that cannot be read.
    """
    kinds = known() if kinds is None else kinds
    path = folder / "published.csv"
    published = table_lines.read_published(path if path.exists() or default_published is None else default_published)
    own = own_benchmarks(folder, kinds)
    benchmarks = {name: kind.facts() for name, kind in kinds.items()} | own
    results = {name: read_results(folder / f"{name}.csv") for name in benchmarks}
    real = {name: [row for row in rows if row["model"] != demo.NAME] for name, rows in results.items()}
    if any(results.values()) and not any(real.values()):
        published = []  # the demonstration does not stand beside published figures
    tables = layout.tables(kinds, own.values(), results, published)
    lines = {}
    for name, table in tables.items():
        others = table_lines.published_lines(table, published)
        lines[name] = others + table_lines.our_lines(table, real if others else results)
    return Report(folder, benchmarks, results, tables, lines)


def regenerate(text: str, make: Callable[[str], str]) -> str:
    """The text with new content between every pair of markers. make: table name -> Markdown.

    Raises InputError for a marker of an unknown table or one that is not closed.
    """
    opened = re.findall(r"<!-- table:([a-z0-9_]+) -->", text)
    closed = [match.group(2) for match in MARKED.finditer(text)]
    if opened != closed:
        missing = next((name for name in opened if name not in closed), opened[0])
        raise InputError(f"the marker <!-- table:{missing} --> has no <!-- /table:{missing} --> after it; add it")
    return MARKED.sub(lambda match: match.group(1) + make(match.group(2)) + match.group(4), text)


def blank(report: Report, language: str) -> str:
    """A text with markers for the five tables of the README and for all others that have lines of ours."""
    ours = {name for name, lines in report.lines.items() if any(line.source == "ours" for line in lines)}
    shown = [table for table in report.tables.values() if table.readme or table.name in ours]
    titles = {table.name: languages.translator(language, table.chinese)(table.title) for table in shown}
    return "\n".join(f"## {title}\n\n<!-- table:{name} -->\n<!-- /table:{name} -->\n" for name, title in titles.items())


def language_of(path: Path) -> str:
    """The language of a file's tables."""
    return "zh" if path.stem.endswith("_CN") else "en"


def regenerated(path: Path, report: Report) -> tuple[str, str]:
    """A file's text before and after its tables are regenerated. Raises InputError for one that cannot be read."""
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); name the files: python eval/report.py FILE ...") from error
    return before, regenerate(before, lambda name: report.markdown(name, language_of(path), folded=True))


def check(paths: Sequence[Path], report: Report) -> int:
    """Prints which tables are stale; returns the exit status."""
    status = 0
    for path in paths:
        before, after = regenerated(path, report)
        pairs = zip(MARKED.finditer(before), MARKED.finditer(after), strict=True)
        stale = [old.group(2) for old, new in pairs if old.group(0) != new.group(0)]
        if stale:
            print(f"{path}: stale tables: {', '.join(stale)}; run python eval/report.py", file=sys.stderr)
            status = STALE
        else:
            print(f"{path}: all tables are up to date")
    return status


def rewrite(paths: Sequence[Path], report: Report) -> int:
    """Regenerates the tables of all files, or of none if one cannot be; returns the exit status."""
    texts = [(path, *regenerated(path, report)) for path in paths]
    for path, before, after in texts:
        if after != before:
            write_text(path, after)
        print(f"{path}: {'tables rewritten' if after != before else 'all tables were up to date'}")
    return 0


def write_page(path: Path, report: Report, wanted: Sequence[str]) -> None:
    """Writes the page of a results folder. Figures are left out without results or matplotlib. wanted: ids of runs; all if
    empty. Raises InputError."""
    runs = page.stored_runs(report.folder, report.benchmarks, wanted)
    sections = []
    for name, table in report.tables.items():
        if report.lines[name]:
            titles = {words: languages.translator(words, table.chinese)(table.title) for words in languages.LANGUAGES}
            shown = {words: render.shown(table, report.lines[name], words) for words in languages.LANGUAGES}
            sections.append(page.Section(titles, shown))
    with tempfile.TemporaryDirectory() as folder:
        try:
            drawn = figures.draw(report.lines, report.tables, Path(folder))
        except InputError as error:
            print(f"no figures: {error}", file=sys.stderr)
            drawn = []
        text = page.build(runs, sections, [made for made in drawn if made.suffix == ".svg"])
    write_text(path, text)


def export(args: argparse.Namespace, report: Report) -> int:
    """Writes the tables, figures, page or metadata that the options ask for, and prints the paths of the files."""
    paths: list[Path] = []
    if args.csv:
        for name, table in report.tables.items():
            paths.append(args.csv / f"{name}.csv")
            write_text(paths[-1], render.tidy_csv(table, report.lines[name]))
    if args.figures:
        paths += figures.draw(report.lines, report.tables, args.figures)
    if args.html:
        write_page(args.html, report, args.run)
        paths.append(args.html)
    if args.eval_results:
        hubs = {name: facts.hub for name, facts in report.benchmarks.items()}
        paths += hub_results.write(report.results, report.tables, hubs, args.eval_results)
    print("\n".join(map(str, paths)))
    return 0


def run(args: argparse.Namespace) -> int:
    """Rewrites, checks, shows or exports; returns the exit status."""
    if not args.results.is_dir():
        raise InputError(f"{args.results} is not a folder; name the one that holds the result CSVs with --results")
    report = read(args.results, PUBLISHED, known(args.own))
    if args.show:
        print(report.markdown(args.show), end="")
        return 0
    if args.csv or args.figures or args.html or args.eval_results:
        return export(args, report)
    return (check if args.check else rewrite)(args.files or FILES, report)


def main() -> None:
    parser = options.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help=f"default: {' '.join(map(str, FILES))}")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 3 when a table is stale")
    parser.add_argument("--show", metavar="TABLE", help="print one table, change nothing")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write an HTML page with runs, tables, figures and samples"
    )
    parser.add_argument(
        "--run", action="append", default=[], metavar="RUN", help="with --html: only this run (repeatable)"
    )
    parser.add_argument("--csv", type=Path, metavar="DIR", help="write the tables as CSV files, one row per figure")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write the figures (PNG and SVG)")
    parser.add_argument("--eval-results", type=Path, metavar="DIR", help="write .eval_results/*.yaml of every model")
    parser.add_argument(
        "--own", type=Path, action="append", default=[], metavar="FILE", help="a benchmark of your own (repeatable)"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    args = parser.parse_args()
    exit_with(parser.prog, lambda: run(args))


if __name__ == "__main__":
    main()
