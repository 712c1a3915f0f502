"""GSM8K: the number in a reply.

`default` reads the last number as a person would write it: sign, thousands separators, decimals, fractions, LaTeX, Chinese
numerals; a number behind `####` or in a box is the answer whatever follows. Values are decimals; no text is ever
evaluated. The 2023 rules keep their quirks: they lose signs and decimals, and take a range for a negative number.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, DecimalException
from typing import NamedTuple

from qwen_eval.schema import DataError
from qwen_eval.tasks.extract import ending, numerals

TOLERANCE_2023 = Decimal("1e-4")

# -- gold and qwen2023 ----------------------------------------------------------------------------------------------


def gold(answer: str) -> Decimal:
    """The gold number of a GSM8K answer: what follows `####`, commas removed."""
    text = answer.rpartition("####")[2].replace(",", "").strip() if "####" in answer else ""
    value = _literal_2023(text.lstrip("+-"))
    if value is None:
        raise DataError(f"GSM8K answer without a number after ####: {answer[-60:]!r}; expected a line like '#### 18'")
    return -value if text.startswith("-") else value


def gsm8k_2023(reply: str) -> str | None:
    """Base answer under `qwen2023`: the last run of digits, as the Python literal prints; None if it is not a
    literal."""
    runs = re.findall(r"\d+", reply)
    if not runs or _literal_2023(runs[-1]) is None:
        return None
    return runs[-1].lstrip("0") or "0"


def gsm8k_2023_correct(reply: str, answer: str) -> bool:
    """Whether the base answer under `qwen2023` equals the gold number."""
    found = gsm8k_2023(reply)
    return found is not None and Decimal(found) == gold(answer)


# [0-9] in the look-ahead but \d after it: the run may continue in other scripts' digits, which no literal has.
_CHAT_2023 = re.compile(r"[+-]?(?=[0-9]|\.[0-9])(?:0|[1-9]\d{0,2}(?:,\d{3})*|\d*)?(?:\.\d*)?(?!\d)")


def gsm8k_chat_2023(reply: str) -> str | None:
    """Chat answer under `qwen2023`: the last match of its pattern without commas and plus; None where nothing matches."""
    found = _CHAT_2023.findall(reply)
    return found[-1].replace(",", "").replace("+", "") if found else None


def gsm8k_chat_2023_correct(reply: str, answer: str) -> bool:
    """Whether the chat answer under `qwen2023` is within 1e-4 of the number that the same pattern finds in the gold text."""
    found, expected = (_signed_literal_2023(gsm8k_chat_2023(text) or "") for text in (reply, answer))
    return found is not None and expected is not None and abs(found - expected) <= TOLERANCE_2023


def _signed_literal_2023(text: str) -> Decimal | None:
    value = _literal_2023(text.removeprefix("-"))
    return -value if value is not None and text.startswith("-") else value


def _literal_2023(text: str) -> Decimal | None:
    """The value of a Python number literal in ASCII digits: 0, 00, 12, 3.50, .75, 12. but not 012 or an Arabic-Indic 3."""
    if not re.fullmatch(r"0+|[1-9][0-9]*|[0-9]+\.[0-9]*|\.[0-9]+", text):
        return None
    return Decimal(text)


# -- default --------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """A number in a text: where, how much, and whether it is an ordinal, which counts only where nothing else is."""

    start: int
    end: int
    value: Decimal
    ordinal: bool = False


def number(reply: str, cut: bool = False, question: str = "") -> Decimal | None:
    """The number that the reply answers with; None if there is none.

    It is the last number of the reply. Where one stands behind `####` or in a box, it is the last that the reply names as its
    answer, there or after "the answer is". question: what it replies to; what its last sentence only repeats of it, in a
    subordinate place ("she saves $4 by buying 18 flowers"), is not the answer. cut: the reply was ended by its length; it
    commits to an answer that it named, or to a number of its last sentence if that was finished.

    Ordinals ("3rd", 第三) count only where there is no other number, and so do numbers written in words, except for
    structured Chinese numerals (三十六) and a word right after "the answer is".
    """
    text, finished = _proper(reply, cut)
    written = list(_numbers(text))
    named = _named(text, written)
    if not finished or any(item.marked for item in named):
        return max(named).value if named else None
    if cut and ending.end(reply) == len(reply):
        start = _last_sentence(text)
        text = text[start:]
        inside = [item for item in written if item.start >= start]
        written = [item._replace(start=item.start - start, end=item.end - start) for item in inside]
    plain = [item for item in written if not item.ordinal]
    found = plain + [Found(*item) for item in numerals.find(text, everywhere=not plain)] or written
    if found:
        return _stated(text, sorted(found), question).value
    return max(named).value if named else None


# What opens the place in a sentence where it repeats what was given.
_GIVEN = re.compile(
    r"\b(?:if|when|while|after|before|since|because|given|from|in|of|at|by|for|with|than|over|per|on|during|within|until|out"
    r"|to)\b|[(]",
    re.IGNORECASE,
)
_STATES = re.compile(
    r"(?:=|\b(?:is|are|was|were|be|been|equals?|has|have|had|gets?|makes?|takes?|needs?|costs?|pays?|earns?|spends?"
    r"|total(?:s|ing)?|answer|(?:comes?|amounts?|adds? up|sums? up|equal|up|down) to|only|just|about|exactly|approximately))"
    r"\W*\Z",
    re.IGNORECASE,
)


_REPEATED = 12  # numbers at the end of a sentence that are looked at


def _states(text: str, start: int, item: Found) -> bool:
    """Whether a word or sign right before a number says that it is what comes out. start: of its sentence."""
    return bool(_STATES.search(text[max(start, item.start - 40) : item.start]))


def _last_sentence(text: str) -> int:
    """Where the last sentence of a text begins."""
    text = text.rstrip()
    return max((found.end() for found in _SENTENCE.finditer(text) if found.end() < len(text)), default=0)


def _stated(text: str, found: Sequence[Found], question: str) -> Found:
    """The last of these numbers that is not merely repeated from the question: one that the question has, which nothing
    states ("is 18", "= 18") and which follows a word such as "if", "of" or "by" after another number of the same sentence
    that the question does not have."""
    last, given = found[-1], {item.value for item in _numbers(_normal(question))}
    if last.value not in given:
        return last
    start = max((stop.end() for stop in _SENTENCE.finditer(text, 0, last.start)), default=0)
    inside = [item for item in found if item.start >= start]
    inside = inside[-_REPEATED:]
    while len(inside) > 1 and inside[-1].value in given and not _states(text, start, inside[-1]):
        inside.pop()
    shown = inside[-1]
    if shown.value in given or not _GIVEN.search(text[shown.end : last.start]):
        return last
    return shown


def strict_number(reply: str, cut: bool = False) -> Decimal | None:
    """The number that the reply last names as its answer: after "The answer is" or `####`, or in a box; None otherwise.
    cut: as for `number`."""
    text, _ = _proper(reply, cut)
    named = _named(text, list(_numbers(text)))
    return max(named).value if named else None


# -- what of a reply counts, and where it names its answer

_SENTENCE = re.compile(r"[.!?][)\]}\"'*_`$”’]*\s|[。！？]|\n")
_FINISHED = re.compile(r"(?:(?<!\.)\.|[!?。！？])[)\]}\"'*_`$”’）】]*\s*\Z|\\\]\s*\Z")
_UNFINISHED_LINE = re.compile(r"(?:[=+\-−–×÷/:,;，；：、(\[{<&|]|(?<!\*)\*|\\\\)\s*\Z")
_LABEL = re.compile(r"[ \t>]*(?:[-*•]|[(（]?\d{1,2}[.)）]|.*\b(?:Mr|Mrs|Ms|Dr|vs|e\.g|i\.e|approx)\.)\s*")


def _proper(reply: str, cut: bool) -> tuple[str, bool]:
    """The normal text of the reply proper, and whether it is finished: of one that was cut within a sentence only the
    sentences before, and boxes that were closed."""
    text = ending.reply(reply)
    unfinished = cut and ending.end(reply) == len(reply) and not _is_finished(text)
    text = _normal(text)
    if unfinished:
        last = max((found.end() for found in _SENTENCE.finditer(text)), default=0)
        boxed = max((end + 1 for _, end in _boxes(text)), default=0)
        text = text[: max(last, boxed)]
    return text, not unfinished


def _is_finished(text: str) -> bool:
    """Whether a text ends with a sentence, or with a line that is complete."""
    line = text.rstrip().rpartition("\n")[2]
    if len(line) < 200 and _LABEL.fullmatch(line):
        return False
    last = text[len(text.rstrip()) :]
    return bool(_FINISHED.search(text[-20:]) or ("\n" in last and not _UNFINISHED_LINE.search(line[-20:])))


class Named(NamedTuple):
    """A number that a reply names as its answer: where, how much, and whether a mark (`####`, a box) names it."""

    start: int
    value: Decimal
    marked: bool


_BOX = "\ue000"  # stands for \boxed in a normal text
_ANSWER = re.compile(r"\bthe\s+(?:final\s+)?answer\s+is\b", re.IGNORECASE)
_HASHES = re.compile(
    r"#{4,}[\s*_:：]*(?:(?:the\s+)?(?:final\s+)?answer(?:\s+is)?[\s*_:：]*)?(?!#)|####[\s*_]*答案[是为]?[\s*:：]*",
    re.IGNORECASE,
)


_HEADING = re.compile(r"[.)][ \t]*\**[ \t]*[^\W\d]")  # "#### 1. Eggs", "#### 2. Money"
_SUM = re.compile(r"[ \t\d+\-*/×÷x.,$()%=]*=")  # "#### 9 * 2 = 18"


def _named(text: str, written: list[Found]) -> list[Named]:
    """The numbers that a normal text names as its answer. written: those that it has in digits."""
    found = sorted([*written, *(Found(*item) for item in numerals.find(text, everywhere=False))])
    starts = [item.start for item in found]
    named = []
    for cue in _ANSWER.finditer(text):
        index = bisect_left(starts, cue.end())
        if index < len(found) and _BETWEEN.fullmatch(text[cue.end() : found[index].start][:60]):
            named.append(Named(cue.start(), found[index].value, False))
    steps = 0  # the headings so far
    for cue in _HASHES.finditer(text):
        index = bisect_left(starts, cue.end())
        if index == len(found) or not re.fullmatch(_MARKS, text[cue.end() : found[index].start][:60]):
            continue
        first = found[index]
        if first.value == steps + 1 and _HEADING.match(text, first.end):
            steps += 1
            continue
        sum_ = _SUM.match(text, first.end)
        named.append(Named(cue.start(), _at(found, starts, sum_.end() if sum_ else first.start), True))
    for start, end in _boxes(text):
        inside = found[bisect_left(starts, start) : bisect_left(starts, end)] or sorted(
            Found(start + item[0], start + item[1], item[2]) for item in numerals.find(text[start:end], everywhere=True)
        )
        if inside:
            equals = text.rfind("=", start, end)
            after = [item for item in inside if item.start > equals >= 0]
            named.append(Named(start, (after or inside[-1:])[0].value, True))
    return named


def _at(found: Sequence[Found], starts: Sequence[int], index: int) -> Decimal:
    """The value of the first number from an index of the text on, else of the last."""
    return found[min(bisect_left(starts, index), len(found) - 1)].value


def _boxes(text: str) -> list[tuple[int, int]]:
    """Start and end of what the closed boxes of a normal text contain."""
    found = []
    for box in re.finditer(rf"{_BOX}\s*\{{", text):
        depth = 1
        for brace in re.finditer(r"[{}]", text[box.end() : box.end() + 300]):
            depth += 1 if brace[0] == "{" else -1
            if not depth:
                found.append((box.end(), box.end() + brace.start()))
                break
    return found


_CURRENCY = "$€£¥￥₹"
_MARKS = rf"[\s:*_`~≈=(\[{{+\-{_BOX}{_CURRENCY}]*"
_BETWEEN = re.compile(
    rf"{_MARKS}(?:(?:now|thus|therefore|then|about|approximately|roughly|exactly|only|just|equal\s+to)\b{_MARKS})*"
)

_FRACTIONS = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_CHARACTERS = str.maketrans(
    {
        **{chr(ord("０") + digit): str(digit) for digit in range(10)},
        **dict(zip("．，－−–‐‑﹣＋％／＝（）⁄∕", ".,------+%/=()//", strict=True)),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad" + _BOX, None),
        **dict.fromkeys("\u00a0\u2009\u202f\u3000—―", " "),
        # 2½ and 2 ½ are mixed numbers
        **{sign: f"\\frac{{{unicodedata.normalize('NFKC', sign).replace('⁄', '}{')}}}" for sign in _FRACTIONS},
    }
)  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "0123456789" * 2)
_ABOVE, _BELOW = r"(?:\{\s*(-?\s?[\d,.]+)\s*\}|\s*(\d))", r"\s*(?:\{\s*([\d,.]+)\s*\}|(\d))"
# LaTeX and currency codes, rewritten in this order.
_REWRITES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"(?<![⁰¹²³⁴-⁹])[⁰¹²³⁴-⁹]{1,4}/[₀-₉]{1,4}",
            lambda found: "\\frac{{{}}}{{{}}}".format(*found[0].translate(_RAISED).split("/")),
        ),
        (r"\{,\}", ","),
        (r"\\[,!;: ]", ""),
        (r"\\([%$#&_])", r"\1"),
        (r"\\?(?<![a-zA-Z])(?:boxed|fbox)(?=\s*\{)", f" {_BOX}"),
        (r"<\|begin_of_box\|>([^<]*)<\|end_of_box\|>", rf" {_BOX}{{\1}}"),
        (rf"(?:(?<=\d)[ ~]*|(?<=-)|)\\[cdtx]?frac\s*{_ABOVE}{_BELOW}", lambda found: _fraction(found)),
        (r"\\(?:times|cdot)(?![a-zA-Z])", " × "),
        (r"\\[a-zA-Z]+", " "),
        (r"\^\s*[{(]\s*(-?\d+)\s*[})]", r"^\1"),
        (r"\b(?:(?:USD?|CNY|RMB|EUR|GBP|HKD|INR|Rs\.?)\s?\$?|[ACS]\$)(?=\d)", " $"),
    )
)


def _fraction(found: re.Match[str]) -> str:
    """A fraction in a line; a minus before it stays next to it, as do the digits of a mixed number but for one space."""
    above, below = found[1] or found[2], found[3] or found[4]
    return f"{'' if found.string[found.start() - 1 : found.start()] == '-' else ' '}{above.replace(' ', '')}/{below} "


# The groups of a thousands separator have three digits each (in India two before the last), else the separator only
# separates two numbers. With a comma before the cents, points and spaces separate thousands.
_PLAIN = "|".join(
    (
        r"(?P<comma>\d{1,3}(?:[.\x20]\d{3})+,\d{1,2}(?![\d,])|\d{1,3}(?:\.\d{3}){2,}(?![\d.]|,\d)"
        r"|\d+,\d{1,2}(?=\s?(?:€|EUR\b))|(?<=€)\d+,\d{1,2}(?![\d,])|(?<=€\x20)\d+,\d{1,2}(?![\d,]))",
        r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?![\d,])|\d{1,3}(?:['’]\d{3})+(?![\d'’])"
        r"|\d{1,3}(?:_\d{3})+(?!\w)|\d{1,3}(?:\x20\d{3})+(?![\d/]|[.,]\d)|\d+)(?:\.\d+)?",
        r"(?<![\w.)])\.\d+",
    )
)
_CHINESE_SCALE = r"(?:[百千]?[万亿]|百(?!分)|千(?![克米瓦卡焦帕赫升]))"
_NUMBER = re.compile(
    rf"""(?:(?<![A-Za-z0-9_])|(?<=[0-9][xX]))
    (?P<plain>{_PLAIN})
    (?:
      (?P<power>[eE][+-]?\d{{1,2}}(?!\w)|\s{{0,3}}[×xX*]\s{{0,3}}10\^[+-]?\d{{1,2}}(?!\d))
      |\^(?P<exponent>-?\d{{1,2}})(?![\d.])
      |\s?/\s?(?P<below>\d+(?:\.\d+)?)(?![\d/])
      |[ ](?:and[ ])?(?P<over>\d{{1,4}})/(?P<under>\d{{1,4}})(?![\d/])
      |[ ]and[ ]a[ ](?P<half>half)\b
      |[ -]?(?P<scale>hundred|thousand|lakh|million|crore|billion|trillion)\b
      |(?P<chinese>{_CHINESE_SCALE}(?:零?\d+(?:\.\d+)?{_CHINESE_SCALE})*)
      |分之(?P<part>\d+)
      |(?P<thousands>[kK])\b
      |(?P<ordinal>st|nd|rd|th)\b
    )?""",
    re.VERBOSE,
)
_SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "trillion": 10**12,
}
_CHINESE_SCALES = {"百": 100, "千": 1000, "万": 10**4, "亿": 10**8}


def _normal(text: str) -> str:
    """The text with ASCII digits and signs, and LaTeX turned into plain notation."""
    text = text.translate(_CHARACTERS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def _numbers(text: str) -> Iterator[Found]:
    """The numbers written in digits, in order."""
    for match in _NUMBER.finditer(text):
        start = match.start()
        before = text[start - 1] if start else ""
        if before == "^":  # the exponent of a unit, as in 18 m^2; that of a number is part of its match
            continue
        value = _value(match)
        if value is not None:
            value = value.copy_negate() if _negative(text, start) else value
            yield Found(start, match.end(), value, ordinal=bool(match["ordinal"]) or before == "第")


def _value(match: re.Match[str]) -> Decimal | None:
    """The value of a match of `_NUMBER` without its sign; None for one that is not a number (1/0)."""
    plain = match["plain"]
    if match["comma"]:
        plain = re.sub(r"[ .]", "", plain).replace(",", ".")
    value = Decimal(re.sub(r"[ ,_'’]", "", plain))
    if len(match["plain"]) > 40:  # nothing sensible is scaled, and the arithmetic would round
        return value
    try:
        return _scaled(value, match)
    except DecimalException:
        return None


def _scaled(value: Decimal, match: re.Match[str]) -> Decimal:
    """The value with what follows it: a power of ten, an exponent, a denominator, a fraction, a scale."""
    kind = match.lastgroup
    if kind == "power":
        return value.scaleb(int(re.split(r"[eE^]", match["power"])[-1]))
    if kind == "exponent":
        return value ** int(match["exponent"])
    if kind == "below":  # but 12/25/2023 is not a fraction
        return (
            Decimal(match["below"])
            if match.string[match.start() - 1 : match.start()] == "/"
            else value / Decimal(match["below"])
        )
    if kind == "under":
        return value + Decimal(match["over"]) / Decimal(match["under"])
    if kind == "part":  # 百分之20 is read as its percentage, as 20% is
        return Decimal(match["part"]) / value
    if kind == "half":
        return value + Decimal("0.5")
    if kind == "thousands":
        return value * (1000 if match.string[match.start() - 1 : match.start()] in tuple(_CURRENCY) else 1)
    if kind == "chinese":
        return _chinese_scaled(f"{value:f}{match['chinese']}")
    return value * _SCALES.get(match["scale"] or "", 1)


def _chinese_scaled(text: str) -> Decimal:
    """1亿2000万 is 120,000,000: the sum of its parts."""
    total = Decimal(0)
    for digits, scales in re.findall(r"([\d.]+)([百千万亿]+)", text):
        part = Decimal(digits)
        for scale in scales:
            part *= _CHINESE_SCALES[scale]
        total += part
    return total


def _negative(text: str, start: int) -> bool:
    """Whether a minus sign belongs to the number: not in 10-15, 10 - 5, COVID-19, nor the bullet of "- 5 apples"."""
    found = re.search(r"([^\s-]?)([ \t]*)-([ \t]?)\Z", text[max(0, start - 12) : start].rstrip(_CURRENCY))
    if found is None:
        return False
    previous, gap, space = found.groups()
    if space:  # a sign only where an operand is expected
        return previous in ("=", "(", ":", "≈", "{") or (previous == "$" and not gap)
    return not re.match(r"[0-9)\]}%°]" if gap else r"[A-Za-z0-9_)\]}%°]", previous)
