"""Bad input to every script, as in test_bad_input: files, checkpoints, tokenizers, arguments, environment. One line
that names the problem and the remedy, exit status 2, no traceback. All run inside this process."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny
from known import run_script
from qwen_eval.data import demo

DEEP = "[" * 200_000
LONG = "9" * 5_000


class Bench:
    """A copy of a script's demonstration data, to be damaged, and where its results go."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def data(self, benchmark: str) -> Path:
        return Path(shutil.copytree(demo.FOLDER / "data" / benchmark, self.root / benchmark))

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


Words = list[object]
Case = tuple[str, Callable[[Bench], Words], Sequence[str]]


def line(path: Path, number: int, new: str) -> Path:
    """The file with another line (counted from 1)."""
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[number - 1] = new
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def damaged(benchmark: str, file: str, number: int, new: str, *more: object) -> Callable[[Bench], Words]:
    """-d with one line of one file changed."""

    def words(bench: Bench) -> Words:
        folder = bench.data(benchmark)
        line(folder / file, number, new)
        return ["-d", folder, *more]

    return words


def changed(benchmark: str, change: Callable[[Path], object], *more: object) -> Callable[[Bench], Words]:
    """-d after some other change."""

    def words(bench: Bench) -> Words:
        folder = bench.data(benchmark)
        change(folder)
        return ["-d", folder, *more]

    return words


