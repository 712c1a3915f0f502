"""Two of our runs, item by item: which items both have, at which stage they differ, and both figures with their difference."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qwen_eval.runs import clusters, signature
from qwen_eval.runs.find import Run
from qwen_eval.runs.kept import kept_target
from qwen_eval.runs.samples import WITHHELD, same_texts
from qwen_eval.schema import InputError
from qwen_eval.stats import paired
from qwen_eval.stats.clusters import named
from qwen_eval.tasks.facts import USUAL, Facts, View

Row = Mapping[str, Any]

NLL_MARGIN = 1e-4  # nats per token: what float32 may change in another order of summation


@dataclass(frozen=True)
class Joined:
    """The items that two runs have in common, by id. missing: only in A. extra: only in B. other: the same id with another
    gold answer, so not the same question (left out)."""

    a: Run
    b: Run
    ids: list[str]
    missing: list[str]
    extra: list[str]
    other: list[str]

    def rows(self) -> Iterator[tuple[str, Row, Row]]:
        """Id, row of A and row of B of every common item."""
        for name in self.ids:
            yield name, self.a.rows[name], self.b.rows[name]


def join(a: Run, b: Run) -> Joined:
    """Joins two runs by sample id. Raises InputError when no item is in both."""
    both = [name for name in a.rows if name in b.rows]
    equal = {name: _same_target(a.rows[name]["target"], b.rows[name]["target"]) for name in both}
    same = [name for name in both if equal[name]]
    if not same:
        raise InputError(f"{a.name} and {b.name} have no item in common; compare runs of one benchmark on one data set")
    missing = [name for name in a.rows if name not in b.rows]
    extra = [name for name in b.rows if name not in a.rows]
    other = [name for name in both if not equal[name]]
    return Joined(a, b, same, missing, extra, other)


def _same_target(one: Any, other: Any) -> bool:
    """Whether two gold answers are the same; one that was not kept is compared by its hash."""
    return bool(one == other) or bool(kept_target(one) == other) or bool(one == kept_target(other))


def compare(joined: Joined, facts: Facts) -> dict[str, paired.Result]:
    """Every figure of the benchmark for both runs, by a name such as "mmlu acc" or "wmt22 bleu en-zh".

    Raises InputError for rows without a score (a run that was interrupted before its programs were executed).
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
    """The views of a benchmark that its rows have a statistic for. Raises InputError where there is none."""
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
        units, told = clusters_of([(one, other) for _, one, other in mine])
        result = paired.shares(first, second, groups, average, units, view.lower_is_better)
        yield view.metric, replace(result, method=result.method + told)


def _score(view: View, run: Run, name: str, row: Row) -> float:
    stats: Mapping[str, float] = row["stats"]
    if not stats:
        raise InputError(f"{run.path}: sample {name!r} was answered but not scored; finish the run")
    return stats.get(view.stat, 0.0) / (stats[view.per] if view.per else 1.0)


def clusters_of(rows: Sequence[tuple[Row, Row]]) -> tuple[list[Hashable] | None, str]:
    """The cluster of every item of two runs, from the run that knows more of them, and what a reader must be told: "" where all
    are known. None for the clusters where every item is by itself."""
    sides = [clusters.clusters_of([pair[side] for pair in rows]) for side in (0, 1)]
    names = min(sides, key=lambda found: found.count(None))
    unknown = names.count(None)
    told = (
        ""
        if not unknown
        else f"; {unknown} of {len(names)} items taken as independent (what belongs together was not stored)"
    )
    return named(names, [one["group"] for one, _ in rows]), told


def _translations(joined: Joined, shown: Sequence[View]) -> Iterator[tuple[str, paired.Result]]:
    for view in shown:
        rows = [(one, other) for _, one, other in joined.rows() if one["group"] == view.group]
        first, second = [one["answer"] for one, _ in rows], [other["answer"] for _, other in rows]
        references = list(zip(*(_references(joined, one, other) for one, other in rows), strict=True))
        tokenize = "zh" if view.group.endswith("-zh") else "13a"
        sides = [[row.get("cluster") for row in side] for side in zip(*rows, strict=True)]
        documents = next((side for side in sides if None not in side), None)
        yield f"{view.metric} {view.group}", paired.bleu(first, second, references, tokenize, documents)


