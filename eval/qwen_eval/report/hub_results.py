"""Evaluation results for a model's page on the hub: `.eval_results/*.yaml` in the model's repository.

Format: https://huggingface.co/docs/hub/eval-results, through huggingface_hub's EvalResultEntry. The hub shows a leaderboard for
datasets that are registered as benchmarks, and plain results for others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

from qwen_eval.report.lines import our_lines
from qwen_eval.runs.files import write_text
from qwen_eval.schema import InputError
from qwen_eval.tasks.facts import Column, Table

TABLES = ("main", "chat")  # with the figures of a model's page


def write(
    results: Mapping[str, list[dict[str, str]]],
    tables: Mapping[str, Table],
    hubs: Mapping[str, tuple[str, str] | None],
    folder: Path,
) -> list[Path]:
    """Writes FOLDER/<model>/.eval_results/<benchmark>.yaml for every model that was run, one entry per protocol and setting,
    and returns the files.

    results: rows by benchmark. hubs: by benchmark the dataset on the hub and the task's id there (of unregistered ones the
    configuration). The demonstration and partial runs are left out, since the entries name public datasets. Raises
    InputError when nothing is left or a file cannot be written.
    """
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    found: dict[Path, list[object]] = {}
    for table in (tables[name] for name in TABLES):
        for line in our_lines(table, results):
            for column in table.columns:
                figure = line.figures.get(column.head)
                if figure is None or figure.marks or not hubs.get(column.benchmark):
                    continue
                row = _row(results[column.benchmark], column, figure.signature, line.model)
                path = folder / re.sub(r"[^A-Za-z0-9._-]+", "__", line.model.strip("/")) / ".eval_results"
                entries = found.setdefault(path / f"{column.benchmark}.yaml", [])
                entries += eval_result_entries_to_yaml([_entry(hubs[column.benchmark], row)])
    if not found:
        raise InputError(
            "there is no whole run of a model to describe; the demonstration and partial runs are left out"
        )
    for path, entries in found.items():
        write_text(path, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=1000))
    return sorted(found)


def _entry(hub: tuple[str, str] | None, row: Mapping[str, str]) -> Any:
    from huggingface_hub import EvalResultEntry

    assert hub
    dataset, task = hub
    value, low, high = (round(float(row[name]), 2) for name in ("value", "ci_low", "ci_high"))
    interval = "no interval" if isnan(low) else f"95% interval {low} to {high}"
    notes = f"{row['metric']}, percent, {interval}; {row['signature']}"
    return EvalResultEntry(dataset_id=dataset, task_id=task, value=value, date=row["timestamp"], notes=notes)


def _row(rows: Iterable[Mapping[str, str]], column: Column, signature: str, model: str) -> Mapping[str, str]:
    """The newest row of a figure of a table."""
    wanted = (model, signature, *column.ours)
    return [row for row in rows if (row["model"], row["signature"], row["metric"], row["group"]) == wanted][-1]
