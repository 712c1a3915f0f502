"""How often the gate's verdict is wrong and what it saves, how often an audit finds altered answers: `make simulate`.

python tools/simulate_checks.py                    both, into docs/checking.md (half an hour)
python tools/simulate_checks.py --only audit       one of them
python tools/simulate_checks.py --runs 500         fewer runs a cell (default 10,000 at the edges, a tenth elsewhere)

The code is that of eval/qwen_eval/stats itself. Exit status 1 where a wrong verdict is more frequent than 5%, or a bound of the
audit fails to hold in more than 5%, by more than two standard errors.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "eval"))

from qwen_eval.stats import audit, sequential  # noqa: E402

PAGE = ROOT / "docs" / "checking.md"
NEAR = 0.163  # in mean margins: how fast the chance of a flip falls with the margin
NOISE = 0.4  # of margins that are exponential: the mean of the normal distribution's upper half
SPREAD = 1e9  # flips on items of any margin
SIZES = ((164, 10, 16), (1_319, 4, 64), (1_319, 2, 64), (14_042, 2, 512))  # items, D in points, batch
DISCORDANT = (0.02, 0.07, 0.15)


def flips(rng: Any, margins: Any, right: Any, net: int, discordant: int, scale: float) -> Any:
    """Differences of a candidate: `discordant` items differ, in sum `net`; unsure ones first. net: negative for a loss."""
    lost = max((discordant - net) // 2, 0)
    won = lost + net
    chance = (
        np.log(-np.log(rng.random(len(margins)))) + margins / scale
    )  # the smallest are drawn, by exp(-margin / scale)
    d = np.zeros(len(margins))
    for value, side, count in ((-1, right == 1, lost), (1, right == 0, won)):
        index = np.flatnonzero(side)
        d[index[np.argpartition(chance[index], max(count - 1, 0))[:count]]] = value
    return d


def gated(
    rng: Any, count: int, points: int, net: int, share: float, batch: int, scale: float, known: bool
) -> tuple[str, float]:
    """One gate: the verdict and the share of items asked. known: whether the baseline's margins are."""
    margins = rng.exponential(size=count)
    right = (rng.random(count) < np.minimum(1, 0.4 + 0.3 * margins)).astype(float)
    d = flips(rng, margins, right, net, max(round(share * count), abs(net) + round(0.005 * count)), scale)
    made = sequential.plan(right, margins if known else None, rng.random(count))
    test, d = sequential.Test(made, Fraction(points, 100)), d[made.order]
    while not test.verdict:
        test.add(d[test.asked : test.asked + batch])
    return test.verdict, test.asked / count


