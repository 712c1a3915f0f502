"""Splitting options from context, dropping shots, and packs of rows, against brute force."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.engines import plan
from qwen_eval.engines.local.scoring import take_pack
from qwen_eval.schema import Choose, InputError


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
    request = Choose("", (), " ".join("abcdefghij"), (" A", " B"))
    tokenizer = Words()
    (encoded,) = plan.encode_requests([request], tokenizer, 4)
    words = {number: word for word, number in tokenizer.ids.items()}
    assert [words[int(number)] for number in encoded.rows[0].ids] == [" g", " h", " i", " j"]
    assert encoded.truncated


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
