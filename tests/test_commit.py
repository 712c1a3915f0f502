"""The commit that rows, benches and verifications are stamped with, in a repository made for the test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qwen_eval.runs import commit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that holds the harness, at its first commit."""
    for name in (str(commit.HERE), "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(commit, "ROOT", tmp_path)
    return tmp_path


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_uncommitted_changes_add_a_plus(checkout: Path) -> None:
    found = git(checkout, "rev-parse", "HEAD")[:12]
    assert commit.git_commit() == found
    (checkout / "eval/new.py").write_text("text\n")
    assert commit.git_commit() == commit.git_commit(("README.md",), untracked=True) == found
    assert commit.git_commit(untracked=True) == commit.git_commit(("eval",), untracked=True) == found + "+"
    (checkout / "README.md").write_text("more\n")
    assert commit.git_commit() == commit.git_commit(("README.md",)) == found + "+"
    assert commit.git_commit(("eval",)) == commit.git_commit((":!README.md",)) == found


def test_a_checkout_that_is_not_the_harness_gives_no_commit(checkout: Path) -> None:
    """As where the package is installed into an environment inside another project's repository."""
    git(checkout, "rm", "--quiet", "--cached", str(commit.HERE))
    git(checkout, "commit", "--quiet", "--message", "second")
    assert (checkout / commit.HERE).exists() and not commit.git_commit()


def test_no_repository_and_no_git_give_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(checkout))
        assert not commit.git_commit()
    shutil.rmtree(checkout / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    assert not commit.git_commit()


def test_the_path_in_the_repository_is_right() -> None:
    assert Path(commit.__file__).resolve() == commit.ROOT / commit.HERE
