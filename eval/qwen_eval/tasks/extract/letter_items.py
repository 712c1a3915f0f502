"""The labelled options of a chat reply: which of them are a list, and what is judged of each.

A list of options says nothing about which one is the answer, however it is written: on one line, in part, reworded, in
another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from qwen_eval.tasks.extract import letter_tokens as lt
from qwen_eval.tasks.extract.letter_labels import MARKS, Item, labels_of
from qwen_eval.tasks.extract.letter_tokens import Token
from qwen_eval.tasks.extract.letter_verdicts import clauses, judged, mark_before


def items(found: Sequence[Token], texts: Sequence[str], negative: bool = False) -> list[Item]:
    """The labelled options of a reply in order.

    found: its tokens; texts: the options in normal form, whose own "True" or "正确" is no verdict. negative: the question
    asks for what is not so, so that "A. Paris is not in Italy" answers it.
    """
    labels = labels_of(found)
    for index, item in enumerate(labels):
        following = labels[index + 1].first if index + 1 < len(labels) else len(found)
        item.head = item.end = following
        item.head = _head(found, item)
    kept: list[Item] = []
    lists: list[str] = []  # the first letters of the lists before
    for run in _runs(labels):
        if run[0].announced and not _lists_all(found, run):
            run = run[1:]
        lead = len(run) > 1 and _leads(found, run, texts, negative)
        for item in run:
            item.listed = len(run) - lead > 1 and not (lead and item is run[0])
        if len(run) == 1 and lists[-2:] == [run[0].letter] * 2:
            run[0].listed = True  # the same list over and over, cut in its first line
        lists += [run[0].letter] if run and run[0].listed else []
        if run:
            run[-1].end = _end_of_last(found, run)
        marked_before = bool(run) and run[0].label > run[0].first and mark_before(found, run[0], True) is not None
        for item in run:
            item.right = judged(found, item, texts, negative, marked_before)
        kept += run
    return kept


def _runs(labels: Sequence[Item]) -> Iterator[list[Item]]:
    """The items in runs; one that names a letter again, is announced or is written in another way begins another run."""
    run: list[Item] = []
    for item in labels:
        if run and (item.announced or item.bare != run[0].bare or any(other.letter == item.letter for other in run)):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _lists_all(found: Sequence[Token], run: Sequence[Item]) -> bool:
    """Whether an announced item begins a list all the same: the next letters follow it, and none says more than a text."""
    letters = [item.letter for item in run]
    ascending = letters == [chr(ord(letters[0]) + step) for step in range(len(run))]
    saying = {lt.IS, lt.GOOD, lt.BAD, lt.NOT, lt.EXCEPT, lt.ANSWER, lt.PICK, lt.BREAK, *MARKS}
    clauses = (found[item.label + 1 : item.head] for item in run)
    short = all(not saying & {token.kind for token in _first_clause(clause)} for clause in clauses)
    return len(run) > 1 and ascending and short


def _first_clause(tokens: Sequence[Token]) -> list[Token]:
    """The first clause of an item, after the mark of its label."""
    return next((clause.tokens for clause in clauses(tokens)), [])


def _leads(found: Sequence[Token], run: Sequence[Item], texts: Sequence[str], negative: bool) -> bool:
    """Whether the first item of a run is an answer, and the others discuss the options."""
    first, rest = run[0], run[1:]
    region = {item.letter: found[item.label + 1 : item.end] for item in run}
    if _prose(region[first.letter]) and not all(_prose(region[item.letter]) for item in rest[:-1] or rest):
        return True
    apart = _paragraph(region[first.letter]) and not any(_paragraph(region[item.letter]) for item in rest[:-1])
    others_wrong = all(judged(found, item, texts, negative) is False for item in rest)
    backwards = ord(rest[0].letter) != ord(first.letter) + 1
    short = _only_text(found[first.label + 1 : first.end], first.letter)
    if judged(found, first, texts, negative) is None and others_wrong and short:
        return backwards or apart
    if not backwards:
        return False
    explained = not any(_only_text(found[item.label + 1 : item.head], item.letter) for item in rest)
    by_words = all(lt.TEXT in {token.kind for token in region[item.letter]} for item in rest)
    return (apart and (explained or len(rest) > 1)) or (short and explained and by_words)


def _paragraph(tokens: Sequence[Token]) -> bool:
    """Whether a paragraph ends among the tokens."""
    return any(token.kind == following.kind == lt.LINE for token, following in pairwise(tokens))


def _prose(tokens: Sequence[Token]) -> bool:
    """Whether a paragraph ends among the tokens and another begins."""
    kinds = [token.kind for token in tokens]
    return any(
        kinds[index] == kinds[index + 1] == lt.LINE and kinds[index + 2] != lt.LINE for index in range(len(kinds) - 2)
    )


def _only_text(tokens: Sequence[Token], letter: str) -> bool:
    """Whether what follows a label is the words of its own option, or nothing."""
    left = [token for token in tokens if token.kind not in (lt.END, lt.LINE, lt.COMMA, lt.COLON, lt.LIST)]
    return all(token.kind == lt.TEXT and token.letters == {letter} for token in left)


def _head(found: Sequence[Token], item: Item) -> int:
    """Where the first sentence of an item ends; the mark of its label does not end it."""
    start = item.label + 1
    while start < item.end and found[start].kind in (lt.END, lt.COLON):
        start += 1
    for index in range(start, item.end):
        if found[index].kind in (lt.END, lt.LINE, lt.ASK):
            return index
    return item.end


def _end_of_last(found: Sequence[Token], run: Sequence[Item]) -> int:
    """Where the last item of a run ends: it is as long as those before it (a sentence, a line, a paragraph)."""
    last, others = run[-1], run[:-1]
    if not last.listed:
        following = next((index for index in range(last.head + 1, last.end) if found[index].kind != lt.LINE), last.end)
        return next((index for index in range(following, last.end) if found[index].kind == lt.END), last.end)
    regions = [found[item.head : item.end] for item in others if item.listed]
    lines = max((sum(token.kind == lt.LINE for token in region[:-1]) for region in regions), default=0)
    texts = [[token for token in region if token.kind not in (lt.END, lt.LINE)] for region in regions]
    if not any(texts):
        return last.head
    seen, allowed = 0, lines if any(_prose([*region, found[-1]]) or lines for region in regions) else 0
    for index in range(last.head, last.end):
        if found[index].kind == lt.LINE:
            seen += 1
            if seen > allowed:
                return index
    return last.end
