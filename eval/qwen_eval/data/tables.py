"""A benchmark's rows as tables, one file per split, in a folder or on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_eval.data import hub
from qwen_eval.data.files import Source, csv_rows, json_lines, read_file
from qwen_eval.schema import DataError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Tables:
    """The rows by split, in order; origin: "files", or a hub dataset and its commit."""

    rows: Mapping[str, tuple[Row, ...]]
    origin: str = "files"


@dataclass(frozen=True)
class Dataset:
    """Where a benchmark's rows are. files: by split ("train", "test") the parquet file in the hub dataset `repo` at the
    commit `revision`. modelscope: its mirror there, "" for none. sha256: of the files, where known.

    A folder holds the same rows as SPLIT.jsonl, SPLIT.csv (all cells text) or SPLIT.parquet.
    """

    repo: str
    revision: str
    files: Mapping[str, str]
    modelscope: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def how(self) -> str:
        """How to get the rows by hand; every error ends in it."""
        names = " and ".join(f"{split}.jsonl" for split in self.files)
        there = f" (hub dataset {self.repo})" if self.repo else ""
        return f"give a folder with {names}{there} with -d DIR"

    def read(self, source: Source) -> Tables:
        """Every split's rows. Raises DataError for anything missing, malformed or empty."""
        if source.directory is not None:
            rows = {split: self._from_folder(source.directory, split) for split in self.files}
            origin = "files"
        elif not self.repo:
            raise DataError(f"this benchmark names no hub dataset; {self.how}")
        else:
            dataset = hub.HubDataset(self.repo, self.revision, self.modelscope, self.how, self.sha256)
            fetched = hub.fetch(dataset, list(self.files.values()), source.hub)
            origin = fetched.origin
            rows = {
                split: tuple(hub.read_table(fetched.paths[name], f"{origin}/{name}", self.how))
                for split, name in self.files.items()
            }
        for split, found in rows.items():
            if not found:
                raise DataError(f"{split} has no rows; {self.how}")
        return Tables(rows, origin)

    def _from_folder(self, folder: Path, split: str) -> tuple[Row, ...]:
        if not folder.is_dir():
            raise DataError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}; {self.how}")
        paths = [folder / f"{split}{ending}" for ending in (".jsonl", ".csv", ".parquet")]
        path = next((path for path in paths if path.is_file()), paths[0])
        if path.suffix == ".parquet":
            return tuple(hub.read_table(path, str(path), self.how))
        blob = read_file(path, self.how)
        if path.suffix == ".jsonl":
            return tuple(record for _, record in json_lines(blob, self.how))
        lines = csv_rows(blob, self.how)
        _, columns = next(lines)
        rows = []
        for line, cells in lines:
            if len(cells) != len(columns):
                raise DataError(f"{path}:{line}: {len(cells)} columns, expected {len(columns)}; {self.how}")
            rows.append(dict(zip(columns, cells, strict=True)))
        return tuple(rows)
