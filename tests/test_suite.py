"""The suite: one model for all jobs, the same rows as the scripts alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import mmlu
import suite
from harness import runner, store
from harness.engines.hf import HFEngine
from harness.schema import ModelSpec


def arguments(tmp_path: Path, *words: str):
    import argparse

    args = argparse.Namespace(checkpoint_path="demo", chat_checkpoint=None, data=None)
    return suite.plan(args, ["-o", str(tmp_path), "--quiet", "--limit", "2", *words])


def test_every_protocol_of_the_tables_is_planned(tmp_path: Path) -> None:
    """The long-context table has four rows; all other jobs are one run."""
    jobs = arguments(tmp_path)
    assert len(jobs) == len(suite.BASE) + 3 + len(suite.CHAT)
    chats = [getattr(options, "chat", False) for _, options in jobs]
    assert chats == [False] * (len(suite.BASE) + 3) + [True] * len(suite.CHAT)
    long = [options for _, options in jobs if hasattr(options, "lengths")]
    assert [(row.dynamic_ntk, row.logn, row.window) for row in long] == [
        ("off", "off", "off"), ("on", "off", "off"), ("on", "on", "off"), ("on", "on", "auto"),
    ]  # fmt: skip
    assert [options.shots for _, options in jobs][:6] == [5, 5, 5, 8, 0, 5]


def test_one_engine_serves_all_and_rows_are_those_of_the_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[ModelSpec] = []

    class Counted(HFEngine):
        def __init__(self, spec: ModelSpec, *rest: object, **options: object) -> None:
            opened.append(spec)
            super().__init__(spec, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("harness.engines.hf.HFEngine", Counted)
    together, alone = tmp_path / "together", tmp_path / "alone"
    suite.run(arguments(together)[:3])
    assert len(opened) == 1
    options = mmlu.parser().parse_args(["-c", "demo", "-o", str(alone), "--quiet", "--limit", "2"])
    runner.run(options, mmlu.build)
    same = ("metric", "group", "value", "n", "signature", "run_id", "tokens")
    rows = [
        [{name: row[name] for name in same} for row in store.read_results(path / "mmlu.csv")]
        for path in (together, alone)
    ]
    assert rows[0] == rows[1]
    assert {path.name for path in together.glob("*.csv")} == {"mmlu.csv", "ceval.csv", "cmmlu.csv"}
