"""The letter that a chat reply to a multiple-choice question commits to: `letter` for `default`, and the 2023 rules.

A reply is read clause by clause. A clause commits to a letter where it says so ("the answer is C", 故选C, a boxed C), judges
it ("C is correct", C项正确), or consists of it. What it says decides, in that order; later clauses overrule earlier ones.
A letter that is negated, hypothetical, asked about or used for something else (an article, vitamin C) does not count,
nor does one that labels an item of a list (`letter_items`), and nothing is guessed: a reply that commits to no letter, or
to several, is None.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwen_eval.tasks.extract import letter_tokens as lt
from qwen_eval.tasks.extract.letter_items import items
from qwen_eval.tasks.extract.letter_labels import Item
from qwen_eval.tasks.extract.letter_statements import asks_for_wrong, stated
from qwen_eval.tasks.extract.letter_tokens import Token
from qwen_eval.tasks.extract.letters_2023 import ceval_2023, mmlu_2023

__all__ = ["ceval_2023", "letter", "mmlu_2023"]

_CLAUSE_LIMIT = 80  # tokens; longer ones are split, which bounds the work for each letter

# Ranks of an event, the strongest first. DENIED says that a letter is wrong ("B is false"), which may be why it is the
# answer; REFUSED that it is not the answer ("not B", "B is not the answer").
STATED, JUDGED, NAMED, HEDGED, DENIED, REFUSED = range(6)

_ENDS = {lt.END, lt.ASK, lt.LINE, lt.COMMA, lt.BREAK, lt.THEREFORE, lt.CONTRAST}
_MENTIONS = {lt.LETTER, lt.TEXT}
_SUBJECTS = {lt.ANSWER, lt.LABEL, lt.GOOD, lt.BAD, lt.PICK}
_UNKNOWN = {lt.OTHER, lt.LINK}
_DENYING = {lt.NOT, lt.EXCEPT}
_EMPTY = {lt.FILLER, lt.LABEL, lt.LABELS}  # says nothing that matters here
_ANNOUNCING = {lt.ANSWER, lt.PICK, lt.LABEL, lt.LABELS, lt.IS, lt.GOOD, lt.FILLER, lt.COLON}


_NEGATED = {lt.ANSWER: REFUSED, lt.PICK: REFUSED, lt.GOOD: DENIED, "": REFUSED}  # by what follows "not"


@dataclass(frozen=True)
class Event:
    """One thing that the reply says about letters; by: their LETTER or TEXT; start: where that is; alone: on a line of its
    own."""

    rank: int
    letters: frozenset[str]
    by: str = lt.LETTER
    start: int = 0
    alone: bool = False


@dataclass(frozen=True)
class Clause:
    """Tokens up to the next break; whether a "so" or "but" leads to it; whether an "if" does; the kind of break."""

    tokens: list[Token]
    concluding: bool
    conditional: bool
    ends: str


def letter(reply: str, options: Sequence[str], question: str = "") -> str | None:
    """The option letter that the reply commits to; None where it commits to none or to several.

    Takes the options in order: their words stand for their letters where they occur as a whole ("The answer is Rhea"),
    and a letter inside them is not an answer ("vitamin C" among vitamins). question: where it is known, a statement that
    repeats it of one option answers it ("Rhea is a moon of Saturn").
    """
    text, texts = lt.normal(reply), lt.option_texts(options)
    if (whole := _whole(text, texts)) is not None:
        return whole
    marked = lt.tokens(text, texts)
    labelled = items(marked, texts, negative=asks_for_wrong(question))
    found = [token for token in marked if token.kind not in (lt.TICK, lt.CROSS)]
    said = [event for clause in _clauses(found) for event in _events(clause)]
    events = [
        *_opening(marked, labelled),
        *_verdicts(labelled),
        *_without_labels(said, labelled, marked),
    ]
    listed = {token.start for item in labelled if item.listed for token in marked[item.label : item.end]}
    beside = [token for token in found if token.start not in listed]
    decided = _decided(events) or _last_words(found) or stated(beside, lt.masked(text, texts), question)
    return min(decided) if len(decided) == 1 and decided <= set(lt.LETTERS[: len(options)]) else None


_WRAPPING = " \t\n\"'“”‘’()[]{}<>《》【】「」『』.,。、:;!*"


def _whole(text: str, texts: Sequence[str]) -> str | None:
    """The letter of a reply that is nothing but a letter or an option's words, in whatever brackets and quotes."""
    bare = " ".join(text.strip(_WRAPPING).split())
    if bare.upper() in [*lt.letters_read(texts)]:
        return bare.upper() if lt.LETTERS.index(bare.upper()) < len(texts) else None
    for options in (texts, [option.lower() for option in texts]):
        stripped = [option.strip(_WRAPPING) for option in options]
        matches = [index for index, option in enumerate(stripped) if option and option == bare]
        if len(matches) == 1:
            return lt.LETTERS[matches[0]]
        bare = bare.lower()
    return None


