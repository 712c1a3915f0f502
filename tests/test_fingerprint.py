"""The fingerprint of weights: their whole content, hashed once and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from known import work
from qwen_eval.models import fingerprint, user_cache
from qwen_eval.schema import CheckpointError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, in which also files just written are remembered."""
    monkeypatch.setenv("QWEN_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "_SETTLED_NS", 0)
    return tmp_path / "cache"


def large(path: Path) -> bytes:
    """64 MiB of weights, in a file."""
    content = os.urandom(1 << 16) * 1024
    path.write_bytes(content)
    return content


def test_a_change_anywhere_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    content = large(path)
    assert fingerprint.sha256(path) == hashlib.sha256(content).hexdigest()
    seen = {fingerprint.fingerprint([path])}
    before = fingerprint.sampled([path])
    for offset in (0, 5_000, 33_333_333, len(content) - 1):
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 1]))
        seen.add(fingerprint.fingerprint([path]))
    assert len(seen) == 5
    path.write_bytes(content[:5_000] + bytes(126_000) + content[131_000:])  # between two blocks that version 0.1 read
    assert fingerprint.sampled([path]) == before and fingerprint.fingerprint([path]) not in seen


def test_names_count_and_folders_do_not(tmp_path: Path) -> None:
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        for name in ("a.safetensors", "b.safetensors"):
            (tmp_path / place / name).write_bytes(name.encode())
    one, other = (sorted((tmp_path / place).iterdir()) for place in ("one", "other"))
    assert fingerprint.fingerprint(one) == fingerprint.fingerprint(other[::-1])
    for path, name in zip(other, ("b", "a"), strict=True):
        path.write_bytes(f"{name}.safetensors".encode())
    assert fingerprint.fingerprint(one) != fingerprint.fingerprint(other)


def test_a_file_is_hashed_once(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    right = fingerprint.sha256(path)
    (entry,) = cache.rglob("*.json")
    entry.write_text(entry.read_text().replace(right, "a" * 64))
    assert fingerprint.sha256(path) == "a" * 64  # what the cache says: the file was not read
    (tmp_path / "link").symlink_to(path)
    assert fingerprint.sha256(tmp_path / "link") == "a" * 64
    (tmp_path / "copy").write_bytes(b"weights")
    assert fingerprint.sha256(tmp_path / "copy") == right


def test_a_file_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    times, first = path.stat(), fingerprint.sha256(path)
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert fingerprint.sha256(path) == hashlib.sha256(b"WEIGHTS").hexdigest() != first
    (tmp_path / "new").write_bytes(b"wEIGHTS")  # another inode
    os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "new").replace(path)
    assert fingerprint.sha256(path) == hashlib.sha256(b"wEIGHTS").hexdigest()


def test_what_has_just_changed_is_not_remembered(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("QWEN_EVAL_CACHE", str(cache))
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    fingerprint.sha256(path)
    assert not list(cache.rglob("*.json"))


@pytest.mark.parametrize("content", ["", "{}", "[1]", "null", '{"path": 3', "\x00", '{"sha256": "a"}'])
def test_a_damaged_entry_is_replaced(tmp_path: Path, cache: Path, content: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    right = fingerprint.sha256(path)
    (entry,) = cache.rglob("*.json")
    good = entry.read_text()
    entry.write_text(content)
    assert fingerprint.sha256(path) == right
    assert json.loads(entry.read_text()) == json.loads(good)


def test_without_a_cache_folder_files_are_hashed_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QWEN_EVAL_CACHE", str(tmp_path / "file" / "below"))
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    assert fingerprint.sha256(path) == fingerprint.sha256(path) == hashlib.sha256(b"weights").hexdigest()


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_cache.folder().name == "cache"
    monkeypatch.delenv("QWEN_EVAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert user_cache.folder() == Path("/somewhere/qwen-eval")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/user")
    assert user_cache.folder() == Path("/home/user/.cache/qwen-eval")


def test_a_damaged_file_of_the_hubs_cache_is_an_error(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    (tmp_path / "snapshot.safetensors").symlink_to(blob)
    assert fingerprint.sha256(tmp_path / "snapshot.safetensors") == blob.name
    blob.write_bytes(b"Weights")
    with pytest.raises(
        CheckpointError, match=r"snapshot.safetensors: its content is not what the hub has.*delete .*blobs"
    ):
        fingerprint.sha256(tmp_path / "snapshot.safetensors")


def test_a_file_that_is_still_being_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.bin"
    large(path)
    wait, identity = threading.Event(), fingerprint._identity

    def changed_meanwhile(full: Path) -> dict[str, int]:
        found = identity(full)
        if not wait.is_set():
            wait.set()
            with path.open("ab") as file:
                file.write(b"more")
        return found

    monkeypatch.setattr(fingerprint, "_identity", changed_meanwhile)
    with pytest.raises(CheckpointError, match="changed while it was read; wait"):
        fingerprint.sha256(path)


def test_a_run_stored_under_the_former_fingerprint_is_told_and_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", "demo", "-o", str(tmp_path / "results"), "--limit", "1", "--subjects", "elementary_mathematics"]
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "fingerprint", fingerprint.sampled)
        work("mmlu", *words)
    (former,) = (path.stem for path in (tmp_path / "results" / "samples").glob("*.jsonl"))
    capsys.readouterr()
    work("mmlu", *words)
    assert f"{former} was stored under a fingerprint of parts of the weights only" in capsys.readouterr().out
    assert len(list((tmp_path / "results" / "samples").glob("*.jsonl"))) == 2
