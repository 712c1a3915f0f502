"""lm-evaluation-harness: `samples_<task>_<date>.jsonl`, as `--log_samples` writes them. Only the format is known here;
nothing of the program is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval.compare.readers.common import LETTERS, Item, Samples
from qwen_eval.data import json_text
from qwen_eval.schema import InputError

QUESTION_KEYS = ("question", "Question", "query", "problem", "input")
CHOICE_KEYS = ("choices", "options")
PREFERRED = ("acc", "exact_match", "pass@1", "acc_norm", "score")  # metrics, where a file has several
BY_LENGTH = "acc_norm"  # the metric that divides an option's log-probability by the characters of its text
HARNESS = "lm-evaluation-harness"


def recognizes(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether this is a sample file. content: its first row."""
    return path.suffix == ".jsonl" and {"doc_id", "resps"} <= content.keys()


def read(path: Path, content: Mapping[str, Any], metric: str | None) -> Samples:
    """The samples of a file: doc_id, doc, target, arguments (gen_args_i: arg_0 context, arg_1 continuation or options of
    generation), resps, filter, metrics and each metric's value. With several filters the first is used.

    content: the first row. metric: None for the first of PREFERRED, else the first that the rows have. The file
    `results_<date>.json` beside it, if present, tells the model's context limit and whether BOS was switched off.
    Raises InputError for a metric that the rows do not have.
    """
    with jsonlines.open(path, loads=json_text.loads) as reader:
        rows: list[Any] = list(reader.iter(skip_empty=True))
    notes = []
    filters = list(dict.fromkeys(row.get("filter", "none") for row in rows))
    if len(filters) > 1:
        notes.append(f"of the filters {', '.join(filters)} the first was used")
    rows = [row for row in rows if row.get("filter", "none") == filters[0]]
    names = content.get("metrics") or [key for key in content if key in PREFERRED]
    name = metric or _preferred(names)
    if name not in content:
        raise InputError(f"{path} has no metric {name!r}; it has {', '.join(content.get('metrics', []))}")
    task = task_name(path)
    items = tuple(_item(task, row, name) for row in rows)
    settings = _settings(path)
    if settings is None:
        notes.append(f"no results_*.json beside {path.name}: context limit and BOS are assumed to be the model's own")
        return Samples(HARNESS, (path,), name, items, "micro", by_length=name == BY_LENGTH, notes=notes)
    model_args = settings.get("config", {}).get("model_args", {})
    bos = str(model_args.get("add_bos_token", "")) if isinstance(model_args, dict) else ""
    length = settings.get("max_length")
    return Samples(
        HARNESS, (path,), name, items, "micro", bos.lower() != "false" if bos else None,
        int(length) if length else None, name == BY_LENGTH, notes=notes,
    )  # fmt: skip


def _item(task: str, row: Mapping[str, Any], metric: str) -> Item:
    given = row["arguments"]
    pairs = [(part["arg_0"], part.get("arg_1")) for part in given.values()] if isinstance(given, dict) else given
    prompt = pairs[0][0]
    target, texts = str(row["target"]), _question_texts(row["doc"])
    common = {"task": task, "index": str(row["doc_id"]), "prompt": prompt, "texts": texts, "score": float(row[metric])}
    if isinstance(pairs[0][1], str):
        continuations = tuple(pair[1] for pair in pairs)
        logprobs = tuple(float(_first_leaf(reply)) for reply in row["resps"])
        sizes = [len(text.strip()) or 1 if metric == BY_LENGTH else 1 for text in continuations]
        best = max(range(len(logprobs)), key=lambda index: (logprobs[index] / sizes[index], -index))
        if target.isdecimal() and int(target) < len(continuations):
            target = continuations[int(target)]
        return Item(
            **common,
            target=target.strip(),
            answer=continuations[best].strip(),
            continuations=continuations,
            logprobs=logprobs,
        )
    options = pairs[0][1] or {}
    until = options.get("until", ())
    return Item(
        **common,
        target=target,
        reply=str(_first_leaf(row["resps"][0])),
        answer=str(_first_leaf(row.get("filtered_resps", [""]))),
        stop=(until,) if isinstance(until, str) else tuple(until),
        max_tokens=int(options.get("max_gen_toks") or options.get("max_new_tokens") or 0),
    )


def _first_leaf(value: Any) -> Any:
    """The first leaf of nested lists: one reply, or the log-likelihood before its "is greedy" flag."""
    while isinstance(value, list):
        value = value[0]
    return value


def _settings(path: Path) -> dict[str, Any] | None:
    """The content of the results file of the same date, or else of the newest one beside it; None without a readable one."""
    found = sorted(path.parent.glob("results_*.json"))
    date = path.stem.rpartition("_")[2]
    same = [file for file in found if date in file.name] or found[-1:]
    try:
        content: dict[str, Any] | None = json_text.loads(same[0].read_text(encoding="utf-8")) if same else None
    except ValueError:
        return None
    return content


def task_name(path: Path) -> str:
    """`samples_mmlu_anatomy_2026-01-01T00-00-00.123.jsonl` -> `mmlu_anatomy`; another file's name without its suffix."""
    return re.sub(r"_\d{4}-\d{2}-\d{2}T[\d.-]+$", "", path.name.removesuffix(path.suffix)).removeprefix("samples_")


def _preferred(names: Iterable[str]) -> str:
    listed = list(names)
    return next((name for name in PREFERRED if name in listed), listed[0])


def _question_texts(doc: Any) -> tuple[str, ...]:
    """The question and the choices of a document, by the keys that datasets use for them."""
    if not isinstance(doc, dict):
        return (doc,) if isinstance(doc, str) else ()
    question = next((doc[key] for key in QUESTION_KEYS if isinstance(doc.get(key), str)), None)
    choices = next((doc[key] for key in CHOICE_KEYS if doc.get(key)), None)
    if isinstance(choices, dict):
        choices = choices.get("text", list(choices.values()))
    if choices is None:
        choices = [doc[letter] for letter in LETTERS if isinstance(doc.get(letter), str)]
    return (*([question] if question else []), *map(str, choices))
