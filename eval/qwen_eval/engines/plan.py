"""From multiple-choice requests to rows of tokens. No model here.

A row is one token sequence the model must read, with the positions at its end where its next-token distribution is
needed. A question whose options are one token each is a single row; longer continuations make one row an option.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qwen_eval.schema import Choose, Chosen, DoesNotFit, InputError


class Encoder(Protocol):
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...


@dataclass(frozen=True, eq=False)
class Row:
    """ids: int32 [length], what the model reads. targets: one tuple per scored position, for the last len(targets)
    positions: the token ids whose log-probabilities are wanted there. request: index of the request it belongs to.
    options: the indices of the options it answers (targets of a multi-token continuation are summed). own, whole: how many
    of the last positions count for Chosen.logprobs and for Chosen.totals; 0 for all of them."""

    ids: np.ndarray
    targets: tuple[tuple[int, ...], ...]
    request: int
    options: tuple[int, ...]
    own: int = 0
    whole: int = 0


@dataclass(frozen=True)
class Encoded:
    """A request in tokens: its rows, and what Chosen reports of the prompt."""

    rows: tuple[Row, ...]
    shots_used: int
    prompt_tokens: int
    truncated: bool

    def chosen(self, scores: Mapping[int, Sequence[float]], totals: bool) -> Chosen:
        """The answer. scores: by option, the log-probabilities at the positions that its row scores. totals: whether those
        of whole options are wanted, too."""
        rows = {option: row for row in self.rows for option in row.options}
        order = sorted(rows)
        return Chosen(
            tuple(_sum(scores[option][-rows[option].own :]) for option in order),
            self.shots_used,
            self.prompt_tokens,
            self.truncated,
            tuple(_sum(scores[option][-rows[option].whole :]) for option in order) if totals else (),
        )


def _sum(values: Sequence[float]) -> float:
    """The sum from left to right (from Python 3.12 on, `sum` compensates), so that all engines round alike."""
    total = 0.0
    for value in values:
        total += float(value)
    return total


def encode_requests(
    requests: Sequence[Choose], tokenizer: Encoder, context_limit: int, chunk: int = 256
) -> list[Encoded]:
    """Tokenizes requests, in chunks that bound the memory of Python integers. Raises InputError for an option that
    adds no token to its prompt, or shares none with the others, DoesNotFit for a prompt that is too long without shots and
    not to be cut."""
    encoded: list[Encoded] = []
    for start in range(0, len(requests), chunk):
        part = requests[start : start + chunk]
        drops = [0] * len(part)
        done: list[Encoded | None] = [None] * len(part)
        waiting = list(range(len(part)))
        while waiting:  # each round drops one more shot of the prompts that did not fit
            for index, result in zip(
                waiting, _encode(part, waiting, drops, tokenizer, start, context_limit), strict=True
            ):
                if result is None:
                    drops[index] += 1
                else:
                    done[index] = result
            waiting = [index for index in waiting if done[index] is None]
        encoded += [result for result in done if result is not None]
    return encoded


def _encode(
    part: Sequence[Choose], waiting: Sequence[int], drops: Sequence[int], tokenizer: Encoder, start: int, limit: int
) -> Iterator[Encoded | None]:
    """Yields the encoding of each waiting request, or None when it is too long and still has a shot to drop."""
    texts: list[str] = []
    for index in waiting:
        text = part[index].prompt(drops[index])
        if part[index].scoring != "isolated":
            texts += [text + option for option in part[index].options]
        texts.append(text)
    ids = iter(tokenizer.encode_batch(texts))
    start_ids = tokenizer.encode_batch([""])[0]
    isolated: dict[str, int] = {}
    for index in waiting:
        request = part[index]
        first = 0 if request.bos else len(start_ids)
        full = [np.array(next(ids)[first:], dtype=np.int32) for _ in request.options if request.scoring != "isolated"]
        prompt = np.array(next(ids)[first:], dtype=np.int32)
        if request.scoring == "split":
            yield _encode_split(request, full, len(prompt), start + index, drops[index], limit)
            continue
        if request.scoring == "context":
            shared, continuations = split_options(full)
        else:
            shared = prompt
            continuations = [(_single_token(option, tokenizer, isolated),) for option in request.options]
        if not len(shared):
            raise InputError(
                f"the options {request.options} share no token of the prompt; this tokenizer needs a longer prompt"
            )
        allowed = limit if request.limit is None else request.limit
        fed = len(shared) + max(len(tokens) for tokens in continuations) - 1
        truncated, cut = False, 0
        if request.overflow != "none" and fed > allowed:
            if request.overflow == "drop_shots":
                if drops[index] == len(request.shots):
                    raise DoesNotFit(fed, allowed)
                yield None
                continue
            # a whole option is scored after at least one token of its prompt, which may end before `shared` does
            least = 1 + (max(0, len(shared) - len(prompt)) if request.totals else 0)
            cut = max(0, len(shared) - max(least, allowed - (fed - len(shared))))
            shared = shared[cut:]
            truncated = True
        rows = _rows(request, shared, continuations, len(prompt) - cut, start + index)
        yield Encoded(rows, len(request.shots) - drops[index], len(prompt), truncated)


def read_tokens(requests: Sequence[Choose], tokenizer: Encoder, chunk: int = 256) -> list[int]:
    """By request the tokens that the model reads for its longest option, as the request stands (the last token is read by
    nobody)."""
    found: list[int] = []
    start_ids = len(tokenizer.encode_batch([""])[0])
    for start in range(0, len(requests), chunk):
        part = requests[start : start + chunk]
        ends = [("",) if request.scoring == "isolated" else request.options for request in part]
        texts = [request.prompt() + end for request, own in zip(part, ends, strict=True) for end in own]
        lengths = map(len, tokenizer.encode_batch(texts))
        for request, own in zip(part, ends, strict=True):
            longest = max(next(lengths) for _ in own)
            unread = 0 if request.scoring == "isolated" else 1
            found.append(longest - unread - (0 if request.bos else start_ids))
    return found


def _encode_split(
    request: Choose, full: Sequence[np.ndarray], prompt: int, index: int, drops: int, limit: int
) -> Encoded:
    """One request with scoring "split". full: the ids of prompt + option, by option. prompt: length of the prompt alone."""
    allowed = (limit if request.limit is None else request.limit) if request.overflow == "keep_last" else None
    rows, truncated = [], False
    for option, ids in enumerate(full):
        own = ids[prompt:].tolist()
        if not own or not prompt:
            raise _adds_nothing(request, option)
        fed = ids[:-1] if allowed is None else ids[:-1][-max(allowed, len(own)) :]
        truncated = truncated or len(fed) < len(ids) - 1
        rows.append(Row(fed, tuple((token,) for token in own), index, (option,)))
    return Encoded(_merged(rows), len(request.shots) - drops, prompt, truncated)


def _adds_nothing(request: Choose, option: int) -> InputError:
    return InputError(f"the option {request.options[option]!r} adds no token to its prompt in this tokenizer")


def split_options(full: Sequence[np.ndarray]) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """The tokens that all encodings of prompt + option share, and each option's own continuation (at least one token).

    full: int32 ids by option. The rule is in docs/protocols.md, "Scoring options by likelihood".
    """
    shared = min(len(ids) for ids in full) - 1  # every option keeps a token of its own
    for ids in full[1:]:
        shared = common_prefix(full[0][:shared], ids)
    return full[0][:shared], [tuple(int(token) for token in ids[shared:]) for ids in full]


def _single_token(option: str, tokenizer: Encoder, known: dict[str, int]) -> int:
    if option not in known:
        ids = tokenizer.encode_batch([option])[0]
        if len(ids) != 1:
            raise InputError(
                f"the option {option!r} is {len(ids)} tokens in this tokenizer; --recipe qwen2023 needs single tokens, "
                "use --recipe default"
            )
        known[option] = ids[0]
    return known[option]


def _rows(
    request: Choose, shared: np.ndarray, continuations: Sequence[tuple[int, ...]], prompt: int, index: int
) -> tuple[Row, ...]:
    """The rows of a request: one per option, one for all where each is a single token after the same tokens.

    prompt: the prompt's length in tokens, at the beginning of `shared`. Where totals are wanted, a row scores all that an
    option's encoding has beyond that number, also what all options begin with. Where the tokenizer joins the prompt's end
    with an option's beginning, the prompt alone may have more tokens than are shared: then the row scores the continuation,
    and the total leaves out its first tokens. Raises InputError for an option that adds no token to the prompt's.
    """
    rows = []
    for option, tokens in enumerate(continuations):
        ids = np.concatenate([shared, np.array(tokens, dtype=np.int32)])
        whole = len(tokens)
        if request.totals and request.scoring == "context":
            whole = len(ids) - max(1, prompt)
            if whole < 1:
                raise _adds_nothing(request, option)
        scored = max(whole, len(tokens))
        targets = tuple((token,) for token in ids[len(ids) - scored :].tolist())
        rows.append(Row(ids[:-1], targets, index, (option,), own=len(tokens), whole=whole))
    return _merged(rows)


def _merged(rows: Sequence[Row]) -> tuple[Row, ...]:
    """One row for all where they read the same tokens and score one position, else the rows as they are."""
    first = rows[0]
    if not all(len(row.targets) == 1 and np.array_equal(row.ids, first.ids) for row in rows):
        return tuple(rows)
    targets = tuple(row.targets[0][0] for row in rows)
    return (Row(first.ids, (targets,), first.request, tuple(range(len(rows)))),)


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading tokens two id arrays share."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length