# -- clauses --------------------------------------------------------------------------------------------------------


def _clauses(found: Sequence[Token]) -> Iterator[Clause]:
    current: list[Token] = []
    concluding = conditional = False
    for token in found:
        if token.kind in (lt.LINE, lt.THEREFORE) and _awaits(current):
            continue  # "The answer is:" and the letter on a line of its own; "the answer is therefore"
        if token.kind == lt.END and len(current) == 1 and current[0].label:
            continue  # the full stop of "B. Correct"
        if token.kind not in _ENDS and len(current) < _CLAUSE_LIMIT:
            current.append(token)
            continue
        if current:
            yield Clause(current, concluding, conditional, token.kind)
            kinds = {item.kind for item in current}
            conditional = conditional or (lt.IF in kinds and lt.PICK not in kinds)  # not "if I had to pick one, B"
        current = [] if token.kind in _ENDS else [token]
        if token.kind != lt.COMMA:
            concluding = token.kind in (lt.THEREFORE, lt.CONTRAST)
        if token.kind not in (lt.COMMA, lt.BREAK):
            conditional = False
    if current:
        yield Clause(current, concluding, conditional, lt.LINE)


def _awaits(clause: Sequence[Token]) -> bool:
    """Whether a clause announces an answer and has not given it: "Answer", 答案是, "I choose:"."""
    kinds = {token.kind for token in clause}
    return bool(kinds & {lt.ANSWER, lt.PICK}) and kinds <= _ANNOUNCING


# -- what the clauses say -------------------------------------------------------------------------------------------


def _opening(found: Sequence[Token], labelled: Sequence[Item]) -> Iterator[Event]:
    """A reply that starts with a letter as a label ("B. Rhea", "B\n") states it, unless it lists or denies the option."""
    skipped = (lt.LABEL, lt.LINE, lt.TICK, lt.CROSS)
    first = next((index for index, token in enumerate(found) if token.kind not in skipped), len(found))
    if first == len(found) or found[first].kind != lt.LETTER or not found[first].opens:
        return
    token, after = found[first], [item for item in found[first + 1 : first + 4] if item.kind not in (lt.END, lt.COLON)]
    own_line = first + 1 == len(found) or found[first + 1].kind == lt.LINE
    judged = bool(after) and after[0].kind in (lt.GOOD, lt.BAD)
    item = next((item for item in labelled if item.label == first), None)
    denied = item is not None and (item.listed or item.right is False)
    if (token.label or own_line) and not judged and not denied:
        yield Event(STATED, token.letters, start=token.start)


def _verdicts(labelled: Sequence[Item]) -> Iterator[Event]:
    """What items judge of their own options."""
    for item in labelled:
        if item.right is not None:
            yield Event(JUDGED if item.right else DENIED, frozenset(item.letter))


def _without_labels(said: Sequence[Event], labelled: Sequence[Item], found: Sequence[Token]) -> Iterator[Event]:
    """The events that are more than the naming of an option by an item that is listed or denied. found: as for `items`."""
    starts = [found[item.label].start for item in labelled]
    for event in said:
        index = bisect_right(starts, event.start) - 1
        item = labelled[index] if index >= 0 else None
        if item is None or not (item.listed or item.right is False) or not _names_only(event, item, found):
            yield event


def _names_only(event: Event, item: Item, found: Sequence[Token]) -> bool:
    """Whether an event in an item is only that it names its option: not what it says of another letter, or in a later
    sentence."""
    if event.start == found[item.label].start:
        return True
    if not item.listed or event.start > found[item.end - 1].start:
        return False
    own = event.letters == {item.letter}
    if event.start <= found[item.head - 1].start:
        return event.by == lt.TEXT or event.rank in (NAMED, HEDGED) or (own and event.rank != STATED)
    return own and event.rank in (NAMED, HEDGED)


