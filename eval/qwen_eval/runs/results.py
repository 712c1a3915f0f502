"""The figures of runs in results/BENCHMARK.csv: one row per metric and group, with what defines and describes the run."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from qwen_eval.runs import files, signature
from qwen_eval.schema import EngineInfo, Generated, InputError, Measured, Metric, Scored, Unanswered
from qwen_eval.tasks.benchmark import Benchmark

# fmt: off
COLUMNS = [
    "run_id", "timestamp", "benchmark", "recipe", "mode", "shots", "model", "revision", "precision", "context", "metric",
    "group", "value", "ci_low", "ci_high", "n", "partial", "signature", "seconds", "tokens", "peak_memory_gb", "engine",
    "device", "harness_version", "git_commit", "weights_gb", "resident_gb",
]
# fmt: on
ADDED = 2  # number of columns, the last ones, that files of earlier versions do not have
REQUIRED = ("shots", "value", "ci_low", "ci_high", "n", "partial", "seconds", "tokens")  # numbers, in every row
NUMBERS = {*REQUIRED, "peak_memory_gb", "weights_gb", "resident_gb"}
# a cell that begins with one of these is a formula to a spreadsheet, or was escaped by us
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def tokens_of(scored: Sequence[Scored]) -> int:
    """The number of tokens of a run's prompts and replies, of a measurement of those that were scored. It does not depend on
    interruptions; how many of them the engine computed depends on the prefixes that prompts share."""
    total = 0
    for response in (item.response for item in scored if not isinstance(item.response, Unanswered)):
        total += sum(response.tokens) if isinstance(response, Measured) else response.prompt_tokens
        total += sum(response.new_tokens) if isinstance(response, Generated) else 0
    return total


def system_fingerprints(scored: Sequence[Scored]) -> dict[str, int]:
    """How many replies each system fingerprint computed that a server named; "none" for replies without. Empty where no reply
    has one. An item whose options were scored by several requests counts once for each of their fingerprints."""
    found: Counter[str] = Counter()
    for response in (item.response for item in scored):
        if isinstance(response, Measured | Unanswered):
            continue
        texts = len(response.texts) if isinstance(response, Generated) else 1
        found.update(name or "none" for name in response.system_fingerprints or ("none",) * texts)
    return dict(found.most_common()) if set(found) - {"none"} else {}


def result_rows(
    benchmark: Benchmark, info: EngineInfo, metrics: Sequence[Metric], run: Mapping[str, Any]
) -> list[dict[str, str]]:
    """The CSV rows of a run, one per metric and group. run: the columns that describe the execution (run_id, timestamp,
    seconds ...)."""
    common = {
        "benchmark": benchmark.name,
        "recipe": benchmark.recipe,
        "mode": benchmark.mode,
        "shots": benchmark.shot_count,
        "model": info.model,
        "revision": info.revision,
        "precision": info.precision,
        "context": info.context,
        "partial": int(benchmark.partial),
        "signature": signature.signature(benchmark, info),
        "engine": info.engine,
        "device": info.device,
        **run,
    }
    rows = []
    for metric in metrics:
        figures = {name: _number(getattr(metric, name)) for name in ("value", "ci_low", "ci_high")}
        row = {**common, "metric": metric.metric, "group": metric.group, **figures, "n": metric.n}
        rows.append({column: str(row[column]) for column in COLUMNS})
    return rows


def memory_of(usage: Mapping[str, float]) -> dict[str, str]:
    """The memory columns of an engine's usage in GB, empty where the engine does not know."""
    known = {name: usage.get(name, 0.0) for name in ("weights_gb", "resident_gb")}
    return {
        "peak_memory_gb": f"{usage['peak_memory_gb']:.3f}",
        **{name: f"{value:.6f}" if value else "" for name, value in known.items()},
    }


def _number(value: float) -> str:
    return f"{value:.6f}"


