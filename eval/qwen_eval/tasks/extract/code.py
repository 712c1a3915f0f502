"""HumanEval: the parts of a problem that the chat prompt shows, and the program in a reply.

Under `qwen2023` a reply gives the completion, the text that follows the problem's own; under `default` a chat reply gives
a whole program. A model's code is neither parsed nor run here: a text can be built to break a parser.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
import warnings
from typing import NamedTuple

from qwen_eval.tasks.extract import ending, fences, statements
from qwen_eval.tasks.extract.statements import DEFINITION

# A line that starts like this is a new top-level statement: what a base model writes after the function it was asked for.
BASE_STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\n```")

_TRIPLE_QUOTED = re.compile(r'("""|\'\'\')(.*?)\1', re.DOTALL)
# A reply that starts like this is code, not prose: "return x", "for i in y:", "total = 0", "if not x: return 0".
_STATEMENT = re.compile(r"return\b|(?:for|if|while|with|try)\b.*:|[a-z_]\w*(?:\s*,\s*\w+)*\s*[-+*/]?=(?!=)")
_FUTURE = re.compile(r"^from __future__ import .*\n?", re.MULTILINE)
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


# -- the problem ----------------------------------------------------------------------------------------------------


class _Header(NamedTuple):
    start: int  # of `def`
    name: int  # of the function's name
    colon: int


def signature(prompt: str, entry_point: str) -> str:
    """The entry point's name, parameters and return type, without `def` and the colon: `add(x: int, y: int)`."""
    header = _header(prompt, entry_point)
    return "" if header is None else prompt[header.name : header.colon].rstrip()


def docstring_2023(prompt: str) -> str:
    """The first triple-quoted text of the prompt, each line stripped: not always the entry point's (tasks 10, 32, ...)."""
    return _first_docstring(prompt)


def docstring(prompt: str, entry_point: str) -> str:
    """The entry point's own docstring, each line stripped; it may follow an import in the body (task 115)."""
    header = _header(prompt, entry_point)
    return "" if header is None else _first_docstring(prompt[header.colon :])


def _first_docstring(text: str) -> str:
    found = _TRIPLE_QUOTED.search(text)
    return "" if found is None else "\n".join(line.strip() for line in found.group(2).split("\n"))


def _header(text: str, entry_point: str) -> _Header | None:
    """Where the entry point's `def` is: the first one at the start of a line that has a colon."""
    for found in re.finditer(rf"^(?:async[ \t]+)?def[ \t]+(?={re.escape(entry_point)}\b)", text, re.MULTILINE):
        depth = 0
        for index in range(found.end(), len(text)):
            depth += _BRACKETS.get(text[index], 0)
            if text[index] == ":" and depth <= 0:
                return _Header(found.start(), found.end(), index)
        return None  # unclosed brackets: a later definition cannot be told from their content
    return None


# -- qwen2023 -------------------------------------------------------------------------------------------------------


def humaneval_base_2023(completion: str) -> str:
    """The completion as the base script of 2023 cut it: at a double blank line, at a blank line, at `def `."""
    for stop in ("\n\n\n", "\n\n", "def "):
        completion = completion.split(stop)[0]
    return completion


def humaneval_chat_2023(response: str, entry_point: str) -> str:
    """The function body that the chat script of 2023 took from a reply: the completion of the problem.

    Its patterns were lazy, left to right, so each part is simply the first match after the previous part: if what
    follows is missing after the first match, it is missing after any later one. Plain searches do, in linear time.
    """
    definition = re.compile(rf"def\s+{re.escape(entry_point)}")
    for body in (_fenced_body(response, definition), _body(response, definition), _body(response, re.compile("def"))):
        if body is not None:
            return body
    return textwrap.indent(response, "    ")


def _after_header(text: str, definition: re.Pattern[str], start: int) -> int | None:
    """The index after the first colon that ends a line, at or after the first definition."""
    found = definition.search(text, start)
    if found is None:
        return None
    colon = text.find(":\n", found.end())
    return None if colon < 0 else colon + 2


def _fenced_body(text: str, definition: re.Pattern[str]) -> str | None:
    fence = text.find("```")
    start = None if fence < 0 else _after_header(text, definition, fence + 3)
    if start is None:
        return None
    end = text.find("\n```", start)
    return None if end < 0 else text[start:end]


def _body(text: str, definition: re.Pattern[str]) -> str | None:
    """From the header to a line feed after which the next line that is not blank is not indented; or to the end."""
    start = _after_header(text, definition, 0)
    if start is None:
        return None
    for feeds in re.finditer(r"\n+", text[start:]):
        if not text.startswith(("  ", "\t"), start + feeds.end()):
            return text[start : start + feeds.start()]
    return text[start:]


