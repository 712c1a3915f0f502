"""Items that do not fit the context: an error before the run or, where that is wanted, unanswered and counted as wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_eval.schema import (
    Choose,
    Chosen,
    Engine,
    Generate,
    Generated,
    InputError,
    Measure,
    Measured,
    Metric,
    Request,
    Scored,
    Unanswered,
)
from qwen_eval.stats import intervals
from qwen_eval.tasks.benchmark import Benchmark


def find(benchmark: Benchmark, engine: Engine) -> Mapping[str, Unanswered]:
    """By id the items that do not fit the engine's context and, with --too-long wrong, are not to be asked. No weights are
    loaded.

    Raises InputError, which says how many they are and what to set: without that option; where a reply leaves no room for any
    prompt; where no item fits; and for texts to be measured, which cannot be wrong.
    """
    found = engine.too_long([sample.request for sample in benchmark.asked])
    if not found:
        return {}
    requests = [benchmark.asked[index].request for index in found]
    no_room = any(_reply(request) >= one.limit for request, one in zip(requests, found.values(), strict=True))
    measured = any(isinstance(request, Measure) for request in requests)
    if benchmark.args.too_long == "error" or len(found) == len(benchmark.asked) or no_room or measured:
        raise InputError(_message(benchmark, found, no_room))
    return {benchmark.asked[index].id: one for index, one in found.items()}


def _message(benchmark: Benchmark, found: Mapping[int, Unanswered], no_room: bool) -> str:
    """How many items do not fit, how long the longest is, and what to set. no_room: whether for replies that are as long as the
    context."""
    index, longest = max(found.items(), key=lambda item: item[1].tokens - item[1].limit)
    request = benchmark.asked[index].request
    reply, room = _reply(request), longest.limit - (longest.tokens - _reply(request))
    own = f", {reply} of them for its reply" if reply else ""
    remedies = [f"set {_longer(benchmark)} to {longest.tokens} or more, if the model can take that"]
    shots = getattr(request, "shots", ())
    dropped = bool(shots) and getattr(request, "overflow", "") == "drop_shots"
    if shots and not dropped:
        remedies.insert(0, "ask for fewer --shots")
    if isinstance(request, Measure):
        remedies.insert(0, "measure shorter --lengths")
    elif reply and room > 0:
        remedies.insert(0, f"set --max-new-tokens to {room} or fewer")
    if not isinstance(request, Measure) and len(found) < len(benchmark.asked):
        remedies.append("count them as wrong, unasked, with --too-long wrong")
    if no_room:
        return (
            f"{benchmark.name}: --max-new-tokens {reply} leaves no room for a prompt in the context of {longest.limit} tokens; "
            f"{', or '.join(remedies)}"
        )
    count = f"{len(found)} of {len(benchmark.asked)} items" if len(benchmark.asked) > 1 else "the only item"
    return (
        f"{benchmark.name}: {count} {'does' if len(found) == 1 else 'do'} not fit the context of {longest.limit} tokens"
        f"{' even without shots' * dropped}: the longest, {benchmark.asked[index].id}, takes {longest.tokens}{own}; "
        f"{', or '.join(remedies)}"
    )


def _reply(request: Request) -> int:
    return request.max_tokens if isinstance(request, Generate) else 0


def _longer(benchmark: Benchmark) -> str:
    return "--max-seq-len (and the server's own limit)" if benchmark.args.engine == "api" else "--max-seq-len"


def empty_response(request: Request, text: str = "") -> Any:
    """A made-up response: all options are equally likely, or this text."""
    if isinstance(request, Choose):
        even = tuple(-1.0 for _ in request.options)
        return Chosen(even, len(request.shots), 1, totals=even if request.totals else ())
    if isinstance(request, Generate):
        count = request.samples
        return Generated((text,) * count, ("",) * count, ("eos",) * count, 1, (0,) * count)
    return Measured((1.0,), (1,), (1,), (1,), 0)


def share(scored: Sequence[Scored]) -> list[Metric]:
    """The share of items that were not asked; nothing where there are none."""
    flags = [float(isinstance(item.response, Unanswered)) for item in scored]
    return [intervals.share("unanswered", "all", flags)] if any(flags) else []


def remark(benchmark: Benchmark) -> list[str]:
    """A sentence for the table on items that were not asked; nothing where there are none."""
    if not benchmark.too_long:
        return []
    limit = min(one.limit for one in benchmark.too_long.values())
    return [
        f"warning: {len(benchmark.too_long)} of {len(benchmark.asked)} items do not fit the context of {limit} tokens: they "
        "were not asked and count as wrong"
    ]
