"""Other harnesses' sample files, read into one form: lm-evaluation-harness (`--log_samples`), OpenCompass (`predictions/`)
and Inspect (`.json` logs). Facts about the formats only; nothing of these programs is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonlines

from qwen_eval.schema import InputError

LETTERS = "ABCDEFGHIJ"
QUESTION_KEYS = ("question", "Question", "query", "problem", "input")
CHOICE_KEYS = ("choices", "options")
PREFERRED = ("acc", "exact_match", "pass@1", "acc_norm", "score")  # metrics, where a file has several


@dataclass(frozen=True)
class Item:
    """One item of somebody else's run.

    task, index: where it is in theirs (file, number from 0 or id). prompt: what the model read. texts: strings of the
    question by which it is recognised (question, then choices). continuations, logprobs: of a choice by likelihood, in the
    order of the options, natural logs. reply: generated text. answer, target: letters, or texts. score: what they gave it.
    stop, max_tokens: of generated text.
    """

    task: str
    index: str
    prompt: str
    texts: tuple[str, ...]
    target: str
    score: float
    answer: str = ""
    continuations: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    reply: str | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 0


@dataclass(frozen=True)
class Samples:
    """Somebody else's run. harness: whose format. metric: which of their scores was taken. average: how they average over
    tasks, "micro" or "macro". bos: whether their tokenizer's own BOS was kept (None: not said). max_length: tokens their
    model takes (None: not said)."""

    harness: str
    paths: tuple[Path, ...]
    metric: str
    items: tuple[Item, ...]
    average: str
    bos: bool | None = None
    max_length: int | None = None
    notes: list[str] = field(default_factory=list)

    def averaged_over_tasks(self, how: str) -> Samples:
        """The same, averaged another way: "micro" or "macro"."""
        return replace(self, average=how)


def read(path: Path, metric: str | None = None) -> Samples | None:
    """A sample file, or all of a folder; None where it is in none of the formats. metric: which score to take where rows
    have several (default: acc, else exact_match, else the first).

    Raises InputError for a file that begins like one of the formats and is not.
    """
    if path.is_dir():
        found = sorted(path.rglob("samples_*.jsonl")) or sorted(path.glob("*.json"))
        parts = [part for file in found if (part := _read_file(file, metric)) is not None]
        newest = {(part.harness, _task(part.paths[0])): part for part in parts}  # names end in the date
        return _merged(list(newest.values()))
    return _read_file(path, metric)


def _merged(parts: Sequence[Samples]) -> Samples | None:
    if not parts:
        return None
    first = parts[0]
    for part in parts[1:]:
        if (part.harness, part.metric) != (first.harness, first.metric):
            kinds = f"{first.paths[0]} is {first.harness} {first.metric}, {part.paths[0]} {part.harness} {part.metric}"
            raise InputError(f"{kinds}; name one file, or a metric that all have with --metric")
    items = tuple(item for part in parts for item in part.items)
    paths = tuple(path for part in parts for path in part.paths)
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    return Samples(first.harness, paths, first.metric, items, first.average, first.bos, first.max_length, notes)


def _read_file(path: Path, metric: str | None) -> Samples | None:
    try:
        if path.suffix == ".jsonl":
            with jsonlines.open(path, loads=json.loads) as reader:
                head = reader.read(type=dict)
            if "doc_id" in head and "resps" in head:
                return _guarded(path, lambda: lm_eval(path, metric))
        elif path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and "samples" in content and "eval" in content:
                return _guarded(path, lambda: inspect_log(path, content))
            if isinstance(content, dict) and isinstance(content.get("0"), dict) and "prediction" in content["0"]:
                return _guarded(path, lambda: opencompass(path, content))
        elif path.suffix == ".eval":
            raise InputError(f"{path} is a packed log; write it as JSON first: inspect log convert --to json")
    except (OSError, ValueError, EOFError, RecursionError):
        return None
    return None


def _guarded(path: Path, work: Callable[[], Samples]) -> Samples:
    try:
        return work()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not the sample file it begins like ({type(error).__name__}: {error})") from error


# ------------------------------------------------------------------------------------------- lm-evaluation-harness
def lm_eval(path: Path, metric: str | None = None) -> Samples:
    """`samples_<task>_<date>.jsonl`: doc_id, doc, target, arguments (gen_args_i: arg_0 context, arg_1 continuation or
    options of generation), resps, filter, metrics and each metric's value. With several filters the first counts.

    `results_<date>.json` beside it, where it lies, tells the model's length, and whether BOS was switched off.
    """
    with jsonlines.open(path, loads=json.loads) as reader:
        rows: list[Any] = list(reader.iter(skip_empty=True))
    notes = []
    filters = list(dict.fromkeys(row.get("filter", "none") for row in rows))
    if len(filters) > 1:
        notes.append(f"of the filters {', '.join(filters)} the first was taken")
    rows = [row for row in rows if row.get("filter", "none") == filters[0]]
    name = metric or _metric(rows[0].get("metrics") or [key for key, value in rows[0].items() if key in PREFERRED])
    if name not in rows[0]:
        raise InputError(f"{path} has no metric {name!r}; it has {', '.join(rows[0].get('metrics', []))}")
    task = _task(path)
    items = tuple(_lm_eval_item(task, row, name) for row in rows)
    settings = _lm_eval_results(path)
    if settings is None:
        notes.append(f"no results_*.json beside {path.name}: their length and BOS are taken to be the model's own")
        return Samples("lm-evaluation-harness", (path,), name, items, "micro", notes=notes)
    kept = settings.get("config", {}).get("model_args", {})
    bos = str(kept.get("add_bos_token", "")) if isinstance(kept, dict) else ""
    length = settings.get("max_length")
    return Samples(
        "lm-evaluation-harness", (path,), name, items, "micro", bos.lower() != "false" if bos else None,
        int(length) if length else None, notes,
    )  # fmt: skip


def _lm_eval_item(task: str, row: Mapping[str, Any], metric: str) -> Item:
    given = row["arguments"]
    pairs = [(part["arg_0"], part.get("arg_1")) for part in given.values()] if isinstance(given, dict) else given
    prompt = pairs[0][0]
    target, texts = str(row["target"]), _texts(row["doc"])
    common = {"task": task, "index": str(row["doc_id"]), "prompt": prompt, "texts": texts, "score": float(row[metric])}
    if isinstance(pairs[0][1], str):
        continuations = tuple(pair[1] for pair in pairs)
        logprobs = tuple(float(_innermost(reply)) for reply in row["resps"])
        best = max(range(len(logprobs)), key=lambda index: (logprobs[index], -index))
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
        reply=str(_innermost(row["resps"][0])),
        answer=str(_innermost(row.get("filtered_resps", [""]))),
        stop=(until,) if isinstance(until, str) else tuple(until),
        max_tokens=int(options.get("max_gen_toks") or options.get("max_new_tokens") or 0),
    )


def _innermost(value: Any) -> Any:
    """The first leaf of nested lists: one reply, or the log-likelihood before its "is greedy" flag."""
    while isinstance(value, list):
        value = value[0]
    return value


def _lm_eval_results(path: Path) -> dict[str, Any] | None:
    found = sorted(path.parent.glob("results_*.json"))
    date = path.stem.rpartition("_")[2]
    same = [file for file in found if date in file.name] or found[-1:]
    try:
        return json.loads(same[0].read_text(encoding="utf-8")) if same else None
    except ValueError:
        return None


def _task(path: Path) -> str:
    """`samples_mmlu_anatomy_2026-01-01T00-00-00.123.jsonl` -> `mmlu_anatomy`; other names without their ending."""
    return re.sub(r"_\d{4}-\d{2}-\d{2}T[\d.-]+$", "", path.name.removesuffix(path.suffix)).removeprefix("samples_")


def _metric(names: Iterable[str]) -> str:
    listed = list(names)
    return next((name for name in PREFERRED if name in listed), listed[0])


def _texts(doc: Any) -> tuple[str, ...]:
    """The question and the choices of a document, by the names that data sets give them."""
    if not isinstance(doc, dict):
        return (doc,) if isinstance(doc, str) else ()
    question = next((doc[key] for key in QUESTION_KEYS if isinstance(doc.get(key), str)), None)
    choices = next((doc[key] for key in CHOICE_KEYS if doc.get(key)), None)
    if isinstance(choices, dict):
        choices = choices.get("text", list(choices.values()))
    if choices is None:
        choices = [doc[letter] for letter in LETTERS if isinstance(doc.get(letter), str)]
    return (*([question] if question else []), *map(str, choices))


# ------------------------------------------------------------------------------------------------------ OpenCompass
def opencompass(path: Path, content: Mapping[str, Any]) -> Samples:
    """`predictions/<model>/<data set>.json`: by number origin_prompt, prediction, gold and, where options were compared by
    perplexity, `label: X` with the whole text and its PPL (mean negative log-likelihood a token; the smallest wins).

    Scores are not in the file: an item is right where prediction and gold are equal (a reply: where its first letter A to D
    standing alone is the gold one). OpenCompass averages data sets (macro).
    """
    items = []
    for index, row in content.items():
        prompt = row.get("origin_prompt", "")
        if isinstance(prompt, list):
            prompt = "\n".join(str(turn.get("prompt", "")) for turn in prompt)
        labels = [key.removeprefix("label: ") for key in row if key.startswith("label: ")]
        prediction, gold = str(row["prediction"]), str(row.get("gold", ""))
        answer = prediction
        if not labels and gold in tuple(LETTERS):
            answer = next(iter(re.findall(r"(?<![A-Za-z])[A-D](?![A-Za-z])", prediction)), "")
        logprobs = tuple(-float(row[f"label: {label}"]["PPL"]) for label in labels)
        items.append(Item(path.stem, index, prompt, (), gold, float(answer == gold), answer, tuple(labels), logprobs,
                          None if labels else prediction))  # fmt: skip
    notes = ["scores are not in OpenCompass's predictions: prediction against gold"]
    if any(item.logprobs for item in items):
        notes.append("their options are compared by mean log-likelihood over the whole text")
    return Samples("OpenCompass", (path,), "accuracy", tuple(items), "macro", notes=notes)


# ---------------------------------------------------------------------------------------------------------- Inspect
def inspect_log(path: Path, content: Mapping[str, Any]) -> Samples:
    """A log in JSON: eval.task and, by sample, id, epoch, input (text or messages), choices, target, output.completion,
    scores by scorer with value ("C" right, "I" wrong, "P" half, or a number) and answer. Of several epochs the first."""
    worth = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
    task = str(content["eval"]["task"]).rpartition("/")[2]
    items, scorer = [], ""
    for sample in content["samples"]:
        if sample.get("epoch", 1) != 1 or not sample.get("scores"):
            continue
        scorer, given = next(iter(sample["scores"].items()))
        asked = sample["input"]
        text = asked if isinstance(asked, str) else "\n".join(_content(turn) for turn in asked)
        value = given["value"]
        target = sample["target"] if isinstance(sample["target"], str) else ", ".join(sample["target"])
        turns = [_content(turn) for turn in sample.get("messages", []) if turn.get("role") == "user"]
        items.append(Item(
            task, str(sample["id"]), turns[-1] if turns else text, (text, *map(str, sample.get("choices") or ())), target,
            float(worth.get(value, value)), str(given.get("answer") or ""), reply=sample["output"]["completion"],
        ))  # fmt: skip
    skipped = len(content["samples"]) - len(items)
    notes = [f"{skipped} samples without a score or of later epochs were left out"] if skipped else []
    return Samples("Inspect", (path,), scorer, tuple(items), "micro", notes=notes)


def _content(turn: Mapping[str, Any]) -> str:
    """A message's text, which stands alone or in parts."""
    content = turn["content"]
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)


