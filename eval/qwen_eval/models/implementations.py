"""Which implementations of attention and experts a config.json may choose: those that transformers itself holds.

transformers takes any other name for a repository of the hub, or maps it to one, and downloads and runs compiled code from
there, which --trust-remote-code has no say in. What is used is this harness's own choice (--attn) in any case.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from transformers import PreTrainedConfig

from qwen_eval.schema import CheckpointError

_FIELDS = ("_attn_implementation", "_experts_implementation")
_BUILT_IN = {"eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm"}
# by the package that has them; without it transformers gets them from the hub
_OF_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def check(config: PreTrainedConfig, path: Path, trust_remote_code: bool) -> None:
    """Takes back choices for which a package is missing. Raises CheckpointError for one that is no implementation of
    transformers' own, unless code that comes with the checkpoint is trusted. path: of the config."""
    for part in _parts(config):
        for field in _FIELDS:
            wanted = getattr(part, field, None)
            known = isinstance(wanted, str)
            if wanted is None or (known and wanted in _BUILT_IN):
                continue
            if known and wanted in _OF_PACKAGES:
                if importlib.util.find_spec(_OF_PACKAGES[wanted]) is None:
                    setattr(part, f"{field}_internal", None)
            elif not trust_remote_code:
                name = field.removeprefix("_")
                raise CheckpointError(
                    f"{path}: {name} is {wanted!r:.100}, code that would be downloaded and run; remove the key, or pass "
                    "--trust-remote-code if you trust it"
                )


def _parts(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    """A config and those inside it."""
    found: list[PreTrainedConfig] = []
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if not any(part is other for other in found):
            found.append(part)
            for value in vars(part).values():
                inner = (
                    value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
                )
                waiting += [item for item in inner if isinstance(item, PreTrainedConfig)]
    return found
