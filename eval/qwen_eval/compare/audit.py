"""Is a published number true? Asks a model some of the items of a stored run again, ours or another harness's, and says what
agreement proves. Only items published as right are asked: an overstated figure has wrong ones among them.

Half of the sample is random and bounds the share of right items that would differ; the other half, among the least sure, only
detects (stats/audit.py). Without a model the stored replies are read again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from qwen_eval.compare.readers.common import Item, Samples
from qwen_eval.compare.text import first_few
from qwen_eval.runs import answer, gate, precision
from qwen_eval.runs.find import Run
from qwen_eval.runs.samples import stored_response, withheld
from qwen_eval.schema import Choose, Chosen, Engine, Generate, InputError, Sample
from qwen_eval.stats import audit
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.choice import best_option
from qwen_eval.tasks.extract.letter_tokens import LETTERS

Judge: TypeAlias = Callable[[Sequence[Sample], Sequence[Any]], Sequence[float]]  # scores by samples and responses

EXACT, ROUGH = 1e-3, 0.3  # nats: what log-probabilities may differ in float32 and in 16 bits
TIE = 0.01  # nats: of margins in float32
BEYOND = 0.05  # share of items whose log-probabilities may differ by more than ROUGH
SURE = 0.2  # nats: a margin that 16 bits do not turn, whatever the mean
MARGIN = 1e-3  # nats: options closer than this are not told apart when stored replies are read again


@dataclass(frozen=True)
class Claim:
    """A published item with its score, 0 to 1, and the log-probabilities of its options."""

    sample: Sample
    score: float
    logprobs: tuple[float, ...] = ()

    @property
    def margin(self) -> float | None:
        """How much likelier the best option was than the second."""
        found = gate.margins([{"response": {"logprobs": self.logprobs}}])
        return found[0] if found else None


@dataclass(frozen=True)
class Published:
    """A published run as it is audited. average: how its figure is averaged. precision: in which it was computed, "" where that
    is not known. reread: by id what the stored replies score when they are read again."""

    name: str
    claims: Sequence[Claim]
    average: str
    precision: str
    fingerprint: str = ""
    judge: Judge | None = None  # None where nothing can be asked
    reread: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def figure(self) -> float:
        """The published figure over items, in percent."""
        return 100 * sum(claim.score for claim in self.claims) / len(self.claims)


@dataclass(frozen=True)
class Report:
    """What an audit says. overstated: why the figure is not believed, empty where it is. low: the lower bound of the figure, in
    percent, None without a model."""

    lines: Sequence[str]
    overstated: Sequence[str]
    low: float | None = None


# ------------------------------------------------------------------------------------------------- published runs
def of_run(run: Run, facts: Any, benchmark: Benchmark | None) -> Published:
    """A run of this harness. facts: of its benchmark. benchmark: as its script builds it, None where only the rows are there.
    Raises InputError for a figure that is no mean of items' scores."""
    view = gate.view_of(facts, run, "it cannot be audited item by item")
    for name, row in run.rows.items():
        if not row["stats"]:
            raise InputError(f"{run.path}: sample {name!r} was answered but not scored; finish the run")
    known = {sample.id: sample for sample in benchmark.asked} if benchmark else {}
    lacking = [name for name in run.rows if name not in known] if benchmark else []
    if lacking:
        raise InputError(
            f"{run.name} has {len(lacking)} items that the data has not, {lacking[0]} among them; give its own with -d"
        )
    other = [
        name
        for name, sample in known.items()
        if name in run.rows and not gate.same_target(sample.target, run.rows[name]["target"])
    ]
    claims = [
        Claim(
            known.get(name, Sample(name, Generate("", 0), row["target"], row["group"])),
            gate.score_in(view, row["stats"], name),
            tuple(row["response"].get("logprobs", ())),
        )
        for name, row in run.rows.items()
    ]

    def judge(samples: Sequence[Sample], responses: Sequence[Any]) -> list[float]:
        assert benchmark is not None
        if benchmark.together:
            replies = [answer.scorable(sample, response) for sample, response in zip(samples, responses, strict=True)]
            scores = benchmark.score_all(samples, replies, lambda texts: [list(text) for text in texts], lambda: None)
        else:
            scores = [
                answer.score_one(benchmark, sample, reply) for sample, reply in zip(samples, responses, strict=True)
            ]
        return [gate.score_in(view, score.stats, sample.id) for score, sample in zip(scores, samples, strict=True)]

    kept = {name: row for name, row in run.rows.items() if not withheld(row)}
    if benchmark:
        names = list(kept)
        reread = dict(
            zip(
                names,
                judge([known[name] for name in names], [stored_response(kept[name]) for name in names]),
                strict=True,
            )
        )
    else:
        reread = {name: read for name, row in kept.items() if (read := _read_choice(row)) is not None}
    notes = [f"{len(other)} gold answers are not those of the data, {other[0]} among them"] if other else []
    return Published(
        run.name, claims, run.fields.get("avg", "micro"), run.fields.get("dtype", ""), run.fingerprint,
        judge if benchmark else None, reread, notes,
    )  # fmt: skip


