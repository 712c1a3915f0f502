"""The Verification table: what `make verify` checked, from results/verification.csv."""

from __future__ import annotations

from pathlib import Path

from qwen_eval.report.words import translator
from qwen_eval.runs.results import read_table

COLUMNS = ["check", "result", "command", "timestamp", "git_commit"]
CHECKED = "Checked on {date} at commit {commit} by `make verify`."
UNCHECKED = "Not checked yet; run `make verify`."


def markdown(path: Path, language: str = "en") -> str:
    """The table, with date and commit of the checks. Raises InputError for a file with other columns."""
    say = translator(language)
    rows: list[dict[str, str]] = []
    if path.exists():
        rows = read_table(path, [COLUMNS], f"{','.join(COLUMNS)}; run make verify")
    if not rows:
        return say(UNCHECKED) + "\n"
    out = ["| " + " | ".join(map(say, ("What was checked", "Result", "Command"))) + " |", "|:--|--:|:--|"]
    for row in rows:
        cells = (say(row["check"]), row["result"], f"`{row['command']}`")
        out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    newest = max(row["timestamp"] for row in rows)
    commits = ", ".join(dict.fromkeys(row["git_commit"] for row in rows))
    return "\n".join([*out, "", say(CHECKED).format(date=newest[:10], commit=commits)]) + "\n"
