"""Runs kept in little space, to be published beside results: rows without texts that are not ours.

The prompt is its hash. A reply or an answer that repeats the question (a model that copies its prompt) and a long gold text are
their hash and length; of a test that failed the error's name is kept. Log-probabilities, letters, numbers and statistics stay
as they are.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_eval.runs import files
from qwen_eval.runs.clusters import clusters_of
from qwen_eval.runs.samples import packed_path, read_samples, withheld_text
from qwen_eval.runs.signature import prompt_hash
from qwen_eval.schema import InputError

REPEATED = (
    40  # bytes in a row that a text may not share with its prompt: seven English words, thirteen Chinese characters
)
LONGEST_TARGET = 16  # bytes: letters and numbers


def keep(output: Path, run: str) -> Path:
    """Writes samples/<run>.jsonl.gz beside the run's sample file. Returns its path.

    Raises InputError where the run is not stored, or was stored without its prompts: then nobody knows what repeats them.
    """
    path = output / "samples" / f"{run}.jsonl"
    if not path.exists():
        raise InputError(f"{path} does not exist; name a run of {output}")
    stored = list(read_samples(path).values())
    # what is in a cluster can no longer be told once prompts are hashes
    rows = [kept_row({**row, "cluster": name}, path) for row, name in zip(stored, clusters_of(stored), strict=True)]
    packed = packed_path(path)
    # without name and time in its header, so that equal rows are equal files
    files.write_atomically(packed, gzip.compress(files.json_lines(rows), mtime=0))
    return packed


def kept_manifest(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a manifest: all of it, but for its first prompt, of which the hash is kept."""
    prompt = content.get("prompt")
    return {**content, **({"prompt": {"sha256": prompt_hash(prompt)}} if isinstance(prompt, str) else {})}


def kept_row(row: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A stored row as it is kept. path: of its file, for errors."""
    if isinstance(row["prompt"], dict) and "sha256" in row["prompt"]:
        raise InputError(f"{path}: its prompts were not stored (--no-prompts); run it again without that option")
    prompt = row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"], ensure_ascii=False)
    windows = _windows(prompt)

    def kept(value: Any) -> Any:
        if isinstance(value, str):
            return withheld_text(value) if _repeats(value, windows) else value
        if isinstance(value, list):
            return [kept(item) for item in value]
        if isinstance(value, dict):  # the detail of a verdict quotes the line of the test that failed
            return {name: _without_line(item) if name == "detail" else kept(item) for name, item in value.items()}
        return value

    return {
        **row,
        "prompt": {"sha256": prompt_hash(row["prompt"])},
        "response": kept(row["response"]),
        "answer": kept(row["answer"]),
        "target": kept_target(row["target"]),
    }


def _without_line(detail: Any) -> Any:
    return detail.split(" at: ")[0] if isinstance(detail, str) else detail


def kept_target(value: Any) -> Any:
    """What is kept of a gold answer: texts that are not short are withheld."""
    if isinstance(value, str):
        return value if _size(value) <= LONGEST_TARGET else withheld_text(value)
    if isinstance(value, list):
        whole = "\n".join(map(str, value))
        return value if _size(whole) <= LONGEST_TARGET else [withheld_text(str(item)) for item in value]
    return value


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _windows(text: str) -> set[bytes]:
    data = text.encode("utf-8", "surrogatepass")
    return {data[start : start + REPEATED] for start in range(len(data) - REPEATED + 1)}


def _repeats(text: str, windows: set[bytes]) -> bool:
    data = text.encode("utf-8", "surrogatepass")
    return any(data[start : start + REPEATED] in windows for start in range(len(data) - REPEATED + 1))
