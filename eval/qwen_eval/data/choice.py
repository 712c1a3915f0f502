"""Multiple choice: MMLU, C-Eval and CMMLU, from the official CSV files or the hub, as rows of text.

Cells are kept as text: "None", "NA" and "0.50" are options like any other, so the files are not read by a library that
infers types (pandas).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from qwen_eval.data import hub
from qwen_eval.data.catalogue import choose_subjects
from qwen_eval.data.files import Blob, Source, csv_rows, find_root, read_file, texts
from qwen_eval.schema import DataError

LETTERS = ("A", "B", "C", "D")

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class ChoiceRow:
    """One question with four options. index: of the row in its file, from 0. answer: the letter, "" where the file has none.
    id: from the file's id column, else the index as text."""

    subject: str
    index: int
    question: str
    options: tuple[str, str, str, str]
    answer: str
    id: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the options, in order."""
        return LETTERS


@dataclass(frozen=True)
class ChoiceSet(Generic[RowT]):
    """A subject's rows: dev for the shots, test for the questions (C-Eval: the split that was requested).

    origin: where they came from, "files", or a hub dataset and its commit ("cais/mmlu@c30699e8...").
    """

    dev: tuple[RowT, ...]
    test: tuple[RowT, ...]
    origin: str = "files"


@dataclass(frozen=True)
class Layout:
    """The files of a benchmark. paths: a pattern by split. headers: the column names that a file may have. headed: whether
    the first row is the header. how: how to get the files."""

    benchmark: str
    paths: Mapping[str, str]
    headers: tuple[tuple[str, ...], ...]
    headed: bool
    how: str

    def path(self, split: str, subject: str) -> str:
        return self.paths[split].format(subject=subject)


# a function that reads subjects of a split from a hub
Hosted: TypeAlias = Callable[[str, Sequence[str], str], dict[str, ChoiceSet[ChoiceRow]]]

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

# Commits and checksums as two or more public projects record them. A commit that no longer exists is an error of one line; a
# file with another checksum shows in the origin.
MMLU_HUB = hub.HubDataset(
    "cais/mmlu",
    "c30699e8356da336a370243923dbaf21066bb9fe",
    "cais/mmlu",
    MMLU.how,
    {
        "all/dev-00000-of-00001.parquet": "2b19bde1ed8ca6b482fb283abc90e8e0d9d228947029c0b91795d64b28b3bc3f",
        "all/test-00000-of-00001.parquet": "74a41822ce7d3def56e1682f958469c04642a5336a5ce912fa375fdb90fb25d7",
    },
)
# The last commit before the conversion to parquet: its archive holds the official files, test without answers.
CEVAL_HUB = hub.HubDataset(
    "ceval/ceval-exam",
    "3923b519fd180e689d0961bf3a032ece929742f3",
    "opencompass/ceval-exam",
    CEVAL.how,
    {"ceval-exam.zip": "68786deeea68ff089c56563ee48fab8160da857b77b913437bb504d681fd8e20"},
)
CEVAL_TABLES_HUB = hub.HubDataset("ceval/ceval-exam", "617524a00b307ff6f9933702f724131fe12ca7ce", "", CEVAL.how)
CMMLU_HUB = hub.HubDataset(
    "haonan-li/cmmlu",
    "efcc940752ea4a1ea94d2727f11f83858d64fc8e",
    "modelscope/cmmlu",
    CMMLU.how,
    {"cmmlu_v1_0_1.zip": "22ecf70b28bef447ee7d8aa5fe144f56996762f901a8537b03b7693773c672a6"},
)


def mmlu(source: Source, subjects: Sequence[str]) -> dict[str, ChoiceSet[ChoiceRow]]:
    """MMLU's dev and test rows of `subjects`, in the official order. Raises DataError for anything missing or
    malformed, InputError for an unknown subject."""
    return _load(MMLU, source, subjects, "test", _hosted_mmlu)


def ceval(source: Source, subjects: Sequence[str], split: str = "val") -> dict[str, ChoiceSet[ChoiceRow]]:
    """C-Eval's dev rows, and its "val" or "test" rows, of `subjects`, in the official order. The answers of test are
    "" where the files have none. Raises DataError, InputError for an unknown subject, ValueError for another split."""
    if split not in ("val", "test"):
        raise ValueError(f"C-Eval is asked on val or test, not {split!r}")
    return _load(CEVAL, source, subjects, split, _hosted_ceval)


def cmmlu(source: Source, subjects: Sequence[str]) -> dict[str, ChoiceSet[ChoiceRow]]:
    """CMMLU's dev and test rows of `subjects`, in the official order. Raises DataError for anything missing or
    malformed, InputError for an unknown subject."""
    return _load(CMMLU, source, subjects, "test", _hosted_cmmlu)


def parse(layout: Layout, split: str, subject: str, blob: Blob) -> tuple[ChoiceRow, ...]:
    """The rows of one CSV file. Raises DataError with file and line for a wrong header, number of columns, empty question or
    option, answer outside A-D, repeated id, malformed quoting or encoding, and for a file without rows."""
    remedy = f"get the file again: {layout.how}"

    def records() -> Iterator[tuple[str, Mapping[str, str]]]:
        lines = csv_rows(blob, remedy)
        columns = _header(layout, split, blob, next(lines)[1]) if layout.headed else layout.headers[0]
        for line, cells in lines:
            where = f"{blob.name}:{line}"
            if len(cells) != len(columns):
                expected = f"{len(columns)} ({_names(columns)})"
                raise DataError(f"{where}: {len(cells)} columns, expected {expected}; {remedy}")
            yield where, dict(zip(columns, cells, strict=True))

    return make_rows(layout, split, subject, blob.name, records(), remedy)


def make_rows(
    layout: Layout, split: str, subject: str, name: str, records: Iterable[tuple[str, Mapping[str, str]]], remedy: str
) -> tuple[ChoiceRow, ...]:
    """A subject's rows from records, each with its location ("file:line") and its cells by column name.

    Raises DataError with the location for an empty question or option, an answer outside A-D (only C-Eval's test may have
    none) and a repeated id, and with the file's `name` when there are no rows.
    """
    rows: list[ChoiceRow] = []
    ids: set[str] = set()
    for where, record in records:
        cells = {column.lower(): cell for column, cell in record.items()}
        for column in ("question", "a", "b", "c", "d"):
            if not cells[column].strip():
                what = column if column == "question" else f"option {column.upper()}"
                raise DataError(f"{where}: the {what} is empty; {remedy}")
        answer = cells.get("answer", "")
        if answer not in LETTERS and not (layout is CEVAL and split == "test" and answer == ""):
            raise DataError(f"{where}: answer {answer!r}, expected A, B, C or D; {remedy}")
        row_id = cells.get("id", cells.get("", str(len(rows))))
        if row_id in ids:
            raise DataError(f"{where}: id {row_id!r} is repeated; {remedy}")
        ids.add(row_id)
        options = (cells["a"], cells["b"], cells["c"], cells["d"])
        rows.append(ChoiceRow(subject, len(rows), cells["question"], options, answer, row_id))
    if not rows:
        raise DataError(f"{name} has no rows of {subject}; {remedy}")
    return tuple(rows)


def _load(
    layout: Layout, source: Source, subjects: Sequence[str], split: str, hosted: Hosted
) -> dict[str, ChoiceSet[ChoiceRow]]:
    chosen = choose_subjects(layout.benchmark, subjects)
    if source.directory is None:
        return hosted(source.hub, chosen, split)
    root = find_root(source.directory, layout.path("dev", chosen[0]), layout.how)

    def rows(part: str, subject: str) -> tuple[ChoiceRow, ...]:
        return parse(layout, part, subject, read_file(root / layout.path(part, subject), layout.how))

    return {subject: ChoiceSet(rows("dev", subject), rows(split, subject)) for subject in chosen}


def _hosted_mmlu(where: str, subjects: Sequence[str], split: str) -> dict[str, ChoiceSet[ChoiceRow]]:
    """From the "all" configuration: two files with every subject, without the large training set."""
    files = {part: f"all/{part}-00000-of-00001.parquet" for part in ("dev", split)}
    fetched = hub.fetch(MMLU_HUB, list(files.values()), where)

    def by_subject(part: str) -> dict[str, list[tuple[str, Mapping[str, str]]]]:
        name = f"{fetched.origin}/{files[part]}"
        found: dict[str, list[tuple[str, Mapping[str, str]]]] = {subject: [] for subject in subjects}
        for number, row in enumerate(hub.read_table(fetched.paths[files[part]], name, MMLU.how)):
            location = f"{name} row {number}"
            if row.get("subject") in found:
                found[row["subject"]].append((location, _mmlu_cells(row, location)))
        return found

    parts = {part: by_subject(part) for part in files}

    def rows(part: str, subject: str) -> tuple[ChoiceRow, ...]:
        return make_rows(MMLU, part, subject, f"{fetched.origin}/{files[part]}", parts[part][subject], MMLU.how)

    return {subject: ChoiceSet(rows("dev", subject), rows(split, subject), fetched.origin) for subject in subjects}


def _mmlu_cells(row: Mapping[str, Any], where: str) -> dict[str, str]:
    """A row of the hub (a list of choices and the answer's index) as the cells of the official files."""
    try:
        a, b, c, d = row["choices"]
        answer = dict(enumerate(LETTERS))[row["answer"]]
        cells = dict(zip(_COLUMNS, (row["question"], a, b, c, d, answer), strict=True))
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}: no question with four choices and an answer from 0 to 3; {MMLU.how}") from None
    return texts(cells, where, MMLU.how)


