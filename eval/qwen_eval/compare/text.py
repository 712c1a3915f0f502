"""A comparison as lines of text: tables, items that flipped, and the stages at which items differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isnan
from typing import Any

from qwen_eval.compare import pairs
from qwen_eval.compare.pairs import Joined
from qwen_eval.data.texts import common_length
from qwen_eval.runs import find
from qwen_eval.stats import paired

WIDTH = 60  # characters of a text in a line


def heading(joined: Joined) -> list[str]:
    """Which runs, how many items they share, and what differs between their signatures."""
    lines = [f"A  {described(joined.a)}", f"B  {described(joined.b)}"]
    count = f"{len(joined.ids)} items joined"
    for names, what in (
        (joined.missing, "only in A"),
        (joined.extra, "only in B"),
        (joined.other, "another gold answer"),
    ):
        if names:
            count += f"; {len(names)} {what} ({first_few(names)})"
    lines.append(count)
    if joined.a.finished and joined.b.finished:
        changes = pairs.signature_changes(joined.a, joined.b)
        lines += [f"signatures differ in {name}: {one or 'none'} in A, {other or 'none'} in B"
                  for name, (one, other) in changes.items()] or ["signatures are equal"]  # fmt: skip
        if not changes and not find.same_weights(joined.a, joined.b):
            lines.append("the weights are not the same")
    return lines


def described(run: find.Run) -> str:
    """A run's name with its model, number of items and state."""
    model = f"{run.model}, " if run.model else ""
    asked = int(run.fields.get("n", 0))
    state = "" if run.finished else ", not finished"
    if run.finished and asked > len(run.rows):
        state = f", {asked} were asked"
    return f"{run.name}  ({model}{len(run.rows)} items{state})"


def table(results: Mapping[str, paired.Result]) -> list[str]:
    """One line per figure: A, B, loss of B with its 95% interval, p-value (Holm's where there are several), items lost and
    won, smallest detectable loss."""
    adjusted = paired.holm({name: result.p for name, result in results.items()})
    several = len(results) > 1
    width = max(map(len, results))
    p_name = "p (Holm)" if several else "p"
    lines = [f"{'':{width}}  {'n':>6}  {'A':>8}  {'B':>8}  {'loss':>7}  {'95% interval':>17}  {p_name:>8}  {'lost':>5}  {'won':>5}  could show"]  # noqa: E501  # fmt: skip
    for name, result in results.items():
        low, high = result.bounds(paired.LEVEL)
        interval = "none" if isnan(low) else f"{low:.2f} to {high:.2f}"
        lines.append(
            f"{name:{width}}  {result.n:6}  {result.a:8.3f}  {result.b:8.3f}  {result.loss:7.2f}  "
            f"{interval:>17}  {_or_dash(adjusted[name], 4):>8}  "
            f"{'-' if result.worse is None else result.worse:>5}  {'-' if result.better is None else result.better:>5}  "
            f"{_or_dash(result.detectable, 2)}"
        )
    lines += ["", "loss: points (perplexity: percent of A) that B is worse; could show: the loss found in 4 cases of 5"]
    lines += [f"{method}" for method in dict.fromkeys(result.method for result in results.values())]
    none = [name for name, result in results.items() if isnan(result.bounds(paired.LEVEL)[0])]
    if none:
        lines.append(f"too few independent items, passages or documents for an interval: {', '.join(none)}")
    return lines


def _or_dash(value: float, digits: int) -> str:
    """A number; "-" where there is none."""
    return "-" if isnan(value) else f"{value:.{digits}f}"


def flips(joined: Joined, show: int) -> list[str]:
    """The items that came out differently, the first `show` of them with both answers."""
    rows = [(name, one, other) for name, one, other in joined.rows() if pairs.flipped(one, other)]
    ties = sum(pairs.either_tied(one, other) for _, one, other in rows)
    title = f"{joined.a.benchmark}: {len(rows)} of {len(joined.ids)} items came out differently"
    lines = [title + (f", {ties} of them ties" if ties else "")]
    for name, one, other in rows[:show]:
        mark = "  (tie)" if pairs.either_tied(one, other) else ""
        lines.append(f"  {name}: A {outcome(one)}  B {outcome(other)}  gold {shortened(one['target'])}{mark}")
    if len(rows) > show:
        lines.append(f"  ... and {len(rows) - show} more (--show N)")
    return lines


def outcome(row: pairs.Row, stat: str = "correct") -> str:
    """An item's answer in a run, and whether it was right, where items are right or wrong. stat: the statistic that says so."""
    if row["response"].get("kind") == "measured":
        return f"{sum(row['response']['nll']):.3f} nats"
    right = row["stats"].get(stat, row["stats"].get("passed"))
    mark = "" if right is None else (" right" if right else " wrong")
    margin = ""
    if row["response"].get("kind") == "chosen":
        best, second = sorted(row["response"]["logprobs"])[:-3:-1]
        margin = f" by {best - second:.3g}"
    return f"{shortened(row['answer'])}{mark}{margin}"


def explanation(joined: Joined) -> list[str]:
    """Per stage, how many items differ there, and both sides of the first of them."""
    lines = ["stages at which items differ:"]
    for stage, names in pairs.differences_by_stage(joined).items():
        if not names:
            lines.append(f"  {stage}: none")
            continue
        one, other = joined.a.rows[names[0]], joined.b.rows[names[0]]
        lines.append(f"  {stage}: {len(names)} of {len(joined.ids)} items, first {names[0]}")
        lines += [f"    {line}" for line in stage_lines(stage, one, other)]
    return lines


def stage_lines(stage: str, one: pairs.Row, other: pairs.Row) -> list[str]:
    """Both sides of an item at a stage at which it differs."""
    if stage == "prompt":
        return difference(as_text(one["prompt"]), as_text(other["prompt"]))
    if stage == "response":
        mine, theirs = one["response"], other["response"]
        fields = [
            name for name in ("logprobs", "texts", "nll", "shots_used", "prompt_tokens", "truncated") if name in mine
        ]
        differing = [name for name in fields if mine[name] != theirs.get(name)]
        return [
            line
            for name in differing
            for line in difference(as_text(mine[name]), as_text(theirs.get(name)), f"{name} ")
        ]
    if stage == "extraction":
        reply = one["response"].get("texts", one["response"].get("logprobs"))
        answers = f"{shortened(one['answer'])} in A and {shortened(other['answer'])} in B"
        return [f"the same reply {shortened(reply)} was read as {answers}"]
    names = sorted({*one["stats"], *other["stats"]})
    differing = [name for name in names if one["stats"].get(name) != other["stats"].get(name)]
    return [f"{name}: {one['stats'].get(name)} in A, {other['stats'].get(name)} in B" for name in differing]


def difference(one: str, other: str, name: str = "") -> list[str]:
    """Two texts from shortly before their first difference."""
    same = common_length(one, other)
    start = max(0, same - WIDTH // 3)
    return [f"{name}from character {same}:", *(f"  {side} {text[start : start + WIDTH]!r}" for side, text in (("A", one), ("B", other)))]  # noqa: E501  # fmt: skip


def as_text(value: Any) -> str:
    """A string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(value: Any) -> str:
    """The value on one line of at most WIDTH characters."""
    text = " ".join(as_text(value).split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def first_few(names: Iterable[str], most: int = 3) -> str:
    """The first names, separated by commas."""
    listed = list(names)
    return ", ".join(listed[:most]) + (" ..." if len(listed) > most else "")
