"""Where the embedded demonstration lies: a tiny checkpoint and benchmark files of our own (see demo/README.md)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from qwen_eval.schema import CheckpointError, DataError

NAME = "demo"
PACKAGE = Path(__file__).resolve().parents[1]
# inside the package where it is installed, else beside it in the checkout
FOLDER = PACKAGE / "demonstration" if (PACKAGE / "demonstration").is_dir() else PACKAGE.parents[1] / "demo"


def checkpoint() -> Path:
    """The demonstration checkpoint's folder. Raises CheckpointError when a file is not the one that was shipped, since
    its figures are the same on every machine only then."""
    listing = FOLDER / "checkpoint.sha256"
    try:
        for line in listing.read_text(encoding="utf-8").splitlines():
            digest, name = line.split()
            path = FOLDER / name
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise CheckpointError(f"{path} is not the file that was shipped; restore it: git checkout -- {path}")
    except OSError as error:
        raise CheckpointError(f"{error.filename} is missing; restore it: git checkout -- {FOLDER}") from error
    return FOLDER / "checkpoint"


def data(benchmark: str) -> Path:
    """The folder of the demonstration's files for a benchmark. Raises DataError when there is none."""
    path = FOLDER / "data" / benchmark
    if not path.is_dir():
        raise DataError(f"{path} is missing; restore it: git checkout -- {FOLDER}")
    return path


def subjects(benchmark: str) -> list[str]:
    """The subjects the demonstration has files of, by name."""
    return sorted(path.stem.removesuffix("_dev") for path in (data(benchmark) / "dev").glob("*.csv"))