def _hosted_ceval(where: str, subjects: Sequence[str], split: str) -> dict[str, ChoiceSet[ChoiceRow]]:
    try:
        return _hosted_archive(CEVAL, CEVAL_HUB, "ceval-exam.zip", where, subjects, split)
    except hub.NotOnHub:
        if where != "hf":
            raise
    # A hub without the archive's commit may still have the later conversion, one small file per subject and split. It is the
    # second choice because it went through pandas, which can turn a cell such as NA into "nan"; the hash would show it.
    files = {(part, s): f"{s}/{part}-00000-of-00001.parquet" for part in ("dev", split) for s in subjects}
    fetched = hub.fetch(CEVAL_TABLES_HUB, list(files.values()), where)

    def rows(part: str, subject: str) -> tuple[ChoiceRow, ...]:
        name = f"{fetched.origin}/{files[part, subject]}"
        table = hub.read_table(fetched.paths[files[part, subject]], name, CEVAL.how)
        columns = ("id", *_COLUMNS) if not table or "answer" in table[0] else ("id", *_COLUMNS[:-1])
        records = []
        for number, row in enumerate(table):
            location = f"{name} row {number}"
            cells = {column: row.get(column) for column in columns} | {"id": str(row.get("id", number))}
            records.append((location, texts(cells, location, CEVAL.how)))
        return make_rows(CEVAL, part, subject, name, records, CEVAL.how)

    return {subject: ChoiceSet(rows("dev", subject), rows(split, subject), fetched.origin) for subject in subjects}


