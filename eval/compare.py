"""Is B worse than A? Two runs of one benchmark (or of several) on the same items, item by item.

    python eval/compare.py A B                     figures, difference with interval and p-value, items that flipped
    python eval/compare.py A B --exact             exit 3 when any item came out differently (ties excepted)
    python eval/compare.py A B --max-loss          exit 3 when B is worse than A beyond chance
    python eval/compare.py A B --max-loss 1        ... when the lower 95% bound of the loss is above 1 point
    python eval/compare.py A B --non-inferior 1    exit 3 unless the upper 95% bound of the loss is below 1 point
    python eval/compare.py A samples_mmlu_anatomy_2026.jsonl --explain -c MODEL    another harness's run: why it differs
    python eval/compare.py A --audit -c MODEL      is A's figure true? asks some items again; exit 3 when it is overstated

A and B are each a run's id, a sample file, a folder of sample files (another results folder), or a model with stored runs.
Losses are in points; those of perplexity in percent of A's. With several figures, p-values and --max-loss are corrected
(Holm). B may be lm-evaluation-harness's samples (--log_samples), OpenCompass's predictions or Inspect's log, a file or a
folder; --explain decomposes the gap, with -c (and -d, --dtype ... as for the benchmark's script) step by step.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path

from qwen_eval import options, schema, terminal
from qwen_eval.compare import audit, explain, pairs, text
from qwen_eval.compare.readers import detect
from qwen_eval.compare.readers.common import Samples
from qwen_eval.engines.open import open_engine
from qwen_eval.main import exit_with
from qwen_eval.runs import find
from qwen_eval.runs.prompts import set_day
from qwen_eval.stats import paired
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.load import facts_of, known

REGRESSION = 3  # exit status


def show(lines: Iterable[str]) -> None:
    """Prints lines, with the control characters of replies escaped."""
    print(terminal.escape_controls("\n".join(lines)))


def run(args: argparse.Namespace, shared: Sequence[str]) -> int:
    """Compares, prints, and returns the exit status: 0, or 3 where a gate failed. Raises InputError."""
    if args.audit:
        return run_audit(args, shared)
    if args.b is None:
        raise schema.InputError("name a second run to compare with, or add --audit to ask items of this one again")
    path = Path(args.b)
    samples = detect.read(path, args.metric) if path.exists() and not find.is_own_format(path) else None
    if samples:
        return run_against(args, samples, shared)
    if shared or args.metric or args.average or args.checkpoint_path or args.data:
        given = " ".join(["--metric, --average, -c, -d", *shared])
        raise schema.InputError(f"{given} are for another harness's samples, which {args.b} is not; leave them out")
    matched, notes = find.pair(find.find(args.a, args.results), find.find(args.b, args.results))
    joined = [pairs.join(*pair) for pair in matched]
    results: dict[str, paired.Result] = {}
    kinds = known(args.own)
    for one in joined:
        own = pairs.compare(one, facts_of(one.a.benchmark, kinds, one.a.manifest, one.a.name))
        results |= {f"{name} ({one.a.name})" if name in results else name: result for name, result in own.items()}
    for one in joined:
        show([*text.heading(one), ""])
    show([*text.table(results), ""])
    for one in joined:
        show([*text.flips(one, args.show), ""])
        if args.explain:
            show([*text.explanation(one), ""])
    for note in notes:
        show([note])
    failures = failed(args, joined, results)
    for line in failures:
        show([f"FAIL {line}"])
    if not failures and (args.exact or args.max_loss is not None or args.non_inferior is not None):
        print("PASS " + "; ".join(gate_names(args)) + not_judged(args, results))
    return REGRESSION if failures else 0


def run_against(args: argparse.Namespace, samples: Samples, shared: Sequence[str]) -> int:
    """Compares our run with another harness's samples and prints; the exit status, 0. Raises InputError when no item is in
    both, and for options that do not apply."""
    if args.exact or args.max_loss is not None or args.non_inferior is not None:
        raise schema.InputError("gates compare two runs of this harness; leave them out with another harness's samples")
    if args.average:
        samples = samples.with_average(args.average)
    (ours, *more) = find.find(args.a, args.results)
    if more:
        raise schema.InputError(
            f"{args.a} is {1 + len(more)} runs; name one: {text.first_few([ours.name, *(run.name for run in more)])}"
        )
    joined = explain.join(ours, samples)
    show([*explain.summary(joined), ""])
    show([*explain.differences_by_stage(joined), ""])
    if args.explain:
        words = [*shared, *(["-c", args.checkpoint_path] if args.checkpoint_path else [])]
        benchmark = rebuilt(ours, words, args.data, args.own)
        engine = open_engine(benchmark.args) if args.checkpoint_path else None
        show([*explain.waterfall_lines(joined, benchmark, engine, args.show), ""])
        for note in engine.notes if engine else []:
            show([note])
    elif shared or args.checkpoint_path or args.data:
        raise schema.InputError("-c, -d and the benchmark's options need --explain")
    return 0


def run_audit(args: argparse.Namespace, shared: Sequence[str]) -> int:
    """Audits a run, ours or another harness's, and prints; the exit status: 0, or 3 where its figure is overstated."""
    if args.b is not None or args.explain or args.exact or args.max_loss is not None or args.non_inferior is not None:
        raise schema.InputError("--audit takes one run, and neither --explain nor a gate")
    path, model = Path(args.a), args.checkpoint_path
    words = [*shared, *(["-c", model] if model else [])]
    samples = detect.read(path, args.metric) if path.exists() and not find.is_own_format(path) else None
    benchmark, day = None, ""
    if samples:
        published = audit.of_samples(samples)
    else:
        (run, *more) = find.find(args.a, args.results)
        if more:
            names = text.first_few([run.name, *(one.name for one in more)])
            raise schema.InputError(f"{args.a} is {1 + len(more)} runs; name one: {names}")
        benchmark = rebuilt(run, words, args.data, args.own) if model or args.data else None
        published = audit.of_run(run, facts_of(run.benchmark, known(args.own), run.manifest, run.name), benchmark)
        day = run.fields.get("date", "")
    if not model:
        report = audit.read_again(published)
    else:
        engine = open_engine(benchmark.args if benchmark else options.parser("", {"base": 0}).parse_args(words))
        if benchmark:
            set_day(benchmark, engine, day)
        seed = secrets.randbelow(10**6) if args.audit_seed is None else args.audit_seed
        report = audit.ask_again(published, engine, args.items, args.tolerance, seed)
    show(audit.verdict(report))
    return REGRESSION if report.overstated else 0


