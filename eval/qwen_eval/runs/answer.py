"""Every sample of a benchmark answered: what is stored is kept, the rest is asked, stored and scored as it comes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from qwen_eval.runs import workers
from qwen_eval.runs.samples import (
    SampleFile,
    drop_parts,
    part_name,
    run_lock,
    sample_row,
    stored_response,
    take_parts,
)
from qwen_eval.schema import Choose, Engine, Generate, Measure, Sample, Score, Scored
from qwen_eval.tasks.benchmark import Benchmark

Check: TypeAlias = Callable[[Sequence[Sample]], object]

UNSCORED = Score({}, None)


def answer(
    benchmark: Benchmark,
    engine: Engine,
    run_id: str,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    check: Check = lambda samples: None,
    team: workers.Team = workers.ALONE,
) -> list[Scored]:
    """Every sample with its response and score, in the benchmark's order: stored ones as they are, the rest asked and
    stored as they come. given: rows of another run whose responses are taken for this one's. check: looks at the samples
    that are to be asked, before they are. team: the processes that take their shares, of which this one leads."""
    args, asked = benchmark.args, benchmark.asked
    file = SampleFile(args.output_dir, run_id, args.overwrite)
    try:
        stored = file.read()
        # and what the other processes of an earlier start had answered when they were ended
        before = {**take_parts(args.output_dir, run_id, args.overwrite), **stored}
        if before and not args.quiet:
            print(f"{len(before)} of {len(asked)} items were answered before", file=sys.stderr)
        known = {**(given or {}), **before}
        responses: dict[int, Any] = {}
        scores: dict[int, Score] = {}
        left: list[int] = []

        def take(index: int, response: Any) -> None:
            """Scores a response, unless all are scored together later, and stores it if it is new."""
            sample = asked[index]
            responses[index] = response
            if not benchmark.together:
                scores[index] = benchmark.score(sample, response)
            if sample.id not in stored:
                item = Scored(sample, response, scores.get(index, UNSCORED))
                file.append(sample_row(item, keep_prompt=not args.no_prompts))

        for index, sample in enumerate(asked):
            if sample.id in known:
                take(index, stored_response(known[sample.id]))
            else:
                left.append(index)
        drop_parts(args.output_dir, run_id)
        left = shared_work(benchmark, team, left)
        check([asked[index] for index in left])
        with progress(len(left), benchmark.name, args.quiet or not left) as bar:

            def done(position: int, response: Any) -> None:
                take(left[position], response)
                bar.update()

            ask(engine, [asked[index] for index in left], done)
        team.wait()
        indices = {sample.id: index for index, sample in enumerate(asked)}
        for name, row in take_parts(args.output_dir, run_id).items():
            take(indices[name], stored_response(row))
        drop_parts(args.output_dir, run_id)
        order = range(len(asked))
        if benchmark.together:
            with progress(len(order), f"{benchmark.name} scores", args.quiet) as bar:
                replies = [responses[index] for index in order]
                together = benchmark.score_all(asked, replies, engine.token_texts, bar.update)
            scores = dict(enumerate(together))
        scored = [Scored(asked[index], responses[index], scores[index]) for index in order]
        if benchmark.together:
            file.replace([sample_row(item, keep_prompt=not args.no_prompts) for item in scored])
        return scored
    finally:
        file.close()


def contribute(benchmark: Benchmark, engine: Engine, run_id: str, check: Check, team: workers.Team) -> None:
    """The share of a process that does not lead: its answers go to a file of their own, from which the leader takes
    them."""
    args = benchmark.args
    mine = shared_work(benchmark, team)
    part = part_name(run_id, team.rank)
    with run_lock(args.output_dir, part):
        file = SampleFile(args.output_dir, part)
        try:
            asked = [benchmark.asked[index] for index in mine]
            check(asked)

            def done(position: int, response: Any) -> None:
                sample = asked[position]
                score = UNSCORED if benchmark.together else benchmark.score(sample, response)
                file.append(sample_row(Scored(sample, response, score), keep_prompt=not args.no_prompts))

            ask(engine, asked, done)
        finally:
            file.close()
    team.wait()


def shared_work(benchmark: Benchmark, team: workers.Team, left: Sequence[int] = ()) -> list[int]:
    """The indices of the samples that this process answers. left: all that are to be asked, as the leader sees it."""
    left = team.share(list(left))
    mine = workers.shares([benchmark.asked[index] for index in left], team.size)[team.rank]
    return [left[position] for position in mine]


def ask(engine: Engine, samples: Sequence[Sample], done: Callable[[int, Any], None]) -> None:
    """Sends the samples' requests to the engine, each kind in one call."""
    for kind, call in ((Choose, "choose"), (Generate, "generate"), (Measure, "measure")):
        positions = [index for index, sample in enumerate(samples) if isinstance(sample.request, kind)]
        if positions:
            requests: list[Any] = [samples[index].request for index in positions]
            getattr(engine, call)(requests, partial(_hand_over, positions, done))


def _hand_over(positions: Sequence[int], done: Callable[[int, Any], None], index: int, answer: Any) -> None:
    """Gives the answer to the index-th request of one kind to the sample it is of."""
    done(positions[index], answer)


def progress(total: int, name: str, off: bool) -> Any:
    """A bar on stderr with counts, rate and time left."""
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="item", disable=off, file=sys.stderr, mininterval=0.5, smoothing=0.1)
