"""Reading benchmark files: bytes to text, lines and CSV rows, with errors that name the file, the line and a remedy."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval.data import json_text
from qwen_eval.schema import DataError


@dataclass(frozen=True)
class Source:
    """Where rows come from: a folder with the official files or, with directory None, the hub "hf" or "modelscope"."""

    directory: Path | None = None
    hub: str = "hf"


@dataclass(frozen=True)
class Blob:
    """A file's bytes, and its name in errors (a path, or archive:member)."""

    name: str
    data: bytes


def read_file(path: Path, remedy: str) -> Blob:
    """The bytes of `path`. Raises DataError, ending in `remedy`, when it is missing or cannot be read."""
    try:
        return Blob(str(path), path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from None


def find_root(directory: Path, probe: str, how: str) -> Path:
    """The folder that contains the relative path `probe`: the given one or, where that lacks even the first part of `probe`,
    its only sub-folder that has all of it ("data" is enough for "data/mmlu").

    Raises DataError, ending in `how`, when there is no such folder, or when several sub-folders qualify.
    """
    if not directory.is_dir():
        raise DataError(f"{directory} is {'not a folder' if directory.exists() else 'missing'}; {how}")
    if (directory / Path(probe).parts[0]).exists():
        return directory
    inner = [child for child in directory.iterdir() if (child / probe).is_file()]
    if len(inner) > 1:
        raise DataError(f"{directory} is ambiguous: {', '.join(map(str, sorted(inner)))} qualify; name one with -d DIR")
    return inner[0] if inner else directory


def decode(blob: Blob, remedy: str) -> str:
    """The text of a UTF-8 file, with line ends as they are, without a byte-order mark.

    Raises DataError with line and byte offset for an empty file, a NUL byte or a byte that is not UTF-8.
    """
    data = blob.data.removeprefix(b"\xef\xbb\xbf")
    skipped = len(blob.data) - len(data)
    if not data.strip():
        raise DataError(f"{blob.name} is empty; {remedy}")
    nul = data.find(b"\0")
    if nul >= 0:
        raise DataError(f"{_at(blob, data, nul)}: NUL byte at offset {nul + skipped}; {remedy}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"0x{data[error.start]:02x}"
        where = _at(blob, data, error.start)
        raise DataError(f"{where}: byte {byte} at offset {error.start + skipped} is not UTF-8; {remedy}") from None


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, including empty ones. Raises DataError when it cannot be read."""
    text = decode(read_file(path, "name another file"), "save it as UTF-8 text")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def csv_rows(blob: Blob, remedy: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file as text cells, each with the physical line it starts on; blank lines are skipped.

    Raises DataError for what `decode` refuses and for malformed quoting, with the line on which the bad row
    starts (an open quote extends to the end of the file, which is not where the error is).
    """
    # newline="" keeps the line ends inside quoted cells; strict refuses text after a closing quote and an open quote
    reader = csv.reader(io.StringIO(decode(blob, remedy), newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{blob.name}:{line}: broken CSV row ({error}); {remedy}") from None
        if cells:
            yield line, cells


def json_lines(blob: Blob, remedy: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with its line number; blank lines are skipped.

    Raises DataError for what `decode` refuses, for a line that is not JSON (or has numbers or nesting beyond Python's
    limits) and for one that is not an object.
    """
    line = 0  # that the reader read last

    def lines() -> Iterator[str]:
        nonlocal line
        for line, text in enumerate(decode(blob, remedy).split("\n"), 1):  # noqa: B007  # read by the loop below
            yield text

    # With Python's own parser: faster ones, which the reader would use where installed, reject and round other things.
    reader = jsonlines.Reader(lines(), loads=json_text.loads)
    while True:
        try:
            value = reader.read(allow_none=True, skip_empty=True)
        except EOFError:
            return
        except (jsonlines.InvalidLineError, RecursionError) as error:
            why = error.__cause__
            reason = "a number or a nesting too long"
            if isinstance(why, json.JSONDecodeError):
                reason = f"{why.msg}, column {why.colno}"
            raise DataError(f"{blob.name}:{line}: not JSON ({reason}); {remedy}") from None
        if not isinstance(value, dict):
            raise DataError(f"{blob.name}:{line}: found {type(value).__name__}, expected a JSON object; {remedy}")
        yield line, value


def texts(record: Mapping[str, Any], where: str, remedy: str) -> dict[str, str]:
    """The record, whose values must all be text. Raises DataError, starting with `where`, when one is not."""
    for name, value in record.items():
        if not isinstance(value, str):
            raise DataError(f"{where}: {name} is {value!r}, expected text; {remedy}")
    return dict(record)


def content_hash(rows: Iterable[Any]) -> str:
    """Eight hex digits that identify `rows` (dataclass instances, or JSON values) in their order.

    SHA-256 over one canonical JSON line per row, so that equal rows from files and hub have equal hashes. A field of a
    dataclass with the metadata `hashed: False` does not count.
    """
    digest = hashlib.sha256()
    for row in rows:
        value = row
        if is_dataclass(row) and not isinstance(row, type):
            value = asdict(row)
            for field in fields(row):
                if not field.metadata.get("hashed", True):
                    del value[field.name]
        line = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()[:8]


def _at(blob: Blob, data: bytes, offset: int) -> str:
    return f"{blob.name}:{data.count(bytes([10]), 0, offset) + 1}"
