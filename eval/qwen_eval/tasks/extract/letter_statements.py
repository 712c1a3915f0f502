"""A statement about one option that answers the question without a letter: "Zinc is the metal that protects steel"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from qwen_eval.tasks.extract import letter_tokens as lt
from qwen_eval.tasks.extract.letter_tokens import Token

_ENOUGH = 0.5  # share of the question's words that a statement repeats
_UNSURE = {lt.NOT, lt.EXCEPT, lt.IF, lt.HEDGE, lt.ASK, lt.BAD}
_NEGATIVE = re.compile(
    r"\b(?:not|except|incorrect|false|least|wrong|untrue|never|cannot|inaccurate)\b|n't\b|不|非|错误|有误|除|无关",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.。!?？！;；])\s*|\n+")
_STOP = {
    "the", "and", "for", "are", "was", "were", "what", "which", "who", "whom", "whose", "when", "where", "why", "how", "does",
    "did", "has", "have", "had", "been", "being", "that", "this", "these", "those", "with", "from", "into", "following",
    "most", "best", "one", "its", "their", "there", "can", "could", "would", "should", "will", "may",
}  # fmt: skip


def asks_for_wrong(question: str) -> bool:
    """Whether a question asks for what is not so ("Which is NOT a metal?", 不属于), or denies something."""
    return _NEGATIVE.search(_last_sentence(question)) is not None


def stated(found: Sequence[Token], text: str, question: str) -> frozenset[str]:
    """The letter of the only option of which the reply states an answer; none where that cannot be decided.

    found, text: the reply's tokens and its words with the options masked. A statement answers where it repeats at least
    half of the question's words, or where it is all of the reply and says that the option is "the" one, or the only one.
    """
    if question and not asks_for_wrong(question):
        asked = _words(_last_sentence(question))
        answers = {
            letters for letters, said in _statements(found, text) if asked and len(asked & said) >= _ENOUGH * len(asked)
        }
        if len(answers) == 1:
            return min(answers)
    return _definite(found)


def _statements(found: Sequence[Token], text: str) -> Iterator[tuple[frozenset[str], set[str]]]:
    """The letters and the words of each clause that affirms something of an option."""
    clause: list[Token] = []
    for token in [*found, Token(lt.LINE, start=len(text), end=len(text))]:
        if token.kind not in (lt.END, lt.LINE, lt.ASK, lt.BREAK, lt.CONTRAST, lt.COMMA, lt.THEREFORE):
            clause.append(token)
            continue
        letters = frozenset().union(*(item.letters for item in clause if item.kind == lt.TEXT))
        if letters and not (_UNSURE | {lt.LETTER}) & {token.kind, *(item.kind for item in clause)}:
            yield letters, _words(text[clause[0].start : token.start])
        clause = []


def _definite(found: Sequence[Token]) -> frozenset[str]:
    """The letter of a reply of one clause: "Zinc is the metal that ...", "Only zinc ..."."""
    bounds = (lt.END, lt.LINE)
    said = [index for index, token in enumerate(found) if token.kind not in bounds]
    tokens = found[said[0] : said[-1] + 1] if said else []
    mentions = [index for index, token in enumerate(tokens) if token.kind in (lt.TEXT, lt.LETTER)]
    barred = _UNSURE | {*bounds, lt.COMMA, lt.BREAK, lt.CONTRAST, lt.COLON}
    if len(mentions) != 1 or tokens[mentions[0]].kind != lt.TEXT or barred & {token.kind for token in tokens}:
        return frozenset()
    before, after = tokens[: mentions[0]], tokens[mentions[0] + 1 :]
    if any(token.kind not in (lt.FILLER, lt.IS) for token in before) or len(tokens[mentions[0]].letters) != 1:
        return frozenset()
    only = bool(before) and before[-1].word in ("only", "只有")
    the = len(after) > 2 and after[0].kind == lt.IS and after[1].word in ("the", "唯一")
    return tokens[mentions[0]].letters if only or the else frozenset()


def _last_sentence(question: str) -> str:
    return next((part for part in reversed(_SENTENCES.split(question)) if len(part) > 3), question)


def _words(text: str) -> set[str]:
    """What a text speaks of: its English words without endings, its Chinese characters in pairs."""
    english = {
        re.sub(r"(?:ies|es|s|ed|ing|e)$", "", word)
        for word in re.findall(r"[a-z]{3,}", text.lower())
        if word not in _STOP
    }
    chinese = {
        run[index : index + 2] for run in re.findall(r"[\u4e00-\u9fff]{2,}", text) for index in range(len(run) - 1)
    }
    return english | chinese