# ------------------------------------------------------------------------------------------------------------- join
def join(samples: Samples, rows: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Item], list[Item]]:
    """Their items by our sample ids, and those that are none of ours.

    An item is looked for at its own place (subject by the task's name, number by the row), and counts when its question and
    choices stand at the end of our prompt; else anywhere in the subject. Without stored prompts, or where their file does
    not tell the question, the place alone decides.
    """
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(row["group"], []).append(name)
    ends = {name: _squeezed(_prompt_text(row["prompt"])) for name, row in rows.items()}
    found: dict[str, Item] = {}
    lost: list[Item] = []
    for item in samples.items:
        group = max(
            (group for group in groups if group and item.task.replace("-", "_").endswith(group)), key=len, default=""
        )
        here = groups.get(group) or list(rows)
        place = f"{group}/{item.index}" if group else item.index
        candidates = [name for name in (place, f"HumanEval/{item.index}") if name in rows]
        texts = [_squeezed(text) for text in item.texts if text.strip()]
        match = next((name for name in candidates if _asks(ends[name], texts)), None)
        if match is None and texts:
            match = next((name for name in here if name not in found and ends[name] and _asks(ends[name], texts)), None)
        if match is None or match in found:
            lost.append(item)
        else:
            found[match] = item
    return found, lost


def _asks(end: str, texts: Sequence[str]) -> bool:
    """Whether a prompt ends in this question: all its texts stand in the last part that they can fill."""
    tail = end[-(sum(map(len, texts)) + 80 + 4 * len(texts)) :]
    return not end or not texts or all(text in tail for text in texts)


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return str(prompt[-1].get("content", "")) if isinstance(prompt, list) and prompt else ""


def _squeezed(text: str) -> str:
    return "".join(text.split())
