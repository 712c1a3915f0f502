"""Makes the tables of README.md from results/*.csv (ours) and results/published.csv (figures others published).

    python eval/report.py            rewrites what stands between <!-- table:NAME --> and <!-- /table:NAME -->
    python eval/report.py --show main    prints one table
    python eval/report.py --check    changes nothing; exit status 3 when a table is stale

Tables: main, chat, wmt22, mmlu, ceval, cmmlu, plugin, hfagent. Our rows carry 95% intervals and a footnote with the
signature that made them.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import arguments, demo, runner, store
from harness.schema import InputError

PUBLISHED = ("table", "model", "metric", "group", "setting", "value", "source")
MARKED = re.compile(r"(<!-- table:([a-z0-9_]+) -->\n)(.*?)(<!-- /table:\2 -->)", re.DOTALL)
STALE = 3  # exit status


@dataclass(frozen=True)
class Figure:
    """A figure of one row: its value in the table's unit and, for ours, the 95% interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def text(self, digits: int = 1) -> str:
        value = f"{self.value:.{digits}f}"
        return value if self.low is None else f"{value} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Line:
    """One line of a table: who, where the figures come from, the figures by column, and what defines them."""

    model: str
    source: str
    figures: Mapping[str, Figure]
    signatures: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column: its head, the benchmark and (metric, group) of ours, the same of published.csv, and its setting there."""

    head: str
    benchmark: str
    ours: tuple[str, str]
    published: tuple[str, str]
    setting: str = "5-shot"
    shots: str = ""  # of ours, where the protocol has several
    table: str = ""  # in published.csv, where it is not the benchmark's name
    digits: int = 1


@dataclass(frozen=True)
class Table:
    """A table of README.md: a column of models, and the figures; base rows only (mode), without the partial ones."""

    name: str
    columns: tuple[Column, ...]
    mode: str = "base"
    notes: tuple[str, ...] = field(default=())


def _categories(benchmark: str, table: Mapping[str, str]) -> tuple[Column, ...]:
    return tuple(Column(head, benchmark, ("acc", group), ("acc", group)) for head, group in table.items())


WMT22_NOTE = (
    "WMT22: the published protocol is not known (shots, prompt, BLEU signature); ours is not comparable with it."
)
TABLES = (
    Table(
        "main",
        (
            Column("MMLU", "mmlu", ("acc", "all"), ("acc", "")),
            Column("C-Eval", "ceval", ("acc", "all"), ("acc", "")),
            Column("CMMLU", "cmmlu", ("acc", "all"), ("acc", "")),
            Column("GSM8K", "gsm8k", ("acc", "all"), ("acc", ""), "8-shot"),
            Column("HumanEval", "humaneval", ("pass@1", "all"), ("pass@1", ""), "0-shot"),
            Column("WMT22 (en-zh)", "wmt22", ("bleu", "en-zh"), ("bleu en-zh", "")),
        ),
        notes=(WMT22_NOTE,),
    ),
    Table(
        "chat",
        (
            Column("MMLU (0-shot)", "mmlu", ("acc", "all"), ("acc", ""), "0-shot chat"),
            Column("C-Eval val (0-shot)", "ceval", ("acc", "all"), ("acc", ""), "0-shot chat, val"),
            Column("GSM8K (0-shot)", "gsm8k", ("acc", "all"), ("acc", ""), "0-shot chat", shots="0"),
            Column("GSM8K (4-shot)", "gsm8k", ("acc", "all"), ("acc", ""), "4-shot chat", shots="4"),
            Column("HumanEval", "humaneval", ("pass@1", "all"), ("pass@1", ""), "0-shot chat"),
        ),
        mode="chat",
    ),
    Table(
        "wmt22",
        tuple(
            Column(head, "wmt22", ("bleu", group), (f"bleu {name}", ""))
            for head, group, name in (
                ("en-zh", "en-zh", "en-zh"),
                ("zh-en", "zh-en", "zh-en"),
                ("average", "all", "average"),
            )
        ),
        notes=(WMT22_NOTE,),
    ),
    Table(
        "mmlu",
        (
            Column("Average", "mmlu", ("acc", "all"), ("acc", "")),
            *_categories(
                "mmlu",
                {
                    "STEM": "STEM",
                    "Social Sciences": "Social Sciences",
                    "Humanities": "Humanities",
                    "Others": "Others",
                },
            ),
            Column("Macro", "mmlu", ("acc_macro", "all"), ("acc_macro", "")),
        ),
    ),
    Table(
        "ceval",
        (
            Column("Average", "ceval", ("acc", "all"), ("acc", "")),
            *_categories(
                "ceval",
                {
                    "STEM": "STEM",
                    "Social Science": "Social Science",
                    "Humanities": "Humanities",
                    "Other": "Other",
                    "Hard": "Hard",
                },
            ),
            Column("Micro", "ceval", ("acc_micro", "all"), ("acc_micro", "")),
        ),
    ),
    Table(
        "cmmlu",
        (
            Column("Average", "cmmlu", ("acc", "all"), ("acc", "")),
            *_categories(
                "cmmlu",
                {
                    "STEM": "STEM",
                    "Humanities": "Humanities",
                    "Social Science": "Social Science",
                    "Other": "Other",
                    "China specific": "China specific",
                },
            ),
            Column("Micro", "cmmlu", ("acc_micro", "all"), ("acc_micro", "")),
        ),
    ),
    Table(
        "plugin",
        (
            Column("Tool selection (acc., ↑)", "plugin", ("tool_selection", "react"), ("tool selection acc", ""), ""),
            Column(
                "Tool input (Rouge-L, ↑)", "plugin", ("tool_input", "react"), ("tool input rouge-l", ""), "", digits=2
            ),
            Column("False positives (↓)", "plugin", ("false_positive", "react"), ("false positive rate", ""), ""),
        ),
        mode="chat",
    ),
    Table(
        "hfagent",
        tuple(
            Column(head, "plugin", (ours, "hfagent"), (name, ""), "", table="hfagent", digits=2)
            for head, ours, name in (
                ("Tool selection (↑)", "tool_selection", "tool selection"),
                ("Tool used (↑)", "tool_used", "tool used"),
                ("Code (↑)", "code", "code"),
            )
        ),
        mode="chat",
        notes=(
            "HF agent: signatures with `hfagent-own` answer our own instructions in place of the 27 published ones; the "
            "agent's prompt is ours unless `--agent-prompt` gave another.",
        ),
    ),
)


def read_published(path: Path) -> list[dict[str, str]]:
    """The published figures. Raises InputError for a missing file, other columns or a value that is no number."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != PUBLISHED:
                raise InputError(f"{path}:1 has other columns than {','.join(PUBLISHED)}; restore the file")
            rows = list(reader)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); restore it or name its folder with --results"
        ) from error
    for number, row in enumerate(rows, 2):
        try:
            float(row["value"])
        except (TypeError, ValueError):
            raise InputError(f"{path}:{number} has no number in column value; correct it") from None
    return rows


