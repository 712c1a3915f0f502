"""The manifest of a run, results/samples/<run_id>.json: library versions, the weights' fingerprint, the command, the notes."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from qwen_eval.data import json_text
from qwen_eval.runs import files
from qwen_eval.runs.samples import read_samples, stored_path
from qwen_eval.schema import EngineInfo, InputError
from qwen_eval.tasks.facts import Facts, from_json


def read_manifest(output: Path, run: str) -> dict[str, Any]:
    """The manifest of a finished run. Raises InputError when there is no such run, and for an unfinished one."""
    path = output / "samples" / f"{run}.json"
    answered = stored_path(output, run)
    if not path.exists() and answered.exists():
        raise InputError(
            f"run {run} is unfinished: {len(read_samples(answered))} items are answered, and it has no manifest; finish it "
            "with its own command first"
        )
    try:
        return dict(json_text.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        known = sorted(item.stem for item in (output / "samples").glob("*.json"))
        have = f"the runs are {', '.join(known)}" if known else f"there are no runs in {output / 'samples'}"
        raise InputError(f"run {run} cannot be read ({error}); {have}") from error


def read_run(output: Path, run: str) -> tuple[EngineInfo, dict[str, dict[str, Any]]]:
    """The engine's description and the rows by sample id of a finished run. Raises InputError when there is no such run."""
    try:
        return EngineInfo(**read_manifest(output, run)["model"]), read_rows(output, run)
    except (KeyError, TypeError) as error:
        raise InputError(f"run {run} cannot be read ({error}); run its command again") from error


def read_rows(output: Path, run: str) -> dict[str, dict[str, Any]]:
    """The rows of a run by sample id. Raises InputError when there are none."""
    try:
        return read_samples(stored_path(output, run))
    except OSError as error:
        raise InputError(f"run {run} cannot be read ({error}); run its command again") from error


def write_manifest(output: Path, run: str, content: Mapping[str, Any]) -> None:
    """Writes the manifest atomically. Raises InputError when it cannot be written."""
    files.write_json(output / "samples" / f"{run}.json", content)


def own_benchmarks(folder: Path, known: Container[str]) -> dict[str, Facts]:
    """The facts of benchmarks that are not `known`, from the manifests of a results folder, by name; the newest run counts.

    Raises InputError for a manifest that does not describe its benchmark as this version does.
    """
    found: dict[str, Facts] = {}
    for path in sorted((folder / "samples").glob("*.json"), key=lambda path: path.stat().st_mtime):
        try:
            content = json_text.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # reported by whatever reads that run
        if isinstance(content, dict) and "benchmark" in content:
            facts = from_json(content["benchmark"], str(path))
            if facts.name not in known:
                found[facts.name] = facts
    return found
