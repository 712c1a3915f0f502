"""README tables: right rows in the right columns, stable, and stale ones noticed."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

import report
from harness import store
from harness.schema import InputError

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = """table,model,metric,group,setting,value,source
mmlu,Old-7B,acc,,5-shot,42.3,README
mmlu,Old-7B,acc,STEM,5-shot,35.6,tech memo
mmlu,Old-7B-Chat,acc,,0-shot chat,50.1,tech memo
ceval,Old-7B,acc,,5-shot,42.8,README
"""


def ours(**changes: str) -> dict[str, str]:
    row = dict.fromkeys(store.COLUMNS, "") | {
        "run_id": "r1", "timestamp": "2026-01-01T00:00:00Z", "benchmark": "mmlu", "recipe": "default", "mode": "base",
        "shots": "5", "model": "new/model", "precision": "bf16", "context": "none", "metric": "acc", "group": "all",
        "value": "51.234567", "ci_low": "50.4", "ci_high": "52.06", "n": "14042", "partial": "0",
        "signature": "mmlu|v1|data:11",
    }  # fmt: skip
    return row | changes


def folder(tmp_path: Path, rows: list[dict[str, str]]) -> Path:
    results = tmp_path / "results"
    results.mkdir(exist_ok=True)
    (results / "published.csv").write_text(PUBLISHED, encoding="utf-8")
    with (results / "mmlu.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, store.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return results


def cells(markdown: str, start: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_published_and_ours_stand_side_by_side(tmp_path: Path) -> None:
    table = report.tables(folder(tmp_path, [ours(), ours(group="STEM", value="40", ci_low="39", ci_high="41")]))("mmlu")
    assert table.splitlines()[0] == "| Model | Average | STEM | Source |"
    assert cells(table, "Old-7B") == ["Old-7B", "42.3", "35.6", "README and tech memo"]
    assert cells(table, "new/model") == ["new/model [1]", "51.2 (50.4 to 52.1)", "40.0 (39.0 to 41.0)", "ours"]
    assert "1. bf16: `mmlu|v1|data:11`" in table and "Chat" not in table


def test_the_newest_run_of_a_setting_counts_and_partial_runs_do_not(tmp_path: Path) -> None:
    rows = [ours(), ours(value="55", run_id="r2"), ours(value="99", partial="1"), ours(value="48", recipe="qwen2023")]
    table = report.tables(folder(tmp_path, rows))("mmlu")
    assert cells(table, "new/model [1]")[1].startswith("55.0")
    assert cells(table, "new/model [2]")[1].startswith("48.0") and "2. recipe qwen2023, bf16" in table
    assert "99" not in table


def test_demonstration_rows_are_marked(tmp_path: Path) -> None:
    rows = [ours(model="demo"), ours(model="x/y", signature="mmlu|v1|data:demo-11")]
    table = report.tables(folder(tmp_path, rows))("mmlu")
    assert table.count("demonstration data, not comparable") == 2


def test_a_stale_table_is_noticed_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, [ours()])
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- table:mmlu -->\nold\n<!-- /table:mmlu -->\nrest\n", encoding="utf-8")

    def call(*words: str) -> int:
        command = [sys.executable, str(ROOT / "eval" / "report.py"), *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert call("--check") == 3 and "old" in readme.read_text(encoding="utf-8")
    assert call() == 0 and call("--check") == 0
    once = readme.read_bytes()
    assert call() == 0 and readme.read_bytes() == once
    assert once.startswith(b"# Title\n<!-- table:mmlu -->\n| Model |") and once.endswith(
        b"<!-- /table:mmlu -->\nrest\n"
    )
    readme.write_text(once.decode().replace("42.3", "43.3"), encoding="utf-8")
    assert call("--check") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:mmlu -->\n", "has no <!-- /table:mmlu -->"),
        ("<!-- table:nosuch -->\n<!-- /table:nosuch -->\n", "the tables are main"),
    ],
)
def test_broken_markers_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        report.regenerate(text, report.tables(folder(tmp_path, [ours()])))


def test_broken_published_figures_are_named(tmp_path: Path) -> None:
    results = folder(tmp_path, [ours()])
    (results / "published.csv").write_text(PUBLISHED.replace("35.6", "n/a"), encoding="utf-8")
    with pytest.raises(InputError, match=r"published\.csv:3"):
        report.tables(results)
    (results / "published.csv").unlink()
    with pytest.raises(InputError, match="restore it"):
        report.tables(results)


def test_the_repository_s_own_readme_is_up_to_date() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.regenerate(text, report.tables(ROOT / "results")) == text
