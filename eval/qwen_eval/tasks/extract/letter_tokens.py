"""A chat reply to a multiple-choice question, cut into the few kinds of token that decide which letter it commits to.

The tables below are the whole vocabulary, English and Chinese. A word in none of them is OTHER: what it says about an
adjacent letter is not known, and nothing is concluded from it.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

LETTERS = string.ascii_uppercase  # the letters that a reply can name
MAX_OPTIONS = len(LETTERS)
_ALWAYS = 8  # letters that are read whatever the number of options: "the answer is E" is an answer, and a wrong one

# Kinds of token
ANSWER, LABEL, PICK, IS, GOOD, BAD = "answer", "label", "pick", "is", "good", "bad"
NOT, EXCEPT, IF, HEDGE, FILLER, LINK, LIST = "not", "except", "if", "hedge", "filler", "link", "list"
LABELS = "labels"
BREAK, THEREFORE, CONTRAST = "break", "therefore", "contrast"
LETTER, TEXT, OTHER = "letter", "text", "other"
TICK, CROSS = "tick", "cross"
COMMA, COLON, END, ASK, LINE = "comma", "colon", "end", "ask", "line"

_ENGLISH = {
    ANSWER: "answer answers ans final_answer choice selection result conclusion response verdict",
    LABEL: "option letter",
    LABELS: "options choices alternatives",
    PICK: "choose chose chosen select pick guess go_with going_with opt_for vote_for settle_on",
    IS: "is are be was were_to_be being seems appears equals corresponds_to matches leaves leaving namely means",
    GOOD: "correct right true best suitable appropriate accurate valid proper fitting",
    BAD: "incorrect wrong false inaccurate untrue invalid unsuitable inappropriate mistaken",
    NOT: "not never neither nor cannot no_longer",
    EXCEPT: """eliminate eliminated eliminates eliminating rule_out ruled_out rules_out ruling_out exclude excluded discard
        discarded reject rejected dismiss dismissed rather_than instead_of unlike except other_than besides apart_from""",
    IF: """if suppose supposing assuming assume were whether unless someone somebody students people others many thought
        initially originally seemed looked tempting at_first at_first_glance had""",
    HEDGE: "might may could maybe perhaps possibly alternative second_choice second_best next_best",
    FILLER: """the my our your this that these those what it i we you think thinks believe say would should will must shall
        definitely clearly certainly surely obviously most more very likely probably indeed also final one here there now
        am confident sure going_to feel feeling let me us i'd i'll i'm i've we'd it'd only just still simply all both
        either no can listed provided given following above single yes ok okay well hmm ah without_doubt of_course she he
        they an to for_sure has have make makes do does did overall finally gets get""",
    LINK: """in on of for from with under at by about among between based according given_that per as_for regarding
        during within into over""",
    LIST: "and or to through & and/or versus vs",
    BREAK: """because since as while whereas although though which when where who then also_note due""",
    THEREFORE: "so thus therefore hence consequently accordingly in_conclusion",
    CONTRAST: "but however rather actually instead wait correction",
}
_CHINESE = {
    ANSWER: "答案 正解 解答 回答 答案选项 结论 结果",
    LABEL: "选项 项 两项 三项 四项 一项 题肢",
    LABELS: "各选项 四个选项 选项有 选项包括 以下选项",
    PICK: "选择 选定 选取 选 应选 故选 当选择",
    IS: "是 为 应为 即 就是 即为 乃 对应 对应的是 等于 便是 即是 应是 当属",
    GOOD: "正确 符合 合适 恰当 准确 成立 合理 满足 当选 入选 没有错误 无误 吻合",
    BAD: "错误 错 有误 不正确 不对 不符合 不符 不恰当 不准确 不合适 不成立 不合理 不满足 不当选 不入选",
    NOT: "不 非 并非 不是 不能 不会 不应 不应该 不可能 不属于 没有 未 不认为 不选 别",
    EXCEPT: "排除 而不是 而非 除了 除 剔除 淘汰 舍去 不同于",
    IF: """如果 假设 若 假如 倘若 是否 有的 有些 有人 同学 考生 误选 错选 易选 误认为 起初 原以为 一开始 看似 原本 最初 为什么
        的话""",
    HEDGE: "可能 也许 或许 大概 有可能",
    FILLER: """我 我们 认为 觉得 相信 应 应该 应当 该 本题 此题 这道题 这题 这道 题 的 了 吧 呢 啊 也 就 最 最终 最后 参考 说法
        叙述 描述 表述 观点 做法 题意 题目 要求 依 根据 所述 显然 可知 得 可得 会 要 只有 只 仅 均 都 全 这个 这 那么 那 一个
        个 其中 中 里 毫无疑问 毋庸置疑 没错 必 一定 必然 确实 更 比较 很 较 选出 给出 判断 由此 由上 可见 作者 您好 你好 能
        可以 可 以 当 者 四个 各 本 其 它""",
    LINK: "在 从 由 对于 关于 与 于 按照 按 因",
    LIST: "和 或 或者 与 及 以及 还是 到 至 并",
    BREAK: "因为 由于 而且 解析 解释 说明 原因 理由 则",
    THEREFORE: "所以 因此 故 因而 于是 从而 综上 综上所述 可见 由此可知 总之",
    CONTRAST: "但 但是 而 而是 不过 然而 其实 实际上",
    # words that hold a character of the tables above and mean something else
    OTHER: """选择题 单选 多选 选举 选拔 选才 选官 选民 选手 选修 筛选 首选 备选 当选人 挑选 选自 竞选 入选者 成为 作为 行为
        为了 以为 分为 称为 视为 人为 为主 不同 不断 不仅 不但 不少 不得 不错 错综 交错 非常 非洲 是非 项目 项链
        事项 正确率 正确性 答题 于是否 中国 中央 中心 要素 重要 主要 会计 社会 机会 可能性 都城 首都 成都 首先 其次 其他 其余
        最早 最晚 最大 最小 最高 最低 最多 最少 题型 本质 基本 根本 资本 成本 日本 能力 功能 能量 全部 安全 健全 得到 获得
        取得 必须 必要 更加 较大 各种 各个 说明书 个人 个体 里面 这些 那些 我国 自我 以上 以下 以前 以后 以来 所以说""",
}
DASHES = ("-", "–", "—")
_KINDS = {
    word.replace("_", " "): kind
    for table in (_ENGLISH, _CHINESE)
    for kind, words in table.items()
    for word in words.split()
}


def _alternatives(table: dict[str, str], holding: str = "") -> str:
    """A pattern for the words of a table that hold a certain character, the longest first."""
    words = {word.replace("_", " ") for words in table.values() for word in words.split()}
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True) if holding in word)


_CHINESE_FIRST = "".join(sorted({word[0] for words in _CHINESE.values() for word in words.split()}))

_TEXT_MARK = 0xE000  # private-use characters that replace the options' texts
_QUOTED = r"""[(\["'“‘<《【「『{]"""
_UNQUOTED = r"""[)\]"'”’>》】」』}]"""


@functools.lru_cache(maxsize=MAX_OPTIONS)
def _pattern(last: str) -> re.Pattern[str]:
    """The pattern of a token, for options whose letters go up to `last`."""
    letter = f"(?-i:[A-{last}a-{last.lower()}])"
    return re.compile(
        rf"""(?P<space>[ \t]+)
    |(?P<text>[{chr(_TEXT_MARK)}-{chr(_TEXT_MARK + MAX_OPTIONS - 1)}])
    |(?:(?<![A-Za-z])|(?<=option)|(?<=choice)|(?<=answer)){_QUOTED}\s*(?P<marked>{letter})\s*(?:{_UNQUOTED})+
    |(?<![A-Za-z0-9_∠△°])(?<![A-Za-z]\.)(?<![A-Za-z][A-Za-z]-)(?<!\d[ \t])
        (?P<letter>{letter})(?![A-Za-z0-9_*+#'’°]|-[A-Za-z]{{2}}|\.[A-Za-z](?![A-Za-z])|[ \t]?[+·<∪∩∈]|×\w|[ \t]×[ \t]?\w)
    |(?<![A-Za-z0-9])(?P<joined>(?-i:[A-H]{{2,5}}))(?![A-Za-z0-9])
    |(?P<negated>\b[a-z]+n['’]t\b)
    |(?P<phrase>(?<![a-z])(?:{_alternatives(_ENGLISH, " ")})(?![a-z]))
    |(?P<right>对(?=的?\s*(?:[,。;.!:)\]]|$)))
    |(?P<reply>答(?=\s*[:]))
    |(?P<phrase_zh>(?=[{_CHINESE_FIRST}])(?:{_alternatives(_CHINESE)}))
    |(?P<tick>[✓✔☑✅⭕]|√(?!\s?[\d({{\\]))
    |(?P<cross>[✗✘✕✖❌❎]|×(?!\s?\w)|(?<=\S)×(?=\s))
    |(?P<word>[a-z0-9][a-z0-9_'+/-]*|[^\W_])
    |(?P<line>\n)
    |(?P<ask>[?])
    |(?P<end>[.。!;…]+)
    |(?P<comma>,)
    |(?P<list>[、/&~–—-])
    |(?P<colon>[:=→⇒])
    """,
        re.VERBOSE | re.IGNORECASE | re.MULTILINE,
    )


def letters_read(options: Sequence[str]) -> str:
    """The letters that are read in a reply to a question with these options."""
    return LETTERS[: max(len(options), _ALWAYS)]


_SIMPLE = {
    "line": LINE, "ask": ASK, "end": END, "comma": COMMA, "list": LIST, "colon": COLON, "word": OTHER, "phrase": OTHER,
    "phrase_zh": OTHER, "negated": NOT, "right": GOOD, "reply": ANSWER, "tick": TICK, "cross": CROSS,
}  # fmt: skip


class Token(NamedTuple):
    """A token: its kind, the letters it stands for, where it is, and how it is written.

    marked: in brackets or quotes. label: a letter at the start of a line with a mark after it, as in "B. Rhea". lower:
    a lower-case letter. opens: it is at the start of a line.
    """

    kind: str
    letters: frozenset[str] = frozenset()
    start: int = 0
    end: int = 0
    word: str = ""
    marked: bool = False
    label: bool = False
    lower: bool = False
    opens: bool = False


# -- normal form ----------------------------------------------------------------------------------------------------

_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\r"), None)
_RESERVED = dict.fromkeys(range(_TEXT_MARK, _TEXT_MARK + MAX_OPTIONS), None)
_CIRCLED = {first + number: LETTERS[number] for first in (0x24B6, 0x24D0, 0x1F150, 0x1F170) for number in range(26)}
_CHARACTERS = (
    _WIDE | _RESERVED | _INVISIBLE | _CIRCLED | {ord("\u3000"): " ", ord("\u00a0"): " ", ord("’"): "'", ord("｡"): "。"}
)
_REWRITES = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"(?<=\S)\s*<\|(?:im_end|im_start|endoftext|eot_id)[\s\S]*\Z", ""),
        (r"(?<=\S)\n+\s*(?:Question|Human|User|问题|题目)\s*:[\s\S]*\Z", ""),
        (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|bf|rm)\s*\{([^{}]*)\}", r"\1"),
        (r"\\f?boxed\s*\{([^{}]{0,300})\}", "\nanswer: \\1\n"),
        (r"<answer>", "\nanswer: "),
        (r"\\checkmark\b|:(?:white_check_mark|heavy_check_mark):", "✓"),
        (r"</?(?:b|i|u|p|br|em|strong|span|code|div|answer)\s*/?>", " "),
        (r"\\[()\[\]]|\\?\$|\\(?=\s)|\*\*|__|`+(?:\w+\n)?", ""),
        (r"(?<!\*)\*([^*\n]{1,200})\*(?!\*)", r"\1"),
        (r"^[ \t]*(?:[#>•·–-]+[ \t]+|[#>]+)+", ""),
        (r"\\[,;! ]", " "),
        (r"\b(answer|choice|option)[–—-]+(?=[a-z]\b)", r"\1: "),
        (r"\b(it|that|this|here|there|what|which|answer|choice|option)'s\b", r"\1 is"),
    )
)  # fmt: skip


