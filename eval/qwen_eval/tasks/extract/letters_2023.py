"""The letter that the 2023 chat scripts read from a reply (recipe `qwen2023`): MMLU and C-Eval.

Each is a chain of substitutions, then of patterns, then the most similar option. The gaps of the patterns are bounded
and hold no letter A-D, so that no input makes them slow. Their quirks are the published protocol: an option's words turn
into a letter even inside other words, and a reply that names nothing is still given a letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwen_eval.tasks.extract import letter_tokens

LETTERS = letter_tokens.LETTERS[:4]


def _gap(longest: int) -> str:
    """Up to `longest` characters that are not option letters, as few as possible."""
    return rf"[^{LETTERS}]{{0,{longest}}}?"


_LETTER = rf"([{LETTERS}])"
_ANSWER_IS = rf"(?:[Aa]nswer|[Cc]hoice)(?!{_gap(20)}(?:n't|not)){_gap(10)}\b(?:|is|:|be)\b"
_SAID = rf"{_LETTER}(?:选项)?(?:[)。.，,．、{LETTERS}：:）]|$)"
_DENIED = rf"{_gap(10)}[不非]{_gap(10)}[是选为：:】]"
_GOOD = r"(?:正确|对[的，。：]|符合)"

# Tried in order, each at its first match. "$" also matches before a last line feed, as it did in the scripts.
_LAST_RESORT = re.compile(rf"(?<![a-zA-Z]){_LETTER}(?![a-zA-Z=])")
_MMLU = (
    re.compile(rf"(?:[Cc]hoose|{_ANSWER_IS}){_gap(20)}\b{_LETTER}\b"),
    re.compile(
        rf"\b{_LETTER}\b(?!{_gap(8)}(?:n't|not){_gap(5)}(?:correct|right))"
        rf"{_gap(10)}\b(?:correct|right)\b"
    ),
    re.compile(rf"\A{_LETTER}(?:[.,:]|$)"),
    _LAST_RESORT,
)
_CEVAL = (
    re.compile(rf"(?:选[择定]?[：:]?\s*|(?:答案|选项)(?!{_DENIED}){_gap(10)}[是选为：:】]{_gap(10)}){_SAID}"),
    re.compile(rf"{_LETTER}(?:选?项)?(?!{_gap(4)}[不非]{_gap(4)}{_GOOD}){_gap(4)}{_GOOD}"),
    re.compile(rf"\A[(（]?{_LETTER}(?:[。)）.，,．：:]|$)"),
    _LAST_RESORT,
)


def mmlu_2023(reply: str, question: str, options: Sequence[str]) -> str:
    """The letter of an MMLU chat reply under `qwen2023`.

    Takes the question for the sake of one signature with `ceval_2023`; the MMLU rules do not look at it.
    """
    return _first(_MMLU, _substituted(reply, options, ".", re.IGNORECASE), options)


def ceval_2023(reply: str, question: str, options: Sequence[str]) -> str:
    """The letter of a C-Eval chat reply under `qwen2023`."""
    pieces = question.rstrip("。").split("。")[-1].split("_")
    first, last = pieces[0], pieces[-1]
    if len(first.strip()) > 4:
        reply = reply.replace(first, "答案是")
    if len(last.strip()) > 4:
        reply = reply.replace(last, "")
    return _first(_CEVAL, _substituted(reply, options, "。", 0), options)


def _substituted(reply: str, options: Sequence[str], stop: str, flags: int) -> str:
    """The reply with every occurrence of an option (less its trailing full stops) turned into its letter."""
    for letter, option in sorted(zip(LETTERS, options, strict=True), key=lambda pair: -len(pair[1])):
        reply = re.sub(re.escape(option.rstrip(stop)), letter, reply, flags=flags)
    return reply


def _first(patterns: Sequence[re.Pattern[str]], reply: str, options: Sequence[str]) -> str:
    """The letter of the first pattern that matches, else of the option most similar to the reply."""
    for pattern in patterns:
        if found := pattern.search(reply):
            return found.group(1)
    return _most_similar(reply, options)


def _most_similar(reply: str, options: Sequence[str]) -> str:
    """The letter of the first option that equals the one thefuzz finds most similar."""
    from thefuzz import process, utils

    if not utils.full_process(reply):  # nothing to compare: every option scores 0 and the first wins; thefuzz would
        return LETTERS[0]  # log a warning with the whole reply in it
    best, _ = process.extractOne(reply, list(options))
    return LETTERS[list(options).index(best)]
