"""The samples of a run: one JSON line each, appended as they are answered.

results/samples/<run_id>.jsonl
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval.runs import files
from qwen_eval.runs.signature import prompt_hash, prompt_of
from qwen_eval.schema import Chosen, Generated, InputError, Measured, Response, Scored

RESPONSES = {"chosen": Chosen, "generated": Generated, "measured": Measured}


class SampleFile:
    """results/samples/<run_id>.jsonl: one line a sample, appended as it is answered, whole or not at all; a last line that
    a crash cut is dropped when the file is opened, and its sample is asked again. To be used under `run_lock`."""

    def __init__(self, output: Path, run: str, overwrite: bool = False) -> None:
        self.path = output / "samples" / f"{run}.jsonl"
        if overwrite:
            with files.writing(self.path):
                self.path.unlink(missing_ok=True)
        self._file = files.Appender(self.path)

    def read(self) -> dict[str, dict[str, Any]]:
        """The stored rows by sample id. Raises InputError for a line that is not JSON (somebody edited the file)."""
        return read_samples(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one row. Raises InputError."""
        self._file.append(files.json_lines([row]))

    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Puts these rows in place of all that is stored, at once; nothing can be appended after that."""
        self._file.close()  # Windows puts nothing in the place of an open file
        files.write_json_lines(self.path, rows)

    def close(self) -> None:
        self._file.close()


def run_lock(output: Path, run: str) -> contextlib.AbstractContextManager[None]:
    """Keeps a second process away from a run. Raises InputError where one is at it."""
    path = output / "samples" / f"{run}.lock"
    busy = (
        f"{path} is held by another process that is making this very run; wait for its end, or use another --output-dir"
    )
    return files.locked(path, busy)


def part_name(run: str, rank: int) -> str:
    """The name of the samples that a process other than the leading one (rank 0) answers."""
    return f"{run}.rank{rank}"


def _parts(output: Path, run: str) -> list[Path]:
    return sorted((output / "samples").glob(f"{glob.escape(run)}.rank*.jsonl"))


def take_parts(output: Path, run: str, overwrite: bool = False) -> dict[str, dict[str, Any]]:
    """The rows that other processes of a run stored, by sample id; none with `overwrite`."""
    rows: dict[str, dict[str, Any]] = {}
    for path in [] if overwrite else _parts(output, run):
        rows |= read_samples(path)
    return rows


def drop_parts(output: Path, run: str) -> None:
    """Removes the files of the other processes, whose rows are in the run's own file by now."""
    for path in _parts(output, run):
        with files.writing(path):
            path.unlink(missing_ok=True)


def read_samples(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a sample file by sample id, without a torn last line. Raises InputError for a line that is no row."""
    rows: dict[str, dict[str, Any]] = {}
    with path.open("rb") as file:
        # a line without an end was cut by a crash, or is being written at this moment
        whole = itertools.takewhile(lambda line: line.endswith(b"\n"), file)
        reader = jsonlines.Reader(whole, loads=json.loads)
        for number in itertools.count(1):
            try:
                row: Any = reader.read()
                rows[row["id"]] = row
            except EOFError:
                break
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{path}:{number} is not a sample row ({error}); delete that line, and its item is asked again, or use "
                    "--overwrite"
                ) from error
    return rows


def sample_row(scored: Scored, keep_prompt: bool = True) -> dict[str, Any]:
    """One sample as it is stored: id, group, prompt (or its hash), response, answer, target, statistics."""
    prompt = prompt_of(scored.sample.request)
    if not keep_prompt:
        prompt = {"sha256": prompt_hash(prompt)}
    kind = next(name for name, record in RESPONSES.items() if isinstance(scored.response, record))
    return {
        "id": scored.sample.id,
        "group": scored.sample.group,
        "prompt": prompt,
        "response": {"kind": kind, **_stored(scored.response)},
        "answer": scored.score.answer,
        "target": scored.sample.target,
        "stats": dict(scored.score.stats),
    }


def _stored(response: Response) -> dict[str, Any]:
    """The fields of a response. The totals of options stand there where they were asked for."""
    fields = dataclasses.asdict(response)
    if not fields.get("totals", True):
        del fields["totals"]
    return fields


def stored_response(row: Mapping[str, Any]) -> Response:
    """The response of a stored row. Raises InputError when the row was written by something else."""
    try:
        fields = dict(row["response"])
        record = RESPONSES[fields.pop("kind")]
        return record(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"sample {row.get('id')!r} was not stored by this version; use --overwrite") from error