def published_lines(table: Table, rows: Sequence[Mapping[str, str]]) -> list[Line]:
    """One line a model that has a figure in the table, in the order of published.csv, worst average first as there.

    Qwen-7B's MMLU is in two sources of published.csv; the first named figure of a cell stands.
    """
    models: dict[str, dict[str, Figure]] = {}
    sources: dict[str, list[str]] = {}
    for row in rows:
        for column in table.columns:
            wanted = (column.table or column.benchmark, *column.published, column.setting)
            if (row["table"], row["metric"], row["group"], row["setting"]) == wanted:
                models.setdefault(row["model"], {}).setdefault(column.head, Figure(float(row["value"])))
                cited = sources.setdefault(row["model"], [])
                if row["source"] not in cited:
                    cited.append(row["source"])
    return [Line(model, " and ".join(sources[model]), figures) for model, figures in models.items()]


def our_lines(table: Table, results: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Line]:
    """One line a model and setting (recipe, precision, context extension) that was measured whole; of several runs of
    the same benchmark in that setting the newest counts."""
    settings: dict[tuple[str, ...], dict[str, Mapping[str, str]]] = {}
    for column in table.columns:
        for row in results.get(column.benchmark, ()):
            if column.shots not in ("", row["shots"]):
                continue
            if row["mode"] == table.mode and not int(row["partial"]) and (row["metric"], row["group"]) == column.ours:
                key = tuple(row[name] for name in ("model", "recipe", "precision", "context"))
                settings.setdefault(key, {})[column.head] = row  # the file is in order of time: the newest stays
    lines = []
    for (model, recipe, precision, context), cells in sorted(settings.items()):
        figures = {
            head: Figure(*(float(row[name]) for name in ("value", "ci_low", "ci_high"))) for head, row in cells.items()
        }
        signatures = tuple(dict.fromkeys(row["signature"] for row in cells.values()))
        marks = [f"recipe {recipe}"] if recipe != "default" else []
        marks += [precision] + ([context] if context != "none" else [])
        if model == demo.NAME or any("|data:demo-" in signature for signature in signatures):
            marks.append("demonstration data, not comparable")
        lines.append(Line(model, "ours", figures, signatures, tuple(marks)))
    return lines


def render(table: Table, lines: Sequence[Line]) -> str:
    """The table in Markdown, with numbered footnotes for the signatures."""
    columns = [column for column in table.columns if any(column.head in line.figures for line in lines)]
    heads = [column.head for column in columns]
    out = ["| Model | " + " | ".join(heads) + " | Source |", "|:--|" + "--:|" * len(heads) + ":--|"]
    notes: list[str] = []
    for line in lines:
        label = line.model.replace("|", "\\|")
        if line.signatures:
            notes.append(", ".join(line.marks) + ": " + "; ".join(f"`{text}`" for text in line.signatures))
            label += f" [{len(notes)}]"
        cells = [line.figures[c.head].text(c.digits) if c.head in line.figures else "" for c in columns]
        out.append(f"| {label} | " + " | ".join(cells) + f" | {line.source} |")
    if notes:
        out += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    if table.notes:
        out += ["", *table.notes]
    return "\n".join(out) + "\n"


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
    names = {column.benchmark for table in TABLES for column in table.columns}
    ours = {name: store.read_results(results / f"{name}.csv") for name in sorted(names)}
    known = {table.name: table for table in TABLES}

    def make(name: str) -> str:
        if name not in known:
            raise InputError(f"there is no table {name!r}; the tables are {', '.join(known)}")
        table = known[name]
        return render(table, published_lines(table, published) + our_lines(table, ours))

    return make


def run(args: argparse.Namespace) -> int:
    """Rewrites, checks or shows tables; returns the exit status."""
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
    parser.add_argument("--show", metavar="TABLE", help="print one table, change nothing")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE", help="default: README.md")
    args = parser.parse_args()
    runner.exit_with(parser.prog, lambda: run(args))


if __name__ == "__main__":
    main()
