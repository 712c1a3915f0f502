"""Benchmark files from the Hugging Face hub or ModelScope: pinned, verified and cached; a failure is one clear line.

The hub's own clients download and cache, `datasets` reads tables. load_dataset gets the file that huggingface_hub downloaded,
which is where `datasets` itself would put it, and not the repository's name: by name it makes ten requests each time it runs,
does not find its own cache when the hub cannot be reached (the key of an entry has the commit that the hub reported), verifies
no checksum, and rejects a repository that has a script.

Added here: one short request before the client starts (which, with its retries, takes half a minute to give up on a hub that
does not answer); the content is compared with the SHA-256 that the hub announced; every failure says which files to get
instead and where to put them.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from qwen_eval.schema import DataError, DataMissing

PROBE_SECONDS = 5.0


class NotOnHub(DataMissing):
    """The hub answers but has no such file or revision."""


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the hub at a commit. modelscope: its mirror on ModelScope ("" for none). how: how to get the official
    files by hand, the end of every error. sha256: of the files, where known."""

    repo: str
    revision: str
    modelscope: str
    how: str
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fetched:
    """Local paths by name, in the order of the request, and the origin: "cais/mmlu@<commit>".

    A file with another SHA-256 than the known one adds "+<checksum>" to the origin and is no error: a mirror may have the
    same rows in other bytes. The content hash tells whether the rows are the same.
    """

    paths: Mapping[str, Path]
    origin: str


def fetch(dataset: HubDataset, names: Sequence[str], hub: str = "hf") -> Fetched:
    """Downloads the named files of a dataset, or finds them in the client's cache, and verifies them.

    hub: "hf" or "modelscope". Raises NotOnHub for a file that does not exist there, DataError for everything else: no
    network, offline and not cached, no access, damaged, client not installed.
    """
    get = _from_modelscope if hub == "modelscope" else _from_hugging_face
    # The first file alone: a hub that does not answer is reported once, and not by every thread after a wait of its own.
    first = get(dataset, names[0])
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = dict(zip(names, [first, *pool.map(lambda name: get(dataset, name), names[1:])], strict=True))
    commit = first[1]
    origin = f"modelscope:{dataset.modelscope}@{commit}" if hub == "modelscope" else f"{dataset.repo}@{commit}"
    for name, expected in dataset.sha256.items():
        if name in found and (actual := _sha256(found[name][0])) != expected:
            origin += f"+{actual[:8]}"
    return Fetched({name: path for name, (path, _) in found.items()}, origin)


def read_table(path: Path, name: str, how: str) -> list[dict[str, Any]]:
    """The rows of a parquet file, through `datasets` and its cache (HF_DATASETS_CACHE). Raises DataError, by the file's
    `name`, when the file cannot be read or has no rows, and when the cache cannot be written."""
    import datasets  # takes a second to import, and is not needed for files in a folder

    try:
        # Map-style: the thread pools of streaming read ahead, and may abort a process that ends meanwhile.
        with _quiet(), _settled(path):
            files = {"train": [glob.escape(str(path))]}  # a path is interpreted as a pattern
            table = datasets.load_dataset("parquet", data_files=files, split="train")
            rows: list[dict[str, Any]] = table.to_list()
        return rows
    except Exception as error:  # a damaged file raises errors of pyarrow or Python, wrapped or not
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(reason, OSError) and reason.errno is not None:
            cache = f"{datasets.config.HF_DATASETS_CACHE} ({_brief(reason)}): free some space or name another folder by"
            raise DataError(f"{name} cannot be put into the cache {cache} HF_DATASETS_CACHE, or {how}") from error
        what = f"{name} is not a readable parquet file with rows ({_brief(reason)})"
        raise DataError(f"{what}: delete {path}, or {how}") from error


@contextlib.contextmanager
def _settled(path: Path) -> Iterator[None]:
    """Ends when no thread of Arrow holds a file any more that `datasets` opened in the block. A thread that releases one while
    the interpreter ends aborts the process (github.com/apache/arrow/issues/45214). With one thread in each of its pools,
    work is done in order: when the file has been read once more, by Arrow itself, everything before is done and released."""
    import pyarrow
    import pyarrow.dataset

    counts = pyarrow.cpu_count(), pyarrow.io_thread_count()
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    try:
        yield
    finally:
        with contextlib.suppress(pyarrow.ArrowException, OSError):  # a damaged file has raised already
            pyarrow.dataset.dataset(path, format="parquet").head(1)
        pyarrow.set_cpu_count(counts[0])
        pyarrow.set_io_thread_count(counts[1])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and log lines of `datasets`: a table takes a moment, and errors are raised anyway."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    bars, level = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()


