"""A gate against a stored baseline: whether this run is worse than it by more than D points on the same items.

Sequential, items are asked in an order fixed beforehand by the baseline (its id is the seed, its margins are the weights), and
the asking stops when the verdict is sure (stats/sequential.py). What was answered is stored as of any interrupted run: the same
command without --gate goes on to the full set. A run that stopped early has no figure: its items are no random sample.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import Any

from qwen_eval.data import json_text
from qwen_eval.runs import answer, files, find
from qwen_eval.runs.kept import kept_target
from qwen_eval.runs.samples import SampleFile, sample_row, stored_response, withheld
from qwen_eval.runs.signature import prompt_hash, prompt_of
from qwen_eval.schema import Choose, Engine, EngineInfo, Generate, InputError, Sample, Score, Scored
from qwen_eval.stats import sequential
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.facts import USUAL, Facts, View

SURE = 50.0  # nats: a margin above it, or one that is not finite
SMALL, LARGE = 16, 64  # items of a batch at least, of a set of few and of many items


@dataclass(frozen=True)
class Levels:
    """The chances of a wrong "worse" and of a wrong "not worse" that a gate may take."""

    worse: float = sequential.LEVEL
    fine: float = sequential.LEVEL


@dataclass(frozen=True)
class Verdict:
    """What a sequential gate came to. worse: whether the loss is above max_loss. exact: whether that is certain, whatever the
    items that were not asked would be. difference, low, high: this run minus the baseline in points; each bound holds with 1 -
    its level, at whatever time the asking stops. notes: what a reader must be told."""

    benchmark: str
    metric: str
    average: str
    baseline: str
    max_loss: float
    worse: bool
    exact: bool
    difference: float
    low: float
    high: float
    asked: int
    count: int
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether all items were asked."""
        return self.asked == self.count


# -------------------------------------------------------------------------------------------------- the baseline
def check_options(args: Any) -> None:
    """Raises InputError for options of the gate that do not go together."""
    if not args.gate:
        if args.sequential or args.max_loss is not None or args.gate_seed or args.junit or args.gate_summary:
            raise InputError(
                "--max-loss, --sequential, --gate-seed, --junit and --gate-summary need --gate BASELINE-RUN"
            )
        return
    if args.max_loss is None:
        raise InputError("--gate needs the loss that is allowed, in points: --max-loss 2")
    if getattr(args, "rescore", None) or getattr(args, "dump_prompts", False):
        raise InputError("--gate asks a model; leave out --rescore and --dump-prompts")


def baseline_of(benchmark: Benchmark, info: EngineInfo | None = None) -> find.Run:
    """The stored run that --gate names, of this benchmark and protocol; of several the newest. info: the engine's description,
    which tells runs of several context extensions apart.

    Raises InputError for a run of another protocol or version, an unfinished one, and one over other items or other data.
    """
    args = benchmark.args
    protocol = (benchmark.name, benchmark.recipe, benchmark.mode, str(benchmark.shot_count))
    known = find.find(args.gate, args.output_dir)
    # an unfinished run does not say its number of shots
    found = [run for run in known if run.protocol[: 4 if run.finished else 3] == protocol[: 4 if run.finished else 3]]
    if info is not None and benchmark.name == "long_ppl":
        ext = "" if info.context == "none" else info.context
        found = [
            run for run in found if run.fields.get("ext", "") == ext and run.fields.get("window", "") == info.window
        ]
    if not found:
        have = ", ".join(dict.fromkeys(" ".join(run.protocol[:4]) for run in known))
        raise InputError(
            f"--gate {args.gate}: no run of {' '.join(protocol)} shots; there is {have}. Measure the baseline with this "
            "command without --gate"
        )
    run = sorted(found, key=lambda run: (run.finished, run.timestamp))[-1]
    if not run.finished:
        raise InputError(f"{run.path} is no finished run, so no baseline; its own command goes on with it")
    _check_items(benchmark, run)
    return run