def rebuilt(ours: find.Run, words: Sequence[str], data: str | None, own: Sequence[Path]) -> Benchmark:
    """The benchmark of a stored run, as its script makes it. words: options of the script. data: the folder, None for the
    run's. own: files of one's own benchmarks.

    Raises InputError where the data is not the run's, or its benchmark is not known.
    """
    if not ours.finished:
        raise schema.InputError(f"{ours.path} has no manifest beside it; --explain needs a run that came to its end")
    fields, kinds = ours.fields, known(own)
    if ours.benchmark not in kinds:
        raise schema.InputError(
            f"{ours.name} is of a benchmark of your own, {ours.benchmark}; name its file with --own FILE"
        )
    kind = kinds[ours.benchmark]
    given = ["--recipe", fields["recipe"], "--shots", fields.get("shots", "0"), "--quiet"]
    if data or fields.get("data", "").startswith("demo-"):
        given += ["-d", data or "demo"]
    given += ["--chat"] if fields["mode"] == "chat" and "base" in kind.shots else []
    given += ["--max-new-tokens", fields["max"]] if "max" in fields else []
    benchmark = kind(kind.parser().parse_args([*given, *words]))
    if benchmark.signature.get("data") != fields.get("data"):
        raise schema.InputError(f"these are not the questions of {ours.name}; give its own with -d (and --subjects)")
    return benchmark


