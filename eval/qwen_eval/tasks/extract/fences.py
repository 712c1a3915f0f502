"""The fenced blocks of a chat reply that hold Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_FENCE = re.compile(r"(?P<quote>(?:[ ]{0,3}>)*)(?P<indent>\s*)(?P<fence>`{3,}|~{3,})(?P<info>.*)")
_LANGUAGE = re.compile(r"\A\s*(?:python3?|py)?\s+", re.IGNORECASE)
_CODE = re.compile(r"(?:async[ \t]+)?def[ \t]+\w+[ \t]*[(\[]|class[ \t]+\w+[ \t]*[(:]")
_PROSE = re.compile(r"[^=]*\w[ ]+\w[^=]*")  # of a fence's line: more than a language and its attributes
# Strings and comments are skipped whole, so that what is in them does not count.
_TOKEN = re.compile(
    r"""\"{3}.*?(?:\"{3}|$)|'{3}.*?(?:'{3}|$)|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|#.*|[()\[\]{}]|`{3,}|~{3,}"""
)


class Quote:
    """The triple quote that the lines of a program have open so far, "" for none."""

    def __init__(self) -> None:
        self.open = ""

    def add(self, line: str) -> list[str]:
        """Takes the next line; returns its tokens outside the string that was open before: strings, comments, brackets and
        fences."""
        if self.open and self.open not in line:
            return []
        if self.open:
            line, self.open = line.split(self.open, 1)[1], ""
        tokens: list[str] = _TOKEN.findall(line)
        for token in tokens:
            if token[:3] in ('"""', "'''") and not (len(token) >= 6 and token.endswith(token[:3])):
                self.open = token[:3]
        return tokens


def blocks(text: str) -> Iterator[str]:
    """The contents of the fenced blocks, in order; the last one may be cut off. Code on a fence's own line is not lost.

    A block ends at the next fence of its kind that is outside the strings and comments of the program. CommonMark tells by
    length and indentation what is content; replies get these wrong, and outside a string no fence is Python. One that names
    a language begins the next block: the one before was not closed. A fence may also be at the end of the last line of code.
    """
    lines = text.split("\n")
    fences = [_fence(line) for line in lines]
    following = _next_is_bare(fences)
    block: _Block | None = None
    for index, (line, fence) in enumerate(zip(lines, fences, strict=True)):
        if block is None:
            block = _Block(fence) if fence else None
            continue
        if fence and fence["fence"][0] == block.mark[0] and not block.holds(index, lines, fences):
            yield block.text()
            block = None if not fence["info"].strip() or _is_prose(fence["info"]) else _Block(fence)
            continue
        if block.add(line, following[index]):
            yield block.text()
            block = None
    if block:
        yield block.text()


def _fence(line: str) -> re.Match[str] | None:
    """The fence that a line is, None for other lines (```code``` in a line is none)."""
    found = _FENCE.fullmatch(line)
    return None if found is None or (found["fence"][0] == "`" and "`" in found["info"]) else found


def _is_prose(info: str) -> bool:
    """Whether what follows a fence on its line is text behind a block: ``` Hope this helps"""
    return _PROSE.fullmatch(info) is not None and not _CODE.search(info)


def _next_is_bare(fences: Sequence[re.Match[str] | None]) -> list[bool]:
    """For every line, whether the next fence behind it names no language."""
    found, bare = [], False
    for fence in reversed(fences):
        found.append(bare)
        bare = not fence["info"].strip() if fence else bare
    return found[::-1]


class _Block:
    """A fenced block as its lines come in. mark: the fence that opened it."""

    def __init__(self, fence: re.Match[str]) -> None:
        code = _LANGUAGE.sub("", fence["info"])
        self.mark: str = fence["fence"]
        self._indent = len(fence["indent"])
        self._quoted = len(re.findall(">", fence["quote"]))
        self._lines = [code] if _CODE.match(code) else []
        self._quote = Quote()
        self._until = -1  # the line that closes the string which is open
        for line in self._lines:
            self._quote.add(line)

    def holds(self, index: int, lines: Sequence[str], fences: Sequence[re.Match[str] | None]) -> bool:
        """Whether a fence is inside a string of the program: one that is open and will be closed before another block."""
        if not self._quote.open:
            return False
        if self._until < index:
            self._until = index
            for later in range(index + 1, len(lines)):
                fence = fences[later]
                if self._quote.open in lines[later]:
                    self._until = later
                    break
                if fence and fence["info"].strip() and len(fence["indent"]) <= self._indent:
                    break
        return self._until > index

    def add(self, line: str, next_bare: bool) -> bool:
        """Takes a line; returns whether it ended the block. next_bare: whether the next fence closes a block."""
        for _ in range(self._quoted):
            line = re.sub(r"^[ ]{0,3}>[ ]?", "", line)
        tokens = self._quote.add(line)
        last = tokens[-1] if tokens and line.rstrip().endswith(tokens[-1].rstrip()) else ""
        comment = last.startswith("#") and len(re.findall(f"{self.mark[0]}{{3,}}", last)) == 1 and not next_bare
        ended = not self._quote.open and (
            last.startswith(self.mark[:3]) or (comment and last.rstrip().endswith(self.mark[:3]))
        )
        self._lines.append(line.rstrip().rstrip("`~") if ended else line)
        return ended

    def text(self) -> str:
        """The lines so far."""
        return "".join(f"{line}\n" for line in self._lines)
