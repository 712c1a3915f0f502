"""What must survive: full disks, folders that cannot be written, kills between two bytes, two processes at one run."""

from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from harness import durable, entry, results_csv, runner, tables
from harness.schema import Choose, Chosen, InputError, OnResponse
from shared import REPOSITORY
from test_runner import Letters, build, options

VOLATILE = ("timestamp", "seconds", "git_commit")


def figures(folder: Path) -> list[dict[str, str]]:
    return [
        {name: text for name, text in row.items() if name not in VOLATILE}
        for row in results_csv.read_results(folder / "mmlu.csv")
    ]


def samples(folder: Path) -> list[dict]:
    (path,) = (folder / "samples").glob("*.jsonl")
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The results of a run that nothing disturbed."""
    runner.run(options(tmp_path / "whole"), build, engine=Letters(1))
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
    """With room again the run asks what is missing and no more, and ends as the undisturbed one."""
    engine = Letters(1)
    runner.run(options(folder), build, engine=engine)
    assert engine.asked == 16 - stored
    assert samples(folder) == samples(whole) and figures(folder) == figures(whole)
    assert not list(folder.rglob("*.lock")) and not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("room", [9_000, 4_500, 1_000])
def test_a_full_disk(room: int, small_disk: Path, whole: Path) -> None:
    """Rows of 300 bytes run into the end of the disk, which has room for pages, not bytes: a write is cut in the middle."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(65_536 - 4096 - room))
    with pytest.raises(
        InputError, match=r"cannot write .*: No space left on device; make room or choose .*--output-dir"
    ):
        runner.run(options(small_disk), build, engine=Letters(1))
    kept = samples(small_disk) if list(small_disk.glob("samples/*.jsonl")) else []
    ballast.unlink()
    assert_goes_on(small_disk, whole, len(kept))


def test_a_folder_that_cannot_be_written(small_disk: Path, whole: Path) -> None:
    runner.run(options(small_disk, "--limit", "2"), build, engine=Letters(1))
    before = (small_disk / "mmlu.csv").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    engine = Letters(1)
    with pytest.raises(InputError, match=r"cannot write .*Read-only file system; .*--output-dir"):
        runner.run(options(small_disk), build, engine=engine)
    assert engine.asked == 0 and (small_disk / "mmlu.csv").read_bytes() == before
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    runner.run(options(small_disk), build, engine=engine)
    assert figures(small_disk)[-len(figures(whole)) :] == figures(whole)


@pytest.mark.parametrize("limit", [700, 2_000, 4_000])
def test_a_file_that_may_not_grow(limit: int, whole: Path, tmp_path: Path) -> None:
    """As a full disk, for those who may mount nothing: the kernel cuts a write at the limit, in the middle of a row."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*\.jsonl: File too large; make room"):
            runner.run(options(tmp_path / "cut"), build, engine=Letters(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (path,) = (tmp_path / "cut/samples").glob("*.jsonl")
    content = path.read_bytes()
    assert content.endswith(b"\n") and len(content) <= limit
    assert_goes_on(tmp_path / "cut", whole, content.count(b"\n"))


def test_every_place_a_row_can_be_cut_at(whole: Path, tmp_path: Path) -> None:
    """A line that is a prefix of a row is no row, wherever it ends; the whole ones before it stay."""
    (path,) = (whole / "samples").glob("*.jsonl")
    content = path.read_bytes()
    start = content.rfind(b"\n", 0, -1) + 1
    for end in range(start, len(content)):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(content[:end])
        durable.Appender(cut).close()
        assert cut.read_bytes() == content[:start]


HOLD = """
import sys, time
from pathlib import Path
from harness import durable
with durable.locked(Path(sys.argv[1])):
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
            with pytest.raises(InputError, match="is held by another process that is making this very run; wait for"):
                runner.run(options(tmp_path / "other", *words), build, engine=engine)
        assert engine.asked == 0
        runner.run(options(tmp_path / "other", "--limit", "2"), build, engine=engine)  # another run is free
    finally:
        holder.kill()
        holder.wait()
    assert lock.exists()  # left behind, and no hindrance
    runner.run(options(tmp_path / "other"), build, engine=engine)
    assert not lock.exists() and figures(tmp_path / "other")[-len(figures(whole)) :] == figures(whole)


def _append(folder: Path, worker: int) -> None:
    template = figures(folder.parent / "whole")[0] | dict.fromkeys(VOLATILE, "1")
    for number in range(20):
        rows = [{**template, "run_id": f"run-{worker}-{number}", "group": f"g{part}"} for part in range(3)]
        assert results_csv.append_results(folder / "mmlu.csv", rows)


