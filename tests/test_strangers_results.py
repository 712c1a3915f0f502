"""Results of other people: deep JSON is one line in compare and report, and nothing that a file names is imported."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compare
import report
from known import work
from qwen_eval.data import json_text

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    work("gsm8k", "-c", "demo", "-o", folder, "--quiet", "--limit", "3")
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """A script with its words: the exit status, and both streams."""

    def run(script: Any, *words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            script.main()
        caught = capsys.readouterr()
        return int(stop.value.code or 0), caught.out, caught.err

    return run


def nested(levels: int, brackets: str = "[]") -> str:
    if brackets == "[]":
        return "[" * levels + "]" * levels
    return '{"a":' * levels + "1" + "}" * levels


def planted(text: str, field: str, value: str) -> str:
    """A JSON object's text with another value of a field, which need not be JSON that Python can write."""
    content = json.loads(text)
    *path, last = field.split(".")
    inner = content
    for name in path:
        inner = inner[name]
    inner[last] = "@planted@"
    return json.dumps(content).replace('"@planted@"', value)


FIELDS = [
    "prompt",
    "answer",
    "target",
    "stats",
    "stats.correct",
    "response",
    "response.texts",
    "id",
    "group",
    "cluster",
    "new",
]
MANIFEST = ["model", "model.model", "signature", "benchmark", "notes", "data", "timestamp", "new", "usage", "command"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("brackets", ["[]", "{}"])
@pytest.mark.parametrize("levels", [101, 900, 100_000])
def test_deep_json_is_one_line(levels: int, brackets: str, stored: Path, tmp_path: Path, call: Call) -> None:
    value = nested(levels, brackets)
    for number, field in enumerate([*FIELDS, *(f"manifest {name}" for name in MANIFEST)]):
        folder = tmp_path / str(number)
        shutil.copytree(stored, folder)
        (path,) = (folder / "samples").glob("*.json" if field.startswith("manifest ") else "*.jsonl")
        first, *rest = path.read_text(encoding="utf-8").split("\n") if path.suffix == ".jsonl" else [path.read_text()]
        path.write_text("\n".join([planted(first, field.removeprefix("manifest "), value), *rest]), encoding="utf-8")
        page = tmp_path / "page.html"
        for script, *words in (
            (compare, folder, stored, "--explain"),
            (compare, stored, folder, "--explain"),
            (report, "--results", folder, "--html", page),
            (report, "--results", folder, "--show", "base"),
        ):
            status, _, errors = call(script, *words)
            assert status in (0, 2), (field, words)
            assert errors.count("\n") <= 1, (field, words)
            if script is compare and not field.startswith("manifest "):
                assert status == 2 and ("nested more than 100" in errors or "does not begin with a sample" in errors), (
                    field
                )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "samples_gsm8k_2026-01-01T00-00-00.0.jsonl",
            '{{"doc_id": 0, "doc": {}, "resps": [["1"]], "exact_match": 1.0}}\n',
        ),
        ("samples_gsm8k_2026-01-01T00-00-00.0.jsonl", '{{"doc_id": 0, "doc": {{"question": "x"}}, "arguments": {}}}\n'),
        ("log.json", '{{"eval": {{"task": "gsm8k"}}, "samples": [{{"id": 1, "input": {}, "scores": {{}}}}]}}'),
        ("log.json", '{{"eval": {}, "samples": []}}'),
        ("gsm8k.json", '{{"0": {{"prediction": "x", "origin_prompt": {}}}}}'),
    ],
)
@pytest.mark.parametrize("levels", [101, 900, 100_000])
def test_deep_json_of_other_harnesses(
    name: str, text: str, levels: int, stored: Path, tmp_path: Path, call: Call
) -> None:
    (path,) = (stored / "samples").glob("*.jsonl")
    (tmp_path / name).write_text(text.format(nested(levels)), encoding="utf-8")
    status, _, errors = call(compare, path, tmp_path / name)
    assert (status, errors.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "text", ["[" * 101 + "]" * 101, "[" * 10**6, '{"a":' * 500 + "1" + "}" * 500, "9" * 5_000, "", "{"]
)
def test_what_is_no_json_here(text: str) -> None:
    with pytest.raises(ValueError):
        json_text.loads(text)


def test_what_is_json() -> None:
    for text in ("1", '"x"', "null", "[" * 100 + "]" * 100, '{"a": [1, {"b": null}]}'):
        assert json_text.loads(text) == json.loads(text)


@pytest.mark.parametrize(
    "name", ["evil", "evil.evil", "os.path", "../evil", "evil.py", "qwen_eval.evil", "/tmp/evil.py", "gsm8k"]
)
@pytest.mark.parametrize("script", [compare, report])
def test_no_module_that_a_file_names_is_imported(
    name: str, script: Any, stored: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in a manifest or a row it stands, and though it lies where Python would find it."""
    trace = tmp_path / "trace"
    folder = tmp_path / "results"
    shutil.copytree(stored, folder)
    code = f"open({str(trace)!r}, 'w').close()\n"
    for place in (tmp_path, folder, folder / "samples"):
        (place / "evil.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (path,) = (folder / "samples").glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    named = dict.fromkeys(
        ("module", "class", "__class__", "benchmark", "own", "file", "script", "code", "import"), name
    )
    path.write_text("".join(json.dumps({**row, **named}) + "\n" for row in rows), encoding="utf-8")
    manifest = path.with_suffix(".json")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content |= {**named, "benchmark": {"name": "gsm8k", **named}, "command": f"qwen-eval run {name} --own {name}"}
    content["signature"] = content["signature"].replace("gsm8k|", f"{name}|", 1)
    manifest.write_text(json.dumps(content), encoding="utf-8")
    words = (
        (folder, stored, "--explain") if script is compare else ("--results", folder, "--html", tmp_path / "page.html")
    )
    before = set(sys.modules)
    status, _, errors = call(script, *words)
    assert status in (0, 2) and errors.count("\n") <= 1
    assert not trace.exists() and not [module for module in set(sys.modules) - before if "evil" in module]
