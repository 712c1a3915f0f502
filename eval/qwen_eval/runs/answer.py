"""Gets a response to every sample of a benchmark: stored ones are kept, the others are requested, stored and scored as they
arrive."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from qwen_eval.engines.prompting import split_again
from qwen_eval.runs import workers
from qwen_eval.runs.samples import (
    SampleFile,
    rank_name,
    read_rank_files,
    remove_rank_files,
    run_lock,
    sample_row,
    stored_response,
    withheld,
)
from qwen_eval.runs.unanswered import empty_response
from qwen_eval.schema import Choose, Engine, Generate, Generated, Measure, Sample, Score, Scored, Unanswered
from qwen_eval.tasks import judging
from qwen_eval.tasks.benchmark import Benchmark

Check: TypeAlias = Callable[[Sequence[Sample]], object]

UNSCORED = Score({}, None)


def answer(
    benchmark: Benchmark,
    engine: Engine,
    run_id: str,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    check: Check = lambda samples: None,
    processes: workers.Processes = workers.SINGLE,
) -> list[Scored]:
    """Every sample with its response and score, in the benchmark's order.

    given: rows of another run whose responses are used for this one. check: called with the samples to be asked, before
    they are. processes: those that share the work, of which this one is rank 0. Raises InputError for stored rows that
    cannot be read and for a failure to write.
    """
    args, asked = benchmark.args, benchmark.asked
    file = SampleFile(args.output_dir, run_id)
    try:
        stored = file.read()
        # the other processes of an interrupted run may have left their files
        before = {**file.kept(), **read_rank_files(args.output_dir, run_id), **stored}
        if before and not args.quiet:
            print(f"{len(before)} of {len(asked)} items were answered before", file=sys.stderr)
        known = {**{name: row for name, row in (given or {}).items() if not withheld(row)}, **before}
        responses: dict[int, Any] = {}
        scores: dict[int, Score] = {}
        left: list[int] = []

        def take(index: int, response: Any) -> None:
            """Scores a response, unless all are scored together at the end, and stores it if it is new."""
            sample = asked[index]
            responses[index] = response
            if not benchmark.together:
                scores[index] = score_one(benchmark, sample, response)
            if sample.id not in stored:
                item = Scored(sample, response, scores.get(index, UNSCORED))
                file.append(sample_row(item, keep_prompt=not args.no_prompts))

        for index, sample in enumerate(asked):
            if sample.id in benchmark.too_long:
                take(index, benchmark.too_long[sample.id])
            elif sample.id in known:
                response = stored_response(known[sample.id])
                if sample.id not in before and isinstance(response, Generated) and isinstance(sample.request, Generate):
                    response = split_again(sample.request, response)
                take(index, response)
            else:
                left.append(index)
        remove_rank_files(args.output_dir, run_id)
        left = own_share(benchmark, processes, left)
        check([asked[index] for index in left])
        with progress(len(left), benchmark.name, args.quiet or not left) as bar:

            def done(position: int, response: Any) -> None:
                take(left[position], response)
                bar.update()

            ask(engine, [asked[index] for index in left], done)
        processes.barrier()
        indices = {sample.id: index for index, sample in enumerate(asked)}
        for name, row in read_rank_files(args.output_dir, run_id).items():
            take(indices[name], stored_response(row))
        remove_rank_files(args.output_dir, run_id)
        order = range(len(asked))
        if benchmark.together:
            with progress(len(order), f"{benchmark.name} scores", args.quiet) as bar:
                replies = [scorable(asked[index], responses[index]) for index in order]
                together = benchmark.score_all(asked, replies, engine.token_texts, bar.update)
            scores = {index: final(benchmark, asked[index], responses[index], together[index]) for index in order}
        scored = [Scored(asked[index], responses[index], scores[index]) for index in order]
        moved = any(stored[sample.id].get("cluster", "?") != sample.cluster for sample in asked if sample.id in stored)
        if benchmark.together or moved:
            file.replace([sample_row(item, keep_prompt=not args.no_prompts) for item in scored])
        return scored
    finally:
        file.close()


def answer_share(benchmark: Benchmark, engine: Engine, run_id: str, check: Check, processes: workers.Processes) -> None:
    """Answers the share of a process other than rank 0 into a file of its own, which rank 0 merges."""
    args = benchmark.args
    share = own_share(benchmark, processes)
    name = rank_name(run_id, processes.rank)
    with run_lock(args.output_dir, name):
        file = SampleFile(args.output_dir, name)
        try:
            asked = [benchmark.asked[index] for index in share]
            check(asked)

            def done(position: int, response: Any) -> None:
                sample = asked[position]
                score = UNSCORED if benchmark.together else score_one(benchmark, sample, response)
                file.append(sample_row(Scored(sample, response, score), keep_prompt=not args.no_prompts))

            ask(engine, asked, done)
        finally:
            file.close()
    processes.barrier()


def score_one(benchmark: Benchmark, sample: Sample, response: Any) -> Score:
    """The score of one response, or of an item that was not asked; of a response that cannot be judged that of a wrong one."""

    def wrong() -> Score:
        return benchmark.unanswered(sample, benchmark.score(sample, empty_response(sample.request)))

    def judge() -> Score:
        return final(benchmark, sample, response, benchmark.score(sample, scorable(sample, response)))

    return judging.guarded(sample.id, judge, wrong)


def scorable(sample: Sample, response: Any) -> Any:
    """What is given to the benchmark: of an item that was not asked an empty response."""
    return empty_response(sample.request) if isinstance(response, Unanswered) else response


def final(benchmark: Benchmark, sample: Sample, response: Any, score: Score) -> Score:
    return benchmark.unanswered(sample, score) if isinstance(response, Unanswered) else score


def own_share(benchmark: Benchmark, processes: workers.Processes, left: Sequence[int] = ()) -> list[int]:
    """The indices of the samples that this process answers. left: of rank 0, the indices of all that are to be asked."""
    left = processes.broadcast(list(left))
    share = workers.split_work([benchmark.asked[index] for index in left], processes.size)[processes.rank]
    return [left[position] for position in share]


def ask(engine: Engine, samples: Sequence[Sample], done: Callable[[int, Any], None]) -> None:
    """Sends the samples' requests to the engine, one call per kind. done: called with a sample's position and its response."""
    for kind, call in ((Choose, "choose"), (Generate, "generate"), (Measure, "measure")):
        positions = [index for index, sample in enumerate(samples) if isinstance(sample.request, kind)]
        if positions:
            requests: list[Any] = [samples[index].request for index in positions]
            getattr(engine, call)(requests, partial(_pass_on, positions, done))


def _pass_on(positions: Sequence[int], done: Callable[[int, Any], None], index: int, response: Any) -> None:
    """Calls `done` for the response to the index-th request of a kind, with the position of its sample."""
    done(positions[index], response)


def progress(total: int, name: str, off: bool) -> Any:
    """A progress bar on stderr with counts, rate and time left."""
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="item", disable=off, file=sys.stderr, mininterval=0.5, smoothing=0.1)
