"""Two runs of ours, item by item: which items are the same, what parted, and the figures of both with their difference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_eval.data.texts import common_length
from qwen_eval.runs import signature
from qwen_eval.runs.find import Run
from qwen_eval.schema import InputError
from qwen_eval.stats import paired
from qwen_eval.tasks.facts import USUAL, Facts, View

Row = Mapping[str, Any]

NLL_MARGIN = 1e-4  # nats a token: what float32 in another order of summation may change
PASSAGE = 200  # characters that two questions of a subject begin with when they ask about one passage


@dataclass(frozen=True)
class Joined:
    """The items two runs have in common, by id. missing: only in A; extra: only in B; other: the same id, but another gold
    answer, so not the same question (left out)."""

    a: Run
    b: Run
    ids: list[str]
    missing: list[str]
    extra: list[str]
    other: list[str]

    def rows(self) -> Iterator[tuple[str, Row, Row]]:
        for name in self.ids:
            yield name, self.a.rows[name], self.b.rows[name]


def join(a: Run, b: Run) -> Joined:
    """Raises InputError when no item is in both."""
    both = [name for name in a.rows if name in b.rows]
    same = [name for name in both if a.rows[name]["target"] == b.rows[name]["target"]]
    if not same:
        raise InputError(f"{a.name} and {b.name} have no item in common; compare runs of one benchmark on one data set")
    missing = [name for name in a.rows if name not in b.rows]
    extra = [name for name in b.rows if name not in a.rows]
    other = [name for name in both if a.rows[name]["target"] != b.rows[name]["target"]]
    return Joined(a, b, same, missing, extra, other)


def compare(joined: Joined, facts: Facts) -> dict[str, paired.Result]:
    """Every figure of the benchmark for both runs, by a name such as "mmlu acc" or "wmt22 bleu en-zh".

    Raises InputError for rows that were never scored (a run that was interrupted before its programs ran).
    """
    name = joined.a.benchmark
    shown = views(facts, [row for _, row, _ in joined.rows()])
    kinds = {"perplexity": _perplexities, "bleu": _translations, "share": _shares}
    found: dict[str, paired.Result] = {}
    for kind, figures in kinds.items():
        mine = [view for view in shown if view.kind == kind]
        if mine:
            found |= {f"{name} {metric}": result for metric, result in figures(joined, mine)}
    return found


def views(facts: Facts, rows: Sequence[Row]) -> list[View]:
    """The figures that the rows of a benchmark have. Raises InputError where they have none."""
    known: Sequence[View] = (
        facts.views or [view for view in USUAL if any(view.stat in row["stats"] for row in rows)][:1]
    )
    shown = [view for view in known if not view.group or any(row["group"] == view.group for row in rows)]
    if not shown:
        raise InputError(
            f"the rows of {facts.name} have none of the statistics {', '.join(view.stat for view in USUAL)}"
        )
    return shown


def _shares(joined: Joined, shown: Sequence[View]) -> Iterator[tuple[str, paired.Result]]:
    rows = list(joined.rows())
    average = joined.a.fields.get("avg", "micro")
    for view in shown:
        mine = [(name, one, other) for name, one, other in rows if not view.group or one["group"] == view.group]
        first = [_score(view, joined.a, name, one) for name, one, _ in mine]
        second = [_score(view, joined.b, name, other) for name, _, other in mine]
        groups = [one["group"] for _, one, _ in mine]
        units = passages([one for _, one, _ in mine])
        yield view.metric, paired.shares(first, second, groups, average, units, view.lower_is_better)


def _score(view: View, run: Run, name: str, row: Row) -> float:
    stats = row["stats"]
    if not stats:
        raise InputError(f"{run.path}: sample {name!r} was answered but not scored; finish the run")
    return stats.get(view.stat, 0.0) / (stats[view.per] if view.per else 1.0)


def passages(rows: Sequence[Row]) -> list[Hashable] | None:
    """What items stand or fall together with: those of a subject whose questions begin with the same text of 200
    characters or more, as those about one passage do. None where no two do.

    The question of a row is its prompt without what all prompts of its subject begin with (instruction and shots); rows
    that keep only the prompt's hash have none.
    """
    by_group: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if isinstance(row["prompt"], str):
            by_group[row["group"]].append(row["prompt"])
    start = {
        group: common_length(min(prompts), max(prompts)) for group, prompts in by_group.items() if len(prompts) > 1
    }
    units: list[Hashable] = []
    seen: set[Hashable] = set()
    shared = False
    for index, row in enumerate(rows):
        tail = row["prompt"][start.get(row["group"], 0) :] if isinstance(row["prompt"], str) else ""
        unit: Hashable = (row["group"], tail[:PASSAGE]) if row["group"] in start and len(tail) > PASSAGE else index
        shared = shared or unit in seen
        seen.add(unit)
        units.append(unit)
    return units if shared else None


def _translations(joined: Joined, shown: Sequence[View]) -> Iterator[tuple[str, paired.Result]]:
    for view in shown:
        rows = [(one, other) for _, one, other in joined.rows() if one["group"] == view.group]
        first, second = [one["answer"] for one, _ in rows], [other["answer"] for _, other in rows]
        references = list(zip(*(one["target"] for one, _ in rows), strict=True))
        tokenize = "zh" if view.group.endswith("-zh") else "13a"
        yield f"{view.metric} {view.group}", paired.bleu(first, second, references, tokenize)


def _perplexities(joined: Joined, shown: Sequence[View]) -> Iterator[tuple[str, paired.Result]]:
    for name, one, other in joined.rows():
        mine, theirs = one["response"], other["response"]
        if len(mine["nll"]) != len(theirs["nll"]):
            raise InputError(
                f"{name}: {len(mine['nll'])} documents in {joined.a.name}, {len(theirs['nll'])} in {joined.b.name}; "
                "measure both on the same documents"
            )
        if mine["tokens"] == theirs["tokens"]:
            weights = mine["tokens"], theirs["tokens"]
            yield f"perplexity {name}", paired.perplexity(mine["nll"], theirs["nll"], *weights)
        else:
            weights = mine["bytes"], theirs["bytes"]
            yield f"bits_per_byte {name}", paired.perplexity(mine["nll"], theirs["nll"], *weights, bits=True)


# ------------------------------------------------------------------------------------------------ what parted
def flipped(one: Row, other: Row) -> bool:
    """Whether an item came out differently: another answer or score; for perplexity a document off by more than 1e-4 nats
    a token."""
    if one["response"].get("kind") == "measured":
        mine, theirs = one["response"], other["response"]
        if mine["tokens"] != theirs["tokens"]:
            return True
        return any(
            abs(x - y) > NLL_MARGIN * n for x, y, n in zip(mine["nll"], theirs["nll"], mine["tokens"], strict=True)
        )
    return reading(one) != reading(other)


def reading(row: Row) -> Any:
    """Answer and score of a row, without what a harmless change may move: tie flags, and the details of error messages."""
    stats = {name: value for name, value in row["stats"].items() if name not in ("tie", "shots_dropped", "truncated")}
    return _without_details(row["answer"]), stats


def _without_details(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_without_details(part) for part in answer]
    if isinstance(answer, dict):
        return {name: value for name, value in answer.items() if name != "detail"}
    return answer


def tied(one: Row, other: Row) -> bool:
    """Whether either run flagged the item as a tie of its two best options (within 1e-5)."""
    return bool(one["stats"].get("tie") or other["stats"].get("tie"))


def signature_changes(a: Run, b: Run) -> dict[str, tuple[str, str]]:
    """The signature fields that differ: name -> values of A and of B ("" where one has none)."""
    names = dict.fromkeys([*a.fields, *b.fields])
    both = {name: (a.fields.get(name, ""), b.fields.get(name, "")) for name in names}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def partings(joined: Joined) -> dict[str, list[str]]:
    """Where the items part: "prompt", "response", "extraction" (the same reply was read differently), "score" (the same
    reading was worth something else) -> ids, in the order of A. An item is listed at each stage at which it parts."""
    found: dict[str, list[str]] = {"prompt": [], "response": [], "extraction": [], "score": []}
    for name, one, other in joined.rows():
        same_prompt = signature.prompt_hash(one["prompt"]) == signature.prompt_hash(other["prompt"])
        same_response = same_reply(one, other)
        same_answer = _without_details(one["answer"]) == _without_details(other["answer"])
        if not same_prompt:
            found["prompt"].append(name)
        if not same_response:
            found["response"].append(name)
        if same_response and not same_answer:
            found["extraction"].append(name)
        if same_answer and reading(one) != reading(other):
            found["score"].append(name)
    return found


def same_reply(one: Row, other: Row) -> bool:
    """Whether the model itself gave the same: equal texts, or log-probabilities within 1e-4 (by token)."""
    mine, theirs = one["response"], other["response"]
    if "texts" in mine:
        return mine["texts"] == theirs.get("texts")
    if "logprobs" in mine:
        values = theirs.get("logprobs", [])
        return len(values) == len(mine["logprobs"]) and all(
            x == y or abs(x - y) <= NLL_MARGIN for x, y in zip(mine["logprobs"], values, strict=True)
        )
    return not flipped(one, other)