# -- default --------------------------------------------------------------------------------------------------------


def humaneval_base(completion: str) -> str:
    """The completion up to its end token, or to the first line that starts a new top-level statement; blank lines and nested
    functions stay."""
    ends = [index for stop in BASE_STOPS if (index := completion.find(stop)) >= 0]
    return completion[: min([*ends, ending.end(completion)])]


def humaneval_chat(response: str, entry_point: str, prompt: str = "") -> str | None:
    """The whole program in a chat reply; None if it holds no code.

    The last fenced block that defines the entry point, after what it uses of the reply's other blocks; else the function in
    the text, with the imports, definitions and constants around it; else, with the prompt, a bare function body that
    continues it. What the prompt has before the entry point (imports, and helpers that the tests call) is put before a
    program.
    """
    text = ending.reply(response.replace("\r\n", "\n"))
    name = re.escape(entry_point)
    defines = re.compile(rf"^(?:(?:async[ \t]+)?def[ \t]+{name}[ \t]*[(\[]|{name}[ \t]*=(?!=))", re.MULTILINE)
    blocks = list(fences.blocks(text))
    flat = list(map(textwrap.dedent, blocks))
    if places := [index for index, block in enumerate(flat) if defines.search(block)]:
        last = places[-1]
        program = statements.with_helpers(flat[last], flat[:last], flat[last + 1 :], entry_point)
        return _complete(program, entry_point, prompt)
    if defines.search(text):
        return _complete(statements.program(text, entry_point), entry_point, prompt)
    if programs := [block for block in blocks if DEFINITION.search(block)]:
        return _complete(programs[-1], entry_point, prompt)  # under another name: the test will say so
    body = next((block for block in blocks if block.strip()), None) if blocks else _leading_body(text)
    return prompt + _as_body(body) if body and prompt else None


def program(response: str) -> str:
    """The program in a chat reply, whatever it defines: the fenced blocks that define something, one after the other, after
    what they use of the others; else any fenced block; else the statements in the text. "" where there is no code."""
    text = ending.reply(response.replace("\r\n", "\n"))
    blocks = list(map(textwrap.dedent, fences.blocks(text)))
    if defining := [block for block in blocks if DEFINITION.search(block)]:
        others = [block for block in blocks if block not in defining]
        return statements.with_helpers("\n".join(defining), others, (), "")
    if blocks:
        return blocks[-1]
    return statements.program(text, "") if DEFINITION.search(text) else ""


def builtin_overrides(solution: str) -> tuple[str, ...]:
    """The names of builtins that a reference solution defines at its top level (def, class, assignment), sorted:
    in a test these names mean the solution's own (MBPP asks for a function `sum`). () for text that does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in its strings
            body = ast.parse(solution).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found = [node for target in targets for node in ast.walk(target)]
            names |= {node.id for node in found if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return tuple(sorted(name for name in names if hasattr(builtins, name) and not name.startswith("__")))


def _complete(program: str, entry_point: str, prompt: str) -> str:
    """The program after the prompt's preamble; `from __future__` lines come first, as Python requires."""
    header = _header(prompt, entry_point)
    preamble = prompt[: header.start].strip() if header else ""
    if not preamble:
        return program
    future = "".join(_FUTURE.findall(program))
    return f"{future}{preamble}\n\n\n{_FUTURE.sub('', program)}"


def _leading_body(text: str) -> str | None:
    """The indented lines that a reply starts with, or all of one that starts with a statement; None for prose."""
    lines = text.strip("\n").split("\n")
    if _STATEMENT.match(lines[0]):
        return "\n".join(lines) + "\n"
    end = next((index for index, line in enumerate(lines) if line.strip() and line[0] not in " \t"), len(lines))
    return "\n".join(lines[:end]) + "\n" if end else None


def _as_body(code: str) -> str:
    """The code indented by four spaces, also where stripping removed the indentation of its first line only."""
    first, _, rest = code.partition("\n")
    margins = [len(line) - len(line.lstrip()) for line in rest.split("\n") if line.strip()]
    alone = bool(margins) and not first[:1].isspace() and min(margins) > 0
    if alone and not (first.rstrip().endswith(":") and margins[0] == min(margins)):
        code = f"{first}\n{textwrap.dedent(rest)}"
    return textwrap.indent(textwrap.dedent(code), "    ")