def normal(text: str) -> str:
    """The text without markup and LaTeX, full-width characters as ASCII; what follows the end of the reply is cut."""
    text = re.sub(r"[ \t]{2,}", " ", re.sub(r"\n\s*\n", "\n\n", text.translate(_CHARACTERS)))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def option_texts(options: Sequence[str]) -> list[str]:
    """The options in normal form, without full stops at the end; "" for one that cannot be told from another."""
    texts = [" ".join(normal(option).rstrip().rstrip(".。").split()) for option in options[:MAX_OPTIONS]]
    return ["" if texts.count(text) > 1 else text for text in texts]


def masked(text: str, options: Sequence[str]) -> str:
    """The text with every whole occurrence of an option's words turned into one private-use character.

    An option that is a letter, or a word of the tables ("True", "正确"), is not: such a word mostly means itself.
    """
    letters = [*letters_read(options)]
    marks = {
        option.lower(): chr(_TEXT_MARK + index)
        for index, option in enumerate(options)
        if option and option.upper() not in letters and option.lower() not in _KINDS
    }
    if not marks:
        return text
    patterns = (
        rf"{'(?<![A-Za-z0-9])(?<![0-9][.,])' if option[0].isascii() and option[0].isalnum() else ''}"
        + r"\s+".join(map(re.escape, option.split()))
        + ("(?![A-Za-z0-9]|[.,][0-9])" if option[-1].isascii() and option[-1].isalnum() else "")
        + r"(?:\.(?=\s+(?-i:[a-z])))?"  # an option's own full stop inside a sentence
        for option in sorted(marks, key=len, reverse=True)
    )
    found = re.compile("|".join(patterns), re.IGNORECASE)
    return found.sub(lambda match: marks.get(" ".join(match.group().lower().split()).rstrip("."), match.group()), text)


