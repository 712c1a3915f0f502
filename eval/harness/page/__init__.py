"""One self-contained HTML page: runs, tables, figures and a browser of samples."""

from harness.page.build import Section, build
from harness.page.runs import Run, stored_runs

__all__ = ["Run", "Section", "build", "stored_runs"]
