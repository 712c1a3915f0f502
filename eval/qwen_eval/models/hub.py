"""Where a checkpoint's files come from: a folder, a GGUF file, the Hugging Face hub or ModelScope.

Config and tokenizer files are fetched first, the weights when they are asked for, so that wrong usage shows before
15 GB have been downloaded. Python files are fetched only where the caller trusts them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_eval.models import gguf
from qwen_eval.models.files import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    INDEXES,
    SINGLES,
    adapter_weight_names,
    check_folder,
    read_json,
    weight_names,
)
from qwen_eval.models.tokenizers import one_line
from qwen_eval.schema import CheckpointError, ModelSpec

_SMALL = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
_NEVER = ["original/*", "onnx/*", "openvino/*", "*.gguf", "consolidated*"]
_TIMEOUT_S = 5.0
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_SNAPSHOT = re.compile(r"models--(.+)/snapshots/([0-9a-f]{40})$")


@dataclass(frozen=True)
class Located:
    """A checkpoint whose config and tokenizer lie in `folder`. name: the hub id, the folder's name, or the GGUF file's without
    its suffix. revision: the commit on the hub, "local" for a folder. fetch(): brings the weights into the folder; it may raise
    CheckpointError. gguf: the GGUF file that holds all of it."""

    name: str
    revision: str
    folder: Path
    fetch: Callable[[], None]
    gguf: Path | None = None


def locate_adapter(spec: ModelSpec) -> Located:
    """Find the adapter that a spec names and fetch all but its weights. Raises CheckpointError as `locate` does."""
    name = str(spec.adapter)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Located(folder.resolve().name, "local", folder, _nothing)
    path, _, revision = name.partition("@")
    if not _HUB_ID.fullmatch(path):
        raise CheckpointError(f"--adapter {name} does not exist; pass a folder with {ADAPTER}, or a hub id")
    wanted = replace(spec, path=path, revision=revision or None, trust_remote_code=False)
    if spec.hub == "modelscope":
        return _modelscope(wanted, (), ADAPTER_WEIGHTS)
    return _hugging_face(wanted, adapter_weight_names)


def locate(spec: ModelSpec) -> Located:
    """Find a checkpoint and fetch all but its weights. Raises CheckpointError: no such folder, no such hub id, gated,
    no network."""
    folder = Path(spec.path).expanduser()
    if folder.is_dir():
        return _local(folder)
    if folder.is_file():
        return _gguf(folder)
    if not _HUB_ID.fullmatch(spec.path):
        raise CheckpointError(f"{folder} does not exist; pass a folder with config.json and the weights, or a hub id")
    return _modelscope(spec) if spec.hub == "modelscope" else _hugging_face(spec)


def _local(folder: Path) -> Located:
    check_folder(folder)
    names = sorted(path.name for path in folder.iterdir())
    found = [name for name in names if name.endswith(gguf.SUFFIX)]
    if found and not {*INDEXES, *SINGLES}.intersection(names):
        if len(found) > 1:
            raise CheckpointError(
                f"{folder} holds {len(found)} GGUF files, pass one of them with -c: {', '.join(found)}"
            )
        return _gguf(folder / found[0])
    full = folder.resolve()
    cached = _SNAPSHOT.search(full.as_posix())
    if cached:  # a folder of the hub's own cache knows what it is
        return Located(cached[1].replace("--", "/"), cached[2], folder, _nothing)
    return Located(full.name, "local", folder, _nothing)


def _gguf(path: Path) -> Located:
    """A GGUF file: by its name or, where that says nothing, by its first bytes."""
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(gguf.MAGIC))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); make it readable") from None
    if path.suffix != gguf.SUFFIX and magic != gguf.MAGIC:
        raise CheckpointError(
            f"{path} is a file, and no GGUF file; pass the folder that holds config.json and the weights"
        )
    cached = _SNAPSHOT.search(path.parent.absolute().as_posix())
    return Located(path.stem, cached[2] if cached else "local", path.parent, _nothing, path)


def _nothing() -> None:
    """A folder's weights are there already."""


def _patterns(spec: ModelSpec) -> list[str]:
    return [*_SMALL, "*.py"] if spec.trust_remote_code else _SMALL


