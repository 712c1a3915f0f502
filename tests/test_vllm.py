"""vLLM for real, in an environment of its own (`make test-vllm`): its answers on an exported Qwen-1 checkpoint, in this process
and from its server, are those of our engine on the original. Skipped where vLLM is not installed."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests as http

import tiny
from qwen_eval.engines.api.engine import APIEngine
from qwen_eval.engines.api.server import Server
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.engines.vllm import VLLMEngine
from qwen_eval.models import versions
from qwen_eval.models.export import export_qwen2
from qwen_eval.schema import Engine, Measure, ModelSpec
from test_api import equal_choices, texts
from test_engine import questions

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
]
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Qwen-1 checkpoint without NTK and LogN, and its copy."""
    root = tmp_path_factory.mktemp("checkpoints")
    original = tiny.write_qwen1(root / "original", positions=512, hidden=128, heads=4)
    export_qwen2(ModelSpec(str(original)), root / "copy")
    return original, root / "copy"


def check(engine: Engine, folder: Path) -> None:
    """Choices of letters and of several tokens, perplexity, and texts, against our engine in float32."""
    ours = HFEngine(ModelSpec(str(folder), dtype="float32"))
    for requests in (questions(9), questions(4, (" red boat", " sail", " the island of lamps"))):
        equal_choices(engine.choose(requests, lambda *_: None), ours.choose(requests, lambda *_: None))
    cells = [Measure(("The red boat and the lamps of the island. " * 12,), 48)]
    (found,), (wanted,) = (one.measure(cells, lambda *_: None) for one in (engine, ours))
    assert found.nll == pytest.approx(wanted.nll, rel=1e-5) and found.tokens == wanted.tokens
    asked = texts()
    for one, other in zip(engine.generate(asked, lambda *_: None), ours.generate(asked, lambda *_: None), strict=True):
        assert (one.prompt_tokens, one.shots_used) == (other.prompt_tokens, other.shots_used)
        # vLLM holds back trailing bytes that are not a complete character, which a random model writes
        assert [text.rstrip("\ufffd") for text in one.texts] == [text.rstrip("\ufffd") for text in other.texts]


@pytest.mark.parametrize("size", [1, 2])
def test_offline(size: int, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    original, copy = folders
    if size > 1:  # by default vLLM wants a memory node per part
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "|".join(map(str, range(size))))
    engine = VLLMEngine(ModelSpec(str(copy), dtype="float32"), size)
    check(engine, original)
    assert engine.cached > 0  # tokens that the prefix cache had
    assert engine.usage()["tokens"] < engine.usage()["prompt_tokens"]


@pytest.fixture(scope="module")
def url(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words: Sequence[Any] = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folders[1], "--served-model-name", "copy",
        "--host", "127.0.0.1", "--port", port, "--dtype", "float32", "--enforce-eager", "--block-size", "32",
        "--enable-prefix-caching",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as out, subprocess.Popen(list(map(str, words)), stdout=out, stderr=out) as process:
        try:
            for _ in range(600):
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.5)
                try:
                    if http.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                        break
                except http.ConnectionError:
                    continue
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def test_server(url: str, folders: tuple[Path, Path]) -> None:
    original, copy = folders
    engine = APIEngine(ModelSpec(str(copy)), Server(url, "NO_SUCH_KEY"))
    check(engine, original)
    assert engine.notes == versions.untried(("transformers",))  # vLLM brings its own
