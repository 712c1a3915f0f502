"""The site of `make docs`: mkdocs reads docs/ alone, so pages that stand elsewhere in the repository are added here, and links,
which are right on a file's own page, are made those of the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# pages outside docs/, by their name on the site
ELSEWHERE = {
    "EVALUATION.md": "eval/EVALUATION.md",
    "BENCHMARKS.md": "BENCHMARKS.md",
    "DEMO.md": "demo/README.md",
    "OVERVIEW.md": "README.md",  # a README would be taken for the index
    "README_CN.md": "README_CN.md",
    "RESULTS.md": "RESULTS.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
NAMES = {path: name for name, path in ELSEWHERE.items()}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages outside docs/."""
    from mkdocs.structure.files import File

    for name, path in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to pages lead to those of the site; of links to other files (examples) the text is left."""
    folder = posixpath.dirname(ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        name = NAMES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        return f"[{match[1]}]({name}{match[3] or ''})" if name else match[1]

    return LINK.sub(link, markdown)
