"""What a run leaves behind beside its figures (results_csv.py): one JSON line a sample, and a manifest.

The signature is one line that holds all that defines a number and nothing that does not; run_id is made from it, the
weights' fingerprint and the prompts, so that another model or setting never inherits results, and the same command finds
its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import io
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonlines

from harness import durable
from harness.schema import (
    Benchmark,
    Choose,
    Chosen,
    EngineInfo,
    Generated,
    InputError,
    Measure,
    Measured,
    Request,
    Response,
    Sample,
    Scored,
)

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
    """A file name for the run: readable head, and a hash of what defines the answers: model, protocol, precision, and
    every prompt with its way of decoding, so that no change of any of them inherits answers."""
    digest = hashlib.sha256()
    for line in (
        signature(benchmark, info),
        info.model,
        info.revision,
        info.fingerprint,
        *map(_asked, benchmark.samples),
    ):
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    model = re.sub(r"[^A-Za-z0-9._-]+", "_", info.model.rstrip("/").split("/")[-1]) or "model"
    return f"{benchmark.name}-{benchmark.recipe}-{benchmark.mode}-{model}-{digest.hexdigest()[:10]}"


def _asked(sample: Sample) -> str:
    """What is asked of the model for a sample and how (of a measurement not the documents: the signature has their hash)."""
    texts = ("header", "shots", "question", "prompt", "documents")
    fields = {name: value for name, value in vars(sample.request).items() if name not in texts}
    return repr((sample.id, prompt_of(sample.request), fields))


class SampleFile:
    """results/samples/<run_id>.jsonl: one line a sample, appended as it is answered, whole or not at all; a last line that
    a crash cut is dropped when the file is opened, and its sample is asked again. To be used under `run_lock`."""

    def __init__(self, output: Path, run: str, overwrite: bool = False) -> None:
        self.path = output / "samples" / f"{run}.jsonl"
        if overwrite:
            with durable.writing(self.path):
                self.path.unlink(missing_ok=True)
        self._file = durable.Appender(self.path)

    def read(self) -> dict[str, dict[str, Any]]:
        """The stored rows by sample id. Raises InputError for a line that is not JSON (somebody edited the file)."""
        return read_samples(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one row. Raises InputError."""
        self._file.append(_lines([row]))

    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Puts these rows in place of all that is stored, at once; nothing can be appended after that."""
        self._file.close()  # Windows puts nothing in the place of an open file
        write_json_lines(self.path, rows)

    def close(self) -> None:
        self._file.close()


def run_lock(output: Path, run: str) -> contextlib.AbstractContextManager[None]:
    """Keeps a second process away from a run. Raises InputError where one is at it."""
    path = output / "samples" / f"{run}.lock"
    busy = (
        f"{path} is held by another process that is making this very run; wait for its end, or use another --output-dir"
    )
    return durable.locked(path, busy)


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
        with durable.writing(path):
            path.unlink(missing_ok=True)


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    content = io.BytesIO()  # the writer puts down a line in two parts, and what goes to the disk goes at once
    with jsonlines.Writer(content, dumps=_json) as writer:
        writer.write_all(rows)
    return content.getvalue()


def _json(row: Mapping[str, Any]) -> bytes:
    # lone surrogates (a model can write half a character) have no UTF-8: JSON's own escapes carry them
    try:
        return json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row).encode("ascii")


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


def read_manifest(output: Path, run: str) -> dict[str, Any]:
    """What write_manifest wrote of a finished run. Raises InputError when there is no such run."""
    path = output / "samples" / f"{run}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        known = sorted(item.stem for item in (output / "samples").glob("*.json"))
        have = f"the runs are {', '.join(known)}" if known else f"there are no runs in {output / 'samples'}"
        raise InputError(f"run {run} cannot be read ({error}); {have}") from error


def read_run(output: Path, run: str) -> tuple[EngineInfo, dict[str, dict[str, Any]]]:
    """What answered in a finished run, and its rows by sample id. Raises InputError when there is no such run."""
    path = output / "samples" / f"{run}.jsonl"
    try:
        return EngineInfo(**read_manifest(output, run)["model"]), read_samples(path)
    except (OSError, KeyError, TypeError) as error:
        raise InputError(f"run {run} cannot be read ({error}); give the command that made it once more") from error


def prompt_of(request: Request) -> Any:
    """The whole prompt of a request: text, or messages; of a measurement what it reads, not the documents."""
    if isinstance(request, Measure):
        return {**dataclasses.asdict(request), "documents": len(request.documents)}
    return request.prompt() if isinstance(request, Choose) else request.text()


def prompt_hash(prompt: Any) -> str:
    """The hash of a prompt as prompt_of gives it, or as a row keeps it: the text, the messages, or the hash already."""
    if isinstance(prompt, dict) and "sha256" in prompt:
        return str(prompt["sha256"])
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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


def write_manifest(output: Path, run: str, content: Mapping[str, Any]) -> None:
    """results/samples/<run_id>.json: library versions, the weights' fingerprint, the command, beside the samples."""
    write_json(output / "samples" / f"{run}.json", content)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all. Raises InputError when the folder cannot be written."""
    durable.write_whole(
        path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    )


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all. Raises InputError when the folder cannot be written."""
    durable.write_whole(path, text.encode("utf-8"))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all. Raises InputError when the folder cannot be written."""
    durable.write_whole(path, _lines(rows))
