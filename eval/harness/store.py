"""What a run leaves behind: one JSON line a sample, one tidy CSV a benchmark, and a manifest.

The signature is one line that holds all that defines a number and nothing that does not; run_id is made from it and the
weights' fingerprint, so that another model or setting never inherits results, and the same command finds its own.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.schema import (
    Benchmark,
    Choose,
    Chosen,
    EngineInfo,
    Generated,
    InputError,
    Measure,
    Measured,
    Metric,
    Request,
    Response,
    Scored,
)

# fmt: off
COLUMNS = [
    "run_id", "timestamp", "benchmark", "recipe", "mode", "shots", "model", "revision", "precision", "context", "metric",
    "group", "value", "ci_low", "ci_high", "n", "partial", "signature", "seconds", "tokens", "peak_memory_gb", "engine",
    "device", "harness_version", "git_commit",
]
# fmt: on
RESPONSES = {"chosen": Chosen, "generated": Generated, "measured": Measured}


def signature(benchmark: Benchmark, info: EngineInfo) -> str:
    """The line that defines a number: `mmlu|v1|default|base|shots:5|select:logprob|...|ctx:8192|dtype:bf16`."""
    fields = {"shots": str(benchmark.shots), **benchmark.signature, "n": str(len(benchmark.samples))}
    if benchmark.mode == "chat":
        fields["template"] = info.chat_template
    fields["ctx"] = str(info.context_limit)
    if info.context != "none":
        fields["ext"] = info.context
        fields["trained"] = str(info.trained_length)
    if info.window:
        fields["window"] = info.window
    fields["dtype"] = info.precision
    head = [benchmark.name, f"v{benchmark.version}", benchmark.recipe, benchmark.mode]
    return "|".join(head + [f"{name}:{value}" for name, value in fields.items()])


def run_id(benchmark: Benchmark, info: EngineInfo) -> str:
    """A file name for the run: readable head, and a hash of what defines the answers."""
    identity = "\n".join([signature(benchmark, info), info.model, info.revision, info.fingerprint])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    model = re.sub(r"[^A-Za-z0-9._-]+", "_", info.model.rstrip("/").split("/")[-1]) or "model"
    return f"{benchmark.name}-{benchmark.recipe}-{benchmark.mode}-{model}-{digest}"


class SampleFile:
    """results/samples/<run_id>.jsonl: one line a sample, appended as it is answered.

    Rows are written whole or not at all: a line that does not end in a line feed was cut by a crash, is dropped when the
    file is opened, and its sample is asked again.
    """

    def __init__(self, output: Path, run: str, overwrite: bool = False) -> None:
        self.path = output / "samples" / f"{run}.jsonl"
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                self.path.unlink(missing_ok=True)
            self._drop_torn_line()
            self._file = self.path.open("ab", buffering=0)

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def read(self) -> dict[str, dict[str, Any]]:
        """The stored rows by sample id. Raises InputError for a line that is not JSON (somebody edited the file)."""
        return read_samples(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one row in one call, so that a crash leaves a whole line or a torn last one."""
        with _writing(self.path):
            self._file.write(_line(row))

    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Puts these rows in place of all that is stored, at once."""
        write_json_lines(self.path, rows)

    def close(self) -> None:
        self._file.close()


def _line(row: Mapping[str, Any]) -> bytes:
    # lone surrogates (a model can write half a character) have no UTF-8: JSON's own escapes carry them
    try:
        return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode("ascii") + b"\n"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns a failure to write (full disk, read-only folder) into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another folder with --output-dir "
            "(answers already stored are kept, the same command goes on from there)"
        ) from error


def read_samples(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a sample file by sample id. Raises InputError for a line that is no row."""
    rows: dict[str, dict[str, Any]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                rows[row["id"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}:{number} is not a sample row ({error}); delete the file or use --overwrite"
                ) from error
    return rows


def read_run(output: Path, run: str) -> tuple[EngineInfo, dict[str, dict[str, Any]]]:
    """What answered in a finished run, and its rows by sample id. Raises InputError when there is no such run."""
    path = output / "samples" / f"{run}.json"
    try:
        info = EngineInfo(**json.loads(path.read_text(encoding="utf-8"))["model"])
        return info, read_samples(path.with_suffix(".jsonl"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        known = sorted(item.stem for item in (output / "samples").glob("*.json"))
        have = f"the runs are {', '.join(known)}" if known else f"there are no runs in {output / 'samples'}"
        raise InputError(f"run {run} cannot be read ({error}); {have}") from error


def prompt_of(request: Request) -> Any:
    """The whole prompt of a request: text, or messages; of a measurement what it reads, not the documents."""
    if isinstance(request, Measure):
        return {**dataclasses.asdict(request), "documents": len(request.documents)}
    return request.prompt() if isinstance(request, Choose) else request.text()


def sample_row(scored: Scored, keep_prompt: bool = True) -> dict[str, Any]:
    """One sample as it is stored: id, group, prompt (or its hash), response, answer, target, statistics."""
    prompt = prompt_of(scored.sample.request)
    if not keep_prompt:
        text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
        prompt = {"sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()}
    kind = next(name for name, record in RESPONSES.items() if isinstance(scored.response, record))
    return {
        "id": scored.sample.id,
        "group": scored.sample.group,
        "prompt": prompt,
        "response": {"kind": kind, **dataclasses.asdict(scored.response)},
        "answer": scored.score.answer,
        "target": scored.sample.target,
        "stats": dict(scored.score.stats),
    }


def stored_response(row: Mapping[str, Any]) -> Response:
    """The response of a stored row. Raises InputError when the row was written by something else."""
    try:
        fields = dict(row["response"])
        record = RESPONSES[fields.pop("kind")]
        return record(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"sample {row.get('id')!r} was not stored by this version; use --overwrite") from error


def result_rows(
    benchmark: Benchmark, info: EngineInfo, metrics: Sequence[Metric], run: Mapping[str, Any]
) -> list[dict[str, str]]:
    """The CSV rows of a run, one per metric and group. run: the columns that describe this one execution."""
    common = {
        "benchmark": benchmark.name,
        "recipe": benchmark.recipe,
        "mode": benchmark.mode,
        "shots": benchmark.shots,
        "model": info.model,
        "revision": info.revision,
        "precision": info.precision,
        "context": info.context,
        "partial": int(benchmark.partial),
        "signature": signature(benchmark, info),
        "engine": info.engine,
        "device": info.device,
        **run,
    }
    rows = []
    for metric in metrics:
        figures = {name: _number(getattr(metric, name)) for name in ("value", "ci_low", "ci_high")}
        row = {**common, "metric": metric.metric, "group": metric.group, **figures, "n": metric.n}
        rows.append({column: str(row[column]) for column in COLUMNS})
    return rows


def _number(value: float) -> str:
    return f"{value:.6f}"


def read_results(path: Path) -> list[dict[str, str]]:
    """The rows of a results CSV; an empty list when there is no such file. Raises InputError for another header and for
    what cannot be read."""
    try:
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != COLUMNS:
                raise InputError(f"{path}:1 has other columns than this version writes; move the file away")
            return [row for row in reader if None not in row.values() and None not in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as results ({error}); move the file away") from error


def append_results(path: Path, rows: Sequence[Mapping[str, str]]) -> bool:
    """Appends the rows of one run, unless the newest rows of that run say the same already. Returns whether it wrote."""
    same = ("metric", "group", "value", "ci_low", "ci_high", "n", "signature")
    stored = [row for row in read_results(path) if row["run_id"] == rows[0]["run_id"]]
    newest = [row for row in stored if row["timestamp"] == stored[-1]["timestamp"]]
    if [[row[name] for name in same] for row in newest] == [[row[name] for name in same] for row in rows]:
        return False
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        if content and not content.endswith(b"\n"):  # a torn last line of an earlier crash
            content = content[: content.rfind(b"\n") + 1]
        _write_whole(path, content + _csv_text(rows, header=not content).encode("utf-8"))
    return True


def _csv_text(rows: Iterable[Mapping[str, str]], header: bool) -> str:
    lines: list[str] = []
    writer = csv.DictWriter(_Lines(lines), COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return "".join(lines)


class _Lines:
    """What csv.writer needs of a file, collecting the lines."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def write_manifest(output: Path, run: str, content: Mapping[str, Any]) -> None:
    """results/samples/<run_id>.json: library versions, the weights' fingerprint, the command, beside the samples."""
    write_json(output / "samples" / f"{run}.json", content)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all. Raises InputError when the folder cannot be written."""
    _write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all. Raises InputError when the folder cannot be written."""
    _write_whole(path, b"".join(map(_line, rows)))


def _write_whole(path: Path, content: bytes) -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
