"""README tables: right rows in the right columns, stable, and stale ones noticed."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import yaml

import report
from qwen_eval.report import render, words
from qwen_eval.runs import results as results_csv
from qwen_eval.schema import InputError

ROOT = Path(__file__).resolve().parents[1]
README_TABLES = ["main", "precision", "plugin", "hfagent", "long_ppl"]
PUBLISHED = """table,model,metric,group,setting,value,source
mmlu,Old-7B,acc,,5-shot,42.3,README
mmlu,Old-7B,acc,STEM,5-shot,35.6,tech memo
mmlu,Old-7B-Chat,acc,,0-shot chat,50.1,tech memo
ceval,Old-7B,acc,,5-shot,42.8,README
"""


def ours(**changes: str) -> dict[str, str]:
    row = dict.fromkeys(results_csv.COLUMNS, "") | {
        "run_id": "r1", "timestamp": "2026-01-01T00:00:00Z", "benchmark": "mmlu", "recipe": "default", "mode": "base",
        "shots": "5", "model": "new/model", "precision": "bf16", "context": "none", "metric": "acc", "group": "all",
        "value": "51.234567", "ci_low": "50.4", "ci_high": "52.06", "n": "14042", "partial": "0",
        "signature": "mmlu|v1|data:11", "peak_memory_gb": "16.000", "seconds": "100.0", "tokens": "1000",
    }  # fmt: skip
    return row | changes


def folder(tmp_path: Path, rows: list[dict[str, str]]) -> Path:
    results = tmp_path / "results"
    results.mkdir(exist_ok=True)
    (results / "published.csv").write_text(PUBLISHED, encoding="utf-8")
    with (results / "mmlu.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, results_csv.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return results


def call(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "eval" / "report.py"), *arguments]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)


def cells(markdown: str, start: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_published_and_ours_stand_side_by_side(tmp_path: Path) -> None:
    rows = [ours(), ours(group="STEM", value="40", ci_low="39", ci_high="41")]
    table = report.read(folder(tmp_path, rows)).markdown("mmlu")
    assert table.splitlines()[0] == "| Model | Average | STEM | Source |"
    assert cells(table, "Old-7B") == ["Old-7B", "42.3", "35.6", "README and tech memo"]
    assert cells(table, "new/model") == ["new/model [1]", "51.2 (50.4 to 52.1)", "40.0 (39.0 to 41.0)", "ours"]
    assert "1. bf16: `mmlu|v1|data:11`" in table and "Chat" not in table


@pytest.mark.parametrize(("name", "summary"), [("README.md", "Signatures"), ("README_CN.md", "签名")])
def test_in_a_file_the_signatures_are_folded(tmp_path: Path, name: str, summary: str) -> None:
    made = report.read(folder(tmp_path, [ours()]))
    path = tmp_path / name
    path.write_text("<!-- table:mmlu -->\n<!-- /table:mmlu -->\n", encoding="utf-8")
    _, text = report.regenerated(path, made)
    before, inside = text.split(f"<details><summary>{summary}</summary>\n\n")
    assert "mmlu|v1" not in before and inside.startswith("1. bf16: `mmlu|v1|data:11`\n\n</details>\n")


def test_the_newest_run_of_a_setting_counts_and_partial_runs_do_not(tmp_path: Path) -> None:
    rows = [ours(), ours(value="55", run_id="r2"), ours(value="99", partial="1"), ours(value="48", recipe="qwen2023")]
    table = report.read(folder(tmp_path, rows)).markdown("mmlu")
    assert cells(table, "new/model [1]")[1].startswith("55.0")
    assert cells(table, "new/model [2]")[1].startswith("**48.0**") and "2. recipe qwen2023, bf16" in table
    assert "99" not in table


def test_demonstration_rows_stand_marked_and_never_beside_published_figures(tmp_path: Path) -> None:
    asked = ours(model="x/y", signature="mmlu|v1|data:demo-11")
    table = report.read(folder(tmp_path, [ours(model="demo"), asked])).markdown("mmlu")
    assert cells(table, "x/y ‡") and "‡ demonstration data" in table and cells(table, "Old-7B")
    assert "| demo" not in table
    alone = report.read(folder(tmp_path, [ours(model="demo")])).markdown("mmlu")
    assert cells(alone, "demo ‡") and "Old-7B" not in alone


def test_a_partial_run_stands_marked_where_there_is_no_whole_one(tmp_path: Path) -> None:
    rows = [ours(partial="1"), ours(group="STEM", value="40", ci_low="39", ci_high="41")]
    table = report.read(folder(tmp_path, rows)).markdown("mmlu")
    assert cells(table, "new/model") == ["new/model [1]", "51.2 (50.4 to 52.1) †", "40.0 (39.0 to 41.0)", "ours"]
    assert "† partial" in table
    both = report.read(folder(tmp_path, [*rows, ours(value="52")])).markdown("mmlu")
    assert cells(both, "new/model")[1].startswith("52.0") and "†" not in both


def test_bold_only_among_rows_of_equal_protocol(tmp_path: Path) -> None:
    """Ours under qwen2023 compete with the published; other protocols with each other, and only if complete."""
    old = {"recipe": "qwen2023", "signature": "mmlu|v1|qwen2023|data:11|ctx:8192|dtype:bf16"}
    rows = [
        ours(model="a", value="48", **old),
        ours(model="d", value="99", recipe="qwen2023", signature="mmlu|v1|qwen2023|data:demo-11|ctx:8192|dtype:bf16"),
        ours(model="b", value="60", signature="mmlu|v1|default|data:11|ctx:2048|dtype:bf16"),
        ours(model="c", value="59", signature="mmlu|v1|default|data:11|ctx:8192|dtype:fp32"),
        ours(model="f", value="90", signature="mmlu|v1|default|data:22|ctx:8192|dtype:fp32"),
        ours(model="e", value="95", signature="mmlu|v1|default|data:11|ctx:8192|dtype:fp32", shots="0"),
    ]  # fmt: skip
    table = report.read(folder(tmp_path, rows)).markdown("mmlu")
    found = {name: cells(table, name)[1].split(" ")[0] for name in ("Old-7B", "a", "d", "b", "c", "f")}
    assert found == {"Old-7B": "42.3", "a": "**48.0**", "d": "99.0", "b": "**60.0**", "c": "59.0", "f": "90.0"}
    assert "95" not in table  # another number of shots is another protocol


def test_precisions_have_a_table_of_their_own(tmp_path: Path) -> None:
    rows = [
        ours(peak_memory_gb="15.1"), ours(precision="int8", value="50", peak_memory_gb="9.2"),
        ours(model="only/int8", precision="int8", value="44", peak_memory_gb="1"),
    ]  # fmt: skip
    made = report.read(folder(tmp_path, rows))
    precision, main = made.markdown("precision"), made.markdown("main")
    assert cells(precision, "new/model (Int8)")[1:3] == ["50.0 (50.4 to 52.1)", "9.2 §"]
    assert cells(precision, "new/model (BF16)")[2] == "15.1 §"
    assert cells(main, "new/model")[1].startswith("**51.2**") and cells(main, "only/int8")[1].startswith("44.0")


def test_an_average_alone_in_another_precision_adds_no_row_to_the_other_tables(tmp_path: Path) -> None:
    """Its average alone, in BF16, beside a full row in FP32; the difference of two runs is not the best of anything."""
    rows = [
        ours(precision="fp32"), ours(precision="fp32", group="STEM", value="40"), ours(value="52"),
        ours(precision="int8+bf16", value="51"), ours(precision="int8+bf16", metric="acc_minus_bf16", value="-1"),
        ours(precision="nf4+bf16", value="50"), ours(precision="nf4+bf16", metric="acc_minus_bf16", value="-2"),
    ]  # fmt: skip
    made = report.read(folder(tmp_path, rows))
    assert cells(made.markdown("mmlu"), "new/model")[1].startswith("51.2")  # one line: `cells` wants exactly one
    differences = [cells(made.markdown("precision"), f"new/model ({name}+BF16)")[2] for name in ("Int8", "NF4")]
    assert [cell.split(" ")[0] for cell in differences] == ["-1.0", "-2.0"]


def test_everything_is_translated_into_chinese() -> None:
    """Every heading, note and legend of the tables has a translation, except names and figures."""
    made = report.read(ROOT / "demo" / "results", report.PUBLISHED)
    names = {"MMLU", "C-Eval", "CMMLU", "GSM8K", "HumanEval"}
    assert {render.BOLD, *render.LEGEND.values()} <= set(words.CHINESE)
    for name, table in made.tables.items():
        said = {column.head for column in table.columns if not column.head.isdecimal()}
        said |= {table.title, *table.notes, *(line.source for line in made.lines[name])}
        assert said - names <= words.CHINESE.keys() | table.chinese.keys(), name
    assert "| 模型 |" in made.markdown("main", "zh") and "至" in made.markdown("mmlu", "zh")


def test_the_same_tables_as_csv(tmp_path: Path) -> None:
    folder(tmp_path, [ours(), ours(model="=cmd()", run_id="r2")])
    done = call(tmp_path, "--csv", "csv")
    assert done.returncode == 0
    with (tmp_path / "csv" / "mmlu.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["model"], row["column"]): row for row in csv.DictReader(file)}
    mine = rows["new/model", "Average"]
    assert (mine["value"], mine["ci_low"], mine["ci_high"], mine["how"]) == ("51.234567", "50.4", "52.06", "bf16")
    assert ("'=cmd()", "Average") in rows  # a spreadsheet shows it and runs nothing
    assert rows["Old-7B", "STEM"]["value"] == "35.6" and mine["signature"] == "mmlu|v1|data:11"


def test_evaluation_results_as_the_hub_s_own_library_reads_them(tmp_path: Path) -> None:
    folder(tmp_path, [ours(), ours(model="demo"), ours(model="x/y", partial="1")])
    assert call(tmp_path, "--eval-results", "hub").returncode == 0
    (path,) = (tmp_path / "hub").rglob("*.yaml")
    assert path.relative_to(tmp_path / "hub").as_posix() == "new__model/.eval_results/mmlu.yaml"
    (entry,) = huggingface_hub.parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert (entry.dataset_id, entry.value, entry.date) == ("cais/mmlu", 51.23, "2026-01-01T00:00:00Z")
    assert "mmlu|v1|data:11" in entry.notes and "50.4 to 52.06" in entry.notes
    folder(tmp_path, [ours(model="demo")])
    done = call(tmp_path, "--eval-results", "hub")
    assert done.returncode == 2 and "no whole run" in done.stderr


def test_figures_are_the_same_bytes_twice(tmp_path: Path) -> None:
    folder(tmp_path, [ours(peak_memory_gb="15.1")])
    for name in ("one", "two"):
        assert call(tmp_path, "--figures", name).returncode == 0
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["memory.png", "memory.svg", "models.png", "models.svg"]  # no perplexity, no figure of it
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    drawn = (tmp_path / "one" / "models.svg").read_text(encoding="utf-8")
    assert "new/model" in drawn and "Old-7B" in drawn


def test_a_stale_table_is_noticed_and_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, [ours()])
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- table:mmlu -->\nold\n<!-- /table:mmlu -->\nrest\n", encoding="utf-8")
    chinese = tmp_path / "README_CN.md"
    chinese.write_bytes(readme.read_bytes())
    files = ("README.md", "README_CN.md")

    assert call(tmp_path, "--check", *files).returncode == 3 and "old" in readme.read_text(encoding="utf-8")
    assert call(tmp_path, *files).returncode == 0 and call(tmp_path, "--check", *files).returncode == 0
    assert "| 模型 | 平均 |" in chinese.read_text(encoding="utf-8")
    once = readme.read_bytes()
    assert call(tmp_path, *files).returncode == 0 and readme.read_bytes() == once
    assert once.startswith(b"# Title\n<!-- table:mmlu -->\n| Model |") and once.endswith(
        b"<!-- /table:mmlu -->\nrest\n"
    )
    readme.write_text(once.decode().replace("42.3", "43.3"), encoding="utf-8")
    done = call(tmp_path, "--check", *files)
    assert (
        done.returncode == 3 and "README.md: stale tables: mmlu" in done.stderr and "README_CN.md: all" in done.stdout
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:mmlu -->\n", "has no <!-- /table:mmlu -->"),
        ("<!-- table:nosuch -->\n<!-- /table:nosuch -->\n", "the tables are main"),
    ],
)
def test_broken_markers_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        report.regenerate(text, report.read(folder(tmp_path, [ours()])).markdown)


def test_broken_published_figures_are_named(tmp_path: Path) -> None:
    results = folder(tmp_path, [ours()])
    (results / "published.csv").write_text(PUBLISHED.replace("35.6", "n/a"), encoding="utf-8")
    with pytest.raises(InputError, match=r"published\.csv:3"):
        report.read(results)
    (results / "published.csv").unlink()
    with pytest.raises(InputError, match="restore it"):
        report.read(results)


def test_the_repository_s_own_files_are_up_to_date() -> None:
    made = report.read(ROOT / "results")
    for path in report.FILES:
        before, after = report.regenerated(ROOT / path, made)
        assert before == after, path
    demonstration = ROOT / "demo" / "RESULTS.md"
    before, after = report.regenerated(demonstration, report.read(ROOT / "demo" / "results", report.PUBLISHED))
    assert before == after
    for name in ("README.md", "README_CN.md"):
        shown = [match.group(2) for match in report.MARKED.finditer((ROOT / name).read_text(encoding="utf-8"))]
        assert [table for table in shown if table != "verification"] == README_TABLES
    assert [name for name, table in made.tables.items() if table.readme] == README_TABLES