def test_processes_that_add_to_one_csv_lose_nothing(whole: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(tmp_path / "many", worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    rows = results_csv.read_results(tmp_path / "many/mmlu.csv")
    assert sorted((row["run_id"], row["group"]) for row in rows) == sorted(
        (f"run-{worker}-{number}", f"g{part}") for worker in range(4) for number in range(20) for part in range(3)
    )
    places = {}
    for place, row in enumerate(rows):  # a run's rows stand together
        places.setdefault(row["run_id"], []).append(place)
    assert all(found == list(range(found[0], found[0] + 3)) for found in places.values())


SLOW = """
import sys, time
from pathlib import Path
import test_runner as t
from harness import entry, runner
class Slow(t.Letters):
    def choose(self, requests, done):
        return super().choose(requests, lambda index, answer: (done(index, answer), time.sleep(2)))
entry.exit_with("mmlu.py", lambda: runner.run(t.options(Path(sys.argv[1])), t.build, engine=Slow(1)))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_request_to_end(number: signal.Signals, status: int, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    path = os.pathsep.join([str(REPOSITORY / "eval"), str(REPOSITORY / "tests")])
    command = [sys.executable, "-c", SLOW, folder]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # under nohup a hang-up is ignored, and rightly
    )
    while not list(folder.glob("samples/*.jsonl")) or not samples(folder):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == status
    assert errors.strip() == "mmlu.py: interrupted; the same command goes on where this one stopped"
    assert 0 < len(samples(folder)) < 16
    assert_goes_on(folder, whole, len(samples(folder)))


def test_another_prompt_or_way_of_decoding_never_inherits_answers(whole: Path) -> None:
    """The same signature, another prompt: as when a checkout changes what is asked and not the protocol's version."""

    def changed(args: object, **fields: object):
        benchmark = build(args)  # type: ignore[arg-type]
        asked = [
            dataclasses.replace(sample, request=dataclasses.replace(sample.request, **fields))
            for sample in benchmark.samples
        ]
        return dataclasses.replace(benchmark, samples=asked)

    same = Letters(1)
    runner.run(options(whole), build, engine=same)
    assert same.asked == 0
    for fields in ({"header": "another"}, {"scoring": "isolated"}, {"limit": 100}, {"overflow": "none"}):
        engine = Letters(1)
        runner.run(options(whole), lambda args, fields=fields: changed(args, **fields), engine=engine)
        assert engine.asked == 16, fields


CELLS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''", "'", "-", "a=b", "\r\n="]),
).filter(lambda text: ("\0" not in text and "\ud800" not in text and text.isprintable()) or text[:1] in "\t\r'")


@examples()
@given(st.lists(CELLS, min_size=3, max_size=3), st.floats(-1e9, 1e9))
def test_no_cell_begins_a_formula_and_all_come_back(texts: Sequence[str], value: float) -> None:
    row = dict.fromkeys(results_csv.COLUMNS, "x") | dict(zip(("model", "group", "signature"), texts, strict=True))
    row |= {"value": f"{value:.6f}", "run_id": "r", "timestamp": "t"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mmlu.csv")
        # as append_results writes it, without its flush to the disk
        path.write_text(results_csv._csv_text([row], header=True), encoding="utf-8", newline="")
        assert results_csv.read_results(path) == [row]
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

    for words in ([], ["--dump-prompts"]):
        with pytest.raises(SystemExit):
            entry.exit_with("mmlu.py", lambda words=words: runner.run(options(tmp_path, *words), build, engine=Evil()))
    with pytest.raises(SystemExit):
        entry.fail("mmlu.py", f"file {evil} is bad")
    streams = capsys.readouterr()
    for text in (streams.out, streams.err):
        assert text and not any(0x7F <= ord(c) < 0xA0 or (ord(c) < 32 and c != "\n") or c == "\u202e" for c in text)
    assert "\\u001b[2J" in streams.err and "\\u001b[2J" in streams.out
    (row,) = {row["model"] for row in results_csv.read_results(tmp_path / "mmlu.csv")}
    assert row == f"=cmd|{evil}" and (tmp_path / "mmlu.csv").read_text().count(",'=cmd|") == len(figures(tmp_path))


@examples()
@given(st.text())
def test_printable_text_is_the_same_json(text: str) -> None:
    line = json.dumps({"prompt": text}, ensure_ascii=False)
    assert json.loads(tables.printable(line)) == {"prompt": text}
    tables.printable(line).encode("utf-8")