# -- tokens ---------------------------------------------------------------------------------------------------------


def tokens(reply: str, options: Sequence[str]) -> list[Token]:
    """The tokens of a reply; letters that belong together ("A and C", "A-D", AC) are one token."""
    text = masked(reply, options)
    last = letters_read(options)[-1]
    found = [_token(match, text, last) for match in _pattern(last).finditer(text) if match.lastgroup != "space"]
    return _grouped(_without_negations(_without_articles(_without_pronouns(found, text), text)))


# What may stand before a letter that opens a line, and after it where it labels what follows.
_OPENING = re.compile(
    r"[\s(\[\"'“|✓✔☑✅⭕√✗✘✕✖❌❎×\ufe0f]*(?:(?:the\s+)?(?:option|choice)\s*|选项\s*)?", re.IGNORECASE
)
_LABELS = {
    last: re.compile(rf"\s?[.):]|\s?[,、-]\s?(?![A-{last}a-{last.lower()}](?![A-Za-z]))")
    for last in LETTERS[_ALWAYS - 1 :]
}


def _opens(text: str, start: int) -> bool:
    """Whether an index is at the start of its line."""
    low = max(0, start - 24)
    feed = text.rfind("\n", low, start)
    return (feed >= 0 or low == 0) and _OPENING.fullmatch(text, feed + 1, start) is not None