def _hugging_face(spec: ModelSpec, weights: Callable[[Path, Collection[str]], list[str]] = weight_names) -> Located:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    # One short request first: without a network, snapshot_download alone would retry for half a minute.
    try:
        info = HfApi().model_info(spec.path, revision=spec.revision, timeout=_TIMEOUT_S)
    except HfHubHTTPError as error:
        raise _refused(spec, error) from error
    except Exception as error:  # every HTTP library has its own errors for "no connection"
        return _cached(spec, error)
    listing = {entry.rfilename for entry in info.siblings or []}
    files = sorted(name for name in listing if name.endswith(gguf.SUFFIX))
    if files and "config.json" not in listing:
        get = f"hf download {spec.path} FILE --local-dir ."
        raise CheckpointError(f"{spec.path} holds GGUF files; get one ({get}) and pass it with -c: {', '.join(files)}")

    def download(patterns: list[str], revision: str | None) -> Path:
        try:
            return Path(
                snapshot_download(spec.path, revision=revision, allow_patterns=patterns, ignore_patterns=_NEVER)
            )
        except HfHubHTTPError as error:
            raise _refused(spec, error) from error
        except Exception as error:
            raise CheckpointError(f"{spec.path}: the download stopped ({one_line(error)}); run it again") from error

    with _quiet_bars():
        folder = download(_patterns(spec), spec.revision)  # by branch, so that the cache knows what "main" was
    commit = folder.name

    def fetch() -> None:
        download(weights(folder, listing), commit)

    return Located(spec.path, commit, folder, fetch)


def _cached(spec: ModelSpec, reason: Exception) -> Located:
    """The copy in the hub's cache, for when the hub cannot be reached."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                spec.path,
                revision=spec.revision,
                allow_patterns=_patterns(spec),
                ignore_patterns=_NEVER,
                local_files_only=True,
            )
        )
    except Exception:
        raise CheckpointError(
            f"{spec.path} is no folder here, not in the cache, and the hub cannot be reached ({one_line(reason)}); get "
            f"config.json, generation_config.json, the tokenizer's files (Qwen-1: qwen.tiktoken) and the safetensors "
            f"files with their index from https://huggingface.co/{spec.path}/tree/main into a folder and pass it with -c"
        ) from reason
    return Located(spec.path, folder.name, folder, _nothing)


def _refused(spec: ModelSpec, error: Exception) -> CheckpointError:
    """The error for the user that a response of the hub means."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"https://huggingface.co/{spec.path}"
    if isinstance(error, GatedRepoError):
        return CheckpointError(f"{spec.path} is gated: accept its terms at {page}, then run: hf auth login")
    if isinstance(error, RepositoryNotFoundError):
        return CheckpointError(
            f"{spec.path} is neither a folder here nor a model on the hub (private ones need: hf auth login)"
        )
    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(f"{spec.path} has no revision {spec.revision}; see {page}/commits/main")
    return CheckpointError(f"{spec.path}: the hub refused ({one_line(error)}); try again later or pass a folder")


def _modelscope(spec: ModelSpec, indexes: Sequence[str] = INDEXES, singles: Sequence[str] = SINGLES) -> Located:
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise CheckpointError("--hub modelscope needs modelscope; run: pip install 'qwen-eval[modelscope]'") from None

    def download(patterns: list[str]) -> Path:
        try:
            return Path(snapshot_download(spec.path, revision=spec.revision, allow_patterns=patterns))
        except Exception as error:  # its errors share no class
            raise CheckpointError(
                f"{spec.path}: ModelScope did not give it ({one_line(error)}); check the id, or pass a folder with -c"
            ) from error

    folder = download(_patterns(spec))

    def fetch() -> None:
        # its API lists files otherwise than the hub's: take what an index names, else a single file
        for name in indexes:
            if (folder / name).exists():
                download(sorted(set(read_json(folder / name).get("weight_map", {}).values())))
                return
        for single in singles:
            download([single])
            if (folder / single).exists():
                return

    return Located(spec.path, spec.revision or "master", folder, fetch)


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """Within it there are no progress bars: config and tokenizer take a moment. The weights' download keeps its bars."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
