"""Multiple choice: MMLU, C-Eval and CMMLU, from the official CSV files or the hub, as rows of text.

Cells stay as they stand in the file: "None", "NA" and "0.50" are options like any other, so no reader that guesses
types (pandas) touches them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.catalogue import choose_subjects
from harness.data.files import Blob, Source, csv_rows, read_file
from harness.schema import DataError

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class ChoiceRow:
    """One question with four options. index counts the rows of its file from 0; answer is the letter, "" where the
    file has none; id is the file's own id column, or the index as text."""

    subject: str
    index: int
    question: str
    options: tuple[str, str, str, str]
    answer: str
    id: str


@dataclass(frozen=True)
class ChoiceSet:
    """A subject's rows: dev for the shots, test to be asked (C-Eval: the split that was asked for).

    origin says where they came from: "files", or a hub dataset and its commit ("cais/mmlu@c30699e8...").
    """

    dev: tuple[ChoiceRow, ...]
    test: tuple[ChoiceRow, ...]
    origin: str = "files"


@dataclass(frozen=True)
class Layout:
    """How a benchmark is laid out: a path pattern for each split, the headers a file may have (none: no header and
    these columns), and how to get the files."""

    benchmark: str
    paths: Mapping[str, str]
    headers: tuple[tuple[str, ...], ...]
    headed: bool
    how: str

    def path(self, split: str, subject: str) -> str:
        return self.paths[split].format(subject=subject)


_COLUMNS = ("question", "A", "B", "C", "D", "answer")

MMLU = Layout(
    "mmlu",
    {"dev": "dev/{subject}_dev.csv", "test": "test/{subject}_test.csv"},
    (_COLUMNS,),
    headed=False,
    how="get MMLU's data.tar (https://people.eecs.berkeley.edu/~hendrycks/data.tar, or hub dataset cais/mmlu), unpack "
    "it and give its folder, which holds dev/<subject>_dev.csv and test/<subject>_test.csv, with -d DIR",
)
CEVAL = Layout(
    "ceval",
    {split: f"{split}/{{subject}}_{split}.csv" for split in ("dev", "val", "test")},
    (("id", *_COLUMNS), ("id", *_COLUMNS, "explanation"), ("id", *_COLUMNS[:-1])),
    headed=True,
    how="get C-Eval's ceval-exam.zip (hub dataset ceval/ceval-exam), unpack it and give its folder, which holds "
    "dev/<subject>_dev.csv, val/<subject>_val.csv and test/<subject>_test.csv, with -d DIR",
)
CMMLU = Layout(
    "cmmlu",
    {"dev": "dev/{subject}.csv", "test": "test/{subject}.csv"},
    (("", "Question", "A", "B", "C", "D", "Answer"),),
    headed=True,
    how="get CMMLU's cmmlu_v1_0_1.zip (hub dataset haonan-li/cmmlu), unpack it and give its folder, which holds "
    "dev/<subject>.csv and test/<subject>.csv, with -d DIR",
)


def mmlu(source: Source, subjects: Sequence[str]) -> dict[str, ChoiceSet]:
    """MMLU's dev and test rows of `subjects`, in the official order. Raises DataError for anything missing or
    malformed, InputError for an unknown subject."""
    return _load(MMLU, source, subjects, "test")


def ceval(source: Source, subjects: Sequence[str], split: str = "val") -> dict[str, ChoiceSet]:
    """C-Eval's dev rows, and its "val" or "test" rows, of `subjects`, in the official order. The answers of test are
    "" where the files have none. Raises DataError, InputError for an unknown subject, ValueError for another split."""
    if split not in ("val", "test"):
        raise ValueError(f"C-Eval is asked on val or test, not {split!r}")
    return _load(CEVAL, source, subjects, split)


def cmmlu(source: Source, subjects: Sequence[str]) -> dict[str, ChoiceSet]:
    """CMMLU's dev and test rows of `subjects`, in the official order. Raises DataError for anything missing or
    malformed, InputError for an unknown subject."""
    return _load(CMMLU, source, subjects, "test")