def _events(clause: Clause) -> Iterator[Event]:
    """What a clause says about each letter (or group of letters) in it."""
    mentions = [index for index, token in enumerate(clause.tokens) if token.kind in _MENTIONS]
    for previous, index, following in zip([-1, *mentions], mentions, [*mentions[1:], len(clause.tokens)], strict=False):
        after = clause.tokens[index + 1 : following]
        while following < len(clause.tokens) and after and after[-1].kind in _DENYING | {lt.LIST}:
            after.pop()  # it leads to the next letter: "C and not A"
        rank = _rank(clause, previous, index, after)
        if rank is not None:
            token = clause.tokens[index]
            alone = len(clause.tokens) == 1 and token.opens and clause.ends == lt.LINE
            yield Event(rank, token.letters, token.kind, token.start, alone and token.kind == lt.LETTER)


def _rank(clause: Clause, previous: int, index: int, after: list[Token]) -> int | None:
    """How strongly the clause commits to the mention at `index`; None where it says nothing about it.

    previous: the index of the previous mention; after: the tokens up to the next mention.
    """
    token, before, between = clause.tokens[index], clause.tokens[:index], clause.tokens[previous + 1 : index]
    kinds = {item.kind for item in before}
    if clause.ends == lt.ASK or lt.IF in kinds or any(item.kind == lt.IF for item in after[:2]):
        return None
    if any(item.kind in _DENYING for item in between):
        return REFUSED
    judgement = _judgement(token, after)
    if judgement in (DENIED, REFUSED):
        return judgement
    rank = _claimed(clause, index, previous, after, judgement)
    if clause.conditional and rank == NAMED:
        return None  # "if A then B"
    hedged = clause.conditional or lt.HEDGE in kinds or any(item.kind == lt.HEDGE for item in after[:2])
    return HEDGED if hedged and rank is not None else rank


def _judgement(token: Token, after: list[Token]) -> int | None:
    """What follows a letter: STATED ("is the answer"), JUDGED ("is correct"), DENIED ("is wrong"), REFUSED, None."""
    kinds = [item.kind for item in after if item.kind not in _EMPTY and item.kind != lt.COLON]
    plain = [kind for kind in kinds if kind not in (lt.IS, lt.HEDGE)]
    if not plain:
        return None
    if plain[0] == lt.NOT:
        return None if len(plain) == 1 and token.label else _NEGATED.get(plain[1] if len(plain) > 1 else "")
    if plain[0] in (lt.BAD, lt.EXCEPT):
        return DENIED
    if plain[0] in (lt.ANSWER, lt.PICK) and kinds[0] == lt.IS:
        return STATED
    if plain[0] == lt.GOOD:
        return STATED if plain[1:2] == [lt.ANSWER] and kinds[0] == lt.IS else JUDGED
    return None


def _claimed(clause: Clause, index: int, previous: int, after: list[Token], judgement: int | None) -> int | None:
    """The rank of a mention that is not denied, from its context on both sides."""
    token, head = clause.tokens[index], clause.tokens[:index]
    while head and head[-1].kind in _EMPTY:
        head.pop()
    link = head[-1] if head else None
    known = not any(item.kind in _UNKNOWN for item in head)
    subjects = {item.kind for item in clause.tokens[previous + 1 : index]} & _SUBJECTS
    if previous >= 0:
        subjects.discard(lt.LABEL)  # "option B says C" is not "the option is C"
    if link is not None and link.kind == lt.COLON:
        subjects.discard(lt.BAD)  # "Incorrect: A, C and D" is a heading, "what is incorrect is C" an answer
    rest = _rest(clause.tokens[index + 1 :], token)
    if judgement == STATED:
        return STATED
    if link is not None and _leads(link, head):
        if not _closed(token, after):
            return None
        if subjects == {lt.LABEL} and link.kind in (lt.COLON, lt.LIST):
            return NAMED  # "Options: A. ..." may list them
        if subjects and (link.kind != lt.ANSWER or (known and rest <= _EMPTY | {lt.IS})):
            return STATED
        if link.kind == lt.IS and (known or _pronoun(head) or (clause.concluding and not after)):
            return STATED if token.kind == lt.LETTER else NAMED
        if link.kind == lt.IS and token.marked and not after:
            return NAMED
    bare = link is None or (link.kind == lt.COLON and not subjects)
    if bare and link is not None and link.word == "=" and token.kind == lt.LETTER:
        return None  # "A × B = C" is an equation
    if judgement == JUDGED:
        return JUDGED if bare or (link is not None and link.kind in (lt.GOOD, lt.BAD, lt.ANSWER)) else None
    if bare and rest <= _EMPTY | {lt.IS}:
        return STATED if clause.concluding and token.kind == lt.LETTER else NAMED
    glossed = link is not None and link.kind == lt.TEXT and link.letters == token.letters
    return NAMED if glossed and token.marked and not rest else None  # "nitrogen (B)"


