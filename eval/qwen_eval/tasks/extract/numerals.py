"""Numbers written in words: Chinese numerals (三十六, 一千零八十, 百分之五) and English ones (thirty-six, two hundred)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

_DIGITS = {character: value for value, row in enumerate(
    ("零〇", "一壹", "二贰两兩", "三叁", "四肆", "五伍", "六陆", "七柒", "八捌", "九玖")) for character in row}  # fmt: skip
_UNITS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_SCALES = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}

_UNDER_TWENTY = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNDER_TWENTY)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_MULTIPLES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_WORD = "|".join(sorted([*_WORDS, *_MULTIPLES], key=len, reverse=True))

_FIRST = "".join([*_DIGITS, *_UNITS])
_RUN = f"[{_FIRST}][{_FIRST}{''.join(_SCALES)}点]*"
_CHINESE = re.compile(rf"(?<!第)(?:(?P<below>{_RUN})分之)?(?P<run>{_RUN})")
_AND = "|".join(rf"(?<={word}) and " for word in _MULTIPLES)
_ENGLISH = re.compile(rf"\b(?:{_WORD})(?:(?:[ -]|{_AND})(?:{_WORD}))*\b(?!\s+of\b|-)", re.IGNORECASE)

# What announces an answer, and what may stand before and after a lone Chinese digit that counts something: 一 and the
# like are parts of many words (一共, 统一, 三角形).
_CUE = re.compile(
    r"(?:\banswer(?:\s+is|\s*:)|答案[是为:：]|答[:：]|等于|=)[\s*]*(?:about|approximately|约)?[\s*]*\Z", re.IGNORECASE
)
_COUNTED_BEFORE = "是为于有剩共得需要买花用下了=:：约"
_MEASURES = "个只元块角米天岁次本支张条人年月周倍斤克升页辆台件名位棵朵颗双套箱盒瓶杯枚头小公"


def find(text: str, everywhere: bool) -> Iterator[tuple[int, int, Decimal]]:
    """Start, end and value of the numbers in words, not in order: Chinese numerals with units (三十六) wherever they
    are; lone digits (三) and English words after something like "the answer is", or, with `everywhere`, in any place
    where they count something."""
    for match in _CHINESE.finditer(text):
        if _is_number(text, match, everywhere) and (value := _chinese_part(match)) is not None:
            yield match.start(), match.end(), value
    for match in _ENGLISH.finditer(text):
        cued = _cued(text, match.start())
        if (cued or (everywhere and match.group().lower() != "one")) and (value := english(match.group())) is not None:
            yield match.start(), match.end(), value


def _cued(text: str, start: int) -> bool:
    return bool(_CUE.search(text[max(0, start - 40) : start]))


def _is_number(text: str, match: re.Match[str], everywhere: bool) -> bool:
    """Whether a run of numeral characters is a number rather than a part of a word."""
    run, after = match["run"], text[match.end() : match.end() + 2]
    if match["below"] or (len(run) > 1 and not all(character in _DIGITS for character in run)) or len(run) > 2:
        return True
    if after[:1].isalpha() and not (after[0] in _MEASURES and run != "一") and not (run == "十" and after == "分钟"):
        return False
    before = text[max(0, match.start() - 6) : match.start()].rstrip(" *")[-1:]
    return _cued(text, match.start()) or (everywhere and (not before.isalpha() or before in _COUNTED_BEFORE))


def _chinese_part(match: re.Match[str]) -> Decimal | None:
    """The value of a run, or of a fraction: 三分之一 is a third, 百分之二十 is 20 as 20% is."""
    value = chinese(match["run"])
    below = Decimal(1) if match["below"] in (None, "百") else chinese(match["below"])
    return value / below if value is not None and below else None


def chinese(text: str) -> Decimal | None:
    """The value of a Chinese numeral; None if the characters do not form one ("千千", "十点")."""
    whole, point, decimals = text.partition("点")
    if point and (not decimals or any(character not in _DIGITS for character in decimals)):
        return None
    value = _positional(whole) if all(character in _DIGITS for character in whole) else _structured(whole)
    if value is None:
        return None
    return Decimal(f"{value}.{''.join(str(_DIGITS[character]) for character in decimals)}" if point else value)


def _positional(text: str) -> int | None:
    """Digits one after another: 二零二四 is 2024."""
    return int("".join(str(_DIGITS[character]) for character in text)) if 0 < len(text) <= 20 else None


def _structured(text: str) -> int | None:
    """Digits with units: 一千零八十, 三百五 (350), 二十万."""
    total = section = 0
    digit: int | None = None
    last = 10  # the unit before: a digit at the end of 三百五 counts tens, one of 三万五 thousands
    for character in text:
        if character in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[character]
            last = 10 if digit == 0 else last
        elif character in _UNITS:
            if digit is None and not (_UNITS[character] == 10 and section == 0):
                return None
            section += (1 if digit is None else digit) * _UNITS[character]
            last, digit = _UNITS[character], None
        else:
            section += digit or 0
            if section == 0:
                return None
            total = (total + section) * _SCALES[character] if _SCALES[character] > 10**4 else total + section * 10**4
            last, section, digit = _SCALES[character], 0, None
    return total + section + (digit or 0) * max(1, last // 10)


def english(text: str) -> Decimal | None:
    """The value of an English numeral; None if the words do not form one ("two three")."""
    total = section = 0
    room = 100  # the next word must be smaller: any below 100 after a multiple, a digit after twenty, none after two
    for word in re.findall(_WORD, text.lower()):
        if word in _MULTIPLES:
            section = max(1, section) * _MULTIPLES[word]
            if _MULTIPLES[word] > 100:
                total, section = total + section, 0
            room = 100
        elif _WORDS[word] < room:
            section += _WORDS[word]
            room = 10 if word in _TENS else 0
        else:
            return None
    return Decimal(total + section)