def _read_choice(row: Mapping[str, Any]) -> float | None:
    """Whether the likeliest option is the right one; None where that does not show in the row alone."""
    response, labels = row["response"], row.get("labels") or LETTERS
    logprobs = response.get("logprobs", ())
    if response.get("totals") or len(logprobs) < 2:
        return None
    best, tied = best_option(logprobs, MARGIN)
    return None if tied else float(labels[best] == row["target"])


def of_samples(samples: Samples) -> Published:
    """Another harness's run. Raises InputError where options were compared by means over tokens, and where an item cannot be
    asked."""
    if samples.per_token:
        raise InputError(
            f"{samples.paths[0]}: its options were compared by means over all tokens, which --audit does not ask"
        )
    items = {f"{item.task}/{item.index}": item for item in samples.items}
    if len(items) < len(samples.items):
        raise InputError(f"{samples.paths[0]} has {len(samples.items) - len(items)} items twice; name one run")
    claims = [
        Claim(Sample(name, _request(item, samples), item.target, item.task), item.score, item.logprobs)
        for name, item in items.items()
    ]
    wrong = next((claim for claim in claims if not 0 <= claim.score <= 1), None)
    if wrong:
        raise InputError(
            f"{samples.paths[0]}: {samples.metric} of {wrong.sample.id} is {wrong.score:g}, not between 0 and 1"
        )

    def judge(asked: Sequence[Sample], responses: Sequence[Any]) -> list[float]:
        return [_their_score(items[sample.id], samples, reply) for sample, reply in zip(asked, responses, strict=True)]

    reread = {}
    for name, item in items.items():
        tied = best_option(_by_length(item, item.logprobs, samples), MARGIN)[1] if item.logprobs else True
        if not tied and item.target in [text.strip() for text in item.continuations]:
            reread[name] = _their_score(item, samples, Chosen(item.logprobs, 0, 0))
    texts = any(item.reply is not None and not item.logprobs for item in items.values())
    notes = (
        ["a text counts as differing where it is not the same: how theirs would score another one is not known"]
        if texts
        else []
    )
    return Published(
        f"{samples.harness} {samples.paths[0].name}", claims, samples.average, "", "", judge, reread, notes
    )


def _request(item: Item, samples: Samples) -> Choose | Generate:
    """What they asked, as theirs counts an option's tokens."""
    if item.continuations:
        kept = item.prompt.rstrip()
        options = tuple(item.prompt[len(kept) :] + option for option in item.continuations)
        return Choose("", (), kept, options, "keep_last", samples.max_length, "split", samples.bos is not False)
    return Generate(item.prompt, item.max_tokens or 256, overflow="keep_last", stop=item.stop)


def _by_length(item: Item, logprobs: Sequence[float], samples: Samples) -> list[float]:
    sizes = [len(text.strip()) or 1 if samples.by_length else 1 for text in item.continuations]
    return [value / size for value, size in zip(logprobs, sizes, strict=True)]


def _their_score(item: Item, samples: Samples, response: Any) -> float:
    if item.continuations:
        best = best_option(_by_length(item, response.logprobs, samples))[0]
        return float(item.continuations[best].strip() == item.target)
    return item.score if response.texts[0].strip() == (item.reply or "").strip() else 0.0


# ------------------------------------------------------------------------------------------------------- the audit
def read_again(published: Published) -> Report:
    """What the stored replies alone say."""
    claims = {claim.sample.id: claim for claim in published.claims}
    more = [name for name, score in published.reread.items() if score < claims[name].score - 1e-9]
    less = [name for name, score in published.reread.items() if score > claims[name].score + 1e-9]
    lines = [f"{published.name}: {len(claims)} items, {published.figure:.2f}% (over items)", *published.notes]
    if len(published.reread) < len(claims):
        left = len(claims) - len(published.reread)
        lines.append(
            f"{left} stored replies could not be read again (not kept, tied, or the benchmark's data is needed: -d)"
        )
    differing = len(more) + len(less)
    lines.append(f"stored replies read again: {len(published.reread)}, of which {differing} score otherwise")
    overstated = [f"{len(more)} scores are higher than their stored replies: {first_few(more)}"] if more else []
    return Report(
        lines, [*overstated, *(published.notes if published.judge and "gold" in " ".join(published.notes) else [])]
    )


