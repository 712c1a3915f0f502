"""Splitting options from context, dropping shots, and packs of rows, against brute force."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.engines import plan
from qwen_eval.engines.local.scoring import take_pack
from qwen_eval.schema import Choose, DoesNotFit, InputError


def row(ids: Sequence[int], request: int = 0, positions: int = 1) -> plan.Row:
    return plan.Row(np.array(ids, dtype=np.int32), ((0,),) * positions, request, (0,))


class Words:
    """A tokenizer of whole words and the spaces before them; "ab" merges after "x" as byte-pair encoders do."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        import re

        return [
            [self.ids.setdefault(word, len(self.ids)) for word in re.findall(r"xab| ?\w+|\W", text)] for text in texts
        ]


def test_options_of_one_token_make_one_row() -> None:
    tokenizer = Words()
    request = Choose("h ", ("s one\n", "s two\n"), "q :", (" A", " B"))
    (encoded,) = plan.encode_requests([request], tokenizer, 100)
    (only,) = encoded.rows
    assert [only.targets] == [((tokenizer.ids[" A"], tokenizer.ids[" B"]),)]
    assert len(only.ids) == encoded.prompt_tokens and encoded.shots_used == 2


def test_an_option_that_merges_with_the_prompt_is_scored_from_where_the_options_diverge() -> None:
    """ "x" + "ab" is one token, "x" + "!" two: what they share ends before x."""
    tokenizer = Words()
    (encoded,) = plan.encode_requests([Choose("", (), "q\nx", ("ab", "!"))], tokenizer, 100)
    q, line, x, mark, merged = (tokenizer.ids[word] for word in ("q", "\n", "x", "!", "xab"))
    assert [(item.ids.tolist(), item.targets, item.options) for item in encoded.rows] == [
        ([q, line], ((merged,),), (0,)),
        ([q, line, x], ((x,), (mark,)), (1,)),
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=6), min_size=2, max_size=4))
def test_split_options_puts_every_encoding_back_together(full: list[list[int]]) -> None:
    shared, own = plan.split_options([np.array(ids, dtype=np.int32) for ids in full])
    assert [[*shared.tolist(), *tokens] for tokens in own] == full
    assert all(own)


@pytest.mark.parametrize(("limit", "kept"), [(100, 3), (11, 3), (10, 2), (7, 1), (5, 0)])
def test_shots_are_dropped_whole_first_one_first(limit: int, kept: int) -> None:
    request = Choose("h", (" one\n", " two\n", " three\n"), " q :", (" A", " B"))
    # h=1, a shot=2 (word, line feed), question " q"," ",":" = 3 tokens: 1 + 6 + 3 = 10 tokens and the option
    tokenizer = Words()
    (encoded,) = plan.encode_requests([request], tokenizer, limit - 1)
    assert encoded.shots_used == kept
    words = {number: word for word, number in tokenizer.ids.items()}
    text = "".join(words[int(number)] for number in encoded.rows[0].ids)
    assert text == request.prompt(3 - kept)


def test_a_question_that_is_too_long_alone_keeps_its_end_and_says_so() -> None:
    request = Choose("", (), " ".join("abcdefghij"), (" A", " B"), overflow="keep_last")
    tokenizer = Words()
    (encoded,) = plan.encode_requests([request], tokenizer, 4)
    words = {number: word for word, number in tokenizer.ids.items()}
    assert [words[int(number)] for number in encoded.rows[0].ids] == [" g", " h", " i", " j"]
    assert encoded.truncated


@pytest.mark.parametrize(("limit", "fits"), [(10, True), (9, False)])
def test_what_is_too_long_without_shots_is_never_cut(limit: int, fits: bool) -> None:
    """Ten letters, of which each is a token, are read to score options of one token."""
    request = Choose("", ("one two\n",), " ".join("abcdefghij"), (" A", " B"))
    if fits:
        (encoded,) = plan.encode_requests([request], Words(), limit)
        assert len(encoded.rows[0].ids) == 10 and encoded.shots_used == 0 and not encoded.truncated
    else:
        with pytest.raises(DoesNotFit, match="takes 10 tokens, and the context limit is 9"):
            plan.encode_requests([request], Words(), limit)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab x", min_size=1, max_size=12), min_size=1, max_size=5), st.integers(1, 3), st.booleans())
def test_the_tokens_that_are_read_are_those_of_the_longest_row(words: list[str], options: int, shots: bool) -> None:
    """Counted as the rows are made, which is another way."""
    ends = [f" A{' b' * count}" for count in range(options)] + [" C"]
    requests = [Choose("h", (" s",) * shots, f" {text}:", tuple(ends), overflow="none") for text in words]
    encoded = plan.encode_requests(requests, Words(), 10**6)
    assert plan.read_tokens(requests, Words(), chunk=2) == [max(len(row.ids) for row in item.rows) for item in encoded]


def test_keep_last_keeps_the_last_tokens_of_the_prompt_and_every_shot() -> None:
    request = Choose("h", (" one",), " q r", (" A", " B"), overflow="keep_last", limit=2, scoring="isolated")
    (encoded,) = plan.encode_requests([request], Words(), 100)
    assert len(encoded.rows[0].ids) == 2 and encoded.truncated and encoded.shots_used == 1


def test_an_isolated_option_of_several_tokens_is_refused_with_a_remedy() -> None:
    with pytest.raises(InputError, match="--recipe default"):
        plan.encode_requests([Choose("", (), "q", (" A", " B C"), scoring="isolated")], Words(), 100)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 5), st.integers(1, 20))
def test_packs_hold_every_row_once_within_their_bounds(lengths: list[int], max_rows: int, max_tokens: int) -> None:
    rows = [row([0] * length, index) for index, length in enumerate(lengths)]
    start, seen = 0, []
    while start < len(rows):
        pack = take_pack(rows, start, max_rows, max_tokens)
        assert 1 <= len(pack) <= max_rows
        assert len(pack) == 1 or sum(len(item.ids) for item in pack) <= max_tokens
        seen += [item.request for item in pack]
        start += len(pack)
    assert seen == list(range(len(rows)))
