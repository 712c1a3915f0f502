"""What a labelled option of a chat reply says of itself: "C. zinc: correct", 不符合题意, ✅, "A. Paris is not the answer"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qwen_eval.tasks.extract import letter_tokens as lt
from qwen_eval.tasks.extract.letter_labels import MARKS, Item
from qwen_eval.tasks.extract.letter_tokens import Token

_BOUNDS = {lt.END, lt.COMMA, lt.LINE, lt.ASK, lt.BREAK, lt.THEREFORE, lt.CONTRAST, lt.COLON, *MARKS}
_YES, _NO = ("yes", "是", "选"), ("no", "否", "不", "不是", "不选")
_ANSWERS = ("answer", "ans", "choice", "答案", "正解", "答案选项")  # not "result", which options speak of
_THIS = ("this", "that", "这", "这个", "该", "此")
_EMPTY = {lt.FILLER, lt.LABEL}  # says nothing that matters here
_STATEMENTS = ("statement", "claim", "assertion", "sentence", "说法", "叙述", "描述", "表述", "观点")
_CLAIMED = ("false", "untrue")  # is said of a statement, which may be the answer for that very reason


class Clause(NamedTuple):
    """Tokens of an item between two breaks; after: the break before them; end: the kind of the one behind them."""

    tokens: list[Token]
    after: Token
    end: str


def judged(
    found: Sequence[Token], item: Item, texts: Sequence[str], negative: bool, marked_before: bool = False
) -> bool | None:
    """What an item judges of its option: by a mark, else by the first clause that is a verdict. None where nothing is.

    found, texts, negative: as for `letter_items.items`; marked_before: the marks stand before the labels.
    """
    mark = mark_before(found, item, marked_before)
    after = {token.kind for token in found[item.label + 1 : item.end]} & MARKS
    if mark is None and not marked_before and len(after) == 1:
        mark = after == {lt.TICK}
    if mark is not None:
        return mark
    stop = [token for token in found[item.end : item.end + 1] if token.kind == lt.END]
    head_end = found[min(item.head, len(found) - 1)].start
    for number, clause in enumerate(clauses([*found[item.label + 1 : item.end], *stop])):
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


def mark_before(found: Sequence[Token], item: Item, everywhere: bool) -> bool | None:
    """What the mark before a label says, where it opens the line or marks stand before all labels."""
    marks = [index for index in range(item.first, item.label) if found[index].kind in MARKS]
    if marks and (everywhere or not marks[0] or found[marks[0] - 1].kind == lt.LINE):
        return found[marks[-1]].kind == lt.TICK
    return None


def clauses(tokens: Sequence[Token]) -> Iterator[Clause]:
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
