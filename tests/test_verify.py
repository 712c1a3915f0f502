"""The record that make verify writes, and its table."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from qwen_eval.report import verification, words
from qwen_eval.schema import InputError
from shared import REPOSITORY

_SPEC = importlib.util.spec_from_file_location("verify", REPOSITORY / "tools" / "verify.py")
assert _SPEC and _SPEC.loader
verify = importlib.util.module_from_spec(_SPEC)
sys.modules["verify"] = verify
_SPEC.loader.exec_module(verify)

SUITE = "<testsuites><testsuite>{}</testsuite></testsuites>"
CASE = "<testcase name='t'>{}</testcase>"


def recorded(name: str, value: object) -> str:
    return CASE.format(f"<properties><property name='{name}' value='{value}'/></properties>")


@pytest.mark.parametrize(
    ("finds", "cases", "result", "held"),
    [
        ("items", [recorded("items", 1200), recorded("items", 34)], "1,234 of 1,234", True),
        ("items", [CASE.format("")] * 83, "83 of 83", True),
        (
            "items",
            [recorded("items", 9).replace("</properties>", "<property name='of' value='10'/></properties>")],
            "9 of 10",
            True,
        ),
        ("difference", [recorded("difference", 3e-6), recorded("difference", "2.5e-05")], "2.5e-05", True),
        ("items", [recorded("items", 9), CASE.format("<failure/>")], "FAILED: 1 of 2 tests", False),
        ("items", [recorded("items", 9), CASE.format("<error/>")], "FAILED: 1 of 2 tests", False),
        ("items", [], "FAILED: 0 of 0 tests", False),
        ("items", [recorded("items", 9), CASE.format("<skipped/>")], "9 of 9 (1 skipped)", True),
        (
            "items",
            [CASE.format("<skipped message='x is missing (set SHARED_DIR)'/>")],
            "not checked: needs SHARED_DIR",
            True,
        ),
    ],
)
def test_what_tests_recorded_becomes_one_line(finds: str, cases: list[str], result: str, held: bool) -> None:
    report = ElementTree.fromstring(SUITE.format("".join(cases)))
    assert verify.outcome(verify.Check("name", "tests", finds), report) == (result, held)


@pytest.mark.slow
@pytest.mark.parametrize("check", verify.CHECKS, ids=lambda check: check.name)
def test_every_check_names_tests_that_exist(check: verify.Check) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *shlex.split(check.tests)]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


def test_the_table_shows_result_and_command(tmp_path: Path) -> None:
    path = tmp_path / "verification.csv"
    assert "make verify" in verification.markdown(path)
    path.write_text(
        "check,result,command,timestamp,git_commit\n"
        "Hostile programs contained,83 of 83,python -m pytest a -k 'b or c',2026-02-03T04:05:06Z,abc\n",
        encoding="utf-8",
    )
    assert verification.markdown(path).splitlines() == [
        "| What was checked | Result | Command |",
        "|:--|--:|:--|",
        "| Hostile programs contained | 83 of 83 | `python -m pytest a -k 'b or c'` |",
        "",
        "Checked on 2026-02-03 at commit abc by `make verify`.",
    ]
    assert "| 被隔离的恶意程序 | 83 of 83 |" in verification.markdown(path, "zh")
    assert all(check.name in words.CHINESE for check in verify.CHECKS)
    path.write_text("a,b\n", encoding="utf-8")
    with pytest.raises(InputError, match="other columns"):
        verification.markdown(path)
