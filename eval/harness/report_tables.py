"""The tables of the README: which figures stand in them, ours beside the published ones, as Markdown."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import demo
from harness.schema import InputError

PUBLISHED = ("table", "model", "metric", "group", "setting", "value", "source")


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
    """A table of README.md: a column of models, and the figures; rows of one mode, without the partial ones. by_context: a
    line a model and context extension, which published.csv gives as its setting."""

    name: str
    columns: tuple[Column, ...]
    mode: str = "base"
    by_context: bool = False
    notes: tuple[str, ...] = field(default=())


def _categories(benchmark: str, table: Mapping[str, str]) -> tuple[Column, ...]:
    return tuple(Column(head, benchmark, ("acc", group), ("acc", group)) for head, group in table.items())


WMT22_NOTE = (
    "WMT22: the published protocol is not known (shots, prompt, BLEU signature); ours is not comparable with it."
)
LONG_PPL_NOTE = (
    "Perplexity by length in tokens, lower is better. The documents behind the published rows were not published: compare "
    "shapes, not figures."
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
            wanted = (column.table or column.benchmark, *column.published)
            if (row["table"], row["metric"], row["group"]) != wanted:
                continue
            if table.by_context or row["setting"] == column.setting:
                line = labelled(row["model"], row["setting"]) if table.by_context else row["model"]
                models.setdefault(line, {}).setdefault(column.head, Figure(float(row["value"])))
                cited = sources.setdefault(line, [])
                if row["source"] not in cited:
                    cited.append(row["source"])
    return [Line(model, " and ".join(sources[model]), figures) for model, figures in models.items()]


def labelled(model: str, context: str) -> str:
    """`Qwen-7B + dynamic_ntk + logn`, as the README names its long-context rows."""
    return model if context == "none" else " + ".join([model, *context.split("+")])


def plain_first(item: tuple[tuple[str, ...], object]) -> tuple[str, ...]:
    """Sorts settings by name, without a context extension before with one."""
    *setting, context = item[0]
    return *setting, "" if context == "none" else context


def long_ppl(rows: Sequence[Mapping[str, str]], published: Sequence[Mapping[str, str]]) -> Table:
    """The long-context table: a column for every length that anybody measured."""
    lengths = {int(row["group"]) for row in rows if row["metric"] == "perplexity"}
    lengths |= {int(row["group"]) for row in published if row["table"] == "long_ppl"}
    columns = [
        Column(str(length), "long_ppl", ("perplexity", str(length)), ("perplexity", str(length)), "", digits=2)
        for length in sorted(lengths)
    ]
    return Table("long_ppl", tuple(columns), by_context=True, notes=(LONG_PPL_NOTE,))


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
    for (model, recipe, precision, context), cells in sorted(settings.items(), key=plain_first):
        figures = {
            head: Figure(*(float(row[name]) for name in ("value", "ci_low", "ci_high"))) for head, row in cells.items()
        }
        signatures = tuple(dict.fromkeys(row["signature"] for row in cells.values()))
        marks = [f"recipe {recipe}"] if recipe != "default" else []
        marks += [precision] + ([context] if context != "none" else [])
        if model == demo.NAME or any("|data:demo-" in signature for signature in signatures):
            marks.append("demonstration data, not comparable")
        name = labelled(model, context) if table.by_context else model
        lines.append(Line(name, "ours", figures, signatures, tuple(marks)))
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