def _check_items(benchmark: Benchmark, run: find.Run) -> None:
    version = benchmark.versions.get((benchmark.recipe, benchmark.mode), benchmark.version)
    if run.fields.get("version") != f"v{version}":
        raise InputError(
            f"{run.name} is of version {run.fields.get('version')} of {benchmark.name}, this is v{version}; measure the "
            "baseline again"
        )
    again = "measure the baseline with the data, --limit and --subjects of this command"
    asked = {sample.id: sample for sample in benchmark.asked}
    lacking, more = [name for name in asked if name not in run.rows], len(run.rows.keys() - asked.keys())
    if lacking:
        raise InputError(
            f"{run.name} is partial: it lacks {len(lacking)} of the {len(asked)} items, {lacking[0]} among them; {again}"
        )
    if more:
        raise InputError(
            f"{run.name} has {more} items that this command does not ask; leave out --limit and --subjects, or {again}"
        )
    other = [name for name, sample in asked.items() if not same_target(sample.target, run.rows[name]["target"])]
    if other or run.fields.get("data") != benchmark.signature.get("data"):
        where = f": {len(other)} gold answers differ, {other[0]} among them" if other else ""
        raise InputError(f"{run.name} was measured on other data{where}; {again}")
    unscored = [name for name, row in run.rows.items() if not row["stats"]]
    if unscored:
        raise InputError(f"{run.path}: sample {unscored[0]!r} was answered but not scored; finish the run")


def same_target(one: Any, stored: Any) -> bool:
    """Whether a gold answer is the stored one, or what is kept of it."""
    plain = json_text.loads(files.json_lines([{"target": one}]))["target"]
    return bool(plain == stored) or bool(kept_target(plain) == stored)


WHOLE = "leave out --sequential: then all items are asked, and the gate is that of compare.py --max-loss"


def view_of(benchmark: Benchmark | Facts, run: find.Run, instead: str = WHOLE) -> View:
    """The figure that is decided item by item. instead: what is left to do where there is none. Raises InputError where it is
    no mean over all items of scores in [0, 1]."""
    views = [view for view in benchmark.views or USUAL if any(view.stat in row["stats"] for row in run.rows.values())]
    views = views or list(benchmark.views)
    headline = next(
        (view for view in views if view.metric == benchmark.headline[0]), views[0] if views else View("score")
    )
    if headline.kind != "share":
        name = {"bleu": "BLEU"}.get(headline.kind, headline.kind)
        raise InputError(
            f"{name} is no mean over items of scores with known bounds, so items prove nothing of it; {instead}"
        )
    if any(headline.group not in ("", row["group"]) for row in run.rows.values()):
        raise InputError(
            f"the figures of {benchmark.name} are over different items each, so no order of items is right for all; {instead}"
        )
    for name, row in run.rows.items():
        score_in(headline, row["stats"], name)
    return headline


def score_in(view: View, stats: Mapping[str, float], name: str) -> float:
    """An item's score, 1 the best. Raises InputError for one outside [0, 1]."""
    value = stats.get(view.stat, 0.0) / (stats[view.per] if view.per else 1.0)
    if not 0 <= value <= 1:
        raise InputError(
            f"{name}: its {view.metric} is {value:g}, not between 0 and 1, so items prove nothing of the "
            "others: no sequential gate, no audit"
        )
    return 1.0 - value if view.lower_is_better else value


# -------------------------------------------------------------------------------------------------------- the order
def planned(benchmark: Benchmark, run: find.Run, view: View) -> sequential.Plan:
    """The order in which the benchmark's items are asked."""
    ids = [sample.id for sample in benchmark.asked]
    rows = [run.rows[name] for name in ids]
    seed = f"{run.manifest.get('run_id', run.name)} {benchmark.args.gate_seed or 0}"
    draws = [_uniform(f"{seed} {name}") for name in ids]
    scale = None
    if run.fields.get("avg", "micro") == "macro":
        sizes = Counter(sample.group for sample in benchmark.asked)
        scale = [len(ids) / (len(sizes) * sizes[sample.group]) for sample in benchmark.asked]
    return sequential.plan([score_in(view, row["stats"], row["id"]) for row in rows], margins(rows), draws, scale)


