"""Where a reply ends: text past an end token that was spelled out, or from a new turn on, is not the reply.

Servers and chat templates differ in what ends a text, and a model that is not stopped goes on: it writes the token that
should have ended it as text, the next user's turn, or a question of its own.
"""

from __future__ import annotations

import re
from bisect import bisect_left

LINE = 300  # characters of a line that are looked at on either side of a token

_BAR = "[|｜]"  # DeepSeek's tokens have full-width bars
# Any token in the usual bars (<|im_end|>, <｜end▁of▁sentence｜>), and those of families that write them otherwise.
_TOKEN = re.compile(
    rf"""
    <{_BAR}(?P<name>[A-Za-z][\w▁ ./-]{{1,40}}){_BAR}>
    | <\|?turn\|?> | \[\|\w+\|\]                                                     # Gemma 4; EXAONE
    | </s> | </?(?:human|user|assistant|bot)> | <role>\w+</role>
    | <(?:eos|eot|eoa|eoh|eom|eod|pad|(?:end|start)_of_turn|end_?of_?(?:text|sentence)|END_OF_TURN_TOKEN)>
    | <(?:reserved|extra_id|SPECIAL)_\d+> | \[UNUSED_TOKEN_\d+\]                     # Baichuan, Nemotron, InternLM
    | \[/?INST\] | <</?SYS>> | \[(?:EOS|PAD|SEP)\]                                   # Llama 2, Mistral
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NO_END = re.compile(r"box|think|thought|response|solution|answer|message|channel|begin", re.IGNORECASE)

# What a reply may have before it: tokens that begin a text, and the header of its own turn.
_HEADER = re.compile(
    rf"""\s*
    (?:(?:<s>|<bos>|<BOS_TOKEN>|\[BOS\]|\[/INST\]|<{_BAR}(?:begin[_▁]of[_▁](?:text|sentence)|startoftext){_BAR}>)\n?)*
    (?:
      (?:<\|(?:im_start|start_header_id|header_start|start|START_OF_TURN_TOKEN|turn)\|?>|<start_of_turn>|<extra_id_1>)\s*
      (?:assistant|model|<\|CHATBOT_TOKEN\|>)(?:<\|(?:end_header_id|header_end|im_sep|message)\|>)?
      |<{_BAR}assistant{_BAR}>|<assistant>|\[\|assistant\|\]
      |(?:\#{{1,4}}[ ]*|\*\*)?(?:assistant|response|ai|bot)\*{{0,2}}[ ]*[:：]\*{{0,2}}
      |(?:assistant|model)(?=\n)
    )?""",
    re.VERBOSE | re.IGNORECASE,
)

_QUESTION = re.compile(r"\bquestion|\bQ\b|问|题目", re.IGNORECASE)
_USER = r"(?i:human|user|question|instruction|instruct)|Q|用户|人类|问题|提问|问|题目"
_OTHER = r"(?i:assistant)|AI|Bot"
# A name and a colon on a line's beginning (Human: **User:** ### Question:), a numbered question, a heading, or the name of a
# role alone, as ChatML and Llama 3 have it when their tokens are dropped ("18.assistant\n").
_TURN = re.compile(
    rf"""
    ^[ ]?(?:>[ ]?|\#{{1,6}}[ ]*|\*{{1,2}}|\[|<|GPT4[ ]Correct[ ])?
    (?:
      (?:(?P<user>{_USER})|(?P<other>{_OTHER}))[\]>]?\*{{0,2}}[ ]?[:：]
      | (?:Question|QUESTION|Q|Problem|Exercise|问题|题目)[ ]?(?P<number>\d{{1,3}})\*{{0,2}}[ ]?[:：.]
    )
    | ^\#{{1,6}}[ ]*(?P<heading>Human|User|Instruction|Question|Assistant)[ ]*$
    | ^(?P<bare>user|human|assistant|model)[ ]*$
    | (?<=[^\sA-Za-z_/])(?:user|assistant)[ ]*\n
    """,
    re.VERBOSE | re.MULTILINE,
)
# The same behind a sentence on its line: a user's turn, and where an answer was named, a question.
_INLINE = re.compile(r"(?<=[.!?。！？)\]}*$\d] )(?:(?:Human|User|USER): |(?P<question>Question|Q): )")
_NAMED = re.compile(r"answer|####|boxed|答案", re.IGNORECASE)

_PYTHON = re.compile(r"\w+[ ]?:[ ]*[\w.]+(?:\[[^\n]*\])?(?:[ ]?\|[ ]?\w+)*[ ]*=(?!=)")  # User: TypeAlias = dict
_QUANTITY = re.compile(r"[\s*]*[$€£]?\d[\d,.]*(?:[ ]\w+){0,3}[ .]*$", re.MULTILINE)  # Human: 2 legs
_LEAD_IN = re.compile(r"\s*(?:[#>`~].*|\*\*.*\*\*|[-*_=]{3,}|.*[:：]\**|)\s*")
_QUOTED = re.compile(r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'')
_QUOTES = re.compile(r"""["]|(?<!`)`(?!`)|(?<![A-Za-z])'|'(?![A-Za-z])""")


def reply(text: str, questions: bool = True) -> str:
    """The reply proper: without a header of its own turn that it repeats, and without what follows its end.
    questions: whether a next question ends it."""
    return text[_start(text) : end(text, questions)]


def end(text: str, questions: bool = True) -> int:
    """The index at which the reply ends: of the first end token or new turn, else the text's length.

    Tokens and names in quotes or in a multi-line string of Python do not count, and neither does a question that the reply
    begins with: it repeats the one it was asked.
    """
    start = _start(text)
    strings = _Spans(text)
    return min(
        _first_token(text, start, strings),
        _first_turn(text, start, strings, questions),
        _first_inline(text, start, questions),
    )


def _start(text: str) -> int:
    """The index after the reply's own header."""
    found = _HEADER.match(text)
    return found.end() if found and found[0].strip() else 0


class _Spans:
    """The multi-line strings of a text that holds Python."""

    def __init__(self, text: str) -> None:
        self._spans = [found.span() for found in _QUOTED.finditer(text)]
        self._starts = [start for start, _ in self._spans]

    def hold(self, index: int) -> bool:
        """Whether an index is inside one of them."""
        before = bisect_left(self._starts, index) - 1
        return before >= 0 and index < self._spans[before][1]


def _first_token(text: str, start: int, strings: _Spans) -> int:
    for found in _TOKEN.finditer(text, start):
        if found["name"] and _NO_END.search(found["name"]):
            continue
        before = text[max(start, found.start() - LINE) : found.start()].rpartition("\n")[2]
        after = text[found.end() : found.end() + LINE].partition("\n")[0]
        struck_out = found[0] == "</s>" and "<s>" in before
        if not struck_out and not strings.hold(found.start()) and not _in_quotes(before, after):
            return found.start()
    return len(text)


def _in_quotes(before: str, after: str) -> bool:
    """Whether a quote that is open before a token on its line is closed behind it."""
    opened = ""
    for quote in _QUOTES.findall(before):
        opened = "" if quote == opened else opened or quote
    return bool(opened) and opened in _QUOTES.findall(after)


def _first_turn(text: str, start: int, strings: _Spans, questions: bool) -> int:
    asked = False  # whether the reply began with a question, which the next speaker answers
    numbers = {0}  # of the questions so far: a reply may number its own steps
    begun, read = False, start
    for found in _TURN.finditer(text, start):
        if found["number"]:
            numbers.add(int(found["number"]))
        if int(found["number"] or 0) - 1 in numbers or strings.hold(found.start()):
            continue
        if _PYTHON.match(text, found.start()) or _is_quantity(text, found):
            continue
        if not questions and (found["number"] or _QUESTION.search(found[0])):
            continue
        begun = begun or not all(map(_LEAD_IN.fullmatch, text[read : found.start()].split("\n")))
        read = found.start()
        speaker = found["heading"] or found["bare"] or found["other"] or ""
        if not begun:
            asked = found["other"] is None
        elif asked and speaker.lower() in ("assistant", "model", "ai", "bot"):
            asked = False
        else:
            return found.start()
    return len(text)


def _is_quantity(text: str, found: re.Match[str]) -> bool:
    """Whether a name that is a role is listed with a number, as in "Human: 2 legs"."""
    return (found["user"] or "").lower() in ("human", "user") and _QUANTITY.match(text, found.end()) is not None


def _first_inline(text: str, start: int, questions: bool) -> int:
    named = _NAMED.search(text, start) if questions else None
    for found in _INLINE.finditer(text, start):
        if not found["question"] or (named and named.start() < found.start()):
            return found.start()
    return len(text)
