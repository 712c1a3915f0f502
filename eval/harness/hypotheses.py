"""An engine whose answers stand in files: somebody's translations, one line a segment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.schema import Choose, Chosen, DataError, EngineInfo, Generate, Generated, InputError, OnResponse


class Hypotheses:
    """Answers every request with the next line of the given files, read in order. The number of lines has to match.

    Raises DataError when a file cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.notes: list[str] = []
        self._paths = paths
        content = b""
        self._lines: list[str] = []
        for path in paths:
            try:
                data = path.read_bytes()
                text = data.decode("utf-8")
            except OSError as error:
                raise DataError(f"{path} cannot be read ({error.strerror}); name another file") from error
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is not UTF-8 at byte {error.start}; convert it") from error
            content += data
            self._lines += text.removesuffix("\n").split("\n")
        self._fingerprint = hashlib.sha256(content).hexdigest()[:16]

    def describe(self) -> EngineInfo:
        name = "+".join(path.name for path in self._paths)
        return EngineInfo(name, "local", self._fingerprint, 0, "text", "none", "file", "none")

    def usage(self) -> Mapping[str, float]:
        return {"tokens": 0, "prompt_tokens": 0, "peak_memory_gb": 0.0}

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        raise InputError("a file of translations answers no multiple-choice questions; leave --hypotheses out")

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]:
        if len(requests) != len(self._lines):
            names = ", ".join(map(str, self._paths))
            raise DataError(f"{names}: {len(self._lines)} lines for {len(requests)} segments; give one line a segment")
        answers = [Generated((line.rstrip("\r"),), ("",), ("file",)) for line in self._lines]
        for index, answer in enumerate(answers):
            done(index, answer)
        return answers
