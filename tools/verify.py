"""Checks the harness against the code of 2023, sacrebleu, the reference solutions and hostile programs, and writes down
what came out.

    make verify        all checks (minutes), then the Verification table of the READMEs

Every check is some tests of tests/, run here by pytest; the figures are what those tests recorded while they ran (items
compared, largest difference). Writes results/verification.csv. Exit status 1 when a check failed.
"""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT / "eval")]

from qwen_eval.runs.commit import git_commit  # noqa: E402

OUT = ROOT / "results" / "verification.csv"
COLUMNS = ("check", "result", "command", "timestamp", "git_commit")
MADE = (
    ":!results",
    ":!README.md",
    ":!README_CN.md",
    ":!RESULTS.md",
)  # written by this, so no change of what is checked


@dataclass(frozen=True)
class Check:
    """What is checked, and the tests that do it (arguments of pytest). finds: "items" that agree, or the largest
    "difference"."""

    name: str
    tests: str
    finds: str = "items"


CHECKS = (
    Check("Qwen-1 logits: largest difference from the released code", "tests/test_qwen1.py -k 'released_code or row_alone'",
          "difference"),
    Check("Qwen-1 token ids of the original tokenizer", "tests/test_tokenizer.py -k ids_and_text"),
    Check("MMLU predictions of the 2023 script", "tests/test_mmlu.py -m slow -k as_the_original_script"),
    Check("CMMLU predictions of the 2023 script", "tests/test_cmmlu.py -m slow -k as_the_original_script"),
    Check("GSM8K greedy texts of the 2023 script", "tests/test_gsm8k.py -k 'own_completions and None'"),
    Check("Perplexity: largest relative difference from the 2023 code", "tests/test_long_ppl.py -m slow -k all_recorded",
          "difference"),
    Check("Chat replies to MMLU and C-Eval read as in 2023", "tests/test_extract_letters.py -k recorded_row"),
    Check("GSM8K replies read as in 2023", "tests/test_extract_numbers.py -k recorded_row"),
    Check("HumanEval replies read as in 2023", "tests/test_extract_code.py -k recorded_row"),
    Check("Tool calls read as in 2023", "tests/test_extract_react.py -k recorded_row"),
    Check("HumanEval reference solutions that pass in the sandbox", "tests/test_humaneval.py -k 'real_solutions and default'"),
    Check("BLEU and chrF equal to sacrebleu's command line", "tests/test_wmt22.py -k command_line"),
    Check("Hostile programs contained", "tests/test_sandbox_hostile.py -k between_honest_ones"),
    Check("Kept answers of the real model, some asked again", "tests/test_kept_answers.py"),
)  # fmt: skip


def outcome(check: Check, report: ElementTree.Element) -> tuple[str, bool]:
    """What the tests of a check found, from pytest's JUnit report, and whether all of them passed.

    A test that recorded no number of items is one item; "of" is how many it compared, where not all have to agree (near
    ties). A check of which some tests were skipped says how many.
    """
    cases = list(report.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    if failed or not cases:
        return f"FAILED: {len(failed)} of {len(cases)} tests", False
    if len(skipped) == len(cases):
        why = skipped[0].find("skipped")
        reason = "" if why is None else why.get("message", "")
        return f"not checked: {'needs SHARED_DIR' if 'SHARED_DIR' in reason else reason}", True
    tried = [case for case in cases if case not in skipped]
    found = [_recorded(case, check.finds, 1.0) for case in tried]
    if check.finds == "difference":
        text = f"{max(found):.1e}"
    else:
        compared = sum(_recorded(case, "of", items) for case, items in zip(tried, found, strict=True))
        text = f"{sum(found):,.0f} of {compared:,.0f}"
    return text + (f" ({len(skipped)} skipped)" if skipped else ""), True


def _recorded(case: ElementTree.Element, name: str, otherwise: float) -> float:
    """What a test recorded under a name, something else where it did not."""
    values = [float(entry.get("value", "")) for entry in case.iter("property") if entry.get("name") == name]
    return max(values) if values else otherwise


def run(check: Check) -> tuple[str, bool]:
    """Runs a check; returns what it found and whether it held."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--timeout", "3600", "--junitxml", str(path)]
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        done = subprocess.run(
            [*command, *shlex.split(check.tests)], cwd=ROOT, env=environment, stdout=sys.stderr, check=False
        )
        if not path.exists():
            return f"FAILED: pytest ended with status {done.returncode}", False
        return outcome(check, ElementTree.parse(path).getroot())


def main(names: Sequence[str]) -> int:
    """Runs the checks whose names hold one of the words (all without words); writes the file when all were run."""
    chosen = [check for check in CHECKS if not names or any(name.lower() in check.name.lower() for name in names)]
    rows, good, checked = [], bool(chosen), git_commit(MADE)
    for check in chosen:
        result, held = run(check)
        good &= held
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows.append((check.name, result, f"python -m pytest {check.tests}", now, checked))
        print(f"{check.name}: {result}", flush=True)
    if len(rows) == len(CHECKS):
        with OUT.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        print(f"written to {OUT.relative_to(ROOT)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
