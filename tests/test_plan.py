"""Grouping rows by prefix, splitting options from context, and dropping shots, against brute force."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines import plan
from harness.schema import Choose, InputError


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


sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(sequences)
def test_groups_cover_every_row_once_and_share_what_they_claim(ids: list[list[int]]) -> None:
    rows = [row(tokens, index) for index, tokens in enumerate(ids)]
    groups = plan.group_rows(rows)
    assert sorted(item.request for group in groups for item in group.rows) == list(range(len(rows)))
    for group in groups:
        prefix = group.rows[0].ids[: group.prefix]
        assert all((item.ids[: group.prefix] == prefix).all() and len(item.ids) > group.prefix for item in group.rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6))
def test_groups_save_at_least_as_much_as_any_single_prefix(ids: list[list[int]]) -> None:
    """No one group that takes all rows of some prefix and leaves the rest alone computes fewer tokens."""
    rows = [row(tokens, index) for index, tokens in enumerate(ids)]
    computed = sum(group.tokens for group in plan.group_rows(rows))
    whole = sum(map(len, ids))
    assert computed <= whole
    prefixes = {tuple(tokens[:length]) for tokens in ids for length in range(1, len(tokens))}
    for prefix in prefixes:
        members = [tokens for tokens in ids if tuple(tokens[: len(prefix)]) == prefix and len(tokens) > len(prefix)]
        if len(members) > 1:
            # the plan is a heuristic over a tree: it may lose to the best single prefix, but by less than one prefix
            assert computed <= whole - (len(members) - 1) * len(prefix) + max(map(len, prefixes))


def test_one_subject_shares_its_shots_and_leaves_strangers_alone() -> None:
    shots = list(range(100, 150))
    other = list(range(200, 230))
    rows = [row([1, *shots, n], n) for n in range(10)] + [row([1, *other, 90 + n], 10 + n) for n in range(5)]
    rows.append(row([7, 8, 9], 15))
    groups = {group.prefix: len(group.rows) for group in plan.group_rows(rows)}
    assert groups == {51: 10, 31: 5, 0: 1}


def test_a_passage_of_two_questions_does_not_split_its_subject() -> None:
    shots = list(range(1000))
    rows = [row([*shots, 2000 + index // 2, 3000 + index], index) for index in range(20)]
    groups = plan.group_rows(rows)
    assert [(group.prefix, len(group.rows)) for group in groups] == [(1000, 20)]


def test_rows_of_different_keys_are_never_grouped() -> None:
    rows = [row([1, 2, 3, n], n) for n in range(4)]
    groups = plan.group_rows(rows, key=lambda item: item.request % 2)
    assert sorted((group.key, group.prefix, len(group.rows)) for group in groups) == [(0, 3, 2), (1, 3, 2)]


def test_a_prefix_leaves_every_scored_position_to_its_row() -> None:
    rows = [row([1, 2, 3, 4, 5], 0, positions=3), row([1, 2, 3, 4, 6], 1, positions=1)]
    assert [group.prefix for group in plan.group_rows(rows)] == [2]


def test_options_of_one_token_make_one_row() -> None:
    tokenizer = Words()
    request = Choose("h ", ("s one\n", "s two\n"), "q :", (" A", " B"))
    (encoded,) = plan.encode_requests([request], tokenizer, 100)
    (only,) = encoded.rows
    assert [only.targets] == [((tokenizer.ids[" A"], tokenizer.ids[" B"]),)]
    assert len(only.ids) == encoded.prompt_tokens and encoded.shots_used == 2


def test_an_option_that_merges_with_the_prompt_is_scored_from_where_the_options_part() -> None:
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
    rows = [row([0] * (2 + length), index) for index, length in enumerate(lengths)]
    start, seen = 0, []
    while start < len(rows):
        pack = plan.take_pack(rows, start, 2, max_rows, max_tokens)
        assert 1 <= len(pack) <= max_rows
        assert len(pack) == 1 or sum(len(item.ids) - 2 for item in pack) <= max_tokens
        seen += [item.request for item in pack]
        start += len(pack)
    assert seen == list(range(len(rows)))