def _token(match: re.Match[str], text: str, last: str) -> Token:
    kind, value, start, end = match.lastgroup or "", match.group(), match.start(), match.end()
    if kind == "text":
        return Token(TEXT, frozenset(LETTERS[ord(value) - _TEXT_MARK]), start, end, opens=_opens(text, start))
    if kind in ("letter", "marked"):
        letter, opens = match[kind], _opens(text, start)
        marked = kind == "marked" or text[end : end + 1] in (")", "]")
        label = opens and (kind == "marked" or _LABELS[last].match(text, end) is not None)
        return Token(LETTER, frozenset(letter.upper()), start, end, letter, marked, label, letter.islower(), opens)
    if kind == "joined":
        distinct = list(value) == sorted(set(value))
        return Token(LETTER if distinct else OTHER, frozenset(value if distinct else ""), start, end, value)
    word = value.lower()
    found = _KINDS.get(word) if kind in ("word", "phrase", "phrase_zh") else None
    return Token(found or _SIMPLE[kind], frozenset(), start, end, word)


# what may follow the bare letter I; before any other English word it is the pronoun
_AFTER_I_WORDS = {
    "is", "seems", "appears", "matches", "because", "since", "as", "and", "or", "but", "so", "not", "rather than", "instead",
}  # fmt: skip


