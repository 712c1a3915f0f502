"""What stored results must survive: full disks, unwritable folders, kills between two bytes, two processes on one
run."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from qwen_eval import main, terminal
from qwen_eval.runs import files, results
from qwen_eval.runs.samples import SampleFile
from qwen_eval.schema import Choose, Chosen, InputError, OnResponse, Sample
from shared import REPOSITORY
from test_runner import Letters, Questions, ask, options

VOLATILE = ("timestamp", "seconds", "git_commit")


def figures(folder: Path) -> list[dict[str, str]]:
    return [
        {name: text for name, text in row.items() if name not in VOLATILE}
        for row in results.read_results(folder / "mmlu.csv")
    ]


def samples(folder: Path) -> list[dict]:
    (path,) = (folder / "samples").glob("*.jsonl")
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The results of an undisturbed run."""
    ask(Questions(options(tmp_path / "whole")), Letters(1))
    return tmp_path / "whole"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a small disk: mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def assert_goes_on(folder: Path, whole: Path, stored: int) -> None:
    """With space again the run asks only what is missing, and ends like the undisturbed one."""
    engine = Letters(1)
    ask(Questions(options(folder)), engine)
    assert engine.asked == 16 - stored
    assert samples(folder) == samples(whole) and figures(folder) == figures(whole)
    assert not list(folder.rglob("*.lock")) and not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("room", [9_000, 4_500, 1_000])