def _references(joined: Joined, one: Row, other: Row) -> Sequence[str]:
    """The references of a segment, from whichever side kept them. Raises InputError where neither did, or a translation was not
    kept."""
    found: Sequence[str] = next((row["target"] for row in (one, other) if WITHHELD not in str(row["target"])), ())
    if not found or any(str(row["answer"]).startswith(WITHHELD) for row in (one, other)):
        raise InputError(
            f"{joined.a.name} and {joined.b.name}: texts were not kept with the rows; run the benchmark again for one of them"
        )
    return found


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


# ------------------------------------------------------------------------------------------------ differences
def flipped(one: Row, other: Row) -> bool:
    """Whether an item came out differently: another answer or score; for perplexity a document that differs by more than
    1e-4 nats per token."""
    if one["response"].get("kind") == "measured":
        mine, theirs = one["response"], other["response"]
        if mine["tokens"] != theirs["tokens"]:
            return True
        return any(
            abs(x - y) > NLL_MARGIN * n for x, y, n in zip(mine["nll"], theirs["nll"], mine["tokens"], strict=True)
        )
    return stable_outcome(one) != stable_outcome(other)


def stable_outcome(row: Row) -> tuple[Any, dict[str, float]]:
    """Answer and statistics of a row, without what may differ between equivalent runs: flags of ties and of the prompt's
    truncation, and the details of error messages."""
    stats = {name: value for name, value in row["stats"].items() if name not in ("tie", "shots_dropped", "truncated")}
    return _without_details(row["answer"]), stats


def _without_details(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_without_details(part) for part in answer]
    if isinstance(answer, dict):
        return {name: value for name, value in answer.items() if name != "detail"}
    return answer


def either_tied(one: Row, other: Row) -> bool:
    """Whether either run flagged the item as a tie of its two best options (within 1e-5)."""
    return bool(one["stats"].get("tie") or other["stats"].get("tie"))


def signature_changes(a: Run, b: Run) -> dict[str, tuple[str, str]]:
    """The signature fields that differ: name -> values of A and of B ("" where one has none)."""
    names = dict.fromkeys([*a.fields, *b.fields])
    both = {name: (a.fields.get(name, ""), b.fields.get(name, "")) for name in names}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def differences_by_stage(joined: Joined) -> dict[str, list[str]]:
    """Stages at which items differ: "prompt", "response", "extraction" (another answer was extracted from the same reply),
    "score" (the same answer was scored differently) -> ids, in the order of A. An item is listed at every such stage."""
    found: dict[str, list[str]] = {"prompt": [], "response": [], "extraction": [], "score": []}
    for name, one, other in joined.rows():
        same_prompt = signature.prompt_hash(one["prompt"]) == signature.prompt_hash(other["prompt"])
        same_response = responses_equal(one, other)
        same_answer = _without_details(one["answer"]) == _without_details(other["answer"])
        if not same_prompt:
            found["prompt"].append(name)
        if not same_response:
            found["response"].append(name)
        if same_response and not same_answer:
            found["extraction"].append(name)
        if same_answer and stable_outcome(one) != stable_outcome(other):
            found["score"].append(name)
    return found


def responses_equal(one: Row, other: Row) -> bool:
    """Whether the model's responses are the same: equal texts, or log-probabilities within 1e-4 (per token)."""
    mine, theirs = one["response"], other["response"]
    if "texts" in mine:
        return same_texts(mine["texts"], theirs.get("texts", ()))
    if "logprobs" in mine:
        values = theirs.get("logprobs", [])
        return len(values) == len(mine["logprobs"]) and all(
            x == y or abs(x - y) <= NLL_MARGIN for x, y in zip(mine["logprobs"], values, strict=True)
        )
    return not flipped(one, other)
