"""The embedded demonstration: a tiny checkpoint and benchmark files of our own (see demo/README.md)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from qwen_eval.schema import CheckpointError

NAME = "demo"
PACKAGE = Path(__file__).resolve().parents[1]
# inside the package where it is installed, else beside it in the checkout
FOLDER = PACKAGE / "demonstration" if (PACKAGE / "demonstration").is_dir() else PACKAGE.parents[1] / "demo"


def checkpoint() -> Path:
    """The folder of the demonstration's checkpoint. Raises CheckpointError when a file is missing or is not the one that was
    shipped, since its figures are the same on every machine only then."""
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