def gate_lines(runs: int, sizes: Sequence[tuple[int, int, int]] = SIZES) -> Iterator[str]:
    """The gate's table: at the edge the rate of wrong verdicts, elsewhere the share of items asked."""
    yield '| items, D | margins | differ | wrong "worse" | wrong "not worse" | equal models | loss of D/2 | loss of 2D |'
    yield "|--:|:--|--:|--:|--:|--:|--:|--:|"
    rng = np.random.default_rng(1)
    for count, points, batch in sizes:
        known = count != 164
        for share in DISCORDANT:
            least = -(points * count // 100)  # the least sum of differences that is not worse
            if count == 14_042 and share == 0.02:
                share = 0.025  # a loss of 2 points takes as much
            cells = []
            for net, wrong in ((least, "worse"), (least - 1, "not worse")):
                found = [gated(rng, count, points, net, share, batch, NEAR, known)[0] for _ in range(runs)]
                rate = found.count(wrong) / runs
                if rate > 0.05 + 2 * sqrt(0.05 * 0.95 / runs):
                    print(f"wrong verdicts above 5%: {count} items, D = {points}: {rate:.2%}", file=sys.stderr)
                    FAILED.append(count)
                cells.append(f"{100 * rate:.1f}%")
            for net in (0, round(-count * points / 200), round(-count * points / 50)):
                asked = [
                    gated(rng, count, points, net, share, batch, SPREAD if net else NEAR, known)[1]
                    for _ in range(max(runs // 10, 10))
                ]
                cells.append(f"{100 * np.mean(asked):.0f} / {100 * np.quantile(asked, 0.9):.0f}%")
            yield (
                f"| {count:,}, {points} | {'known' if known else 'unknown'} | {100 * share:g}% | "
                + " | ".join(cells)
                + " |"
            )


def audited(rng: Any, items: int, altered: float, honest: float, near: bool) -> tuple[bool, bool, float]:
    """One audit of a run over 14,042 items of 60% accuracy in 16 bits: whether it raises an alarm, whether its bound holds, and
    the bound less the published score, in points. altered: the share of items published as right that are not. honest: the
    share that another computation of the same model answers differently, by normal noise of margins. near: whether altered
    items are those nearest a tie."""
    count = 14_042
    margins = rng.exponential(size=count)
    right = rng.random(count) < np.minimum(1, 0.4 + 0.3 * margins) * 0.6 / 0.62
    again = right.copy()
    # noise of the difference of two log-probabilities; the share that it turns is NOISE times its standard deviation
    changed = rng.normal(size=count) * honest / NOISE > margins
    again[changed] = ~right[changed] & (rng.random(int(changed.sum())) < 0.4)
    published = right.copy()
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(margins[wrong])] if near else rng.permutation(wrong)
    published[wrong[: round(altered * count)]] = True
    index = np.flatnonzero(published)
    drawn = audit.draw([float(m) for m in margins[index]], items, rng.random(len(index)))
    differs = ~again[index]
    limit = audit.CLEAR * float(margins.mean())
    clear = [i for i in (*drawn.random, *drawn.unsure) if differs[i] and margins[index[i]] > limit]
    bound = audit.most_differing(len(index), len(drawn.random), int(sum(differs[i] for i in drawn.random)))
    alarm = bool(clear) or audit.too_many(
        len(drawn.unsure), int(sum(differs[i] for i in drawn.unsure)), audit.UNSURE_RATE
    )
    return alarm, bool(bound >= differs.sum()), 100 * (len(index) - bound) / count - 100 * len(index) / count


def audit_lines(runs: int) -> Iterator[str]:
    """The audit's table: what it finds, and how often its bound holds."""
    heads = [
        "items asked",
        "answers altered",
        "honest flips",
        "alarm: altered at random",
        "alarm: altered nearest a tie",
    ]
    yield "| " + " | ".join([*heads, "bound holds", "bound below the published score"]) + " |"
    yield "|--:|--:|--:|--:|--:|--:|--:|"
    rng = np.random.default_rng(2)
    for items in (60, 120, 300):
        for altered in (0.0, 0.03, 0.10):
            for honest in (0.01, 0.02):
                cells, held, below = [], [], []
                for near in (False, True):
                    found = [audited(rng, items, altered, honest, near) for _ in range(runs)]
                    cells.append(
                        f"{100 * np.mean([alarm for alarm, _, _ in found]):.1f}%" if altered or not near else "-"
                    )
                    held += [ok for _, ok, _ in found]
                    below += [gap for _, _, gap in found]
                if np.mean(held) < 0.95 - 2 * sqrt(0.05 * 0.95 / len(held)):
                    print(f"the bound fails: {items} items, {altered:.0%} altered", file=sys.stderr)
                    FAILED.append(items)
                yield (
                    f"| {items} | {100 * altered:g}% | {100 * honest:g}% | {cells[0]} | {cells[1]} | "
                    f"{100 * np.mean(held):.1f}% | {-np.mean(below):.1f} |"
                )


FAILED: list[int] = []
TABLES = {"gate": gate_lines, "audit": audit_lines}


def write(name: str, lines: Sequence[str]) -> None:
    """Puts a table between its markers on the page."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    PAGE.write_text(f"{head}{begin}\n" + "\n".join(lines) + f"\n{end}{tail}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="runs a cell (default 10,000)")
    parser.add_argument("--only", choices=tuple(TABLES))
    parser.add_argument("--print", action="store_true", help="print the tables and write nothing")
    args = parser.parse_args()
    if args.runs < 10:
        parser.error("--runs takes 10 or more")
    started = time.process_time()
    for name in [args.only] if args.only else TABLES:
        lines = []
        for line in TABLES[name](args.runs if name == "gate" else max(args.runs // 10, 10)):
            print(line, flush=True)
            lines.append(line)
        if not args.print:
            write(name, lines)
    print(f"{time.process_time() - started:.0f} s of CPU time", file=sys.stderr)
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
