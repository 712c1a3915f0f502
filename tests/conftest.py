"""The folder of what is remembered, and the closing lines of the test report."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from shared import MISSING, folder


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of weights lies in a temporary folder, for scripts that tests start, too."""
    with pytest.MonkeyPatch.context() as patch:
        if "QWEN_EVAL_CACHE" not in os.environ:
            patch.setenv("QWEN_EVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """Reports tests skipped for lack of third-party files in one closing line, not one per file."""
    skipped = terminalreporter.stats.get("skipped", [])
    wanting = [report for report in skipped if isinstance(report.longrepr, tuple) and MISSING in report.longrepr[2]]
    if not wanting:
        yield
        return
    terminalreporter.stats["skipped"] = [report for report in skipped if report not in wanting]
    try:
        yield
    finally:
        terminalreporter.stats["skipped"] = skipped  # pytest's last line counts them
        terminalreporter.write_line(
            f"{len(wanting)} skipped for want of third-party files in {folder()} (SHARED_DIR): `make shared` fetches what "
            "a hub has; the rest (what the scripts of 2023 answered, checkpoints in their format) is not public"
        )