def parse(layout: Layout, split: str, subject: str, blob: Blob) -> tuple[ChoiceRow, ...]:
    """The rows of one CSV file. Raises DataError with file and line for a wrong header, column count, empty question
    or option, answer outside A-D, repeated id, broken quotation or encoding, and for a file without rows."""
    remedy = f"get the file again: {layout.how}"
    lines = csv_rows(blob, remedy)
    columns = _header(layout, split, blob, next(lines, (1, []))[1]) if layout.headed else layout.headers[0]
    rows: list[ChoiceRow] = []
    ids: set[str] = set()
    for line, cells in lines:
        where = f"{blob.name}:{line}"
        if len(cells) != len(columns):
            raise DataError(f"{where}: {len(cells)} columns, expected {len(columns)} ({_names(columns)}); {remedy}")
        row = make_row(layout, split, subject, len(rows), dict(zip(columns, cells, strict=True)), where, remedy)
        if row.id in ids:
            raise DataError(f"{where}: id {row.id!r} is there twice; {remedy}")
        ids.add(row.id)
        rows.append(row)
    if not rows:
        raise DataError(f"{blob.name} has no rows; {remedy}")
    return tuple(rows)


def make_row(
    layout: Layout, split: str, subject: str, index: int, cells: Mapping[str, str], where: str, remedy: str
) -> ChoiceRow:
    """A row from its cells by column name. Raises DataError, starting with `where`, for an empty question or option
    and for an answer outside A-D (only C-Eval's test may have none)."""
    named = {name.lower(): cell for name, cell in cells.items()}
    for name in ("question", "a", "b", "c", "d"):
        if not named[name].strip():
            what = "question" if name == "question" else f"option {name.upper()}"
            raise DataError(f"{where}: the {what} is empty; {remedy}")
    answer = named.get("answer", "")
    if answer not in LETTERS and not (layout is CEVAL and split == "test" and answer == ""):
        raise DataError(f"{where}: answer {answer!r}, expected A, B, C or D; {remedy}")
    options = (named["a"], named["b"], named["c"], named["d"])
    row_id = named.get("id", named.get("", str(index)))
    return ChoiceRow(subject, index, named["question"], options, answer, row_id)


def _load(layout: Layout, source: Source, subjects: Sequence[str], split: str) -> dict[str, ChoiceSet]:
    chosen = choose_subjects(layout.benchmark, subjects)
    if source.directory is None:
        raise DataError(f"no folder was given; {layout.how}")
    root = _root(layout, source.directory, chosen[0])

    def rows(part: str, subject: str) -> tuple[ChoiceRow, ...]:
        return parse(layout, part, subject, read_file(root / layout.path(part, subject), layout.how))

    return {subject: ChoiceSet(rows("dev", subject), rows(split, subject)) for subject in chosen}


def _root(layout: Layout, directory: Path, subject: str) -> Path:
    """The folder that holds dev/: the one given or, if that is clear, the only one of its sub-folders that does."""
    if not directory.is_dir():
        state = "is not a folder" if directory.exists() else "is missing"
        raise DataError(f"{directory} {state}; {layout.how}")
    if (directory / "dev").is_dir():
        return directory
    inner = [child for child in directory.iterdir() if (child / layout.path("dev", subject)).is_file()]
    if len(inner) == 1:
        return inner[0]
    raise DataError(f"{directory} has no {layout.path('dev', subject)}; {layout.how}")


def _header(layout: Layout, split: str, blob: Blob, found: Sequence[str]) -> tuple[str, ...]:
    headers = [header for header in layout.headers if split == "test" or "answer" in map(str.lower, header)]
    if tuple(found) in headers:
        return tuple(found)
    remedy = f"get the file again: {layout.how}"
    raise DataError(f"{blob.name}:1: header {_names(found)!r}, expected {_names(headers[0])!r}; {remedy}")


def _names(columns: Sequence[str]) -> str:
    return ",".join(columns)
