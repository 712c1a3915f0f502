"""The labelled options of a chat reply ("A. copper", "(B) iron"): which of them are a list, and what is judged of each.

A list of options says nothing about which one is the answer, however it is written: on one line, in part, reworded, in
another order. An item can judge its own option, in words ("C. zinc: correct", 不符合题意) or by a mark (✅, ×).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from qwen_eval.tasks.extract import letter_tokens as lt
from qwen_eval.tasks.extract.letter_tokens import Token

_MARKS = {lt.TICK, lt.CROSS}
_BEFORE = {lt.LABEL, *_MARKS}  # what may stand between the start of an item and its label
_SEPARATORS = {lt.LINE, lt.END, lt.COMMA, lt.LIST, lt.ASK, lt.COLON, lt.LABELS}
_TEXTS = {
    lt.TEXT,
    lt.OTHER,
    lt.GOOD,
    lt.BAD,
    lt.FILLER,
    *_MARKS,
}  # the end of an item that nothing divides from the next
_ANNOUNCING = {lt.ANSWER, lt.PICK, lt.IS}
_BOUNDS = {lt.END, lt.COMMA, lt.LINE, lt.ASK, lt.BREAK, lt.THEREFORE, lt.CONTRAST, lt.COLON, *_MARKS}
_FAR = 100  # tokens; what is farther apart is not looked at together, which bounds the work for each letter
_SHORT = 8  # tokens; a line of nothing but an option's text has fewer
_YES, _NO = ("yes", "是", "选"), ("no", "否", "不", "不是", "不选")
_ANSWERS = ("answer", "ans", "choice", "答案", "正解", "答案选项")  # not "result", which options speak of
_THIS = ("this", "that", "这", "这个", "该", "此")
_EMPTY = {lt.FILLER, lt.LABEL}  # says nothing that matters here
_STATEMENTS = ("statement", "claim", "assertion", "sentence", "说法", "叙述", "描述", "表述", "观点")
_CLAIMED = ("false", "untrue")  # is said of a statement, which may be the answer for that very reason


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


class Clause(NamedTuple):
    """Tokens of an item between two breaks; after: the break before them; end: the kind of the one behind them."""

    tokens: list[Token]
    after: Token
    end: str


def items(found: Sequence[Token], texts: Sequence[str], negative: bool = False) -> list[Item]:
    """The labelled options of a reply in order.

    found: its tokens; texts: the options in normal form, whose own "True" or "正确" is no verdict. negative: the question
    asks for what is not so, so that "A. Paris is not in Italy" answers it.
    """
    labels = _labels(found)
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
        marked_before = bool(run) and run[0].label > run[0].first and _mark_before(found, run[0], True) is not None
        for item in run:
            item.right = _judged(found, item, texts, negative, marked_before)
        kept += run
    return kept


# -- labels ---------------------------------------------------------------------------------------------------------


def _labels(found: Sequence[Token]) -> list[Item]:
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
        if _goes_on(found, index, previous):
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
    if found[index].kind not in _MARKS or found[index - 1].kind == lt.LINE or not labels:
        return False
    run = labels[-1]
    return not (run.first < run.label and found[run.label - 1].kind in _MARKS)


def _marked(found: Sequence[Token], index: int) -> bool:
    """Whether a letter has the mark of a label after it, or an option's words, or a verdict's mark on either side."""
    token = found[index]
    at = index + 1 + (index + 1 < len(found) and found[index + 1].kind == lt.LABEL)  # A项：
    after, second = (found[step].kind if step < len(found) else "" for step in (at, at + 1))
    if after == lt.END:
        return found[at].word in (".", "。") and second != ""
    before = found[index - 1].kind if index else ""
    if after in _MARKS or before in _MARKS or token.label or token.marked:
        return True
    return after in (lt.COLON, lt.TEXT) or (after in (lt.LIST, lt.COMMA) and second in (lt.TEXT, lt.OTHER, *_MARKS))


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


def _goes_on(found: Sequence[Token], index: int, previous: Item | None) -> bool:
    """Whether a letter that ends the reply goes on with a list that was cut: "A. copper\nB. iron\nC."."""
    if (
        previous is None
        or not found[index].opens
        or any(token.kind != lt.END for token in found[index + 1 : index + 3])
    ):
        return False
    between = [token.kind for token in found[previous.label + 1 : index]]
    return between.count(lt.LINE) == 1 and ord(min(found[index].letters)) == ord(previous.letter) + 1


def _unlabelled(found: Sequence[Token], first: int) -> bool:
    """Whether all that stands before an item B is the text of A in the line above: a prompt may end in "A."."""
    if first > _SHORT:
        return False
    before = [token.kind for token in found[:first]]
    return before[-1:] == [lt.LINE] and bool(before[:-1]) and set(before[:-1]) <= {lt.TEXT, lt.END, lt.COMMA}


# -- lists ----------------------------------------------------------------------------------------------------------


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
    saying = {lt.IS, lt.GOOD, lt.BAD, lt.NOT, lt.EXCEPT, lt.ANSWER, lt.PICK, lt.BREAK, *_MARKS}
    clauses = (found[item.label + 1 : item.head] for item in run)
    short = all(not saying & {token.kind for token in _first_clause(clause)} for clause in clauses)
    return len(run) > 1 and ascending and short


def _first_clause(tokens: Sequence[Token]) -> list[Token]:
    """The first clause of an item, after the mark of its label."""
    return next((clause.tokens for clause in _clauses(tokens)), [])


def _leads(found: Sequence[Token], run: Sequence[Item], texts: Sequence[str], negative: bool) -> bool:
    """Whether the first item of a run is an answer, and the others discuss the options."""
    first, rest = run[0], run[1:]
    region = {item.letter: found[item.label + 1 : item.end] for item in run}
    if _prose(region[first.letter]) and not all(_prose(region[item.letter]) for item in rest[:-1] or rest):
        return True
    apart = _paragraph(region[first.letter]) and not any(_paragraph(region[item.letter]) for item in rest[:-1])
    others_wrong = all(_judged(found, item, texts, negative) is False for item in rest)
    backwards = ord(rest[0].letter) != ord(first.letter) + 1
    short = _only_text(found[first.label + 1 : first.end], first.letter)
    if _judged(found, first, texts, negative) is None and others_wrong and short:
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


# -- verdicts -------------------------------------------------------------------------------------------------------


def _judged(
    found: Sequence[Token], item: Item, texts: Sequence[str], negative: bool, marked_before: bool = False
) -> bool | None:
    """What an item judges of its option: by a mark, else by the first clause that is a verdict."""
    mark = _mark_before(found, item, marked_before)
    after = {token.kind for token in found[item.label + 1 : item.end]} & _MARKS
    if mark is None and not marked_before and len(after) == 1:
        mark = after == {lt.TICK}
    if mark is not None:
        return mark
    stop = [token for token in found[item.end : item.end + 1] if token.kind == lt.END]
    head_end = found[min(item.head, len(found) - 1)].start
    for number, clause in enumerate(_clauses([*found[item.label + 1 : item.end], *stop])):
        late = not item.listed and clause.tokens[0].start >= head_end
        own_words = number == 0 and "".join(token.word for token in clause.tokens) in {
            text.lower().replace(" ", "") for text in texts
        }
        because = clause.after.kind == lt.BREAK and clause.after.word not in ("which", "who")
        if clause.end != lt.ASK and not own_words and not because:
            verdict = _verdict(clause, item, first=number == 0, late=late, negative=negative)
            if verdict is not None or late:
                return verdict
    return None


def _mark_before(found: Sequence[Token], item: Item, everywhere: bool) -> bool | None:
    """What the mark before a label says, where it opens the line or marks stand before all labels."""
    marks = [index for index in range(item.first, item.label) if found[index].kind in _MARKS]
    if marks and (everywhere or not marks[0] or found[marks[0] - 1].kind == lt.LINE):
        return found[marks[-1]].kind == lt.TICK
    return None


def _clauses(tokens: Sequence[Token]) -> Iterator[Clause]:
    """The clauses of an item that are not empty."""
    clause: list[Token] = []
    after = Token(lt.LINE)
    for token in tokens:
        if token.kind not in _BOUNDS and not (token.kind == lt.LIST and token.word in (*lt.DASHES, "、")):
            clause.append(token)
            continue
        if clause:
            yield Clause(clause, after, token.kind)
            clause = []
        after = token
    if clause:
        yield Clause(clause, after, "")


def _verdict(part: Clause, item: Item, first: bool, late: bool, negative: bool) -> bool | None:
    """Whether a clause of an item says that its option is right, or wrong; None where it says neither.

    first: it begins with the option's text, in whatever words. late: it is a sentence after a single option, which may be
    the answer because what it states is false. negative: the question asks for that.
    """
    clause, end = part.tokens, part.end
    kinds = {token.kind for token in clause}
    if len(clause) == 1 and clause[0].word in (*_YES, *_NO):
        worded = first and (not item.listed or end == lt.COMMA)  # "A. No, ..." may be the option's own words
        return None if worded else clause[0].word in _YES
    if end == lt.COLON and kinds & {lt.ANSWER, lt.LABEL}:
        return None  # "The answer: ..."
    if late and (end == lt.COLON or any(token.word in (*_STATEMENTS, *_CLAIMED) for token in clause)):
        return None  # "Incorrect: A and B" is of others
    negative = negative and not item.listed
    start, own = 0, False
    if first:
        texts = [index for index, token in enumerate(clause) if token.kind == lt.TEXT]
        own = bool(texts) and not any(token.kind == lt.OTHER for token in clause[: texts[0]])
        start = texts[0] + 1 if own else 0
        if not own and any(token.kind == lt.OTHER for token in clause):
            # the words of the option are not known: a verdict on it is the end of the clause, and names what it is about
            verbs = [
                index for index, token in enumerate(clause) if token.kind == lt.IS or (token.kind == lt.NOT and index)
            ]
            noun = any(token.kind in (lt.ANSWER, lt.LABEL, lt.PICK) for token in clause[verbs[0] :]) if verbs else False
            return _predicate(clause[verbs[0] :]) if noun else None
    rest = clause[start:]
    if own and len(rest) == 1 and rest[0].kind == lt.IS:
        return True if end == lt.END else None  # "A. Paris is not the answer. B. Rome is."
    if own and len(rest) == 1 and rest[0].word in (*_YES, *_NO):
        return rest[0].word in _YES
    noun = any(token.kind in (lt.ANSWER, lt.LABEL, lt.PICK) for token in rest)
    verdict = _predicate(rest, own=own and not negative)
    return None if negative and verdict is False and not noun else verdict


def _predicate(tokens: Sequence[Token], own: bool = False) -> bool | None:
    """What a predicate says: "is not the answer", "incorrect", 不符合题意. own: its subject is the option's own text, of
    which any denial is one of the option."""
    denied = verb = False
    for index, token in enumerate(tokens):
        following = tokens[index + 1 :]
        kinds = {item.kind for item in following}
        if token.kind in (lt.GOOD, lt.BAD):
            elsewhere = _goes_elsewhere(following) if verb else kinds & {lt.OTHER, lt.TEXT, lt.LETTER, lt.LABELS}
            return (
                None if elsewhere and not kinds & {lt.ANSWER, lt.LABEL, lt.PICK} else (token.kind == lt.GOOD) != denied
            )
        if token.kind == lt.ANSWER and token.word in _ANSWERS and (verb or not kinds - _EMPTY):
            return not denied
        if token.kind == lt.ANSWER and index and tokens[index - 1].word in _THIS:
            continue  # "this answer is wrong"
        if token.kind == lt.EXCEPT:
            return None if kinds & {lt.OTHER, lt.TEXT, lt.LETTER} else False
        if token.kind == lt.NOT:
            denied = not denied
        elif token.kind == lt.IS:
            verb = True
        elif token.kind not in _EMPTY or token.word in ("that", "only", "both"):
            if token.kind == lt.LINK and not token.word.isascii():
                continue  # 与题意不符
            return False if own and denied and token.kind == lt.OTHER else None
    return False if denied and own else None


def _goes_elsewhere(following: Sequence[Token]) -> bool:
    """Whether what follows a verdict makes it one on something else: "is correct that", "is the right side"."""
    token = next((item for item in following if item.kind != lt.GOOD), None)
    return token is not None and (
        token.kind in (lt.OTHER, lt.TEXT, lt.LETTER, lt.LABELS) or token.word in ("that", "to")
    )
