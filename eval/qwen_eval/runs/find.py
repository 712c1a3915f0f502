"""Finds stored runs by id, path or model, and pairs those of two sides. Reads manifests; rows only when they are used."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval.data import json_text
from qwen_eval.runs import samples
from qwen_eval.schema import InputError

HEAD = ("benchmark", "version", "recipe", "mode")  # of a signature, before its name:value fields


@dataclass(frozen=True)
class Run:
    """A stored run. path: its sample file. fields: its signature by field name; without a manifest (an interrupted run)
    benchmark, recipe and mode from the file name. model, fingerprint, timestamp: from the manifest."""

    path: Path
    fields: Mapping[str, str]
    model: str = ""
    fingerprint: str = ""
    timestamp: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return run_name(self.path)

    @property
    def benchmark(self) -> str:
        return self.fields.get("benchmark", "")

    @property
    def finished(self) -> bool:
        """Whether the run was completed: the manifest is written at its end."""
        return bool(self.manifest)

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The stored rows by sample id. Raises InputError for an empty file or a line that is no row."""
        rows = samples.read_samples(self.path)
        if not rows:
            raise InputError(f"{self.path} holds no samples; run the benchmark again")
        for name, row in rows.items():
            if not {"stats", "response", "target"} <= row.keys():
                raise InputError(
                    f"{self.path}: sample {name!r} is not a row of this harness; name a sample file of a run"
                )
        return rows

    @property
    def protocol(self) -> tuple[str, ...]:
        """What runs must have in common to be paired automatically: benchmark, recipe, mode and shots, for perplexity also
        the context extension."""
        own = [self.fields.get(name, "") for name in ("benchmark", "recipe", "mode", "shots")]
        return (*own, *(self.fields.get(name, "") for name in ("ext", "window") if self.benchmark == "long_ppl"))


def same_weights(one: Run, other: Run) -> bool:
    """Whether two finished runs were made with the same weights. A run of version 0.1, which read blocks of them only, is
    compared by those."""
    a, b = one.manifest["model"], other.manifest["model"]
    names = {one.fingerprint, other.fingerprint}
    return len(names) == 1 or names in ({a.get("sampled"), one.fingerprint}, {b.get("sampled"), other.fingerprint})


def parse_signature(line: str) -> dict[str, str]:
    """The fields of a signature by name: benchmark, version, recipe, mode, and the name:value ones in their order."""
    parts = line.split("|")
    fields = dict(zip(HEAD, parts, strict=False))
    return fields | dict(part.split(":", 1) for part in parts[len(HEAD) :] if ":" in part)


def open_run(path: Path) -> Run:
    """A run from its sample file and the manifest beside it, if there is one. Raises InputError for a manifest that cannot be
    read."""
    manifest_path = path.with_name(f"{run_name(path)}.json")
    if not manifest_path.exists():
        name, *rest = run_name(path).split("-")
        return Run(path, dict(zip(("benchmark", "recipe", "mode"), [name, *rest], strict=False)))
    try:
        manifest = json_text.loads(manifest_path.read_text(encoding="utf-8"))
        info = manifest["model"]
        fields = parse_signature(manifest["signature"])
        return Run(path, fields, info["model"], info["fingerprint"], manifest["timestamp"], manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest_path} is not the manifest of a run ({error}); run the benchmark again") from error


def run_name(path: Path) -> str:
    """The id of the run that a sample file is of."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def sample_files(folder: Path) -> list[Path]:
    """The sample files of a results folder (or of its samples/), sorted by name."""
    inner = folder / "samples" if (folder / "samples").is_dir() else folder
    packed = [path for path in inner.glob("*.jsonl.gz") if not path.with_suffix("").exists()]
    return sorted([*inner.glob("*.jsonl"), *packed])


def is_own_format(path: Path) -> bool:
    """Whether a file, or the first one of a folder, is a sample file of this harness."""
    files = sample_files(path) if path.is_dir() else [path]
    try:
        opened = gzip.open if files[0].suffix == ".gz" else open
        with opened(files[0], "rt", encoding="utf-8") as file:
            head = jsonlines.Reader(file, loads=json_text.loads).read(type=dict)
        return {"id", "stats", "response"} <= head.keys()
    except (OSError, ValueError, IndexError, EOFError, RecursionError):
        return False


def find(name: str, results: Path) -> list[Run]:
    """The runs that a name stands for: a sample file, a folder of them, a run's id, or a model with runs in `results`.

    Raises InputError, listing the known names, when it is none of these.
    """
    path = Path(name)
    if path.is_file():
        if not is_own_format(path):
            raise InputError(
                f"{path} does not begin with a sample, neither in this harness's format nor in a known other one"
            )
        return [open_run(path)]
    if path.is_dir() and sample_files(path):
        return [open_run(file) for file in sample_files(path)]
    stored = [open_run(file) for file in sample_files(results)] if results.is_dir() else []
    found = [run for run in stored if run.name == name] or [run for run in stored if run.model == name]
    if not found:
        known = ", ".join([*sorted({run.model for run in stored if run.model}), *(run.name for run in stored)])
        have = f"{results} has {known}" if known else f"there are no runs in {results}"
        raise InputError(f"{name} is no sample file, folder with sample files, run or model; {have}")
    return found


def pair(first: Sequence[Run], second: Sequence[Run]) -> tuple[list[tuple[Run, Run]], list[str]]:
    """The runs of two sides in pairs, and notes on those without a counterpart.

    A single run on each side makes a pair; of several, those of equal protocol do, the newest of each. Raises InputError
    when nothing can be paired, and for two single runs of different benchmarks.
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
    for protocol, one in left[0].items():
        if protocol in left[1]:
            pairs.append((one, left[1].pop(protocol)))
        else:
            notes.append(f"{one.name} has no counterpart")
    notes += [f"{other.name} has no counterpart" for other in left[1].values()]
    if not pairs:
        raise InputError("the two sides have no benchmark in common (" + "; ".join(notes) + ")")
    return pairs, notes


def _newest(runs: Sequence[Run]) -> dict[tuple[str, ...], Run]:
    """By protocol the newest finished run, else the newest unfinished one."""
    found: dict[tuple[str, ...], Run] = {}
    for run in sorted(runs, key=lambda run: (run.finished, run.timestamp)):
        found[run.protocol] = run
    return dict(sorted(found.items()))
