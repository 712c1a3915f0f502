"""The real download code against a hub on this machine: the same rows as from files, and one-line errors."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from loopback_hub import RECORD_CONNECTIONS, LoopbackHub, Repo, client_env
from qwen_eval.data import choice
from qwen_eval.data import hub as hub_files
from qwen_eval.data.files import Source, content_hash
from qwen_eval.data.hub import PROBE_SECONDS
from test_data import ROWS, write_ceval, write_cmmlu, write_csv, write_mmlu

EVAL = Path(__file__).resolve().parent.parent / "eval"
SUBJECTS = {"mmlu": ("anatomy", "virology"), "ceval": ("logic", "law"), "cmmlu": ("arts", "world_religions")}
MMLU_COMMIT = "c30699e8356da336a370243923dbaf21066bb9fe"
CEVAL_ZIP_COMMIT = "3923b519fd180e689d0961bf3a032ece929742f3"
CEVAL_TABLES_COMMIT = "617524a00b307ff6f9933702f724131fe12ca7ce"
CMMLU_COMMIT = "efcc940752ea4a1ea94d2727f11f83858d64fc8e"

# What a client process does: load one benchmark and say what came of it. A traceback would be no answer.
CLIENT = """
import json, sys
from qwen_eval.data import choice
from qwen_eval.data import hub as hub_files
from qwen_eval.data.files import Source, content_hash
from qwen_eval.schema import InputError
benchmark, hub, split, *subjects = sys.argv[1:]
try:
    load = getattr(choice, benchmark)
    sets = load(Source(None, hub), subjects, *([split] if benchmark == "ceval" else []))
    rows = [row for part in sets.values() for row in (*part.dev, *part.test)]
    answer = {"hash": content_hash(rows), "origins": sorted({part.origin for part in sets.values()})}
except InputError as error:
    answer = {"error": str(error), "kind": type(error).__name__}
print(json.dumps(answer | {"connections": connections}))
"""


def client(env: Mapping[str, str], benchmark: str, hub: str = "hf", split: str = "val", timeout: float = 120) -> dict:
    """What a process of its own gets for the benchmark's two subjects, with `env` on top of this one's."""
    env = {**os.environ, "USE_TORCH": "0", **env}  # or `datasets` would import torch, which takes the longest
    env["PYTHONPATH"] = os.pathsep.join([str(EVAL), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", RECORD_CONNECTIONS + CLIENT, benchmark, hub, split, *SUBJECTS[benchmark]]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=True)
    assert "Failed to read" not in done.stderr and "Generating" not in done.stderr, done.stderr  # log and bars are off
    return json.loads(done.stdout)


def from_files(folder: Path, benchmark: str, split: str = "val") -> str:
    """The content hash of the same rows read from `folder`."""
    load = getattr(choice, benchmark)
    sets = load(Source(folder), SUBJECTS[benchmark], *([split] if benchmark == "ceval" else []))
    return content_hash(row for part in sets.values() for row in (*part.dev, *part.test))


def parquet(columns: dict[str, list]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


def torn(table: bytes) -> bytes:
    """A parquet file with some bytes in the middle of its first page overwritten; what describes it is whole."""
    return table[:8] + b"\xff" * 40 + table[48:]


def archive(folder: Path) -> bytes:
    """The files under `folder` as a zip file."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*.csv")):
            file.write(path, path.relative_to(folder).as_posix())
    return sink.getvalue()


def mmlu_repo(folder: Path) -> dict[str, bytes]:
    """The official files in the hub's form: one file per split, a list of choices, the answer as a number."""
    files = {}
    for split in ("dev", "test"):
        columns: dict[str, list] = {"question": [], "subject": [], "choices": [], "answer": []}
        for path in sorted((folder / split).iterdir()):
            with path.open(newline="", encoding="utf-8") as file:
                for question, *choices, answer in csv.reader(file):
                    values = (question, path.stem.removesuffix(f"_{split}"), choices, "ABCD".index(answer))
                    for column, value in zip(columns.values(), values, strict=True):
                        column.append(value)
        files[f"all/{split}-00000-of-00001.parquet"] = parquet(columns)
    return files


