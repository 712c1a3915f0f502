"""The samples of a run: one JSON line each, appended as they are answered.

results/samples/<run_id>.jsonl, or <run_id>.jsonl.gz for a run that was kept in little space (kept.py)
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import gzip
import hashlib
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval.data import json_text
from qwen_eval.runs import files
from qwen_eval.runs.signature import prompt_hash, prompt_of
from qwen_eval.schema import Chosen, Generated, InputError, Measured, Response, Scored, Unanswered

WITHHELD = "not kept, sha256 "

RESPONSES: dict[str, type[Response]] = {
    "chosen": Chosen,
    "generated": Generated,
    "measured": Measured,
    "unanswered": Unanswered,
}


class SampleFile:
    """results/samples/<run_id>.jsonl: one line a sample, appended as it is answered, whole or not at all; a last line
    that a crash cut off is dropped when the file is opened, and its sample is asked again. To be used under `run_lock`."""

    def __init__(self, output: Path, run: str) -> None:
        self.path = output / "samples" / f"{run}.jsonl"
        self._file = files.Appender(self.path)

    def kept(self) -> dict[str, dict[str, Any]]:
        """The rows of the same run that were kept in little space, without those whose reply was not."""
        rows = read_samples(packed) if (packed := packed_path(self.path)).exists() else {}
        return {name: row for name, row in rows.items() if not withheld(row)}

    def read(self) -> dict[str, dict[str, Any]]:
        """The stored rows by sample id. Raises InputError for a line that is not a row, as after an edit of the file."""
        return read_samples(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Appends one row. Raises InputError when it cannot be written."""
        self._file.append(files.json_lines([row]))

    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replaces all stored rows atomically and closes the file."""
        self._file.close()  # Windows replaces no file that is open
        files.write_json_lines(self.path, rows)

    def close(self) -> None:
        self._file.close()


def run_lock(output: Path, run: str) -> contextlib.AbstractContextManager[None]:
    """The lock of a run, for a with statement. Raises InputError when another process holds it."""
    path = output / "samples" / f"{run}.lock"
    busy = f"{path} is held by another process computing the same run; wait for it, or use another --output-dir"
    return files.locked(path, busy)


def rank_name(run: str, rank: int) -> str:
    """The name under which a process other than rank 0 stores its samples."""
    return f"{run}.rank{rank}"


def _rank_files(output: Path, run: str) -> list[Path]:
    return sorted((output / "samples").glob(f"{glob.escape(run)}.rank*.jsonl"))


def read_rank_files(output: Path, run: str) -> dict[str, dict[str, Any]]:
    """The rows that the other processes of a run stored, by sample id."""
    rows: dict[str, dict[str, Any]] = {}
    for path in _rank_files(output, run):
        rows |= read_samples(path)
    return rows


def remove_rank_files(output: Path, run: str) -> None:
    """Removes the files of the other processes, after their rows were merged."""
    for path in _rank_files(output, run):
        with files.writing(path):
            path.unlink(missing_ok=True)


def discard(output: Path, run: str) -> None:
    """Removes what a run has answered, by whichever process, and what was kept of it in little space: an interrupted run would
    otherwise go on with answers of both."""
    path = output / "samples" / f"{run}.jsonl"
    for place in (path, packed_path(path)):
        with files.writing(place):
            place.unlink(missing_ok=True)
    remove_rank_files(output, run)


def packed_path(path: Path) -> Path:
    """Where the samples of a run lie that was kept in little space. path: its usual sample file."""
    return path.with_name(path.name + ".gz")


def stored_path(output: Path, run: str) -> Path:
    """The sample file of a run: the usual one, or the packed one where there is no other."""
    path = output / "samples" / f"{run}.jsonl"
    return packed if not path.exists() and (packed := packed_path(path)).exists() else path


def answered(output: Path, run: str) -> bool:
    """Whether any answer of a run is stored, by whichever process."""
    files_of_run = [stored_path(output, run), *_rank_files(output, run)]
    return any(path.exists() and path.stat().st_size for path in files_of_run)


def withheld_text(text: str) -> str:
    """What is kept of a reply that is not: its hash and its length."""
    return f"{WITHHELD}{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()} ({len(text)} characters)"


def withheld(row: Mapping[str, Any]) -> bool:
    """Whether a reply of a row was not kept."""
    return any(str(text).startswith(WITHHELD) for text in row["response"].get("texts", ()))


def same_texts(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two rows have the same replies; one that was not kept is compared by its hash."""
    return len(one) == len(other) and all(
        mine == theirs or withheld_text(mine) == theirs or mine == withheld_text(theirs)
        for mine, theirs in zip(one, other, strict=True)
    )


def read_samples(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a sample file by sample id, without a truncated last line. Raises InputError for a line that is no row."""
    rows: dict[str, dict[str, Any]] = {}
    with _lines(path) as file:
        # a line without a line feed was cut off by a crash, or is being written right now
        whole = itertools.takewhile(lambda line: line.endswith(b"\n"), file)
        reader = jsonlines.Reader(whole, loads=json_text.loads)
        for number in itertools.count(1):
            try:
                row: Any = reader.read()
                rows[row["id"]] = row
            except EOFError:
                break
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{path}:{number} is not a sample row ({error}); delete the line, so that its item is asked again, or use "
                    "--overwrite"
                ) from error
    return rows


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a sample file. Raises InputError for a damaged packed one."""
    if path.suffix != ".gz":
        with path.open("rb") as plain:
            yield plain
        return
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (EOFError, OSError, zlib.error) as error:  # the end is missing: what follows would be read as unanswered
        raise InputError(f"{path} is damaged ({error}); get it again") from error
    yield iter(content.splitlines(keepends=True))


def sample_row(scored: Scored, keep_prompt: bool = True) -> dict[str, Any]:
    """One sample as it is stored: id, group, cluster, prompt (or its hash), response, answer, target, statistics, and what
    the options are called where that is not A, B, C ..."""
    prompt = prompt_of(scored.sample.request)
    if not keep_prompt:
        prompt = {"sha256": prompt_hash(prompt)}
    kind = next(name for name, record in RESPONSES.items() if isinstance(scored.response, record))
    return {
        "id": scored.sample.id,
        "group": scored.sample.group,
        "cluster": scored.sample.cluster,
        "prompt": prompt,
        "response": {"kind": kind, **_stored(scored.response)},
        "answer": scored.score.answer,
        "target": scored.sample.target,
        "stats": dict(scored.score.stats),
        **({"labels": scored.sample.labels} if scored.sample.labels else {}),
    }


def _stored(response: Response) -> dict[str, Any]:
    """The fields of a response; without those that came after the first release where they are empty: the totals of options
    that were not asked for, what a server said of itself."""
    fields = dataclasses.asdict(response)
    return {name: value for name, value in fields.items() if value or name not in ("totals", "system_fingerprints")}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def stored_response(row: Mapping[str, Any]) -> Response:
    """The response of a stored row. Raises InputError when the row was written by something else."""
    try:
        fields = dict(row["response"])
        kind = fields.pop("kind")
        response: Response = RESPONSES[kind](**{name: _frozen(value) for name, value in fields.items()})
        return response
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"sample {row.get('id')!r} was not stored by this version; use --overwrite") from error