def read_results(path: Path) -> list[dict[str, str]]:
    """The rows of a results CSV; empty when there is no such file. All cells are text as written ("None", "NA", "0.50"). A
    last line without an end, which a crash cut off, is left out. Raises InputError for another header and for a file that
    cannot be read."""
    if not path.exists():
        return []
    rows = read_table(path, (COLUMNS, COLUMNS[:-ADDED]), "this version writes; move the file elsewhere", torn=True)
    for number, row in enumerate(rows, 1):
        for name in REQUIRED:
            try:
                float(row[name])
            except ValueError:
                raise InputError(
                    f"{path}: row {number} has no number in column {name} ({row[name]!r}); correct or delete the row"
                ) from None
    return [{**dict.fromkeys(COLUMNS, ""), **_unescaped(row)} for row in rows]


def read_table(
    path: Path, headers: Collection[Sequence[str]], expected: str, torn: bool = False
) -> list[dict[str, str]]:
    """The rows of a CSV by column name, all cells as text.

    headers: the column names that the file may have. expected: the end of the message for others. torn: whether a last line
    without an end is left out: of files that grow. Raises InputError for other columns and for a file that is missing or
    no CSV.
    """
    import pandas

    try:
        text = path.read_bytes().decode("utf-8-sig")
        whole, _, last = text.rpartition("\n")
        head = whole.partition("\n")[0] or last
        names = next(csv.reader([head]))
        if names not in [list(header) for header in headers]:  # before pandas, which takes seconds for 100,000 columns
            raise InputError(f"{path}:1 has other columns than {expected}")
        if torn and last and whole:
            text = whole + "\n"
        table = pandas.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_filter=False)
        rows: list[dict[str, str]] = table.to_dict("records")
        return rows
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as a table ({reason}); move the file elsewhere") from error


def append_results(path: Path, rows: Sequence[Mapping[str, str]]) -> bool:
    """Appends the rows of one run, all or none, unless the newest rows of that run have the same figures. Returns whether it
    wrote. Processes that append to the same file take turns. Raises InputError."""
    same = ("metric", "group", "value", "ci_low", "ci_high", "n", "signature")
    with files.locked(path.with_name(f"{path.name}.lock")):
        known = read_results(path)
        stored = [row for row in known if row["run_id"] == rows[0]["run_id"]]
        newest = [row for row in stored if row["timestamp"] == stored[-1]["timestamp"]]
        if [[row[name] for name in same] for row in newest] == [[row[name] for name in same] for row in rows]:
            return False
        content = path.read_bytes() if path.exists() else b""
        whole = content.startswith(",".join(COLUMNS).encode() + b"\n") and content.endswith(b"\n")
        if content and not whole:  # of an earlier version, or with a last line that a crash cut off
            content = _csv_text(known, header=True).encode("utf-8")
        files.write_atomically(path, content + _csv_text(rows, header=not content).encode("utf-8"))
    return True


def _csv_text(rows: Sequence[Mapping[str, str]], header: bool) -> str:
    text = io.StringIO(newline="")
    cells = "".join(cell for row in rows for cell in row.values())
    # readers take a lone carriage return for the end of a row; the writer quotes it only when it quotes all
    quoting: Literal[0, 1] = csv.QUOTE_ALL if "\r" in cells else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", quoting=quoting)
    if header:
        writer.writeheader()
    writer.writerows(map(_escaped, rows))
    return text.getvalue()


def escape_formula(text: str) -> str:
    """A cell's text, prefixed with an apostrophe where a spreadsheet would evaluate it as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _escaped(row: Mapping[str, str]) -> dict[str, str]:
    """The row with its texts escaped; numbers stay numbers."""
    return {name: text if name in NUMBERS else escape_formula(text) for name, text in row.items()}


def _unescaped(row: Mapping[str, str]) -> dict[str, str]:
    """The inverse of _escaped."""
    return {name: text if name in NUMBERS else text.removeprefix("'") for name, text in row.items()}
