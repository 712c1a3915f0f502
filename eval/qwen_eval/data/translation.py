"""The WMT22 general test set, English and Chinese: from its line files, or through sacrebleu's own download."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_eval.data import hub
from qwen_eval.data.files import Source, decode, find_root, json_lines, read_file, texts
from qwen_eval.schema import DataError, DataMissing

DIRECTIONS = ("en-zh", "zh-en")


@dataclass(frozen=True)
class Segment:
    """A sentence to translate: its index from 0, the source, and one text per requested reference."""

    index: int
    source: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Wmt22:
    """One direction's segments; `refs` names the references ("A", "B"); origin: "files" or "sacrebleu <version>".

    documents: the document of every segment, "" for one that the file leaves empty; None where no file says. They stand
    beside the segments, whose hash they are no part of."""

    direction: str
    refs: tuple[str, ...]
    segments: tuple[Segment, ...]
    origin: str = "files"
    documents: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TranslationShot:
    """An example translation: direction, source and target."""

    direction: str
    source: str
    target: str


HOW = (
    "get the WMT22 general test set (github.com/wmt-conference/wmt22-news-systems, txt) and give the folder that holds "
    "generaltest2022.en-zh.src.en, generaltest2022.en-zh.ref.A.zh and so on with -d DIR"
)


def wmt22(source: Source, direction: str, refs: Sequence[str] = ("A",)) -> Wmt22:
    """The segments of "en-zh" or "zh-en" with references "A", "B" or both, in the order named.

    Runs of white space become one space, as in sacrebleu's copy of the set, so that both sources have the same rows (43 of
    the official lines have such a run). Without a folder sacrebleu downloads the set, whatever the source's hub. The
    documents are sacrebleu's field docid; in a folder those of the file generaltest2022.en-zh.docid, where there is one.
    Raises DataError for anything missing or malformed, ValueError for another direction or reference.
    """
    if direction not in DIRECTIONS or not refs or not set(refs) <= {"A", "B"}:
        raise ValueError(f"WMT22 has {' and '.join(DIRECTIONS)} with references A and B, not {direction} with {refs}")
    origin = "files"
    if source.directory is None:
        paths, ids, origin = _from_sacrebleu(direction, refs)
    else:
        first, second = direction.split("-")
        stem = f"generaltest2022.{direction}"
        names = [f"{stem}.src.{first}", *(f"{stem}.ref.{ref}.{second}" for ref in refs)]
        root = find_root(source.directory, names[0], HOW)
        paths = [root / name for name in names]
        ids = root / f"{stem}.docid"
    sides = [_lines(path) for path in paths]
    for path, side in zip(paths, sides, strict=True):
        if len(side) != len(sides[0]):
            raise DataError(f"{path} has {len(side)} lines, {paths[0]} has {len(sides[0])}; get the files again: {HOW}")
    segments = (Segment(i, first, tuple(rest)) for i, (first, *rest) in enumerate(zip(*sides, strict=True)))
    return Wmt22(direction, tuple(refs), tuple(segments), origin, _documents(ids, len(sides[0])))


def _documents(path: Path | None, count: int) -> tuple[str, ...] | None:
    """The document of every segment, one a line; None where there is no such file. Raises DataError for another number of lines
    than there are segments."""
    if path is None or not path.exists():
        return None
    remedy = f"give it one line for each of the {count} segments, the name of the document that it is in, or delete it"
    text = decode(read_file(path, remedy), remedy).removesuffix("\n")
    names = tuple(line.strip() for line in text.split("\n"))
    if len(names) != count:
        raise DataError(f"{path} has {len(names)} lines; {remedy}")
    return names


def translation_shots(path: Path) -> tuple[TranslationShot, ...]:
    """The examples of a JSON-lines file, one {"direction": "en-zh", "source": ..., "target": ...} per line, in order.

    Raises DataError with file and line for a missing or malformed file.
    """
    remedy = 'write one {"direction": "en-zh" or "zh-en", "source": text, "target": text} a line'
    shots = []
    for line, record in json_lines(read_file(path, remedy), remedy):
        where = f"{path}:{line}"
        fields = texts({name: record.get(name) for name in ("direction", "source", "target")}, where, remedy)
        if fields["direction"] not in DIRECTIONS or not fields["source"].strip() or not fields["target"].strip():
            raise DataError(f"{where}: an unknown direction or an empty sentence; {remedy}")
        shots.append(TranslationShot(**fields))
    return tuple(shots)


def _lines(path: Path) -> list[str]:
    """The file's lines with white space collapsed. Raises DataError for an empty one, which would shift or lose a segment."""
    remedy = f"get the file again: {HOW}"
    # at line feeds only: other line ends of str.splitlines() may occur inside a sentence
    text = decode(read_file(path, HOW), remedy).removesuffix("\n")
    lines = [re.sub(r"\s+", " ", line.strip()) for line in text.split("\n")]
    for number, line in enumerate(lines, 1):
        if not line:
            raise DataError(f"{path}:{number}: the line is empty; {remedy}")
    return lines


def _from_sacrebleu(direction: str, refs: Sequence[str]) -> tuple[list[Path], Path | None, str]:
    """sacrebleu's files of the direction, source first, downloaded if necessary; its document ids; where it is from."""
    try:
        import sacrebleu
        from lxml import etree
        from sacrebleu.dataset import DATASETS
    except ImportError:
        raise DataError(f"the WMT22 download needs sacrebleu: pip install sacrebleu, or {HOW}") from None
    dataset: Any = DATASETS["wmt22"]
    folder, url = Path(dataset._rawdir), (dataset.data or [""])[0]
    try:
        if not any(folder.rglob("*.xml")):
            hub.probe(url)  # sacrebleu has no timeout
        found = dict(zip(dataset.fieldnames(direction), map(Path, dataset.get_files(direction)), strict=True))
        paths = [found["src"], *(found[f"ref:{ref}"] for ref in refs)]
        return paths, found.get("docid"), f"sacrebleu {sacrebleu.__version__}"
    except SystemExit:  # how it reports a wrong checksum
        raise DataError(f"sacrebleu's download of WMT22 is damaged: delete {folder.parent}, or {HOW}") from None
    except (OSError, EOFError, tarfile.TarError, etree.XMLSyntaxError, KeyError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        where = f"{url} to {folder.parent}"
        raise DataMissing(
            f"sacrebleu's download of WMT22 from {where} failed ({reason}): delete that, or {HOW}"
        ) from error