def _without_pronouns(found: list[Token], text: str) -> list[Token]:
    """The tokens, with an I that is the pronoun turned into FILLER, like an i that numbers a list: (i), (ii)."""
    kept = []
    for index, token in enumerate(found):
        if token.kind == LETTER and token.word in ("I", "i") and _pronoun(found, index, text):
            token = token._replace(kind=FILLER, letters=frozenset(), word="i", marked=False, label=False, opens=False)
        kept.append(token)
    return kept


def _pronoun(found: Sequence[Token], index: int, text: str) -> bool:
    token, following = found[index], [*found[index + 1 : index + 3]]
    if token.marked:
        return token.lower and re.search(r"[(\[]ii[)\]]", text, re.IGNORECASE) is not None
    after = _AFTER_I_WORDS
    if following and following[0].kind == COMMA:  # "I, like most, ..."
        del following[0]
        after = after - ({"as"} if token.opens else set())
    elif following and not text[token.end : following[0].start].isspace():
        return False
    word = following[0].word if following else ""
    return word[:1].isascii() and word[:1].isalpha() and following[0].kind != LETTER and word not in after


# what may follow the bare letter A; before any other English word it is an article
_AFTER_A = {IS, NOT, BREAK, THEREFORE, CONTRAST, LIST, EXCEPT, HEDGE}
_AFTER_A_WORDS = {"it", "would", "should", "must", "will", "for", "in", "based"}


def _without_articles(found: list[Token], text: str) -> list[Token]:
    """The tokens, with an A that is an article turned into OTHER, like a lower-case letter inside a sentence."""
    kept = []
    for index, token in enumerate(found):
        after = found[index + 1] if index + 1 < len(found) else None
        if token.kind == LETTER and token.word in ("A", "a") and not token.marked and after is not None:
            apart = text[token.end : after.start].isspace()
            if after.kind == TEXT:
                article = apart and after.letters != token.letters
            else:
                english = apart and after.word[:1].isascii() and after.word[:1].isalnum()
                article = english and (token.lower or (after.kind not in _AFTER_A and after.word not in _AFTER_A_WORDS))
            if article:
                token = token._replace(kind=FILLER if token.lower else OTHER, letters=frozenset())
        kept.append(token)
    return kept


def _without_negations(found: list[Token]) -> list[Token]:
    """The tokens, with "not true" and the like merged into one token: wrong."""
    kept: list[Token] = []
    for token in found:
        if token.kind == GOOD and kept and kept[-1].kind == NOT:
            token = kept.pop()._replace(kind=BAD, end=token.end)
        kept.append(token)
    return kept


def _grouped(found: list[Token]) -> list[Token]:
    """The tokens, with letters (or texts) that are joined by commas, "and", "or", "to" merged into one token."""
    kept: list[Token] = []
    index = 0
    while index < len(found):
        token = found[index]
        index += 1
        if token.kind in (LETTER, TEXT):
            comma_only = True
            while (ahead := _joined(found, index, token.kind)) is not None:
                links, index_of_next = ahead
                following = found[index_of_next + 1] if index_of_next + 1 < len(found) else None
                comma_only = comma_only and links == [COMMA]
                ends = following is None or following.kind in (END, LINE, ASK, COMMA, LIST)
                if comma_only and kept and kept[-1].kind in (IS, PICK, COLON) and not ends:
                    break  # "the answer is B, D is wrong": two statements
                other = found[index_of_next]
                letters = token.letters | other.letters
                if LIST in links and found[index].word in (*DASHES, "~", "to", "through", "到", "至"):
                    letters = frozenset(LETTERS[LETTERS.index(min(letters)) : LETTERS.index(max(letters)) + 1])
                token = token._replace(letters=letters, end=other.end, marked=False, label=False)
                index = index_of_next + 1
        kept.append(token)
    return kept


def _joined(found: list[Token], index: int, kind: str) -> tuple[list[str], int] | None:
    """The kinds of the links from `index` on and the index of the letter after them; None if they do not join."""
    links: list[str] = []
    while index < len(found) and found[index].kind in (COMMA, LIST, LABEL, PICK) and len(links) < 4:
        links.append(found[index].kind)
        index += 1
    joins = LIST in links or (COMMA in links and PICK not in links)
    return (links, index) if joins and index < len(found) and found[index].kind == kind else None
