"""Honest programs pass wherever they are judged: one verdict each, whatever isolation a machine offers, and wherever Python
lies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from honest import ENTRY_POINT, HONEST, REFUSED, TEST
from qwen_eval.sandbox import Program, Sandbox, tiers
from qwen_eval.schema import InputError
from sandboxes import linux, opened
from test_sandbox_tiers import EVAL, WITHOUT_NAMESPACES

pytestmark = linux

RUN = """
import json, sys
sys.path[:0] = [FOLDER, TESTS]
from honest import ENTRY_POINT, HONEST, TEST
from qwen_eval.sandbox import Program, Sandbox
with Sandbox(workers=2, cpu_seconds=5.0, wall_seconds=60.0) as sandbox:
    verdicts = sandbox.check([Program(source, TEST, ENTRY_POINT) for source in HONEST.values()])
    print(json.dumps([sandbox.tier, {name: verdict.status for name, verdict in zip(HONEST, verdicts)}]))
"""
EXPECTED = {name: "failed" if name in REFUSED else "passed" for name in HONEST}


def wrong(found: dict[str, str]) -> dict[str, str]:
    return {name: status for name, status in found.items() if status != EXPECTED[name]}


@pytest.mark.parametrize("tier", ["namespaces", "user-namespaces", "bubblewrap", "landlock"])
def test_honest_programs_in_every_tier(tier: str) -> None:
    with opened(workers=2, cpu_seconds=5.0, wall_seconds=60.0, only=[f"{tier}+seccomp"]) as sandbox:
        verdicts = sandbox.check([Program(source, TEST, ENTRY_POINT) for source in HONEST.values()])
    assert wrong({name: verdict.status for name, verdict in zip(HONEST, verdicts, strict=True)}) == {}


def test_a_plain_interpreter_runs_all_of_them(tmp_path: Path) -> None:
    """What is refused is refused by the sandbox alone."""
    for name, source in HONEST.items():
        run = [sys.executable, "-c", f"{source}\nassert {ENTRY_POINT}(20) == 41"]
        if name in ("file_of_the_module", "source_of_a_function", "name_of_the_module", "traceback"):
            (tmp_path / f"program_{name}.py").write_text(source, encoding="utf-8")
            run = [sys.executable, "-c", f"import program_{name} as made; assert made.{ENTRY_POINT}(20) == 41"]
        ran = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        assert ran.returncode == 0, (name, ran.stderr[-300:])


@pytest.fixture(params=["a 0700 folder", "/tmp"])
def python(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A virtual environment with numpy, below a folder that is its owner's alone or below /tmp; and where it lies."""
    pytest.importorskip("numpy")
    top = tmp_path / "private" if request.param == "a 0700 folder" else Path("/tmp", f"qwen-eval-test-{os.getpid()}")
    top.mkdir(mode=0o700 if request.param == "a 0700 folder" else 0o755)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", top / "venv"], check=True)
    (packages,) = (top / "venv").glob("lib/python*/site-packages")
    import numpy

    source = Path(numpy.__file__).parent
    for folder in (source, source.with_name("numpy.libs")):
        if folder.is_dir():
            shutil.copytree(folder, packages / folder.name)
    request.addfinalizer(lambda: shutil.rmtree(top))
    return str(top / "venv" / "bin" / "python"), top


@pytest.mark.slow
@pytest.mark.parametrize("namespaces", [True, False])
def test_honest_programs_wherever_python_lies(python: tuple[str, Path], namespaces: bool) -> None:
    words = {"FOLDER": str(EVAL), "TESTS": str(Path(__file__).parent)}
    script = "".join(f"{name} = {value!r}\n" for name, value in words.items())
    script += ("" if namespaces else WITHOUT_NAMESPACES) + RUN
    ran = subprocess.run([python[0], "-B", "-c", script], capture_output=True, text=True, timeout=600)
    if "programs cannot be isolated" in ran.stderr:
        pytest.skip(ran.stderr.strip().rpartition("\n")[2])
    tier, found = json.loads(ran.stdout)
    assert namespaces or tier == "landlock+seccomp"
    assert wrong(found) == {}, tier


def test_a_tier_in_which_an_honest_program_fails_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "_probed", {})
    monkeypatch.setattr(tiers, "_HONEST", "import a_module_that_is_nowhere")
    wanted: Any = [each.name for each in tiers.wanted() if each.settings.mode != "limits"]
    with pytest.raises(InputError, match="an honest program fails there: raised ModuleNotFoundError"):
        Sandbox(workers=1, only=wanted)
