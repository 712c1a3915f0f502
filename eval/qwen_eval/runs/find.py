"""Finds stored runs by what a person calls them, and pairs those of two sides. Reads manifests first, rows when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval.runs import samples
from qwen_eval.schema import InputError

HEAD = ("benchmark", "version", "recipe", "mode")  # of a signature, before its name:value fields


@dataclass(frozen=True)
class Run:
    """One sample file of ours. fields: its signature by field name (empty without a manifest: an interrupted run, of which
    the file name gives benchmark, recipe and mode). model, fingerprint, timestamp: from the manifest."""

    path: Path
    fields: Mapping[str, str]
    model: str = ""
    fingerprint: str = ""
    timestamp: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def benchmark(self) -> str:
        return self.fields.get("benchmark", "")

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, which is when the manifest is written."""
        return bool(self.manifest)

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The stored rows by sample id. Raises InputError for an empty file or a line that is no row."""
        rows = samples.read_samples(self.path)
        if not rows:
            raise InputError(f"{self.path} holds no samples; run the benchmark again")
        for name, row in rows.items():
            if not {"stats", "response", "target"} <= row.keys():
                raise InputError(f"{self.path}: sample {name!r} is no row of ours; name a run's own sample file")
        return rows

    @property
    def key(self) -> tuple[str, ...]:
        """What two runs must have in common to be paired by themselves: the protocol, and for perplexity the context."""
        own = [self.fields.get(name, "") for name in ("benchmark", "recipe", "mode", "shots")]
        return (*own, *(self.fields.get(name, "") for name in ("ext", "window") if self.benchmark == "long_ppl"))


def parse_signature(line: str) -> dict[str, str]:
    """The fields of a signature by name: benchmark, version, recipe, mode, and the name:value ones in their order."""
    parts = line.split("|")
    fields = dict(zip(HEAD, parts, strict=False))
    return fields | dict(part.split(":", 1) for part in parts[len(HEAD) :] if ":" in part)


def open_run(path: Path) -> Run:
    """A run from its sample file, with the manifest beside it where there is one. Raises InputError for a manifest that is
    not ours."""
    manifest_path = path.with_suffix(".json")
    if not manifest_path.exists():
        name, *rest = path.stem.split("-")
        return Run(path, dict(zip(("benchmark", "recipe", "mode"), [name, *rest], strict=False)))
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        info = manifest["model"]
        fields = parse_signature(manifest["signature"])
        return Run(path, fields, info["model"], info["fingerprint"], manifest["timestamp"], manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest_path} is no manifest of a run ({error}); run the benchmark again") from error


def sample_files(folder: Path) -> list[Path]:
    """The sample files of a results folder (or of its samples/), by name."""
    inner = folder / "samples" if (folder / "samples").is_dir() else folder
    return sorted(inner.glob("*.jsonl"))


def ours(path: Path) -> bool:
    """Whether a file, or the first of a folder's, is a sample file of ours."""
    files = sample_files(path) if path.is_dir() else [path]
    try:
        with jsonlines.open(files[0], loads=json.loads) as reader:
            head = reader.read(type=dict)
        return {"id", "stats", "response"} <= head.keys()
    except (OSError, ValueError, IndexError, EOFError, RecursionError):
        return False


def find(name: str, results: Path) -> list[Run]:
    """The runs somebody means: a sample file, a folder of them, a run's id, or a model of which runs are in `results`.

    Raises InputError, listing what there is, when it is none of these.
    """
    path = Path(name)
    if path.is_file():
        if not ours(path):
            raise InputError(f"{path} does not begin with a sample, neither in our format nor in a known harness's")
        return [open_run(path)]
    if path.is_dir() and sample_files(path):
        return [open_run(file) for file in sample_files(path)]
    stored = [open_run(file) for file in sample_files(results)] if results.is_dir() else []
    found = [run for run in stored if run.name == name] or [run for run in stored if run.model == name]
    if not found:
        known = ", ".join([*sorted({run.model for run in stored if run.model}), *(run.name for run in stored)])
        have = f"{results} has {known}" if known else f"there are no runs in {results}"
        raise InputError(f"{name} is no sample file, no folder with sample files, no run and no model; {have}")
    return found


def pair(first: Sequence[Run], second: Sequence[Run]) -> tuple[list[tuple[Run, Run]], list[str]]:
    """The runs of two sides in pairs, and sentences about those that found no partner.

    One run on each side are a pair; of several, those of equal signature are, then those of equal protocol, of which the
    newest is taken. Raises InputError when nothing can be paired or two single runs are of different benchmarks.
    """
    if len(first) == len(second) == 1:
        if first[0].benchmark != second[0].benchmark:
            raise InputError(
                f"{first[0].name} is {first[0].benchmark} and {second[0].name} is {second[0].benchmark}; "
                "name two runs of one benchmark"
            )
        return [(first[0], second[0])], []
    pairs, notes = [], []
    left = [_newest(first), _newest(second)]
    for key, one in left[0].items():
        if key in left[1]:
            pairs.append((one, left[1].pop(key)))
        else:
            notes.append(f"{one.name} has no partner")
    notes += [f"{other.name} has no partner" for other in left[1].values()]
    if not pairs:
        raise InputError("the two sides have no benchmark in common (" + "; ".join(notes) + ")")
    return pairs, notes


def _newest(runs: Sequence[Run]) -> dict[tuple[str, ...], Run]:
    """By protocol the newest finished run, or the one that is there."""
    found: dict[tuple[str, ...], Run] = {}
    for run in sorted(runs, key=lambda run: (run.finished, run.timestamp)):
        found[run.key] = run
    return dict(sorted(found.items()))