def ask_again(published: Published, engine: Engine, items: int, tolerance: float, seed: int) -> Report:
    """Asks a sample of the items published as right. tolerance: how far below the published figure its lower bound may be, in
    points. seed: of the sample; it has to be drawn after the publication."""
    assert published.judge is not None
    right = [claim for claim in published.claims if claim.score > 0]
    first = read_again(published)
    if not right:
        return Report(
            [*first.lines, "no item was published as right: nothing can be overstated"], first.overstated, 0.0
        )
    margins = [claim.margin for claim in right]
    sure = None if None in margins else [float(margin) for margin in margins if margin is not None]
    stream = random.Random(seed)
    drawn = audit.draw(sure, items, [stream.random() for _ in right])
    best = 100 * audit.most_differing(len(right), len(drawn.random), 0) / len(published.claims)
    if best > tolerance:
        raise InputError(
            f"{len(drawn.random)} items at random cannot show a figure to {tolerance:g} points: even if all agree, "
            f"the bound is {best:.1f} points below; ask more with --items, or allow more with --tolerance"
        )
    asked = [right[i] for i in (*drawn.random, *drawn.unsure)]
    replies: dict[int, Any] = {}
    answer.ask(engine, [claim.sample for claim in asked], replies.__setitem__)
    responses = [replies[index] for index in range(len(asked))]
    scores = published.judge([claim.sample for claim in asked], responses)
    lost = [score < claim.score - 1e-9 for claim, score in zip(asked, scores, strict=True)]
    at_random, unsure = lost[: len(drawn.random)], lost[len(drawn.random) :]

    info = engine.describe()
    fine = published.precision == info.precision and precision.computed_in(info.precision) == "fp32"
    bound = audit.most_differing(len(right), len(at_random), sum(at_random))
    low = 100 * (sum(claim.score for claim in published.claims) - bound) / len(published.claims)
    low = max(low, 0.0)
    lines = [*first.lines, *_weights(published, info)]
    lines.append(f"{len(asked)} of the {len(right)} items published as right were asked again (sample of seed {seed})")
    lines.append(
        f"at random: {len(at_random) - sum(at_random)} of {len(at_random)} agree; with 95% at most "
        f"{100 * bound / len(right):.1f}% of the right items would not, so the figure is at least {low:.2f}% "
        f"({published.figure - low:.2f} points below the published one)"
    )
    overstated = list(first.overstated)
    if unsure:
        rate = 0.0 if fine else audit.UNSURE_RATE
        told = sum(
            differs and not (fine and (claim.margin or 0.0) < TIE)
            for differs, claim in zip(unsure, asked[len(at_random) :], strict=True)
        )
        lines.append(f"among the least sure fifth: {len(unsure) - sum(unsure)} of {len(unsure)} agree")
        if audit.too_many(len(unsure), told, rate):
            overstated.append(
                f"{told} of {len(unsure)} of the least sure items are wrong when asked again: more than rounding explains"
            )
    if sure is None:
        if audit.too_many(len(at_random), sum(at_random), 0.0 if fine else audit.RATE):
            overstated.append(
                f"{sum(at_random)} of {len(at_random)} items are wrong when asked again: more than rounding explains"
            )
    else:
        limit = TIE if fine else max(SURE, audit.CLEAR * sum(sure) / len(sure))
        clear = [
            claim.sample.id
            for claim, differs in zip(asked, lost, strict=True)
            if differs and (claim.margin or 0.0) > limit
        ]
        lines.append(f"clear disagreements (published margin above {limit:.2f}): {len(clear)}")
        if clear:
            overstated.append(f"published as clearly right, and wrong when asked again: {first_few(clear)}")
        overstated += _logprobs(published, info.precision, fine, asked, responses, lines)
    if published.figure - low > tolerance:
        overstated.append(
            f"not confirmed: the lower bound, {low:.2f}%, is more than {tolerance:g} points below the "
            f"published {published.figure:.2f}%"
        )
    if published.average == "macro":
        lines.append(
            "the figure meant is the one over items (micro); the published average over subjects is not bounded"
        )
    return Report(lines, overstated, low)


def _weights(published: Published, info: Any) -> list[str]:
    lines = []
    if published.fingerprint and published.fingerprint not in (info.fingerprint, info.sampled):
        lines.append(
            "the weights are not those of the published run: what is found may be the difference between the models"
        )
    if published.precision and published.precision != info.precision:
        lines.append(
            f"published in {published.precision}, asked in {info.precision}: rounding is allowed for, and "
            "log-probabilities are not compared"
        )
    return lines


def _logprobs(
    published: Published, label: str, fine: bool, asked: Sequence[Claim], responses: Sequence[Any], lines: list[str]
) -> list[str]:
    """Compares log-probabilities where both have them at the same precision. Adds what was found to the lines, and returns why
    the run is not believed."""
    if published.precision and published.precision != label:
        return []
    largest = [
        max(abs(x - y) if x != y else 0.0 for x, y in zip(claim.logprobs, reply.logprobs, strict=True))
        for claim, reply in zip(asked, responses, strict=True)
        if isinstance(reply, Chosen) and len(reply.logprobs) == len(claim.logprobs)
    ]
    if not largest:
        return []
    allowed = EXACT if fine else ROUGH
    beyond = sum(value > allowed for value in largest)
    lines.append(
        f"log-probabilities: the largest difference is {max(largest):.2g}, {beyond} of {len(largest)} items above {allowed:g}"
    )
    if beyond > (0 if fine else BEYOND * len(largest)):
        return [
            f"{beyond} of {len(largest)} items have other log-probabilities: this is not the model, or not what was asked"
        ]
    return []


def verdict(report: Report) -> list[str]:
    """The report's lines, the conclusion last."""
    if report.overstated:
        return [*report.lines, *(f"DOUBTFUL: {why}" for why in report.overstated)]
    return [
        *report.lines,
        "AGREES: nothing speaks against the published figure"
        + (f", and it is at least {report.low:.2f}%" if report.low else ""),
    ]
