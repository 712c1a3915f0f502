"""The labels of options in a chat reply: "A.", "(B)", "Option C:", "D、"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_eval.tasks.extract import letter_tokens as lt
from qwen_eval.tasks.extract.letter_tokens import Token

MARKS = {lt.TICK, lt.CROSS}
_ANNOUNCING = {lt.ANSWER, lt.PICK, lt.IS}
_BEFORE = {lt.LABEL, *MARKS}  # what may stand between the start of an item and its label
_SEPARATORS = {lt.LINE, lt.END, lt.COMMA, lt.LIST, lt.ASK, lt.COLON, lt.LABELS}
_TEXTS = {lt.TEXT, lt.OTHER, lt.GOOD, lt.BAD, lt.FILLER, *MARKS}  # how an item ends that nothing divides from the next
_FAR = 100  # tokens; what is farther apart is not looked at together, which bounds the work for each letter
_SHORT = 8  # tokens; a line of nothing but an option's text has fewer


@dataclass
class Item:
    """An option's label and what follows it.

    letter: the option. first, label, head, end: indices of tokens: its start (of "Option A"), its letter, the ends of its
    first sentence and of all that belongs to it. announced: something leads to it ("The answer is A. copper"). bare: the
    letter is all of its line. listed: it is one of a list. right: what is judged of the option; None where nothing is.
    """

    letter: str
    first: int
    label: int
    head: int = 0
    end: int = 0
    announced: bool = False
    bare: bool = False
    listed: bool = False
    right: bool | None = None


def labels_of(found: Sequence[Token]) -> list[Item]:
    """The letters that label something, in order."""
    labels: list[Item] = []
    for index, token in enumerate(found):
        if token.kind != lt.LETTER or len(token.letters) != 1:
            continue
        letter, first = min(token.letters), index
        while first and found[first - 1].kind in _BEFORE and not (first - 1 and _closes(found, first - 1, labels)):
            first -= 1
        if not labels and letter == "B" and _unlabelled(found, first):
            labels.append(Item("A", 0, 0))
        previous = labels[-1] if labels else None
        if _goes_on(found, index, labels):
            labels.append(Item(letter, first, index, bare=labels[-1].bare))
        elif token.opens and _ends_line(found, index):
            labels.append(Item(letter, first, index, announced=_announces(found, first), bare=True))
        elif _marked(found, index) and (announced := _announced(found, first, index, previous)) is not None:
            labels.append(Item(letter, first, index, announced=announced))
    return labels


def _ends_line(found: Sequence[Token], index: int) -> bool:
    """Whether nothing but the mark of a label follows a letter on its line."""
    following = [token.kind for token in found[index + 1 : index + 3]]
    return following[:1] in ([], [lt.LINE]) or (following[:1] == [lt.END] and following[1:] in ([], [lt.LINE]))


def _closes(found: Sequence[Token], index: int, labels: Sequence[Item]) -> bool:
    """Whether a mark ends the item before it: "A. copper ✗ B. iron", unless the marks stand before the labels."""
    if found[index].kind not in MARKS or found[index - 1].kind == lt.LINE or not labels:
        return False
    run = labels[-1]
    return not (run.first < run.label and found[run.label - 1].kind in MARKS)


def _marked(found: Sequence[Token], index: int) -> bool:
    """Whether a letter has the mark of a label after it, or an option's words, or a verdict's mark on either side."""
    token = found[index]
    at = index + 1 + (index + 1 < len(found) and found[index + 1].kind == lt.LABEL)  # A项：
    after, second = (found[step].kind if step < len(found) else "" for step in (at, at + 1))
    if after == lt.END:
        return found[at].word in (".", "。") and second != ""
    before = found[index - 1].kind if index else ""
    if after in MARKS or before in MARKS or token.label or token.marked:
        return True
    return after in (lt.COLON, lt.TEXT) or (after in (lt.LIST, lt.COMMA) and second in (lt.TEXT, lt.OTHER, *MARKS))


def _announced(found: Sequence[Token], first: int, index: int, previous: Item | None) -> bool | None:
    """Whether something announces the letter ("is A."); None where it stands inside a clause and labels nothing."""
    before = found[first - 1] if first else None
    if before is None or found[index].opens or before.kind == lt.COLON or before.word in lt.DASHES:
        return _announces(found, first)
    if before.kind in _SEPARATORS or (previous is not None and previous.label == first - 1):
        return False
    kinds = _before(found, first)
    if before.kind in _ANNOUNCING or (before.kind in (lt.FILLER, lt.LINK) and kinds & _ANNOUNCING):
        return True
    if kinds <= {lt.FILLER, lt.LABEL}:
        return False  # "Both A. copper and B. iron"
    if before.kind == lt.TEXT and before.letters == found[index].letters:
        return None  # a gloss: "nitrogen (B)"
    if (
        before.kind in _TEXTS
        and previous is not None
        and first - previous.label < _FAR
        and previous.letter != found[index].word.upper()
    ):
        between = {token.kind for token in found[previous.label + 1 : first]}
        return None if between & {lt.LINE, lt.ANSWER, lt.PICK} else False
    return None


def _announces(found: Sequence[Token], first: int) -> bool:
    """Whether what stands before an item leads to it, on the same line or the one before: "Answer:", "I choose",
    "Incorrect options:"."""
    index = first - 1
    while index >= 0 and (found[index].kind == lt.LINE or found[index].word in lt.DASHES):
        index -= 1
    if index < 0 or (found[index].kind not in (lt.COLON, *_ANNOUNCING) and found[first - 1].word not in lt.DASHES):
        return False
    kinds = _before(found, index + 1) - {lt.COLON}
    heads = bool(kinds & {lt.GOOD, lt.BAD}) and kinds <= {lt.GOOD, lt.BAD, lt.LABEL, lt.LABELS, lt.FILLER}
    return heads or (bool(kinds & _ANNOUNCING) and lt.LABELS not in kinds)


def _before(found: Sequence[Token], first: int) -> set[str]:
    """The kinds of the tokens before an item, back to the end of a clause or to another letter."""
    kinds: set[str] = set()
    for token in reversed(found[max(0, first - _FAR) : first]):
        if token.kind in (lt.END, lt.LINE, lt.ASK, lt.COMMA, lt.LETTER):
            break
        kinds.add(token.kind)
    return kinds


def _goes_on(found: Sequence[Token], index: int, labels: Sequence[Item]) -> bool:
    """Whether a letter that ends the reply goes on with a list that was cut: "A. copper\nB. iron\nC.". It is as many lines
    below the item before it as that one is below its own."""
    if (
        not labels
        or not found[index].opens
        or any(token.kind != lt.END for token in found[index + 1 : index + 3])
        or ord(min(found[index].letters)) != ord(labels[-1].letter) + 1
    ):
        return False
    lines = _lines(found, labels[-1].label, index)
    return lines == 1 or (len(labels) > 1 and lines == 2 == _lines(found, labels[-2].label, labels[-1].label))


def _lines(found: Sequence[Token], label: int, following: int) -> int:
    """How many lines below a label the following one is."""
    return sum(token.kind == lt.LINE for token in found[label + 1 : following])


def _unlabelled(found: Sequence[Token], first: int) -> bool:
    """Whether all that stands before an item B is the text of A in the line above: a prompt may end in "A."."""
    if first > _SHORT:
        return False
    before = [token.kind for token in found[:first]]
    return before[-1:] == [lt.LINE] and bool(before[:-1]) and set(before[:-1]) <= {lt.TEXT, lt.END, lt.COMMA}