def ceval_tables(folder: Path) -> dict[str, bytes]:
    """The official files as the later conversion has them: one parquet file per subject and split, ids as numbers."""
    files = {}
    for path in folder.rglob("*.csv"):
        split = path.parent.name
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{"answer": "", "explanation": ""} | row for row in csv.DictReader(file)]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        columns["id"] = [int(value) for value in columns["id"]]
        files[f"{path.stem.removesuffix('_' + split)}/{split}-00000-of-00001.parquet"] = parquet(columns)
    return files


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Official files of our own rows, by benchmark."""
    root = tmp_path_factory.mktemp("official")
    write_mmlu(root / "mmlu", SUBJECTS["mmlu"])
    write_csv(root / "mmlu/test/virology_test.csv", ROWS[:3])  # so that the subjects differ
    write_ceval(root / "ceval", SUBJECTS["ceval"])
    write_cmmlu(root / "cmmlu", SUBJECTS["cmmlu"], bom=True)
    return {name: root / name for name in ("mmlu", "ceval", "cmmlu")}


@pytest.fixture(scope="module")
def hub(folders: dict[str, Path]) -> Iterator[LoopbackHub]:
    """Every benchmark at its pinned commit and nowhere else."""
    ceval = {"ceval-exam.zip": archive(folders["ceval"])}
    cmmlu = {"cmmlu_v1_0_1.zip": archive(folders["cmmlu"])}
    repos = {
        "cais/mmlu": Repo(mmlu_repo(folders["mmlu"]), revisions={MMLU_COMMIT, "master"}),
        "ceval/ceval-exam": Repo(ceval, revisions={CEVAL_ZIP_COMMIT}),
        "haonan-li/cmmlu": Repo(cmmlu, revisions={CMMLU_COMMIT}),
        "opencompass/ceval-exam": Repo(ceval, revisions={"master"}),
        "modelscope/cmmlu": Repo(cmmlu, revisions={"master"}),
    }
    with LoopbackHub(datasets=repos) as server:
        yield server


COMMITS = {"mmlu": ("cais/mmlu", MMLU_COMMIT), "ceval": ("ceval/ceval-exam", CEVAL_ZIP_COMMIT)}
COMMITS["cmmlu"] = ("haonan-li/cmmlu", CMMLU_COMMIT)


@pytest.mark.parametrize("benchmark", SUBJECTS)
def test_hub_and_files_give_the_same_rows(
    benchmark: str, hub: LoopbackHub, folders: dict[str, Path], tmp_path: Path
) -> None:
    first = client(hub.env(tmp_path), benchmark)
    assert first["hash"] == from_files(folders[benchmark], benchmark)
    # Our files are not the published ones, and the origin says so: the commit, then the checksums of the unknown files.
    repo, commit = COMMITS[benchmark]
    (origin,) = first["origins"]
    assert origin.startswith(f"{repo}@{commit}+")
    # Once downloaded, nothing is asked for again: the same from the cache, offline and with the hub gone.
    before = len(hub.requests)
    again = client(hub.env(tmp_path) | {"HF_HUB_OFFLINE": "1"}, benchmark)
    gone = client(client_env("http://127.0.0.1:9", tmp_path), benchmark)
    assert len(hub.requests) == before
    assert first["hash"] == again["hash"] == gone["hash"]


def test_only_what_is_needed_is_downloaded(hub: LoopbackHub, tmp_path: Path) -> None:
    before = len(hub.requests)
    client(hub.env(tmp_path), "mmlu")
    asked = {path.rsplit("/", 1)[1] for _, path in hub.requests[before:]}
    assert asked == {"dev-00000-of-00001.parquet", "test-00000-of-00001.parquet"}


def test_ceval_test_without_answers(hub: LoopbackHub, folders: dict[str, Path], tmp_path: Path) -> None:
    assert client(hub.env(tmp_path), "ceval", split="test")["hash"] == from_files(folders["ceval"], "ceval", "test")


@pytest.mark.parametrize("split", ["val", "test"])
def test_ceval_from_the_later_conversion(split: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """A hub without the archive: the per-subject tables, and the origin says which."""
    repo = Repo(ceval_tables(folders["ceval"]), revisions={CEVAL_TABLES_COMMIT})
    with LoopbackHub(datasets={"ceval/ceval-exam": repo}) as server:
        answer = client(server.env(tmp_path), "ceval", split=split)
    assert answer["hash"] == from_files(folders["ceval"], "ceval", split)
    assert answer["origins"] == [f"ceval/ceval-exam@{CEVAL_TABLES_COMMIT}"]


def refused(answer: dict, *words: str) -> None:
    """One line that has all the words and says what to do with the official files."""
    text = answer.get("error", "no error")
    assert "\n" not in text
    assert all(word in text for word in (*words, "-d DIR")), text


@pytest.mark.parametrize("benchmark", SUBJECTS)
def test_a_dead_hub_is_a_one_line_error_at_once(benchmark: str, tmp_path: Path) -> None:
    answer = client(client_env("http://127.0.0.1:9", tmp_path), benchmark)
    refused(answer, COMMITS[benchmark][0], "http://127.0.0.1:9 does not answer")
    assert answer["connections"] == [PROBE_SECONDS]


def test_a_silent_hub_is_given_up_soon(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
        answer = client(client_env(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path), "ceval")
    refused(answer, "does not answer", "ceval-exam.zip")
    assert answer["connections"] == [PROBE_SECONDS]


def test_offline_and_not_cached(tmp_path: Path) -> None:
    answer = client(client_env("http://127.0.0.1:9", tmp_path) | {"HF_HUB_OFFLINE": "1"}, "cmmlu")
    refused(answer, "cmmlu_v1_0_1.zip is not in the cache and HF_HUB_OFFLINE is set")


def test_offline_for_datasets_alone(tmp_path: Path) -> None:
    answer = client(client_env("http://127.0.0.1:9", tmp_path) | {"HF_DATASETS_OFFLINE": "1"}, "mmlu")
    refused(answer, "dev-00000-of-00001.parquet is not in the cache and HF_DATASETS_OFFLINE is set")


def test_the_caches_are_where_the_environment_says(hub: LoopbackHub, folders: dict[str, Path], tmp_path: Path) -> None:
    """HF_HOME alone, in a folder whose name a pattern would take for something else; and each cache by its own name."""
    home = tmp_path / "a [b]* ?"
    env = {name: value for name, value in hub.env(home).items() if name not in ("HF_HUB_CACHE", "HF_DATASETS_CACHE")}
    expected = from_files(folders["mmlu"], "mmlu")
    assert client(env, "mmlu").get("hash") == expected
    assert len(list((home / "hub").rglob("*.parquet"))) == len(list((home / "datasets").rglob("*.arrow"))) == 2
    own = hub.env(home) | {"HF_HUB_CACHE": str(tmp_path / "h"), "HF_DATASETS_CACHE": str(tmp_path / "d")}
    assert client(own, "mmlu").get("hash") == expected
    assert len(list((tmp_path / "h").rglob("*.parquet"))) == len(list((tmp_path / "d").rglob("*.arrow"))) == 2


def test_a_cache_that_cannot_be_written(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = client(hub.env(tmp_path) | {"HF_DATASETS_CACHE": str(tmp_path / "file" / "cache")}, "mmlu")
    refused(answer, "cannot be put into the cache", "(NotADirectoryError", "another folder by HF_DATASETS_CACHE")


BY_NAME = """
import sys, datasets
name, revision, *files = sys.argv[1:]
print(len(datasets.load_dataset(name, data_files={"test": files}, revision=revision, split="test")))
"""


def test_what_datasets_downloaded_by_name_is_found(hub: LoopbackHub, folders: dict[str, Path], tmp_path: Path) -> None:
    files = [f"all/{split}-00000-of-00001.parquet" for split in ("dev", "test")]
    env = {**os.environ, "USE_TORCH": "0", **hub.env(tmp_path)}
    subprocess.run([sys.executable, "-c", BY_NAME, "cais/mmlu", MMLU_COMMIT, *files], env=env, check=True)
    answer = client(client_env("http://127.0.0.1:9", tmp_path) | {"HF_HUB_OFFLINE": "1"}, "mmlu")
    assert answer.get("hash") == from_files(folders["mmlu"], "mmlu")


def test_a_script_or_a_card_in_the_repository_does_not_matter(folders: dict[str, Path], tmp_path: Path) -> None:
    card = b"---\nconfigs:\n- config_name: all\n  data_files: other/*.csv\n---\n"
    files = {**mmlu_repo(folders["mmlu"]), "mmlu.py": b"raise SystemExit('run')", "README.md": card}
    with LoopbackHub(datasets={"cais/mmlu": files}) as server:
        assert client(server.env(tmp_path), "mmlu").get("hash") == from_files(folders["mmlu"], "mmlu")


def test_a_token_gives_access_to_gated_repositories(folders: dict[str, Path], tmp_path: Path) -> None:
    private = Repo(mmlu_repo(folders["mmlu"]), token="hf_secret")
    with LoopbackHub(datasets={"cais/mmlu": private}) as server:
        env = server.env(tmp_path) | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
        refused(client(env, "mmlu"), "cais/mmlu is not on http://127.0.0.1", "or not for you")
        assert client(env | {"HF_TOKEN": "hf_secret"}, "mmlu").get("hash") == from_files(folders["mmlu"], "mmlu")


def test_cells_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What type-inferring readers take for a missing value, a number, a boolean or a date; and numbers stay numbers."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    cells = ["None", "NA", "nan", "null", "", "0.50", "007", "1e3", "True", "2024-01-01", " x ", "\u00a0", "#N/A", "中"]
    columns = {"text": cells, "list": [[cell, "NA"] for cell in cells], "number": list(range(len(cells)))}
    (tmp_path / "t.parquet").write_bytes(parquet(columns))
    rows = hub_files.read_table(tmp_path / "t.parquet", "t", "try again")
    assert rows == [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_datasets_is_not_imported_for_files(folders: dict[str, Path]) -> None:
    code = "import sys; from pathlib import Path; from qwen_eval.data import choice, files\n"
    code += "choice.mmlu(files.Source(Path(sys.argv[1])), ['anatomy']); assert 'datasets' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": str(EVAL)}
    subprocess.run([sys.executable, "-c", code, folders["mmlu"]], env=env, check=True)


TEST_FILE = "all/test-00000-of-00001.parquet"
DEV = parquet({"question": ["?"], "subject": ["anatomy"], "choices": [["1", "2", "3", "4"]], "answer": [0]})
NO_ROWS = parquet({name: [] for name in ("question", "subject", "choices", "answer")})
BAD_ROW = parquet({"question": ["?"], "subject": ["anatomy"], "choices": [["1", "2", "3"]], "answer": [0]})
BAD_CELL = parquet({"question": ["?"], "subject": ["anatomy"], "choices": [["1", None, "3", "4"]], "answer": [0]})
BAD_ANSWER = parquet({"question": ["?"], "subject": ["anatomy"], "choices": [["1", "2", "3", "4"]], "answer": [-1]})
BAD_COLUMNS = parquet({"prompt": ["?"], "subject": ["anatomy"]})
NO_TABLE = ["is not a readable parquet file with rows", TEST_FILE, "delete "]
HUB_DEFECTS = {
    "no such file": (Repo({}), ["has no all/dev-", MMLU_COMMIT]),
    "no such revision": (Repo({TEST_FILE: b""}, revisions={"main"}), ["has no all/dev-", MMLU_COMMIT]),
    "gated": (Repo({}, gated=True), ["is gated", "hf auth login"]),
    "forbidden": (Repo({}, status=403), ["answered 403", "hf auth login"]),
    "unauthorized": (Repo({}, status=401), ["answered 401", "hf auth login"]),
    "broken server": (Repo({}, status=503), ["answered 503", "try again later"]),
    "damaged": (Repo({TEST_FILE: DEV}, announced={TEST_FILE: "0" * 64}), ["is damaged (SHA-256 ", "delete "]),
    "no parquet": (Repo({TEST_FILE: b"<html>"}), [*NO_TABLE, "(ArrowInvalid: "]),
    "a torn page": (Repo({TEST_FILE: torn(DEV)}), [*NO_TABLE, "(OSError: "]),
    "no rows": (Repo({TEST_FILE: NO_ROWS}), NO_TABLE),
    "three choices": (Repo({TEST_FILE: BAD_ROW}), [f"{TEST_FILE} row 0: no question with four choices"]),
    "no text": (Repo({TEST_FILE: BAD_CELL}), [f"{TEST_FILE} row 0: B is None"]),
    "answer -1": (Repo({TEST_FILE: BAD_ANSWER}), [f"{TEST_FILE} row 0: no question with four choices"]),
    "other columns": (Repo({TEST_FILE: BAD_COLUMNS}), ["no question with four choices"]),
    "a subject is missing": (Repo({TEST_FILE: DEV}), ["has no rows of virology"]),
}


@pytest.mark.parametrize("defect", HUB_DEFECTS)
def test_errors_of_a_hub(defect: str, tmp_path: Path) -> None:
    repo, words = HUB_DEFECTS[defect]
    files = {"all/dev-00000-of-00001.parquet": DEV, **repo.files} if repo.files else {}
    with LoopbackHub(datasets={"cais/mmlu": Repo(**{**vars(repo), "files": files})}) as server:
        answer = client(server.env(tmp_path), "mmlu")
    refused(answer, "cais/mmlu", *words)
    assert max(Counter(server.requests).values()) <= 2  # by us and by the client: an error is not retried


def test_a_download_that_ends_half_way_or_comes_slowly(folders: dict[str, Path], tmp_path: Path) -> None:
    """Cut off twice, it resumes; cut off every time, it is a one-line error, and no partial file is used."""
    whole = mmlu_repo(folders["mmlu"])
    expected = from_files(folders["mmlu"], "mmlu")
    for name, fault in {"twice": {"cut": 2}, "slow": {"seconds": 3.0}}.items():
        with LoopbackHub(datasets={"cais/mmlu": Repo(whole, **fault)}) as server:  # type: ignore[arg-type]
            assert client(server.env(tmp_path / name), "mmlu").get("hash") == expected, name
    with LoopbackHub(datasets={"cais/mmlu": Repo(whole, cut=10**9)}) as server:
        refused(
            client(server.env(tmp_path / "always"), "mmlu"), "hub dataset cais/mmlu cannot be downloaded", "data.tar"
        )
    with LoopbackHub(datasets={"cais/mmlu": Repo(whole)}) as server:  # what the broken downloads left does no harm
        assert client(server.env(tmp_path / "always"), "mmlu").get("hash") == expected


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with LoopbackHub() as server:
        refused(client(server.env(tmp_path), "cmmlu"), "haonan-li/cmmlu is not on http://127.0.0.1")


def zipped(members: Mapping[str, str]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return sink.getvalue()


def test_a_bad_archive(folders: dict[str, Path], tmp_path: Path) -> None:
    whole = archive(folders["cmmlu"])
    head = ",Question,A,B,C,D,Answer\n"
    flipped = bytearray(zipped({"dev/arts.csv": head + "0,Why?,1,2,3,4,A\n"}))
    flipped[flipped.index(b"Why?")] ^= 1
    cases = {
        b"PK nonsense": ["is not a readable zip file"],
        whole[: len(whole) // 2]: ["is not a readable zip file"],
        zipped({"readme.txt": "x", "../dev/arts.csv": "x"}): ["has no dev/arts.csv"],
        bytes(flipped): ["dev/arts.csv is damaged"],
        zipped({"dev/arts.csv": head + "0,Why?,1,2,3,4,E\n"}): ["cmmlu_v1_0_1.zip:dev/arts.csv:2: answer 'E'"],
    }
    for number, (content, words) in enumerate(cases.items()):
        with LoopbackHub(datasets={"haonan-li/cmmlu": {"cmmlu_v1_0_1.zip": content}}) as server:
            refused(client(server.env(tmp_path / str(number)), "cmmlu"), *words)


# ModelScope's client is an optional extra. A stand-in for its function shows what we ask of it; the real one, where it
# is installed, downloads from the loopback hub.
STAND_IN = """
import os, pathlib, urllib.parse, urllib.request
def dataset_file_download(dataset_id, file_path, *, revision=None, local_files_only=False):
    path = pathlib.Path(os.environ["MODELSCOPE_CACHE"], dataset_id, file_path)
    if local_files_only and not path.exists():
        raise ValueError("not cached")
    if not path.exists():
        query = urllib.parse.urlencode({"Revision": revision, "FilePath": file_path})
        url = f"{os.environ['MODELSCOPE_ENDPOINT']}/api/v1/datasets/{dataset_id}/repo?{query}"
        content = urllib.request.urlopen(url).read()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(path)
