"""Is B worse than A? Two runs of one benchmark (or of several) on the same items, item by item.

    python eval/compare.py A B                     figures, difference with interval and p-value, items that flipped
    python eval/compare.py A B --exact             exit 3 when any item came out differently (ties excepted)
    python eval/compare.py A B --max-loss          exit 3 when B is worse than A beyond chance
    python eval/compare.py A B --max-loss 1        ... when the lower 95% bound of the loss is above 1 point
    python eval/compare.py A B --non-inferior 1    exit 3 unless the upper 95% bound of the loss is below 1 point

A and B are each a run's id, a sample file, a folder of them (another results folder), or a model of which runs are stored.
Losses are in points; perplexity's in percent of A's. With several figures p-values and --max-loss are corrected (Holm).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import arguments, comparison, paired, runner, runs
from harness.comparison import Joined

REGRESSION = 3  # exit status
WIDTH = 60  # characters of a text in a line


def run(args: argparse.Namespace) -> int:
    """Compares, prints, and returns the exit status: 0, or 3 where a gate was given and failed."""
    pairs, notes = runs.pair(runs.find(args.a, args.results), runs.find(args.b, args.results))
    joined = [comparison.join(*pair) for pair in pairs]
    results: dict[str, paired.Result] = {}
    for one in joined:
        own = comparison.compare(one)
        results |= {f"{name} ({one.a.name})" if name in results else name: result for name, result in own.items()}
    for one in joined:
        print("\n".join(heading(one)), end="\n\n")
    print("\n".join(table(results)), end="\n\n")
    for one in joined:
        print("\n".join(flips(one, args.show)), end="\n\n")
        if args.explain:
            print("\n".join(explanation(one)), end="\n\n")
    for note in notes:
        print(note)
    failures = failed(args, joined, results)
    for line in failures:
        print(f"FAIL {line}")
    if not failures and (args.exact or args.max_loss is not None or args.non_inferior is not None):
        print("PASS " + "; ".join(gate_names(args)))
    return REGRESSION if failures else 0


# ----------------------------------------------------------------------------------------------------------- gates
def gate_names(args: argparse.Namespace) -> list[str]:
    """The gates that were asked for, in words."""
    names = []
    if args.exact:
        names.append("no item came out differently")
    if args.max_loss is not None:
        names.append(f"no loss above {args.max_loss:g} beyond chance")
    if args.non_inferior is not None:
        names.append(f"every loss surely below {args.non_inferior:g}")
    return names


def failed(args: argparse.Namespace, joined: Sequence[Joined], results: Mapping[str, paired.Result]) -> list[str]:
    """Why the gates fail, a sentence each; none when they pass or none was asked for."""
    lines = []
    if gate_names(args):
        for one in joined:
            lost = len(one.missing) + len(one.other)
            if lost:
                lines.append(f"{one.b.name} lacks {lost} of the {len(one.a.rows)} items of {one.a.name}")
    if args.exact:
        for one in joined:
            if one.extra:
                lines.append(f"{one.b.name} has {len(one.extra)} items that {one.a.name} has not")
            sure = [name for name, x, y in one.rows() if comparison.flipped(x, y) and not comparison.tied(x, y)]
            if sure:
                lines.append(f"{one.b.name}: {len(sure)} items came out differently: {some(sure)}")
    if args.max_loss is not None:
        for name in paired.losses_above(results, args.max_loss):
            low, high = results[name].bounds(paired.LEVEL)
            lines.append(f"{name}: the loss is {low:.2f} to {high:.2f}, above {args.max_loss:g}")
    if args.non_inferior is not None:
        for name, result in results.items():
            low, high = result.bounds(paired.LEVEL)
            if not high < args.non_inferior:  # no interval at all is no proof either
                lines.append(f"{name}: the loss is {low:.2f} to {high:.2f}, not surely below {args.non_inferior:g}")
    return lines


# ---------------------------------------------------------------------------------------------------------- printing
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
            count += f"; {len(names)} {what} ({some(names)})"
    lines.append(count)
    if joined.a.finished and joined.b.finished:
        changes = comparison.signature_changes(joined.a, joined.b)
        lines += [f"signatures differ in {name}: {one or 'none'} in A, {other or 'none'} in B"
                  for name, (one, other) in changes.items()] or ["signatures are equal"]  # fmt: skip
        if not changes and joined.a.fingerprint != joined.b.fingerprint:
            lines.append("the weights are not the same")
    return lines


def described(run: runs.Run) -> str:
    model = f"{run.model}, " if run.model else ""
    asked = int(run.fields.get("n", 0))
    state = "" if run.finished else ", not finished"
    if run.finished and asked > len(run.rows):
        state = f", {asked} were asked"
    return f"{run.name}  ({model}{len(run.rows)} items{state})"


def table(results: Mapping[str, paired.Result]) -> list[str]:
    """One line a figure: A, B, how much B lost with its 95% interval, p-value (Holm's where there are several), items lost
    and won, smallest loss these items could show."""
    adjusted = paired.holm({name: result.p for name, result in results.items()})
    several = len(results) > 1
    width = max(map(len, results))
    p_name = "p (Holm)" if several else "p"
    lines = [f"{'':{width}}  {'n':>6}  {'A':>8}  {'B':>8}  {'loss':>7}  {'95% interval':>17}  {p_name:>8}  {'lost':>5}  {'won':>5}  could show"]  # noqa: E501  # fmt: skip
    for name, result in results.items():
        low, high = result.bounds(paired.LEVEL)
        lines.append(
            f"{name:{width}}  {result.n:6}  {result.a:8.3f}  {result.b:8.3f}  {result.loss:7.2f}  "
            f"{f'{low:.2f} to {high:.2f}':>17}  {adjusted[name]:8.4f}  "
            f"{'-' if result.worse is None else result.worse:>5}  {'-' if result.better is None else result.better:>5}  "
            f"{result.detectable:.2f}"
        )
    lines += ["", "loss: points (perplexity: percent of A) that B is worse; could show: the loss found in 4 cases of 5"]
    lines += [f"{method}" for method in dict.fromkeys(result.method for result in results.values())]
    return lines


def flips(joined: Joined, show: int) -> list[str]:
    """The items that came out differently, the first `show` of them with both answers."""
    rows = [(name, one, other) for name, one, other in joined.rows() if comparison.flipped(one, other)]
    ties = sum(comparison.tied(one, other) for _, one, other in rows)
    title = f"{joined.a.benchmark}: {len(rows)} of {len(joined.ids)} items came out differently"
    lines = [title + (f", {ties} of them ties" if ties else "")]
    for name, one, other in rows[:show]:
        mark = "  (tie)" if comparison.tied(one, other) else ""
        lines.append(f"  {name}: A {outcome(one)}  B {outcome(other)}  gold {short(one['target'])}{mark}")
    if len(rows) > show:
        lines.append(f"  ... and {len(rows) - show} more (--show N)")
    return lines


def outcome(row: comparison.Row) -> str:
    """What a run made of an item: the answer, and whether it was right where that is a yes or no."""
    if row["response"].get("kind") == "measured":
        return f"{sum(row['response']['nll']):.3f} nats"
    right = row["stats"].get("correct", row["stats"].get("passed"))
    mark = "" if right is None else (" right" if right else " wrong")
    margin = ""
    if row["response"].get("kind") == "chosen":
        best, second = sorted(row["response"]["logprobs"])[:-3:-1]
        margin = f" by {best - second:.3g}"
    return f"{short(row['answer'])}{mark}{margin}"


def explanation(joined: Joined) -> list[str]:
    """By stage, how many items part there, and the first of them with both sides."""
    lines = ["where the items part:"]
    for stage, names in comparison.partings(joined).items():
        if not names:
            lines.append(f"  {stage}: nowhere")
            continue
        one, other = joined.a.rows[names[0]], joined.b.rows[names[0]]
        lines.append(f"  {stage}: {len(names)} of {len(joined.ids)} items, first {names[0]}")
        lines += [f"    {line}" for line in at_stage(stage, one, other)]
    return lines


def at_stage(stage: str, one: comparison.Row, other: comparison.Row) -> list[str]:
    """Both sides of an item at the stage at which it parts."""
    if stage == "prompt":
        return difference(as_text(one["prompt"]), as_text(other["prompt"]))
    if stage == "response":
        mine, theirs = one["response"], other["response"]
        fields = [
            name for name in ("logprobs", "texts", "nll", "shots_used", "prompt_tokens", "truncated") if name in mine
        ]
        parted = [name for name in fields if mine[name] != theirs.get(name)]
        return [
            line for name in parted for line in difference(as_text(mine[name]), as_text(theirs.get(name)), f"{name} ")
        ]
    if stage == "extraction":
        return [f"the same reply {short(as_text(one['response'].get('texts', one['response'].get('logprobs'))))} was read as "
                f"{short(one['answer'])} in A and {short(other['answer'])} in B"]  # fmt: skip
    names = sorted({*one["stats"], *other["stats"]})
    parted = [name for name in names if one["stats"].get(name) != other["stats"].get(name)]
    return [f"{name}: {one['stats'].get(name)} in A, {other['stats'].get(name)} in B" for name in parted]


def difference(one: str, other: str, name: str = "") -> list[str]:
    """Two texts from a little before where they part."""
    same = comparison.common_length(one, other)
    start = max(0, same - WIDTH // 3)
    return [f"{name}from character {same}:", *(f"  {side} {text[start : start + WIDTH]!r}" for side, text in (("A", one), ("B", other)))]  # noqa: E501  # fmt: skip


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def short(value: Any) -> str:
    text = " ".join(as_text(value).split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names."""
    listed = list(names)
    return ", ".join(listed[:most]) + (" ..." if len(listed) > most else "")


# ------------------------------------------------------------------------------------------------------ command line
def points(text: str) -> float:
    """A number of points from 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of points from 0")
    return value


def parser() -> arguments.Parser:
    """The command line."""
    made = arguments.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("a", metavar="A", help="the reference: run id, sample file, folder or model")
    add("b", metavar="B", help="what is compared with it")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="where run ids are (default: results)")
    add(
        "--show",
        type=arguments.count,
        default=10,
        metavar="N",
        help="items listed that came out differently (default 10)",
    )
    add("--explain", action="store_true", help="where prompts, replies, readings and scores part, with the first item")
    gate = made.add_argument_group("gates: exit status 3 when one fails").add_argument
    gate("--exact", action="store_true", help="any item outside flagged ties came out differently")
    gate(
        "--max-loss",
        type=points,
        nargs="?",
        const=0.0,
        metavar="D",
        help="the lower 95%% bound of a loss is above D (0)",
    )
    gate("--non-inferior", type=points, metavar="D", help="the upper 95%% bound of a loss is not below D")
    return made


def main() -> None:
    made = parser()
    args = made.parse_args()
    runner.exit_with(made.prog, lambda: run(args))


if __name__ == "__main__":
    main()
