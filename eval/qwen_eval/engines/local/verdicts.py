"""What the trust test came to, remembered in the user's cache folder: by weights, versions, device and settings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from qwen_eval import __version__
from qwen_eval.engines.local.runtime import Runtime, device_name
from qwen_eval.models import user_cache

_KIND = "trust"  # among what is remembered


@dataclass(frozen=True)
class Tried:
    """tokens: of the longest prompt tried. difference: the largest from the reference, in log-probability (of "measure" in the
    mean loss of a token). allowed: how much was. reference: its attention."""

    tokens: int
    difference: float
    allowed: float
    reference: str


@dataclass(frozen=True)
class Verdict:
    """tried: by verb. share: whether prefixes are shared. dropped: attention kernels that are not used. notes: sentences for
    the table. no_pieces: why texts cannot be read in pieces."""

    tried: Mapping[str, Tried]
    share: bool
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    no_pieces: str = ""

    def covers(self, needed: Mapping[str, int]) -> bool:
        """Whether so many tokens were tried of every verb."""
        return all(verb in self.tried and self.tried[verb].tokens >= tokens for verb, tokens in needed.items())

    def with_(self, later: Verdict) -> Verdict:
        """Both results as one: what either gave up stays given up."""
        return Verdict(
            {**self.tried, **later.tried},
            self.share and later.share,
            tuple(dict.fromkeys([*self.dropped, *later.dropped])),
            tuple(dict.fromkeys([*self.notes, *later.notes])),
            later.no_pieces if "measure" in later.tried else self.no_pieces,
        )

    @property
    def marks(self) -> tuple[str, ...]:
        """What a signature says of it: "unshared", "no-flash-cpu"; nothing where nothing was given up."""
        return (*(() if self.share else ("unshared",)), *(f"no-{name}" for name in self.dropped))

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return dataclasses.asdict(self)


def key(runtime: Runtime, share: bool) -> str:
    """Names everything that a result depends on. Downloads the weights if need be."""
    checkpoint = runtime.checkpoint
    parts = [
        __version__, torch.__version__, transformers.__version__, _code(), checkpoint.fingerprint,
        device_name(checkpoint.device), torch.backends.cpu.get_cpu_capability(), str(checkpoint.dtype), checkpoint.precision,
        checkpoint.spec.attention, checkpoint.spec.quantize, repr(checkpoint.context), str(checkpoint.context_limit),
        str(share), str(runtime.batch_size), str(getattr(checkpoint.config, "table_dtype", None)), checkpoint.spec.adapter_mode,
    ]  # fmt: skip
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
    """A hash of the files that compute: the engine's and the models'."""
    rooms = (Path(__file__).parent, Path(__file__).parents[2] / "models")
    files = sorted(path for room in rooms for path in room.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def recall(name: str) -> Verdict | None:
    """What is remembered under a key, None where there is nothing or it is damaged."""
    stored = user_cache.recall(_KIND, name)
    try:
        tried = {verb: Tried(**one) for verb, one in stored["tried"].items()}
        return Verdict(
            tried, bool(stored["share"]), tuple(stored["dropped"]), tuple(stored["notes"]), str(stored["no_pieces"])
        )
    except (KeyError, TypeError, AttributeError):
        return None


def remember(name: str, verdict: Verdict) -> None:
    """Writes a result down."""
    user_cache.remember(_KIND, name, verdict.as_json())