"""


@pytest.fixture(params=["stand-in", "real"])
def modelscope(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Environment for a client process that has ModelScope's client: ours, or the real one."""
    if request.param == "real":
        pytest.importorskip("modelscope", reason="the modelscope extra is not installed")
        return {}
    package = tmp_path / "site/modelscope"
    (package / "hub").mkdir(parents=True)
    for folder in (package, package / "hub"):
        (folder / "__init__.py").touch()
    (package / "hub/file_download.py").write_text(STAND_IN)
    return {"PYTHONPATH": str(tmp_path / "site")}


@pytest.mark.parametrize("benchmark", SUBJECTS)
def test_modelscope(
    benchmark: str, hub: LoopbackHub, folders: dict[str, Path], modelscope: dict[str, str], tmp_path: Path
) -> None:
    answer = client(hub.env(tmp_path) | modelscope, benchmark, "modelscope")
    assert answer.get("hash") == from_files(folders[benchmark], benchmark), answer
    assert answer["origins"][0].startswith("modelscope:")
    dead = client(client_env("http://127.0.0.1:9", tmp_path) | modelscope, benchmark, "modelscope")
    assert dead["hash"] == answer["hash"]  # from its cache
    dead = client(client_env("http://127.0.0.1:9", tmp_path / "empty") | modelscope, benchmark, "modelscope")
    refused(dead, "ModelScope dataset", "cannot be downloaded")
    assert dead["connections"] == [PROBE_SECONDS]


def test_modelscope_is_not_installed(tmp_path: Path) -> None:
    package = tmp_path / "modelscope"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('hidden by the test')")
    env = client_env("http://127.0.0.1:9", tmp_path) | {"PYTHONPATH": str(tmp_path)}
    refused(client(env, "mmlu", "modelscope"), "--hub modelscope needs the extra: pip install -e '.[modelscope]'")
