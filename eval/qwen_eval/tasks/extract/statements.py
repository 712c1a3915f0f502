"""The top-level statements of a program that nothing has parsed: a text can be built to break a parser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from qwen_eval.tasks.extract.fences import Quote

IMPORT = re.compile(r"from\s+[\w.]+\s+import\b|import\s+[\w.]+(?:\s+as\s+\w+)?\s*(?:[,;#]|$)")
DEFINITION = re.compile(r"^(?:async[ \t]+)?def[ \t]+\w+[ \t]*[(\[]|^class[ \t]+\w+[ \t]*[(:]", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(?:\s*:\s*[\w\[\], .]+)?\s*=(?!=)\s*\S")
_SEVERAL = re.compile(r"[A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)+\s*=(?!=)\s*\S")
_DECORATOR = re.compile(r"@\w")
_TOP_LEVEL = (IMPORT, DEFINITION, _ASSIGNMENT, _SEVERAL, _DECORATOR)
_FILLING = re.compile(r"(?:for|while|if|with)\b.*:|[A-Za-z_]\w*(?:\s*[+\-*/|&]=|\[|\.\w+\()")  # TABLE[0] = 1
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
_STRING = re.compile(
    r"""(?<![fF])(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3})|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|#.*"""
)
# What binds names: targets of loops and assignments, lambdas, "as"; parameters; and what is global all the same.
_BINDING = re.compile(
    r"\bfor\s+([\w\s,()*]{1,100}?)\s+in\b"
    r"|^[ \t]+(\(?[A-Za-z_*][\w ,*]{0,100}?\)?)[ ]*(?::[^=\n]{1,80})?(?:[+\-*/%|&^]|//)?=(?!=)"
    r"|\blambda\s+([^:\n]{1,100}):|\bas\s+(\w+)|(\w+)\s*:=",
    re.MULTILINE,
)
_PARAMETERS = re.compile(r"\bdef\s+\w+\s*\(([^\n]{0,400}?)\)\s*(?:->|:)")
_BRACKETED = re.compile(r"\[[^\[\]]*\]|\([^()]*\)")
_GLOBAL = re.compile(r"^[ \t]+(?:global|nonlocal)[ ]+([\w ,]+)", re.MULTILINE)
_NAME = re.compile(r"(?<![.\w])[A-Za-z_]\w*")


@dataclass
class Statement:
    """A top-level statement as its lines come in, with the brackets and the triple quote it has open."""

    lines: list[str] = field(default_factory=list)
    depth: int = 0
    quote: Quote = field(default_factory=Quote)

    def add(self, line: str) -> None:
        self.lines.append(line)
        for token in self.quote.add(line):
            self.depth = max(0, self.depth + _BRACKETS.get(token, 0))

    def takes(self, line: str) -> bool:
        """Whether a line continues the statement: it is blank, indented, or inside brackets or a string."""
        decorated = self.lines[-1].startswith("@") and (line.startswith("@") or DEFINITION.match(line))
        return bool(self.depth or self.quote.open or not line.strip() or line[0] in " \t)]}" or decorated)

    def text(self) -> str:
        return "\n".join(self.lines)

    def defines(self) -> set[str]:
        """The names that it gives a value to; {"*"} for an import of everything."""
        text = _STRING.sub(lambda found: found[1] or "", self.text())
        if IMPORT.match(text):
            names = re.sub(r"^(?:from\s+[\w.]+\s+)?import\b|[()\\]", " ", text.partition(";")[0])
            return {part.split()[-1].partition(".")[0] for part in names.split(",") if part.strip()}
        head = next((line for line in self.lines if not line.startswith("@")), "")
        if DEFINITION.match(head):
            return set(re.findall(r"(?:def|class)[ \t]+(\w+)", head)[:1])
        return set(_NAME.findall(re.split(r"[:=]", head)[0]))

    def may_help(self, entry_point: str) -> bool:
        """Whether it can be put before another program: it is neither a version of the entry point nor a usage example."""
        if entry_point in self.defines() or DEFINITION.search(self.text()):
            return entry_point not in self.defines()
        calls = "|".join(["input", re.escape(entry_point)] if entry_point else ["input"])
        return not re.search(rf"\b(?:{calls})\(|__name__", self.text())


def free_names(code: str) -> set[str]:
    """The names that a program uses and that none of its functions binds, outside comments and multi-line strings."""
    code = _STRING.sub(lambda found: found[1] or "", code)
    bound = {name for found in _BINDING.finditer(code) for name in _NAME.findall(found[found.lastindex or 0])}
    for found in _PARAMETERS.finditer(code):
        flat = _BRACKETED.sub("", _BRACKETED.sub("", found[1]))
        bound |= set(re.findall(r"(?:^|,)\s*\*{0,2}(\w+)", flat))
    shared = {name for found in _GLOBAL.finditer(code) for name in _NAME.findall(found[1])}
    return set(_NAME.findall(code)) - (bound - shared)


def split(text: str, kinds: Sequence[re.Pattern[str]] = _TOP_LEVEL) -> list[Statement]:
    """The top-level statements of these kinds (imports, definitions with their decorators, assignments), each with its block.
    What is between them is left out."""
    kept: list[Statement] = []
    open_now = False
    for line in text.split("\n"):
        if open_now and kept[-1].takes(line):
            kept[-1].add(line)
            continue
        open_now = any(kind.match(line) for kind in kinds)
        if open_now:
            kept.append(Statement())
            kept[-1].add(line)
    return kept


def program(text: str, entry_point: str) -> str:
    """The imports, definitions and assignments of a text, without the prose between them, and without usage examples: prints
    and calls of the function."""
    kept = [
        item
        for item in split(text)
        if not (entry_point and _ASSIGNMENT.match(item.lines[0]) and f"{entry_point}(" in item.lines[0])
    ]
    return "\n".join(item.text() for item in kept).rstrip() + "\n"


def with_helpers(code: str, earlier: Sequence[str], later: Sequence[str], entry_point: str) -> str:
    """A program after what it uses and does not define: imports, helpers and constants, with the statements that fill these, of
    the programs before it, the nearest first; else imports and helpers of those behind it."""
    wanted = free_names(code) - {name for item in split(code) for name in item.defines()} - {entry_point}
    before: list[str] = []
    for kinds, programs in (((*_TOP_LEVEL, _FILLING), earlier[::-1]), ((IMPORT, DEFINITION, _DECORATOR), later)):
        for other in programs:
            items = [item for item in split(other, kinds) if item.may_help(entry_point)]
            taken = _needed(items, wanted)
            if taken:
                before.insert(0, "\n".join(item.text().rstrip() for item in taken))
    return "\n\n".join([*before, code])


def _needed(items: Sequence[Statement], wanted: set[str]) -> list[Statement]:
    """The statements that define wanted names, or names that these use, in their order; `wanted` is kept up to date."""
    gives = [item.defines() for item in items]
    taken: set[int] = set()
    constants: set[str] = set()
    found = True
    while found:
        found = False
        for index, item in enumerate(items):
            if index in taken:
                continue
            fills = _FILLING.match(item.lines[0]) and not _ASSIGNMENT.match(item.lines[0])
            if constants & free_names(item.text()) if fills else gives[index] & wanted or "*" in gives[index]:
                taken.add(index)
                found = True
                constants |= set() if fills or DEFINITION.search(item.text()) else gives[index]
                wanted |= free_names(item.text())
    wanted -= {name for index in taken for name in gives[index]}
    return [items[index] for index in sorted(taken)]
