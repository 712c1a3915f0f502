"""What is decided when a run first starts and holds until it is complete, however often it is interrupted.

results/samples/<run_id>.start holds it before the first answer is stored; the manifest, of which it has the form, replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_eval.data import json_text
from qwen_eval.runs import files
from qwen_eval.runs.samples import answered, stored_path
from qwen_eval.runs.signature import prompt_hash
from qwen_eval.schema import EngineInfo, InputError

TIME = "%Y-%m-%dT%H:%M:%SZ"  # UTC


@dataclass(frozen=True)
class Start:
    """started: when the run first started (UTC), "" where nobody knows. model: what the engine said of itself then, with the
    day on which chat templates are rendered. prompt: the first prompt as the model reads it (or its hash, {"sha256": ...});
    None where that is not known. doubts: what is wrong with stored answers, whoever reads them."""

    started: str
    model: Mapping[str, Any]
    prompt: Any = None
    doubts: Sequence[str] = ()

    @property
    def day(self) -> str:
        """The date on which chat templates are rendered, "" where it does not matter."""
        return str(self.model.get("day", ""))

    def wrote(self, prompt: str) -> bool:
        """Whether this was the first prompt, as far as it is known."""
        return self.prompt is None or prompt_hash(self.prompt) == prompt_hash(prompt)


def path(output: Path, run: str) -> Path:
    """Where the start of a run is kept until it is complete."""
    return output / "samples" / f"{run}.start"


def read(output: Path, run: str) -> Start | None:
    """The first start of a run; None for a run that is not stored, or was stored by a version that kept none. Raises InputError
    for a file that cannot be read."""
    for place in (path(output, run), output / "samples" / f"{run}.json"):
        try:
            content = json_text.loads(place.read_text(encoding="utf-8"))
            if "started" in content:
                return Start(
                    str(content["started"]),
                    dict(content["model"]),
                    content.get("prompt"),
                    tuple(content.get("doubts", ())),
                )
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{place} cannot be read ({error}); restore it, or use --overwrite") from error
    return None


def described(output: Path, run: str) -> EngineInfo | None:
    """What the engine said of itself when a run first started; None where that is not stored in a known form."""
    for place in (path(output, run), output / "samples" / f"{run}.json"):
        try:
            return EngineInfo(**json_text.loads(place.read_text(encoding="utf-8"))["model"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def write(output: Path, run: str, start: Start) -> None:
    """Keeps the first start of a run. Raises InputError where answers are stored whose prompts show a date that nobody knows,
    and when it cannot be written."""
    if start.day and answered(output, run):
        raise InputError(
            f"{stored_path(output, run)} has answers to prompts that show the date of the run's first start, which {run}.start "
            f"or {run}.json held; restore that file, or use --overwrite"
        )
    files.write_json(path(output, run), {"started": start.started, "model": start.model, "prompt": start.prompt})


def remove(output: Path, run: str) -> None:
    """Removes what `write` kept, when the manifest holds it."""
    place = path(output, run)
    with files.writing(place):
        place.unlink(missing_ok=True)