def _uniform(text: str) -> float:
    """A number in (0, 1) from a hash, the same on every machine."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") + 0.5) / 2**48


def margins(rows: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """How much likelier each item's best option was than the second, in nats; None where rows have no log-probabilities."""
    found = []
    for row in rows:
        best = sorted(row["response"].get("logprobs", ()), reverse=True)[:2]
        if len(best) < 2:
            return None
        gap = best[0] - best[1]
        found.append(min(gap, SURE) if isfinite(gap) else SURE)
    return found


def batch_size(samples: Sequence[Sample]) -> int:
    """Items between two looks: so many that those of a batch share the shots in front of them (eight to each set of shots), and
    no more than an eighth of the items for that."""
    requests = [sample.request for sample in samples]
    fronts = {(each.header, each.shots) for each in requests if isinstance(each, Choose | Generate)}
    least = SMALL if len(samples) < 10 * LARGE else LARGE
    return max(least, min(8 * len(fronts), len(samples) // 8)) if len(fronts) > 1 else least


# ------------------------------------------------------------------------------------------------------- the asking
def sequentially(
    benchmark: Benchmark,
    engine: Engine,
    name: str,
    baseline: find.Run,
    levels: Levels,
    check: Callable[[Sequence[Sample]], object],
) -> Verdict:
    """Asks in the planned order until the verdict is sure. name: of this run, under whose lock it is called. check: called
    with all samples of the first batch that is asked."""
    args, view = benchmark.args, view_of(benchmark, baseline)
    if name == baseline.name and baseline.path.resolve().parent == (args.output_dir / "samples").resolve():
        raise InputError(
            f"{name} is the baseline itself: same model, same settings, same answers; write elsewhere with -o"
        )
    made = planned(benchmark, baseline, view)
    limit = Fraction(str(args.max_loss)) / 100
    test = sequential.Test(made, limit, levels.worse, levels.fine)
    size = batch_size(benchmark.asked)
    file = SampleFile(args.output_dir, name)
    checked = False
    try:
        known = {**file.kept(), **file.read()}
        with answer.progress(len(made.order), f"{benchmark.name} gate", args.quiet) as bar:
            while not test.verdict:
                batch = [benchmark.asked[i] for i in made.order[test.asked : test.asked + size]]
                new = [sample for sample in batch if sample.id not in known and sample.id not in benchmark.too_long]
                if new and not checked:
                    check(new)
                    checked = True
                scores = _answered(benchmark, engine, file, known, batch, new)
                bar.update(len(batch))
                test.add([
                    score_in(view, scores[sample.id].stats, sample.id)
                    - score_in(view, baseline.rows[sample.id]["stats"], sample.id)
                    for sample in batch
                ])  # fmt: skip
    finally:
        file.close()
    # each bound at the level of the verdict that it belongs to, so that the two agree
    low, high = test.bounds(levels.fine)[0], test.bounds(levels.worse)[1]
    notes = [*_before(args.output_dir, name, baseline.name, args), *_others(benchmark, baseline)]
    found = Verdict(
        benchmark.name, view.metric, baseline.fields.get("avg", "micro"), baseline.name, args.max_loss, test.verdict == "worse",
        test.exact, 100 * test.difference, 100 * low, 100 * high, test.asked, test.count, tuple(notes),
    )  # fmt: skip
    _remember(args.output_dir, name, found, args)
    return found


def _answered(
    benchmark: Benchmark,
    engine: Engine,
    file: SampleFile,
    known: Mapping[str, Any],
    batch: Sequence[Sample],
    new: Sequence[Sample],
) -> dict[str, Score]:
    """The scores of a batch by id; what is new is asked and stored, scored later where scores are made together."""
    responses: dict[str, Any] = {
        sample.id: benchmark.too_long[sample.id]
        if sample.id in benchmark.too_long
        else stored_response(known[sample.id])
        for sample in batch
        if sample.id in benchmark.too_long or (sample.id in known and not withheld(known[sample.id]))
    }
    scores: dict[str, Score] = {}

    def take(sample: Sample, response: Any) -> None:
        responses[sample.id] = response
        if not benchmark.together:
            scores[sample.id] = answer.score_one(benchmark, sample, response)
        if sample.id not in known:
            scored = Scored(sample, response, scores.get(sample.id, answer.UNSCORED))
            file.append(sample_row(scored, keep_prompt=not benchmark.args.no_prompts))

    for sample in batch:
        if sample.id in responses:
            take(sample, responses[sample.id])
    # by group: neighbours share their shots
    asked = sorted(new, key=lambda sample: sample.group)
    answer.ask(engine, asked, lambda position, response: take(asked[position], response))
    if benchmark.together:
        replies = [answer.scorable(sample, responses[sample.id]) for sample in batch]
        together = benchmark.score_all(batch, replies, engine.token_texts, lambda: None)
        for sample, score in zip(batch, together, strict=True):
            scores[sample.id] = answer.final(benchmark, sample, responses[sample.id], score)
    return scores


# --------------------------------------------------------------------------------------------------- what is told
def warning(benchmark: Benchmark) -> str:
    """Before the asking: that a sequential gate will hardly save anything on so few items, "" where it does."""
    if not sequential.hardly_saves(len(benchmark.asked), Fraction(str(benchmark.args.max_loss)) / 100):
        return ""
    return (
        f"{benchmark.name}: with {len(benchmark.asked)} items and a loss of {benchmark.args.max_loss:g} points allowed, a "
        "verdict usually takes a third of the items or more; --sequential will hardly save anything"
    )


def _others(benchmark: Benchmark, baseline: find.Run) -> list[str]:
    """How many prompts are not the baseline's."""
    other = sum(
        prompt_hash(baseline.rows[sample.id]["prompt"]) != prompt_hash(prompt_of(sample.request))
        for sample in benchmark.asked
    )
    return (
        [f"{other} of {len(benchmark.asked)} prompts are not the baseline's: what is compared is prompt and model"]
        if other
        else []
    )


def path(output: Path, run: str) -> Path:
    """Where the gates of a run are kept."""
    return output / "samples" / f"{run}.gate"


def read(output: Path, run: str) -> list[dict[str, Any]]:
    """The gates that a run went through before. Raises InputError for a file that is none of ours."""
    place = path(output, run)
    if not place.exists():
        return []
    try:
        return [dict(entry) for entry in json_text.loads(place.read_text(encoding="utf-8"))["gates"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{place} cannot be read ({error}); delete it") from error


def _before(output: Path, run: str, baseline: str, args: Any) -> list[str]:
    """Whether this is an exploratory gate: one of several for the same run, or in another order than the baseline's own."""
    now = (baseline, args.max_loss, args.gate_seed or 0)
    earlier = [entry for entry in read(output, run) if (entry["baseline"], entry["max_loss"], entry["seed"]) != now]
    notes = []
    if args.gate_seed:
        notes.append(
            "exploratory: another order than the one that the baseline fixes (--gate-seed); 5% holds for that one alone"
        )
    if earlier:
        notes.append(
            f"exploratory: {len(earlier)} other gate(s) of this run were looked at before; 5% holds for the first alone"
        )
    return notes


def _remember(output: Path, run: str, found: Verdict, args: Any) -> None:
    entry = {
        "baseline": found.baseline, "max_loss": found.max_loss, "seed": args.gate_seed or 0, "worse": found.worse,
        "asked": found.asked, "of": found.count, "difference": found.difference, "low": found.low, "high": found.high,
    }  # fmt: skip
    kept = [one for one in read(output, run) if any(one[key] != entry[key] for key in ("baseline", "max_loss", "seed"))]
    files.write_json(path(output, run), {"gates": [*kept, entry]})