def test_a_full_disk(room: int, small_disk: Path, whole: Path) -> None:
    """Rows of 300 bytes fill the disk, which allocates pages, not bytes: a write is cut in the middle."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(65_536 - 4096 - room))
    with pytest.raises(
        InputError, match=r"cannot write .*: No space left on device; free some space or choose .*--output-dir"
    ):
        ask(Questions(options(small_disk)), Letters(1))
    kept = samples(small_disk) if list(small_disk.glob("samples/*.jsonl")) else []
    ballast.unlink()
    assert_goes_on(small_disk, whole, len(kept))


def test_a_folder_that_cannot_be_written(small_disk: Path, whole: Path) -> None:
    ask(Questions(options(small_disk, "--limit", "2")), Letters(1))
    before = (small_disk / "mmlu.csv").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    engine = Letters(1)
    with pytest.raises(InputError, match=r"cannot write .*Read-only file system; .*--output-dir"):
        ask(Questions(options(small_disk)), engine)
    assert engine.asked == 0 and (small_disk / "mmlu.csv").read_bytes() == before
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    ask(Questions(options(small_disk)), engine)
    assert figures(small_disk)[-len(figures(whole)) :] == figures(whole)


@pytest.mark.parametrize("limit", [700, 2_000, 4_000])
def test_a_file_that_may_not_grow(limit: int, whole: Path, tmp_path: Path) -> None:
    """Like a full disk, for users who may not mount one: the kernel cuts a write at the limit, in the middle of a
    row."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*\.jsonl: File too large; free some space"):
            ask(Questions(options(tmp_path / "cut")), Letters(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (path,) = (tmp_path / "cut/samples").glob("*.jsonl")
    content = path.read_bytes()
    assert content.endswith(b"\n") and len(content) <= limit
    assert_goes_on(tmp_path / "cut", whole, content.count(b"\n"))


def test_a_row_cut_at_any_byte(whole: Path, tmp_path: Path) -> None:
    """A line that is a prefix of a row is not a row, wherever it ends; the complete ones before it are kept."""
    (path,) = (whole / "samples").glob("*.jsonl")
    content = path.read_bytes()
    start = content.rfind(b"\n", 0, -1) + 1
    for end in range(start, len(content)):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(content[:end])
        files.Appender(cut).close()
        assert cut.read_bytes() == content[:start]


HOLD = """
import sys, time
from pathlib import Path
from qwen_eval.runs import files
with files.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_processes_at_one_run_and_a_lock_that_a_crash_leaves(tmp_path: Path, whole: Path) -> None:
    run_id = figures(whole)[0]["run_id"]
    lock = tmp_path / "other/samples" / f"{run_id}.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "eval")},
    )
    try:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        engine = Letters(1)
        for words in ([], ["--overwrite"]):
            with pytest.raises(InputError, match="is held by another process computing the same run; wait for it"):
                ask(Questions(options(tmp_path / "other", *words)), engine)
        assert engine.asked == 0
        ask(Questions(options(tmp_path / "other", "--limit", "2")), engine)  # another run is free
    finally:
        holder.kill()
        holder.wait()
    assert lock.exists()  # left behind, but harmless
    ask(Questions(options(tmp_path / "other")), engine)
    assert not lock.exists() and figures(tmp_path / "other")[-len(figures(whole)) :] == figures(whole)


def test_a_process_waiting_for_a_lock_gets_it_when_the_holder_dies(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "eval")},
    )
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    killer = threading.Timer(0.5, holder.kill)
    killer.start()
    start = time.monotonic()
    with files.locked(lock):
        assert time.monotonic() - start > 0.3 and lock.exists()
    assert not lock.exists()
    holder.wait()
    killer.join()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Like some network file systems: a warning, and the run continues; nothing is left that would stop the next
    one."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):
        with files.locked(tmp_path / "a.lock", "busy"):
            pass
        assert "this file system has no locks; run no second process that writes here" in caplog.messages.pop()
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a.lock").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*a.lock: Is a directory"), files.locked(tmp_path / "a.lock"):
        pass


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What matters here of Windows: folders cannot be opened, open files cannot be removed or replaced, and files are
    text unless opened as binary. Returns the flags of the opened files."""
    opened: list[int] = []
    binary = 1 << 40
    real_open, real_unlink, real_replace = os.open, Path.unlink, Path.replace

    def in_use(path: Path) -> None:
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if path.exists() and link.resolve() == path.resolve():
                    raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def open_file(path: str | Path, flags: int, mode: int = 0o777, **more: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        if flags & os.O_APPEND:
            opened.append(flags & binary)
        return real_open(path, flags & ~binary, mode, **more)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        in_use(path)
        real_unlink(path, missing_ok)

    def replace(path: Path, target: Path) -> Path:
        in_use(Path(target))
        return real_replace(path, target)

    monkeypatch.setattr(files, "_BINARY", binary)
    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(Path, "replace", replace)
    return opened


def test_a_run_where_folders_cannot_be_opened_nor_open_files_replaced(
    windows: list[int], whole: Path, tmp_path: Path
) -> None:
    for words in ([], [], ["--overwrite"]):
        ask(Questions(options(tmp_path / "here", *words)), Letters(1))
    assert samples(tmp_path / "here") == samples(whole) and figures(tmp_path / "here") == figures(whole)
    assert windows and all(windows)  # samples are appended in binary


def test_rows_are_replaced_where_open_files_cannot_be(windows: list[int], tmp_path: Path) -> None:
    stored = SampleFile(tmp_path, "run")
    stored.append({"id": "a"})
    stored.replace([{"id": "b"}])
    stored.close()
    assert samples(tmp_path) == [{"id": "b"}]


def test_a_module_that_is_not_on_windows_is_not_needed() -> None:
    code = "import sys; sys.modules['fcntl'] = None; from qwen_eval.runs import files, results, samples"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "eval")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, check=True)


def _append(folder: Path, worker: int) -> None:
    template = figures(folder.parent / "whole")[0] | dict.fromkeys(VOLATILE, "1")
    for number in range(20):
        rows = [{**template, "run_id": f"run-{worker}-{number}", "group": f"g{part}"} for part in range(3)]
        assert results.append_results(folder / "mmlu.csv", rows)


def test_processes_that_add_to_one_csv_lose_nothing(whole: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(tmp_path / "many", worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    rows = results.read_results(tmp_path / "many/mmlu.csv")
    assert sorted((row["run_id"], row["group"]) for row in rows) == sorted(
        (f"run-{worker}-{number}", f"g{part}") for worker in range(4) for number in range(20) for part in range(3)
    )
    indices = {}
    for index, row in enumerate(rows):  # a run's rows are contiguous
        indices.setdefault(row["run_id"], []).append(index)
    assert all(found == list(range(found[0], found[0] + 3)) for found in indices.values())


SLOW = """
import sys, time
from pathlib import Path
import test_runner as t
from qwen_eval import main
class Slow(t.Letters):
    def choose(self, requests, done):
        return super().choose(requests, lambda index, answer: (done(index, answer), time.sleep(2)))
main.exit_with("mmlu.py", lambda: t.ask(t.Questions(t.options(Path(sys.argv[1]))), Slow(1)))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_termination_signal(number: signal.Signals, status: int, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    path = os.pathsep.join([str(REPOSITORY / "eval"), str(REPOSITORY / "tests")])
    command = [sys.executable, "-c", SLOW, folder]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # under nohup SIGHUP is ignored, as it should be
    )
    while not list(folder.glob("samples/*.jsonl")) or not samples(folder):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == status
    assert errors.strip() == "mmlu.py: interrupted; the same command resumes where this one stopped"
    assert 0 < len(samples(folder)) < 16
    assert_goes_on(folder, whole, len(samples(folder)))


def test_another_prompt_or_way_of_decoding_never_inherits_answers(whole: Path) -> None:
    """The same signature, another prompt: as when a checkout changes what is asked but not the protocol's version."""

    class Changed(Questions):
        name = "mmlu"
        fields_of_requests: Mapping[str, object]

        def samples(self) -> list[Sample]:
            return [
                dataclasses.replace(sample, request=dataclasses.replace(sample.request, **self.fields_of_requests))
                for sample in super().samples()
            ]

    same = Letters(1)
    ask(Questions(options(whole)), same)
    assert same.asked == 0
    for fields in ({"header": "another"}, {"scoring": "isolated"}, {"limit": 100}, {"overflow": "none"}):
        engine = Letters(1)
        Changed.fields_of_requests = fields
        ask(Changed(options(whole)), engine)
        assert engine.asked == 16, fields


CELLS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''", "'", "-", "a=b", "\r\n="]),
).filter(lambda text: ("\0" not in text and "\ud800" not in text and text.isprintable()) or text[:1] in "\t\r'")


@examples()
@given(st.lists(CELLS, min_size=3, max_size=3), st.floats(-1e9, 1e9))
def test_no_cell_begins_a_formula_and_all_are_read_back(texts: Sequence[str], value: float) -> None:
    row = (
        dict.fromkeys(results.COLUMNS, "x")
        | dict.fromkeys(results.NUMBERS, "1")
        | dict(zip(("model", "group", "signature"), texts, strict=True))
    )
    row |= {"value": f"{value:.6f}", "run_id": "r", "timestamp": "t"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mmlu.csv")
        # as append_results writes it, without its flush to the disk
        path.write_text(results._csv_text([row], header=True), encoding="utf-8", newline="")
        assert results.read_results(path) == [row]
        with path.open(newline="", encoding="utf-8") as file:
            (cells,) = csv.DictReader(file)
    assert float(cells["value"]) == float(row["value"])
    assert not any(cells[name].startswith(("=", "+", "-", "@", "\t", "\r")) for name in ("model", "group", "signature"))


def test_no_control_sequence_reaches_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj"

    class Evil(Letters):
        def describe(self):
            return dataclasses.replace(super().describe(), model=f"=cmd|{evil}")

        def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
            self.notes.append(f"note {evil}")
            return super().choose(requests, done)

    with pytest.raises(SystemExit):
        main.exit_with("mmlu.py", lambda: ask(Questions(options(tmp_path)), Evil()))
    with pytest.raises(SystemExit):
        main.exit_with("mmlu.py", lambda: main.work(Questions, options(tmp_path, "--dump-prompts")))
    with pytest.raises(SystemExit):
        main.fail("mmlu.py", f"file {evil} is bad")
    streams = capsys.readouterr()
    for text in (streams.out, streams.err):
        assert text and not any(0x7F <= ord(c) < 0xA0 or (ord(c) < 32 and c != "\n") or c == "\u202e" for c in text)
    assert "\\u001b[2J" in streams.err and "\\u001b[2J" in streams.out
    (row,) = {row["model"] for row in results.read_results(tmp_path / "mmlu.csv")}
    assert row == f"=cmd|{evil}" and (tmp_path / "mmlu.csv").read_text().count(",'=cmd|") == len(figures(tmp_path))


@examples()
@given(st.text())
def test_text_with_escaped_controls_is_the_same_json(text: str) -> None:
    line = json.dumps({"prompt": text}, ensure_ascii=False)
    assert json.loads(terminal.escape_controls(line)) == {"prompt": text}
    terminal.escape_controls(line).encode("utf-8")