def packed(cut: int) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        plain = folder / "HumanEval.jsonl"
        (folder / "HumanEval.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes())[:cut])
        plain.unlink()

    return change


def twice(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


AGENT = '{"tool": "t", "parameters": ["a"], "returns": "%s"}\n{"instructions": ["do"], "tools": ["t"], "answers": ["x"]%s}\n'


def agent(returns: str = "{a}", more: str = "") -> Callable[[Bench], Words]:
    return lambda bench: ["--hfagent", bench.file("a.jsonl", AGENT % (returns, more))]


CEVAL = ("--subjects", "high_school_chinese")
DATA: dict[str, Case] = {
    "gsm8k, no test file": ("gsm8k", changed("gsm8k", lambda f: (f / "test.jsonl").unlink()), ("test.jsonl is missing",)),
    "gsm8k, no JSON": ("gsm8k", damaged("gsm8k", "test.jsonl", 3, "{no"), ("test.jsonl:3: not JSON", "get the file again")),
    "gsm8k, a list": ("gsm8k", damaged("gsm8k", "train.jsonl", 2, "[1]"), ("train.jsonl:2: found list", "get the file")),
    "gsm8k, unclosed brackets": ("gsm8k", damaged("gsm8k", "test.jsonl", 1, DEEP), ("test.jsonl:1: not JSON", "get the")),
    "gsm8k, a number of 5,000 digits": ("gsm8k", damaged("gsm8k", "test.jsonl", 1, LONG), ("test.jsonl:1: ", "get the file")),
    "gsm8k, no final number": ("gsm8k", damaged("gsm8k", "test.jsonl", 1, '{"question": "q", "answer": "a"}'),
                               ("test.jsonl:1: the answer has no '#### <number>'", "-d DIR")),
    "gsm8k, a number for a question": ("gsm8k", damaged("gsm8k", "test.jsonl", 1, '{"question": 3, "answer": "#### 1"}'),
                                       ("test.jsonl:1: question is 3, expected text", "-d DIR")),
    "gsm8k, NUL": ("gsm8k", damaged("gsm8k", "test.jsonl", 2, "\0"), ("test.jsonl:2: NUL byte", "get the file again")),
    "gsm8k, too many shots": ("gsm8k", lambda b: ["-c", "demo", "--shots", 99], ("--shots 99", "ask for fewer")),
    "humaneval, a gzip file cut": ("humaneval", changed("humaneval", packed(300)), ("not a whole gzip file", "get the file")),
    "humaneval, no gzip file": ("humaneval", changed("humaneval", packed(1)), ("not a whole gzip file", "get the file")),
    "humaneval, a task twice": ("humaneval", changed("humaneval", lambda f: twice(f / "HumanEval.jsonl")),
                                ("is repeated", "-d DIR")),
    "humaneval, an empty field": ("humaneval", damaged("humaneval", "HumanEval.jsonl", 1, '{"task_id": "x"}'),
                                  ("HumanEval.jsonl:1: prompt is None, expected text", "-d DIR")),
    "humaneval, shots": ("humaneval", lambda b: ["-c", "demo", "--shots", 2], ("no shots; leave --shots out",)),
    "humaneval, greedy samples": ("humaneval", lambda b: ["-c", "demo", "--samples", 3], ("--temperature above 0",)),
    "humaneval, no completions": ("humaneval", lambda b: ["-c", "demo", "--completions", b.root / "no.jsonl"],
                                  ("no.jsonl is missing", 'write one {"task_id"')),
    "humaneval, unknown task": ("humaneval", lambda b: ["-c", "demo", "--completions",
                                b.file("c.jsonl", '{"task_id": "X", "completion": ""}')], ("c.jsonl:1: unknown task 'X'",)),
    "wmt22, no reference": ("wmt22", changed("wmt22", lambda f: (f / "generaltest2022.en-zh.ref.A.zh").unlink()),
                            ("ref.A.zh is missing", "-d DIR")),
    "wmt22, a line too many": ("wmt22", changed("wmt22", lambda f: twice(f / "generaltest2022.en-zh.ref.A.zh")),
                               ("lines, ", "get the files again")),
    "wmt22, an empty line": ("wmt22", damaged("wmt22", "generaltest2022.en-zh.src.en", 2, " "),
                             ("src.en:2: the line is empty", "get the file again")),
    "wmt22, too many shots": ("wmt22", lambda b: ["-c", "demo", "--shots", 99], ("ask for at most",)),
    "wmt22, a bad shot": ("wmt22", lambda b: ["-c", "demo", "--shots-file", b.file("s.jsonl", '{"direction": "de-en"}')],
                          ("s.jsonl:1: ", "write one")),
    "wmt22, too few translations": ("wmt22", lambda b: ["-c", "demo", "--direction", "en-zh", "--hypotheses",
                                    b.file("h.txt", "one\n")], ("1 texts for", "give one for each")),
    "long_ppl, nothing there": ("long_ppl", lambda b: ["-d", b.root / "no"], ("no is missing", "give a folder of .txt")),
    "long_ppl, empty folder": ("long_ppl", lambda b: ["-d", b.root], ("has no documents", "give a folder of .txt files")),
    "long_ppl, no text": ("long_ppl", lambda b: ["-d", b.file("d.jsonl", '{"txt": "a"}')], ('d.jsonl:1: no text',)),
    "long_ppl, too short": ("long_ppl", lambda b: ["-c", "demo", "-d", b.file("d.jsonl", '{"text": "a few words"}')],
                            ("no document has", "give longer documents")),
    "long_ppl, stride": ("long_ppl", lambda b: ["-c", "demo", "--lengths", "64", "--stride", 64], ("--stride 64 has to be",)),
    "long_ppl, length 1": ("long_ppl", lambda b: ["--lengths", "1"], ("argument --lengths", "--help")),
    "long_ppl, unknown row": ("long_ppl", lambda b: ["--grid", "magic"], ("argument --grid", "magic", "--help")),
    "plugin, nothing there": ("plugin_eval", lambda b: ["-d", b.root], ("holds none of", "-d DIR")),
    "plugin, no prompt": ("plugin_eval", lambda b: ["--react-positive", b.file("p.jsonl", '{"prompt": ""}')], ("p.jsonl:1: ",)),
    "plugin, unknown tool": ("plugin_eval", agent(more=', "inputs": {"t": 1}'), ("a.jsonl:2: ", "eval/EVALUATION.md")),
    "plugin, braces": ("plugin_eval", agent(returns="{a.__class__}"), ("a.jsonl:1: returns of t", "eval/EVALUATION.md")),
    "plugin, unknown key": ("plugin_eval", agent(more=', "exec": "rm"'), ("a.jsonl:2: unknown key 'exec'", "EVALUATION.md")),
    "plugin, shots": ("plugin_eval", lambda b: ["--shots", 1], ("leave --shots out",)),
    "plugin, a prompt without marks": ("plugin_eval", lambda b: ["--hfagent", "--agent-prompt", b.file("t.txt", "hello")],
                                       ("t.txt", "<<prompt>>")),
    "ceval, another header": ("ceval", damaged("ceval", "dev/high_school_chinese_dev.csv", 1, "a,b,c", *CEVAL),
                              ("dev.csv:1: header 'a,b,c'", "get the file again")),
    "ceval, an open quote": ("ceval", damaged("ceval", "val/high_school_chinese_val.csv", 3, '1,"open,a,b,c,d,A', *CEVAL),
                             ("val.csv:3: broken CSV row", "get the file again")),
    "cmmlu, another header": ("cmmlu", damaged("cmmlu", "test/arts.csv", 1, "a,b", "--subjects", "arts"),
                              ("arts.csv:1: header 'a,b'", "get the file again")),
    "cmmlu, a folder for a file": ("cmmlu", changed("cmmlu", lambda f: ((f / "test/arts.csv").unlink(),
                                   (f / "test/arts.csv").mkdir()), "--subjects", "arts"), ("arts.csv cannot be read",)),
    "chat with shots": ("mmlu", lambda b: ["-c", "demo", "--chat", "--shots", 5], ("leave --shots out",)),
    "no such run": ("mmlu", lambda b: ["-c", "demo", "--rescore", "nothing"], ("run nothing cannot be read", "no runs in")),
    "server without engine": ("mmlu", lambda b: ["-c", "demo", "--base-url", "http://127.0.0.1:9/v1"], ("add --engine api",)),
    "engine without server": ("mmlu", lambda b: ["-c", "demo", "--engine", "api"], ("--base-url http://HOST",)),
    "dead server": ("gsm8k", lambda b: ["-d", "demo", "--engine", "api", "--base-url", "http://127.0.0.1:9/v1"],
                    ("127.0.0.1:9",)),
    "window of words": ("mmlu", lambda b: ["-c", "demo", "--window", "wide"], ("--window 'wide' is not auto, a number",)),
    "windows for other layers": ("mmlu", lambda b: ["-c", "demo", "--window", "9," * 99 + "9"], ("--window", "one per layer")),
    "no context": ("mmlu", lambda b: ["-c", "demo", "--max-seq-len", 0], ("argument --max-seq-len: '0'", "--help")),
    "hot": ("humaneval", lambda b: ["-c", "demo", "--temperature", "nan"], ("argument --temperature", "--help")),
    "seconds": ("humaneval", lambda b: ["-c", "demo", "--timeout", "-1"], ("argument --timeout", "--help")),
}  # fmt: skip


def assert_one_line(case: Case, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    script, make, says = case
    run = run_script(script, make(bench), bench.root / "results", capsys)
    assert run.status == 2 and run.out == "", run.err
    assert run.err.startswith(f"{script}.py: ") and run.err.endswith("\n") and run.err.count("\n") == 1, run.err[:2000]
    assert len(run.err) < 1_500
    for part in says:
        assert part in run.err
    assert not list((bench.root / "results").rglob("*.csv"))


@pytest.mark.parametrize("name", DATA)
def test_data_and_arguments(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_one_line(DATA[name], Bench(tmp_path), capsys)


class Evil:
    """Unpickling this would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def index(folder: Path, name: str) -> None:
    """The only weights are those that an index names, at any path."""
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"transformer.wte.weight": name}}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(folder.parent / "executed"), protocol=2))


def template(folder: Path, text: str) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": text}))
    (folder / "chat_template.jinja").unlink(missing_ok=True)


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
OPEN = "{{ cycler.__init__.__globals__.os.system('touch executed') }}"
# about Qwen-1 checkpoints
CHECKPOINTS: dict[str, tuple[Callable[[Path], object], Sequence[str]]] = {
    "a git-lfs pointer": (write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), ("run: git lfs pull",)),
    "no header": (write("model.safetensors", b"abc"), ("is truncated", "get it again")),
    "a header of words": (write("model.safetensors", header(b"hello")), ("damaged header", "get it again")),
    "a header of brackets": (write("model.safetensors", header(DEEP.encode())), ("damaged header", "get it again")),
    "a header of lists": (write("model.safetensors", header(b"[]")), ("damaged header", "get it again")),
    "a header of other types": (write("model.safetensors", header(b'{"a": {"data_offsets": [0, "x"]}}')), ("a damaged",)),
    "weights outside the folder": (lambda f: index(f, "../outside.safetensors"), ("outside.safetensors, which is missing",)),
    "an index of numbers": (write("model.safetensors.index.json", '{"weight_map": 3}'), ("no weight_map in it",)),
    "an index of brackets": (write("model.safetensors.index.json", DEEP), ("index.json", "not valid JSON")),
    "a pickle with a command": (pickled, ("cannot be loaded", "")),
    "config of brackets": (write("config.json", DEEP), ("config.json", "not valid JSON")),
    "config of a list": (write("config.json", "[]"), ("config.json: not a JSON object", "get it again")),
    "config of long numbers": (write("config.json", f'{{"a": {LONG}}}'), ("config.json", "get it again")),
    "config without a type": (lambda f: config(f, model_type=None), ("needs Python code that it does not hold",)),
    "config of an unknown type": (lambda f: config(f, model_type="frobnicator", auto_map={}), ("'frobnicator' is unknown",)),
    "config whose type is a list": (lambda f: config(f, model_type=[], auto_map={}), ("config.json: no model_type in it",)),
    "code of its own": (lambda f: config(f, model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Model"}),
                        ("needs Python code that it does not hold (mine.py)",)),
    "an end of text in words": (lambda f: config(f, eos_token_id="end"), ("eos_token_id",)),
    "layers below zero": (lambda f: config(f, num_hidden_layers=-1), ("config.json",)),
    "layers in words": (lambda f: config(f, num_hidden_layers="two"), ("config.json",)),
    "heads that do not divide": (lambda f: config(f, num_attention_heads=7), ("config.json", "different models")),
    "no heads": (lambda f: config(f, num_attention_heads=0), ("config.json",)),
    "a vocabulary too small": (lambda f: config(f, vocab_size=10), ("belong to different checkpoints",)),
    "ranks of words": (write("qwen.tiktoken", "hello world\n"), ("qwen.tiktoken:1: not a base64 token", "get it again")),
    "a rank twice": (write("qwen.tiktoken", "YQ== 1\nYg== 1\n"), ("one rank is given to two tokens", "get it again")),
    "too few ranks": (write("qwen.tiktoken", "YQ== 1\n"), ("of the 256 single bytes are missing", "get it again")),
    "a rank of 5,000 digits": (write("qwen.tiktoken", f"YQ== {LONG}\n"), ("qwen.tiktoken:1: ", "get it again")),
    "no ranks": (write("qwen.tiktoken", ""), ("qwen.tiktoken", "get it again")),
    "a rank below zero": (write("qwen.tiktoken", "YQ== -1\n"), ("qwen.tiktoken:1: not a base64 token",)),
}  # fmt: skip
# about checkpoints that transformers loads; every one is asked in a conversation
OTHERS: dict[str, tuple[Callable[[Path], object], Sequence[str]]] = {
    "no tokenizer": (lambda f: [path.unlink() for path in f.glob("tokenizer*")], ("tokenizer cannot be loaded",)),
    "a tokenizer of brackets": (write("tokenizer.json", DEEP), ("tokenizer cannot be loaded",)),
    "half a tokenizer": (lambda f: (f / "tokenizer.json").write_bytes((f / "tokenizer.json").read_bytes()[:500]),
                         ("tokenizer cannot be loaded",)),
    "no template": (lambda f: template(f, ""), ("no chat template", "leave --chat out")),
    "a template that does not parse": (lambda f: template(f, "{% if %}"), ("its chat template failed",)),
    "a template that escapes": (lambda f: template(f, ESCAPE), ("its chat template failed", "is unsafe")),
    "a template that runs a command": (lambda f: template(f, OPEN), ("its chat template failed",)),
    "a template that writes nothing": (lambda f: template(f, "{# hello #}"), ("its chat template writes nothing",)),
    "a template that changes its input": (lambda f: template(f, "{{ messages.append(1) }}"), ("failed", "is unsafe")),
    "an endless template": (lambda f: template(f, "{% for i in range(9999999999) %}x{% endfor %}"), ("Range too big",)),
    "a template that refuses": (lambda f: template(f, "{{ raise_exception('no\x1b[2Juser') }}"), ("failed: no\\u001b[2Juser",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sound")
    return {
        "qwen1": tiny.write_qwen1(root / "qwen1", hidden=32, layers=1, positions=8192),
        "qwen3": tiny.write_qwen3(root / "qwen3", positions=8192),
    }


@pytest.mark.parametrize("name", [*CHECKPOINTS, *OTHERS])
def test_checkpoints(
    name: str,
    sound: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = name in OTHERS
    spoil, says = OTHERS[name] if chat else CHECKPOINTS[name]
    folder = Path(shutil.copytree(sound["qwen3" if chat else "qwen1"], tmp_path / "model"))
    spoil(folder)
    words: Words = ["-c", folder, "-d", "demo", "--limit", 1, *(["--chat"] if chat else [])]
    assert_one_line(("mmlu", lambda bench: words, says), Bench(tmp_path), capsys)
    assert not (tmp_path / "executed").exists()