# ----------------------------------------------------------------------------------------------------------- gates
def gate_names(args: argparse.Namespace) -> list[str]:
    """The gates of the command line, in words."""
    names = []
    if args.exact:
        names.append("no item came out differently")
    if args.max_loss is not None:
        names.append(f"no loss above {args.max_loss:g} beyond chance")
    if args.non_inferior is not None:
        names.append(f"every loss surely below {args.non_inferior:g}")
    return names


def not_judged(args: argparse.Namespace, results: Mapping[str, paired.Result]) -> str:
    """What a gate that passed could not judge: figures without an interval, whose loss cannot be told from chance."""
    names = [name for name, result in results.items() if isnan(result.bounds(paired.LEVEL)[0])]
    if args.max_loss is None or not names:
        return ""
    return f"; not judged, with too few independent items for an interval: {text.first_few(names)}"


def failed(args: argparse.Namespace, joined: Sequence[pairs.Joined], results: Mapping[str, paired.Result]) -> list[str]:
    """Why the gates fail, one sentence each; empty when they pass or there are none."""
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
            sure = [name for name, x, y in one.rows() if pairs.flipped(x, y) and not pairs.either_tied(x, y)]
            if sure:
                lines.append(f"{one.b.name}: {len(sure)} items came out differently: {text.first_few(sure)}")
    if args.max_loss is not None:
        for name in paired.losses_above(results, args.max_loss):
            low, high = results[name].bounds(paired.LEVEL)
            lines.append(f"{name}: the loss is {low:.2f} to {high:.2f}, above {args.max_loss:g}")
    if args.non_inferior is not None:
        for name, result in results.items():
            low, high = result.bounds(paired.LEVEL)
            if isnan(high):
                lines.append(
                    f"{name}: too few independent items for an interval, so not surely below {args.non_inferior:g}"
                )
            elif high >= args.non_inferior:
                lines.append(f"{name}: the loss is {low:.2f} to {high:.2f}, not surely below {args.non_inferior:g}")
    return lines


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


def parser() -> options.Parser:
    """The command line."""
    made = options.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = made.add_argument
    add("a", metavar="A", help="the reference: run id, sample file, folder or model")
    add("b", metavar="B", nargs="?", help="what is compared with it, or another harness's samples, a file or a folder")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="where run ids are (default: results)")
    add(
        "--show",
        type=options.count,
        default=10,
        metavar="N",
        help="items listed that came out differently (default 10)",
    )
    add(
        "--explain",
        action="store_true",
        help="the stages at which items differ (prompt, reply ...), and the first item",
    )
    add = made.add_argument_group("another harness's samples").add_argument
    add(
        "--metric", metavar="NAME", help="which of their scores to use (default: acc, else exact_match, else the first)"
    )
    add("--average", choices=("micro", "macro"), help="how they average over tasks (default: as their harness does)")
    add(
        "-c",
        "--checkpoint-path",
        metavar="MODEL",
        help="with --explain: computes the steps between both runs with this model",
    )
    add("-d", "--data", metavar="DIR", help="the run's data, as for its script, whose other options may follow")
    made.add_argument(
        "--own", type=Path, action="append", default=[], metavar="FILE", help="a benchmark of your own (repeatable)"
    )
    add = made.add_argument_group("audit: exit status 3 when the figure is overstated").add_argument
    add(
        "--audit",
        action="store_true",
        help="with -c: asks the model some items of A again; without: reads stored replies again",
    )
    add("--items", type=options.whole_number, default=120, metavar="N", help="how many are asked (default 120)")
    add("--tolerance", type=points, default=5.0, metavar="P",
        help="how far below the published figure its lower bound may be, in points (default 5)")  # fmt: skip
    add("--audit-seed", type=options.count, metavar="N", help="of the sample (default: a new one, which is told)")
    gate = made.add_argument_group("gates: exit status 3 when one fails").add_argument
    gate("--exact", action="store_true", help="an item that is not a flagged tie came out differently")
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
    args, shared = made.parse_known_args()
    exit_with(made.prog, lambda: run(args, shared))


if __name__ == "__main__":
    main()
