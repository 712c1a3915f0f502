"""GSM8K: the number in a reply.

`default` reads the last number as a person would write it: sign, thousands separators, decimals, fractions, LaTeX, Chinese
numerals. Values are decimals; no text is ever evaluated. The 2023 rules keep their quirks: they lose signs and decimals,
and take a range for a negative number.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from decimal import Decimal, DecimalException
from typing import NamedTuple

from qwen_eval.schema import DataError
from qwen_eval.tasks.extract import numerals

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


def number(reply: str) -> Decimal | None:
    """The last number of the reply; None if there is none.

    Ordinals ("3rd", 第三) count only where there is no other number, and so do numbers written in words, except for
    structured Chinese numerals (三十六) and a word right after "the answer is".
    """
    text = _normal(reply)
    written = list(_numbers(text))
    plain = [item for item in written if not item.ordinal]
    found = plain + [Found(*item) for item in numerals.find(text, everywhere=not plain)] or written
    return max(found).value if found else None


def strict_number(reply: str) -> Decimal | None:
    """The number after the last "The answer is" that has one; None otherwise."""
    text = _normal(reply)
    found = sorted([*_numbers(text), *(Found(*item) for item in numerals.find(text, everywhere=False))])
    starts = [item.start for item in found]
    for cue in reversed(list(re.finditer(r"\bthe\s+(?:final\s+)?answer\s+is\b", text, re.IGNORECASE))):
        index = bisect_left(starts, cue.end())
        if index < len(found) and _BETWEEN.fullmatch(text[cue.end() : found[index].start][:60]):
            return found[index].value
    return None


_CURRENCY = "$€£¥￥₹"
_MARKS = rf"[\s:*_`~≈=(\[{{+\-{_CURRENCY}]*"
_BETWEEN = re.compile(
    rf"{_MARKS}(?:(?:now|thus|therefore|then|about|approximately|roughly|exactly|only|just|equal\s+to)\b{_MARKS})*"
)

_CHARACTERS = str.maketrans(
    {
        **{chr(ord("０") + digit): str(digit) for digit in range(10)},
        **dict(zip("．，－−–‐‑﹣＋％／＝（）", ".,------+%/=()", strict=True)),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", None),
        **dict.fromkeys("\u00a0\u2009\u202f\u3000—―", " "),
        **{fraction: f" {value}" for fraction, value in {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}.items()},
    }
)  # fmt: skip
# LaTeX and currency codes, rewritten in this order.
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}", ","),
        (r"\\[,!;: ]", ""),
        (r"\\([%$#&])", r"\1"),
        (r"\\[dt]?frac\s*\{\s*(-?[\d,.]+)\s*\}\s*\{\s*([\d,.]+)\s*\}", r" \1/\2 "),
        (r"\\[dt]?frac\s*(\d)\s*(\d)", r" \1/\2 "),
        (r"\\(?:times|cdot)(?![a-zA-Z])", " × "),
        (r"\\[a-zA-Z]+", " "),
        (r"\^\s*[{(]\s*(-?\d+)\s*[})]", r"^\1"),
        (r"\b(?:(?:USD?|CNY|RMB|EUR|GBP|HKD|Rs\.?)\s?\$?|[ACS]\$)(?=\d)", " $"),
    )
)

# The groups of a thousands separator have three digits each, else the separator only separates two numbers.
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?![\d/]|[.,]\d)|\d+)(?:\.\d+)?|(?<![\w.)])\.\d+"
_CHINESE_SCALE = r"(?:[百千]?[万亿]|百(?!分)|千(?![克米瓦卡焦帕赫升]))"
_NUMBER = re.compile(
    rf"""(?:(?<![A-Za-z0-9_])|(?<=[0-9][xX]))
    (?P<plain>{_PLAIN.replace(" ", "[ ]")})
    (?:
      (?P<power>[eE][+-]?\d{{1,2}}(?!\w)|\s{{0,3}}[×xX*]\s{{0,3}}10\^[+-]?\d{{1,2}}(?!\d))
      |\^(?P<exponent>-?\d{{1,2}})(?![\d.])
      |\s?/\s?(?P<below>\d+(?:\.\d+)?)(?![\d/])
      |[ ](?:and[ ])?(?P<over>\d{{1,4}})/(?P<under>\d{{1,4}})(?![\d/])
      |[ ]and[ ]a[ ](?P<half>half)\b
      |[ -]?(?P<scale>hundred|thousand|million|billion)\b
      |(?P<chinese>{_CHINESE_SCALE}(?:零?\d+(?:\.\d+)?{_CHINESE_SCALE})*)
      |分之(?P<part>\d+)
      |(?P<thousands>[kK])\b
      |(?P<ordinal>st|nd|rd|th)\b
    )?""",
    re.VERBOSE,
)
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
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
    value = Decimal(re.sub(r"[ ,]", "", match["plain"]))
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
        return previous in ("=", "(", ":", "≈")
    return not re.match(r"[0-9)\]}%°]" if gap else r"[A-Za-z0-9_)\]}%°]", previous)
