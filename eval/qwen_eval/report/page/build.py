"""Assembles the page: HTML, style and script, the tables and figures, and the samples as compressed JSON.

The page loads nothing: its content security policy allows no connection, and only its own style and script, by their hashes.
Samples are data and are only shown as text.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from qwen_eval.report.page.runs import Run
from qwen_eval.report.page.samples import Pool, columns
from qwen_eval.report.render import Shown

FOLDER = Path(__file__).parent
SCRIPTS = ("words.js", "data.js", "list.js", "detail.js", "samples.js", "app.js")


@dataclass(frozen=True)
class Section:
    """A table in both languages: title and content by language."""

    titles: Mapping[str, str]
    tables: Mapping[str, Shown]


def build(runs: Sequence[Run], sections: Sequence[Section], figures: Sequence[Path]) -> str:
    """The whole page. figures: SVG files, shown in that order."""
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    parts = {
        "policy": policy(script, style),
        "style": style,
        "tables": "\n".join(map(table_html, sections)),
        "figures": "\n".join(map(figure_html, figures)),
        "data": packed(data(runs)),
        "script": script,
    }
    page = (FOLDER / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], page)


def policy(script: str, style: str) -> str:
    """The content security policy: this script, this style and images inside the page, and nothing else."""
    script_hash, style_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def data(runs: Sequence[Run]) -> dict[str, Any]:
    """The data that the script reads."""
    pool = Pool()
    made = [{**run.about, "items": columns(run.rows, pool, run.views)} for run in runs]
    return {"runs": made, "pool": pool.texts()}


def packed(content: Any) -> str:
    """The content as JSON, compressed and in base64; the same content gives the same text."""
    # ASCII: lone surrogates are escaped
    plain = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False).encode("ascii")
    return base64.b64encode(gzip.compress(plain, mtime=0)).decode("ascii")


def _finite(value: Any) -> Any:
    """The value with None for infinities and not-a-number, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def table_html(section: Section) -> str:
    """A table in each language, of which the style shows one."""
    return "\n".join(_table(section.titles[language], language, shown) for language, shown in section.tables.items())


def _table(name: str, language: str, shown: Shown) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in shown.heads)
    body = []
    for row in shown.rows:
        cells = []
        for index, cell in enumerate(row):
            text = f"<b>{escape(cell.text)}</b>" if cell.bold else escape(cell.text)
            after = f' <span class="after">{escape(cell.after)}</span>' if cell.after else ""
            tag = 'th scope="row"' if index == 0 else "td"
            cells.append(f"<{tag}>{text}{after}</{tag.split()[0]}>")
        ours = ' class="ours"' if "[" in row[0].after else ""
        body.append(f"<tr{ours}>{''.join(cells)}</tr>")
    legend = re.sub("`([^`]*)`", r"<code>\1</code>", escape(shown.legend))
    notes = "".join(
        f"<li>{escape(how)}: {'; '.join(f'<code>{escape(text)}</code>' for text in signatures)}</li>"
        for how, signatures in shown.notes
    )
    return (
        f'<article lang="{language}"><h3>{escape(name)}</h3><div class="wide" tabindex="0" role="region" '
        f'aria-label="{escape(name)}"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f'<p class="legend">{legend}</p><ol class="notes">{notes}</ol></article>'
    )


def figure_html(path: Path) -> str:
    """A figure as an image inside the page."""
    picture = base64.b64encode(path.read_bytes()).decode("ascii")
    words = {
        "models": ("Models by benchmark", "各模型在各基准上的成绩"),
        "long_ppl": ("Perplexity by length", "困惑度与长度"),
        "memory": ("Accuracy against memory", "准确率与内存"),
    }[path.stem]
    both = "".join(f'<span lang="{lang}">{escape(text)}</span>' for lang, text in zip(("en", "zh"), words, strict=True))
    image = f'<img alt="{escape(words[0])}" src="data:image/svg+xml;base64,{picture}">'
    return f"<figure>{image}<figcaption>{both}</figcaption></figure>"
