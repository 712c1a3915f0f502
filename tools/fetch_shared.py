"""Fetches the third-party files that tests ask for and a hub has, into SHARED_DIR (by default ../shared): `make shared`.

    python tools/fetch_shared.py                     all that is not there yet
    python tools/fetch_shared.py mmlu tokenizer      some of it

Benchmark rows come through the harness's own loaders, pinned and verified, and are written in the official layouts. Their
licences stay those of their authors. Not on any hub, and so not fetched: what the scripts of 2023 answered, and checkpoints
with the logits that the original code computed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT / "eval")]

from qwen_eval.data import (  # noqa: E402
    catalogue,
    choice,
    hub,
    problems,
    translation,
)
from qwen_eval.data.files import Source  # noqa: E402
from qwen_eval.schema import DataError  # noqa: E402

TOKENIZER = ("Qwen/Qwen-7B", "qwen.tiktoken")
TOKENIZER_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
COLUMNS = ("question", "A", "B", "C", "D", "answer")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([*([header] if header else []), *rows])


def cells(row: choice.ChoiceRow) -> tuple[str, ...]:
    return (row.question, *row.options, row.answer)


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def mmlu(source: Source, folder: Path) -> None:
    for subject, rows in choice.mmlu(source, catalogue.choose_subjects("mmlu", None)).items():
        for split in ("dev", "test"):
            write_csv(folder / split / f"{subject}_{split}.csv", (), map(cells, getattr(rows, split)))


def cmmlu(source: Source, folder: Path) -> None:
    for subject, rows in choice.cmmlu(source, catalogue.choose_subjects("cmmlu", None)).items():
        for split in ("dev", "test"):
            numbered = [(row.id, *cells(row)) for row in getattr(rows, split)]
            write_csv(folder / split / f"{subject}.csv", ("", "Question", "A", "B", "C", "D", "Answer"), numbered)


def ceval(source: Source, folder: Path) -> None:
    for split in ("val", "test"):
        for subject, rows in choice.ceval(source, catalogue.choose_subjects("ceval", None), split).items():
            for part, found in (("dev", rows.dev), (split, rows.test)):
                width = len(COLUMNS) if found[0].answer else len(COLUMNS) - 1  # the answers of test are not public
                numbered = [(row.id, *cells(row)[:width]) for row in found]
                write_csv(folder / part / f"{subject}_{part}.csv", ("id", *COLUMNS[:width]), numbered)


def gsm8k(source: Source, folder: Path) -> None:
    rows = problems.gsm8k(source)
    for split in ("train", "test"):
        text = lines({"question": row.question, "answer": row.answer} for row in getattr(rows, split))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def humaneval(source: Source, folder: Path) -> None:
    (folder / "HumanEval.jsonl.gz").write_bytes(
        gzip.compress(lines(map(asdict, problems.humaneval(source).tasks)).encode())
    )


def wmt22(source: Source, folder: Path) -> None:
    for direction in ("en-zh", "zh-en"):
        first, second = direction.split("-")
        found = translation.wmt22(source, direction, ("A", "B")).segments
        sides = {f"src.{first}": [row.source for row in found]}
        sides |= {f"ref.{ref}.{second}": [row.references[place] for row in found] for place, ref in enumerate("AB")}
        for name, side in sides.items():
            text = "".join(f"{line}\n" for line in side)
            (folder / f"generaltest2022.{direction}.{name}").write_text(text, encoding="utf-8", newline="\n")


def tokenizer(source: Source, folder: Path) -> None:
    import huggingface_hub

    try:
        hub.probe(huggingface_hub.hf_hub_url(*TOKENIZER))  # the client alone takes half a minute to give up
        found = Path(huggingface_hub.hf_hub_download(*TOKENIZER)).read_bytes()
    except Exception as error:  # the classes of its errors differ between the client's versions
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise DataError(f"{TOKENIZER[1]} of {TOKENIZER[0]} cannot be downloaded ({reason})") from error
    if (sha256 := hashlib.sha256(found).hexdigest()) != TOKENIZER_SHA256:
        raise DataError(f"{TOKENIZER[1]} of {TOKENIZER[0]} is another file: SHA-256 {sha256}")
    (folder / TOKENIZER[1]).write_bytes(found)


PARTS: dict[str, tuple[str, Callable[[Source, Path], None]]] = {
    "mmlu": ("data/mmlu", mmlu),
    "ceval": ("data/ceval", ceval),
    "cmmlu": ("data/cmmlu", cmmlu),
    "gsm8k": ("data/gsm8k", gsm8k),
    "humaneval": ("data/humaneval", humaneval),
    "wmt22": ("data/wmt22", wmt22),
    "tokenizer": ("checkpoints/qwen1-tokenizer", tokenizer),
}


def fetch(name: str, root: Path, source: Source) -> str:
    """Fetches a part unless it is there, whole or not at all; returns a line about it. DataError, OSError."""
    place, write = PARTS[name]
    if (root / place).exists():
        return f"{name}: {root / place} is there"
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=(root / place).parent) as folder:
        made = Path(folder, "made")
        made.mkdir()
        write(source, made)
        shutil.move(made, root / place)
    return f"{name}: {root / place}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--hub", choices=("hf", "modelscope"), default="hf", help="for the benchmarks (default: hf)")
    args = parser.parse_args()
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"{', '.join(unknown)} is no part; there are {', '.join(PARTS)}")
    root = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    failed = False
    for name in args.parts or PARTS:
        try:
            print(fetch(name, root, Source(None, args.hub)), flush=True)
        except (DataError, OSError) as error:
            print(f"{parser.prog}: {name}: {error}", file=sys.stderr)
            failed = True
    sys.exit(2 if failed else 0)


if __name__ == "__main__":
    main()
