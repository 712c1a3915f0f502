"""Every sample of a benchmark answered: what is stored is kept, the rest is asked, stored and scored as it comes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from qwen_eval.runs import store, workers
from qwen_eval.schema import Benchmark, Choose, Engine, Generate, Measure, Sample, Score, Scored

Check: TypeAlias = Callable[[Sequence[Sample]], object]

UNSCORED = Score({}, None)
ALONE = workers.Team()


def answer(
    benchmark: Benchmark,
    engine: Engine,
    args: argparse.Namespace,
    run_id: str,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    check: Check = lambda samples: None,
    team: workers.Team = ALONE,
) -> list[Scored]:
    """Every sample with its response and score, in the benchmark's order: stored ones as they are, the rest asked and
    stored as they come. given: rows of another run whose responses are taken for this one's. check: looks at the samples
    that are to be asked, before they are. team: the processes that take their shares, of which this one leads."""
    samples = store.SampleFile(args.output_dir, run_id, args.overwrite)
    try:
        stored = samples.read()
        # and what the other processes of an earlier start had answered when they were ended
        before = {**store.take_parts(args.output_dir, run_id, args.overwrite), **stored}
        if before and not args.quiet:
            print(f"{len(before)} of {len(benchmark.samples)} items were answered before", file=sys.stderr)
        known = {**(given or {}), **before}
        responses: dict[int, Any] = {}
        scores: dict[int, Score] = {}
        todo: list[int] = []

        def take(index: int, response: Any) -> None:
            """Scores a response, unless all are scored together later, and stores it if it is new."""
            sample = benchmark.samples[index]
            responses[index] = response
            if benchmark.score:
                scores[index] = benchmark.score(sample, response)
            if sample.id not in stored:
                item = Scored(sample, response, scores.get(index, UNSCORED))
                samples.append(store.sample_row(item, keep_prompt=not args.no_prompts))

        for index, sample in enumerate(benchmark.samples):
            if sample.id in known:
                take(index, store.stored_response(known[sample.id]))
            else:
                todo.append(index)
        store.drop_parts(args.output_dir, run_id)
        todo = shared_work(benchmark, team, todo)
        check([benchmark.samples[index] for index in todo])
        with progress(len(todo), benchmark.name, args.quiet or not todo) as bar:

            def done(place: int, response: Any) -> None:
                take(todo[place], response)
                bar.update()

            ask(engine, [benchmark.samples[index] for index in todo], done)
        team.wait()
        places = {sample.id: index for index, sample in enumerate(benchmark.samples)}
        for name, row in store.take_parts(args.output_dir, run_id).items():
            take(places[name], store.stored_response(row))
        store.drop_parts(args.output_dir, run_id)
        order = range(len(benchmark.samples))
        score_all = benchmark.score_in_tokens(engine.token_texts) if benchmark.score_in_tokens else benchmark.score_all
        if score_all:
            with progress(len(order), f"{benchmark.name} scores", args.quiet) as bar:
                together = score_all(benchmark.samples, [responses[index] for index in order], bar.update)
            scores = dict(enumerate(together))
        scored = [Scored(benchmark.samples[index], responses[index], scores[index]) for index in order]
        if score_all:
            samples.replace([store.sample_row(item, keep_prompt=not args.no_prompts) for item in scored])
        return scored
    finally:
        samples.close()


def contribute(
    benchmark: Benchmark, engine: Engine, args: argparse.Namespace, run_id: str, check: Check, team: workers.Team
) -> None:
    """The share of a process that does not lead: its answers go to a file of their own, from which the leader takes
    them."""
    mine = shared_work(benchmark, team)
    part = store.part_name(run_id, team.rank)
    with store.run_lock(args.output_dir, part):
        samples = store.SampleFile(args.output_dir, part)
        try:
            asked = [benchmark.samples[index] for index in mine]
            check(asked)

            def done(place: int, response: Any) -> None:
                score = benchmark.score(asked[place], response) if benchmark.score else UNSCORED
                samples.append(store.sample_row(Scored(asked[place], response, score), keep_prompt=not args.no_prompts))

            ask(engine, asked, done)
        finally:
            samples.close()
    team.wait()


def shared_work(benchmark: Benchmark, team: workers.Team, todo: Sequence[int] = ()) -> list[int]:
    """The places of the samples that this process answers. todo: all that are left, as the leader sees it."""
    left = team.share(list(todo))
    mine = workers.shares([benchmark.samples[index] for index in left], team.size)[team.rank]
    return [left[place] for place in mine]


def ask(engine: Engine, samples: Sequence[Sample], done: Callable[[int, Any], None]) -> None:
    """Sends the samples' requests to the engine, each kind in one call."""
    for kind, call in ((Choose, "choose"), (Generate, "generate"), (Measure, "measure")):
        places = [place for place, sample in enumerate(samples) if isinstance(sample.request, kind)]
        if places:
            requests: list[Any] = [samples[place].request for place in places]
            getattr(engine, call)(requests, partial(_hand_over, places, done))


def _hand_over(places: Sequence[int], done: Callable[[int, Any], None], index: int, answer: Any) -> None:
    """Gives the answer to the index-th request of one kind to the sample it is of."""
    done(places[index], answer)


def progress(total: int, name: str, off: bool) -> Any:
    """A bar on stderr with counts, rate and time left."""
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="item", disable=off, file=sys.stderr, mininterval=0.5, smoothing=0.1)