class Archive:
    """A zip archive whose members are read into memory; nothing is unpacked to disk."""

    def __init__(self, path: Path, name: str, how: str) -> None:
        """Opens the archive. Raises DataError, by the archive's `name`, when it is not a zip file."""
        self.name, self._path, self._how = name, path, how
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{name} is not a readable zip file ({_brief(error)}): delete {path}, or {how}") from error

    def read(self, member: str) -> bytes:
        """The bytes of a member. Raises DataError when it is missing or damaged."""
        try:
            return self._zip.read(member)
        except KeyError:
            raise DataError(f"{self.name} has no {member}: delete {self._path}, or {self._how}") from None
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            damaged = f"{self.name}: {member} is damaged ({_brief(error)})"
            raise DataError(f"{damaged}: delete {self._path}, or {self._how}") from error


def _from_hugging_face(dataset: HubDataset, name: str) -> tuple[Path, str]:
    """A file's local path and its commit."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    what = f"hub dataset {dataset.repo}"
    get = partial(huggingface_hub.hf_hub_download, dataset.repo, name, repo_type="dataset", revision=dataset.revision)
    try:
        return _verified(dataset, name, Path(get(local_files_only=True)))
    except errors.LocalEntryNotFoundError:
        pass  # not cached: on to the network
    if variable := _offline():
        raise DataMissing(f"{what}: {name} is not in the cache and {variable} is set; unset it, or {dataset.how}")
    url = huggingface_hub.hf_hub_url(dataset.repo, name, repo_type="dataset", revision=dataset.revision)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=PROBE_SECONDS)
        path = get()
    except (errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError):
        raise NotOnHub(f"{what} has no {name} at revision {dataset.revision}; {dataset.how}") from None
    except errors.GatedRepoError:
        raise DataMissing(f"{what} is gated: ask for access, run `hf auth login`, or {dataset.how}") from None
    except errors.RepositoryNotFoundError:
        raise NotOnHub(f"{what} is not on {constants.ENDPOINT}, or not for you; {dataset.how}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        kind = NotOnHub if status == 404 else DataMissing
        reason = f"{constants.ENDPOINT} answered {status} for {name}"
        remedy = "log in with `hf auth login`" if status in (401, 403) else "try again later"
        raise kind(f"{what} cannot be downloaded ({reason}); {remedy}, or {dataset.how}") from error
    except Exception as error:
        # The client's HTTP library, and with it the class of errors, differs between versions.
        reason = f"{constants.ENDPOINT} does not answer: {_brief(error)}"
        raise DataMissing(
            f"{what} cannot be downloaded ({reason}); name a mirror by HF_ENDPOINT, or {dataset.how}"
        ) from error
    return _verified(dataset, name, Path(path))


def _offline() -> str:
    """The environment variable that switches the hub's clients to offline mode; "" without one."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE"
    if "HF_DATASETS_OFFLINE" in os.environ:
        from datasets import config  # parses the value

        if config.HF_HUB_OFFLINE:
            return "HF_DATASETS_OFFLINE"
    return ""


def _from_modelscope(dataset: HubDataset, name: str) -> tuple[Path, str]:
    """A file's local path and its revision, a branch, since ModelScope's mirrors have other commits."""
    try:
        from modelscope.hub.file_download import dataset_file_download
    except ImportError:
        install = "pip install -e '.[modelscope]'"
        raise DataMissing(f"--hub modelscope needs the extra: {install}, use --hub hf, or {dataset.how}") from None
    if not dataset.modelscope:
        raise DataMissing(f"{dataset.repo} has no mirror on ModelScope that we know; use --hub hf, or {dataset.how}")
    what = f"ModelScope dataset {dataset.modelscope}"
    revision = "master"
    get = partial(dataset_file_download, dataset.modelscope, name, revision=revision)
    try:
        path = get(local_files_only=True)
    except Exception:  # not cached; the class of the error differs between the client's versions
        path = None
    try:
        if path is None:
            # the client's own variables, the second with or without a scheme
            endpoint = (
                os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
            )
            probe(endpoint if "://" in endpoint else f"https://{endpoint}")
            path = get()
    except Exception as error:
        reason = f"{name}: {_brief(error)}"
        raise DataMissing(f"{what} cannot be downloaded ({reason}); use --hub hf, or {dataset.how}") from error
    return Path(path), revision  # the client has verified the announced checksum


def probe(url: str) -> None:
    """Raises OSError when the URL does not answer within PROBE_SECONDS; any HTTP status is an answer."""
    import urllib.error  # imports the mail and TLS modules, which --help does not need
    import urllib.request

    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()


def _verified(dataset: HubDataset, name: str, path: Path) -> tuple[Path, str]:
    """The path and its commit. Raises DataError when the content is not what the hub announced."""
    # <cache>/snapshots/<commit>/<name> is a link to <cache>/blobs/<etag>; the etag of a large file is its SHA-256.
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name) and (found := _sha256(path)) != blob.name:
        sums = f"SHA-256 {found[:12]}..., expected {blob.name[:12]}..."
        what = f"hub dataset {dataset.repo}: {name} is damaged ({sums})"
        raise DataError(f"{what}: delete {blob} and run again, or {dataset.how}")
    return path, path.parents[len(Path(name).parts) - 1].name


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _brief(error: Exception) -> str:
    """An error in a few words on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
