"""Long texts for perplexity: a folder of text files, a JSON-lines file, or arXiv papers from the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwen_eval.data import hub
from qwen_eval.data.files import Source, decode, json_lines, read_file
from qwen_eval.schema import DataError

HOW = (
    'give a folder of .txt files, or a .jsonl file with {"text": ...} a line, with -d; without -d arXiv papers are taken '
    "from the hub's ccdv/arxiv-summarization"
)
# A dataset that loads without a script. The documents of the published table were not published.
ARXIV = hub.HubDataset("ccdv/arxiv-summarization", "240aaf1a969b3f8cd0ade6986bfad0cd730ee288", "", HOW)
ARXIV_FILE = "document/test-00000-of-00001.parquet"


@dataclass(frozen=True)
class Documents:
    """Texts in order; origin: "files", or a hub dataset and its commit."""

    texts: tuple[str, ...]
    origin: str = "files"


def documents(source: Source, limit: int | None = None) -> Documents:
    """The documents, at most `limit` of them. Raises DataError for anything missing, malformed or empty."""
    if source.directory is None:
        fetched = hub.fetch(ARXIV, [ARXIV_FILE], source.hub)
        rows = hub.read_table(fetched.paths[ARXIV_FILE], f"{fetched.origin}/{ARXIV_FILE}", HOW)
        texts = [row["article"] for row in list(rows)[:limit] if isinstance(row.get("article"), str)]
        if not texts:
            raise DataError(f"{fetched.origin}/{ARXIV_FILE} has no column of articles; {HOW}")
        return Documents(tuple(texts), fetched.origin)
    path = source.directory
    if path.is_file():
        texts = _json_texts(path)
    elif path.is_dir():
        files = sorted(path.glob("*.txt"))
        texts = [decode(read_file(file, HOW), "save it as UTF-8 text") for file in files]
        lines = sorted(path.glob("*.jsonl"))
        if not files and len(lines) == 1:
            texts = _json_texts(lines[0])
    else:
        raise DataError(f"{path} is missing; {HOW}")
    if not texts:
        raise DataError(f"{path} has no documents; {HOW}")
    return Documents(tuple(texts[:limit]))


def _json_texts(path: Path) -> list[str]:
    texts = []
    for line, record in json_lines(read_file(path, HOW), HOW):
        text = record.get("text")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f'{path}:{line}: no text under "text"; {HOW}')
        texts.append(text)
    return texts
