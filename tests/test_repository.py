"""What several files of the repository state agrees: versions, names of commands, programs, paths."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import browser
import qwen_eval
from shared import REPOSITORY


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def loaded(name: str) -> Any:
    return yaml.safe_load(text(name))


def setting(name: str) -> str:
    """A line `name = ...` of pyproject.toml."""
    (found,) = re.findall(rf"^{name} = (.*)$", text("pyproject.toml"), re.MULTILINE)
    return found


def targets() -> set[str]:
    """Those of the Makefile that are not files."""
    (listed,) = re.findall(r"^\.PHONY: (.*)$", text("Makefile"), re.MULTILINE)
    return set(listed.split())


def test_one_version() -> None:
    newest, *_ = re.findall(r"^## (\S+)", text("CHANGELOG.md"), re.MULTILINE)
    assert {newest, loaded("CITATION.cff")["version"], setting("version").strip('"')} == {qwen_eval.__version__}


def test_the_citation_is_what_its_schema_asks_for() -> None:
    """Citation File Format 1.2.0: its required fields, and those of an entity; the title and licence of the package."""
    found = loaded("CITATION.cff")
    assert found.keys() >= {"cff-version", "message", "title", "authors"} and found["cff-version"] == "1.2.0"
    assert found["type"] == "software" and all(author.keys() == {"name"} for author in found["authors"])
    assert (found["title"], found["license"]) == (setting("name").strip('"'), setting("license").strip('"'))
    assert all(isinstance(found[name], str) for name in ("message", "title", "version", "license", "abstract"))


def test_hooks_run_tools_of_the_environment() -> None:
    tools = set(re.findall(r'"([a-z-]+)', setting("dev")))
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    commands = [hook["entry"].split() for hook in repository["hooks"]]
    assert {Path(command[0]).name for command in commands} == {"ruff", "mypy"} <= tools
    assert all(command[0].startswith(".venv/bin/") for command in commands)


def test_every_target_is_named_at_the_top_of_the_makefile() -> None:
    """And exists."""
    makefile = text("Makefile")
    header = makefile.split("\n\n")[0]
    assert set(re.findall(r"make ([a-z-]+)", header)) | {"setup"} == targets()
    assert targets() == set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_what_contributors_are_told_to_use_is_there() -> None:
    said = text("CONTRIBUTING.md")
    assert set(re.findall(r"make ([a-z-]+)", said)) <= targets()
    named = re.findall(r"`((?:eval|tests|tools|examples|demo|results|\.ci)/[^ `]*)", said)
    assert len(named) > 10
    for name in named:
        assert (REPOSITORY / name).exists(), name


def test_workflows_call_what_is_there_on_pythons_that_are_allowed() -> None:
    for path in sorted((REPOSITORY / ".github/workflows").glob("*.yml")):
        for job in loaded(str(path.relative_to(REPOSITORY)))["jobs"].values():
            for version in job.get("strategy", {}).get("matrix", {}).get("python", ()):
                assert SpecifierSet(setting("requires-python").strip('"')).contains(version)
            for command in (step.get("run", "") for step in job["steps"]):
                assert set(re.findall(r"make ([a-z-]+)", command)) <= targets()
                assert all((REPOSITORY / name).exists() for name in re.findall(r"\.ci/\w+", command))


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_are_valid(name: str) -> None:
    """Top-level keys and field types are those of GitHub's schema; identifiers are unique."""
    form = loaded(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form.keys() == {"name", "description", "labels", "body"}
    assert {field["type"] for field in form["body"]} <= {"textarea", "input", "dropdown", "checkboxes", "markdown"}
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids) and all(field["attributes"]["label"] for field in form["body"])


BRINGER = REPOSITORY / ".ci/browser"
NEEDED = ("bash", "timeout", "tail", "cat", "chmod")


@pytest.mark.parametrize(
    ("user", "managers", "said"),
    [
        (1000, {"apt-get": "exit 9"}, "installing it takes root"),
        (0, {}, "no apt-get, dnf or apk here"),
        (0, {"apt-get": "echo first; echo 'E: no network'; exit 100"}, "E: no network"),
        (0, {"apt-get": "exit 0"}, "the package brought no program of a known name"),
        (
            0,
            {"apt-get": 'case "$*" in *headless-shell) exit 100;; *chromium) new chromium;; esac'},
            "Chromium installed",
        ),
        (0, {"apk": "new chromium-browser"}, "Chromium installed"),
        (1000, {"google-chrome": ""}, ""),
    ],
)
def test_a_browser_is_installed_or_one_line_says_why_not(
    user: int, managers: dict[str, str], said: str, tmp_path: Path
) -> None:
    """With nothing on the PATH but fake package managers."""
    made = {"id": f"echo {user}", "new": 'cat "$0" > "${0%/*}/$1"; chmod +x "${0%/*}/$1"', **managers}
    for name, body in made.items():
        (tmp_path / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (tmp_path / name).chmod(0o755)
    for name in NEEDED:
        (tmp_path / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name}"))
    done = subprocess.run(
        ["bash", str(BRINGER)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0 and printed.count("\n") == bool(said) and said in printed
    assert ("skip" in printed) == (bool(said) and "installed" not in printed)


def test_the_browsers_that_tests_use_are_those_that_are_looked_for() -> None:
    (listed,) = re.findall(r"for name in (.*); do", BRINGER.read_text(encoding="utf-8"))
    assert tuple(listed.split()) == browser.PROGRAMS
