"""The commit of the checkout that the harness runs from."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path("eval/qwen_eval/runs/commit.py")  # this file in a checkout
ROOT = Path(__file__).resolve().parents[3]


def git_commit(paths: Sequence[str] = (), untracked: bool = False) -> str:
    """The harness's own commit, followed by + when the checkout has changes; empty outside a checkout.

    paths: git path patterns from the top of the checkout (":!results" excludes a folder); only changes there count.
    untracked: whether untracked files count as changes.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--", str(HERE)):  # installed inside another repository, whose commit says nothing
            return ""
        commit = git("rev-parse", "--short=12", "HEAD")
        files = "--untracked-files=" + ("normal" if untracked else "no")
        return commit + ("+" if commit and git("status", "--porcelain", files, "--", *paths) else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