def _hosted_cmmlu(where: str, subjects: Sequence[str], split: str) -> dict[str, ChoiceSet[ChoiceRow]]:
    return _hosted_archive(CMMLU, CMMLU_HUB, "cmmlu_v1_0_1.zip", where, subjects, split)


def _hosted_archive(
    layout: Layout, dataset: hub.HubDataset, archive: str, where: str, subjects: Sequence[str], split: str
) -> dict[str, ChoiceSet[ChoiceRow]]:
    """From a zip archive of the official files, read without unpacking."""
    fetched = hub.fetch(dataset, [archive], where)
    members = hub.Archive(fetched.paths[archive], f"{fetched.origin}/{archive}", layout.how)

    def rows(part: str, subject: str) -> tuple[ChoiceRow, ...]:
        path = layout.path(part, subject)
        return parse(layout, part, subject, Blob(f"{members.name}:{path}", members.read(path)))

    return {subject: ChoiceSet(rows("dev", subject), rows(split, subject), fetched.origin) for subject in subjects}


def _header(layout: Layout, split: str, blob: Blob, found: Sequence[str]) -> tuple[str, ...]:
    headers = [header for header in layout.headers if split == "test" or "answer" in map(str.lower, header)]
    if tuple(found) in headers:
        return tuple(found)
    remedy = f"get the file again: {layout.how}"
    raise DataError(f"{blob.name}:1: header {_names(found)!r}, expected {_names(headers[0])!r}; {remedy}")


def _names(columns: Sequence[str]) -> str:
    return ",".join(columns)