def _pronoun(head: list[Token]) -> bool:
    """Whether the verb at the end of the head is that of "it is"."""
    return len(head) > 1 and head[-2].word in ("it", "它")


def _rest(following: Sequence[Token], token: Token) -> set[str]:
    """The kinds of the tokens after a mention, without its own words repeated ("B. Rhea") and a denial of others."""
    kinds: set[str] = set()
    for index, item in enumerate(following):
        if item.kind == lt.EXCEPT or (item.kind == lt.NOT and _other_next(following[index + 1 :], token)):
            return kinds - {lt.LIST}
        if item.kind not in _MENTIONS or item.letters != token.letters:
            kinds.add(item.kind)
    return kinds


def _other_next(following: Sequence[Token], token: Token) -> bool:
    """Whether the next thing of weight is another option: "not A", "is not option A"."""
    item = next((item for item in following if item.kind not in _EMPTY | {lt.IS, lt.LIST, lt.ANSWER, lt.PICK}), None)
    return item is not None and item.kind in _MENTIONS and item.letters != token.letters


def _leads(link: Token, head: list[Token]) -> bool:
    """Whether a token leads to the answer: a verb, a colon, a noun; a dash after one of these; not "The wrong
    answer"."""
    nouns = [index for index, item in enumerate(head) if item.kind in (lt.ANSWER, lt.LABEL)]
    if any(index and head[index - 1].kind == lt.BAD for index in nouns):
        return False
    if link.kind == lt.LIST and link.word in lt.DASHES:
        before = next((item for item in reversed(head) if item.word not in lt.DASHES), None)
        return before is not None and before.kind in (lt.ANSWER, lt.GOOD, lt.LABEL, lt.PICK, lt.COLON)
    return link.kind in (lt.IS, lt.COLON, lt.PICK, lt.ANSWER)


def _closed(token: Token, after: list[Token]) -> bool:
    """Whether a letter stands for itself: not "B cells", C语言."""
    return token.marked or token.label or not after or after[0].kind != lt.OTHER


def _decided(events: Sequence[Event]) -> frozenset[str]:
    """The letters that the reply commits to; more than one, which includes a retracted last statement, means none.

    The last statement by letter decides, else the last one by an option's words; else all letters that are judged right,
    else named, else hedged.
    """
    alone = {event.letters for event in events if event.alone}
    for by in (lt.LETTER, lt.TEXT):
        stated = [
            index
            for index, event in enumerate(events)
            if event.by == by and (event.rank == STATED or (event.alone and len(alone) == 1))
        ]
        if stated:
            letters = events[stated[-1]].letters
            refused = any(event.rank == REFUSED and event.letters & letters for event in events[stated[-1] :])
            return frozenset(lt.LETTERS) if refused else letters
    denied = frozenset(letter for event in events if event.rank >= DENIED for letter in event.letters)
    for rank in (JUDGED, NAMED, HEDGED):
        if letters := frozenset(letter for event in events if event.rank == rank for letter in event.letters) - denied:
            return letters
    return frozenset()


def _last_words(found: Sequence[Token]) -> frozenset[str]:
    """The letter of the option that a reply of one sentence ends with: "The author is Li Bai."."""
    kinds = [token.kind for token in found]
    while kinds and kinds[-1] in (lt.END, lt.LINE):
        kinds.pop()
    mentions = [token for token in found if token.kind in _MENTIONS]
    barred = _DENYING | {lt.IF, lt.HEDGE, lt.ASK, lt.END, lt.LINE, lt.BAD}
    if len(mentions) != 1 or kinds[-1] != lt.TEXT or barred & set(kinds):
        return frozenset()
    return mentions[0].letters
