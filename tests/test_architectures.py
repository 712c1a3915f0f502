"""The engine on tiny checkpoints of many architectures, against plain forwards of transformers, each prompt alone.

Every architecture is computed right: behind shared prefixes where all of its attention is known, and told where it is not.
One of each kind is in the fast suite; all run with `make test-architectures`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import architectures
import sweep
from qwen_eval.engines.local import generation


def right(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> sweep.Row:
    """Writes a checkpoint, holds every verb against transformers, and returns what was found."""
    monkeypatch.setattr(generation, "MIN_SAVING", generation.MIN_SAVING)  # the sweep lowers it
    row = sweep.sweep(architectures.write(folder, name), name)
    assert row.shared < 1e-4 and row.unshared < 1e-4
    assert row.texts == len(sweep.TEXTS)
    assert row.whole < 1e-5
    if row.replaced:
        assert row.pieces is not None and row.pieces < 1e-5
    else:
        assert row.pieces is None and "cannot read them in pieces" in row.refusal
    assert row.told != row.replaced  # it says why nothing is shared
    return row


@pytest.mark.parametrize("name", sweep.SAMPLE)
def test_a_sample(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = right(name, tmp_path, monkeypatch)
    assert sweep.SAMPLE[name] in row.attention


@pytest.mark.parametrize("name", sweep.SAMPLE)
def test_in_bfloat16_no_further_from_float32_than_transformers(name: str, tmp_path: Path) -> None:
    ours, theirs = sweep.narrow(architectures.write(tmp_path, name), name)
    assert ours < 2 * theirs


@pytest.mark.slow
@pytest.mark.architectures
@pytest.mark.parametrize("name", [name for name in architectures.SETTINGS if name not in sweep.SAMPLE])
def test_the_others(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not architectures.known(name):
        pytest.skip("this transformers has it not")
    right(name, tmp_path, monkeypatch)
