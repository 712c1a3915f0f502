"""One self-contained HTML page: runs, tables, figures and a browser of samples."""

from qwen_eval.report.page.build import Section, build
from qwen_eval.report.page.runs import Run, stored_runs

__all__ = ["Run", "Section", "build", "stored_runs"]
