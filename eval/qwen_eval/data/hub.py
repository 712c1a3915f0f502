"""Benchmark files from the Hugging Face hub or ModelScope: pinned, verified, cached, and refused in one clear line.

The hub's own clients do the downloading and the caching, `datasets` the reading of tables. load_dataset is given the file
that huggingface_hub brought, which lies where `datasets` itself would put it, and not the repository's name: by name it
asks the hub ten questions each time it runs, does not find its own cache when the hub cannot be reached (the key of an
entry has the commit that the hub told), compares no content with its sum, and refuses a repository that has a script.

What is added here: a file is asked for once, briefly, before the client starts (which, with its retries, takes half a
minute to give up on a hub that does not answer); what arrived is compared with the SHA-256 that the hub announced; every
failure says which files to get instead and where to put them.
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

from qwen_eval.schema import DataError

PROBE_SECONDS = 5.0


class NotOnHub(DataError):
    """The hub answers, and has no such file or revision."""


@dataclass(frozen=True)
class Place:
    """Files on the hub: a dataset at a commit, the dataset that mirrors it on ModelScope ("" for none), `how` to get the
    official files by hand, which ends every error, and the SHA-256 of the files where it is known."""

    repo: str
    revision: str
    modelscope: str
    how: str
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fetched:
    """Local paths by name, in the order they were asked for, and the origin: "cais/mmlu@<commit>".

    A file that is not the one whose SHA-256 we know adds "+<sum>" to the origin, and is no error: a mirror may hold
    the same rows in other bytes. Whether the rows are the same is for the content hash to say.
    """

    paths: Mapping[str, Path]
    origin: str


def fetch(place: Place, names: Sequence[str], hub: str = "hf") -> Fetched:
    """Download the named files of `place`, or find them in the client's cache, and verify them.

    hub: "hf" or "modelscope". Raises NotOnHub for a file that is not there, DataError for everything else: no network,
    offline and not cached, no access, damaged, client not installed.
    """
    get = _from_modelscope if hub == "modelscope" else _from_hugging_face
    # The first file alone: a hub that does not answer is reported once, not by every thread after its own wait.
    first = get(place, names[0])
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = dict(zip(names, [first, *pool.map(lambda name: get(place, name), names[1:])], strict=True))
    commit = first[1]
    origin = f"modelscope:{place.modelscope}@{commit}" if hub == "modelscope" else f"{place.repo}@{commit}"
    for name, expected in place.sha256.items():
        if name in found and (actual := _sha256(found[name][0])) != expected:
            origin += f"+{actual[:8]}"
    return Fetched({name: path for name, (path, _) in found.items()}, origin)


def read_table(path: Path, name: str, how: str) -> list[dict[str, Any]]:
    """The rows of a parquet file, through `datasets` and its cache (HF_DATASETS_CACHE). Raises DataError, by the file's
    `name`, when the file cannot be read or has no rows, and when the cache cannot be written."""
    import datasets  # it takes a second to import, and who reads files from a folder does without

    try:
        # Map-style: pools that still read ahead when a process ends abort it now and then (those of streaming do).
        with _quiet():
            files = {"train": [glob.escape(str(path))]}  # a path is taken for a pattern
            table = datasets.load_dataset("parquet", data_files=files, split="train")
        return table.to_list()
    except Exception as error:  # what a damaged file raises is of pyarrow's classes or Python's, wrapped or not
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(reason, OSError) and reason.errno is not None:
            cache = f"{datasets.config.HF_DATASETS_CACHE} ({_brief(reason)}): make room or name another folder by"
            raise DataError(f"{name} cannot be put into the cache {cache} HF_DATASETS_CACHE, or {how}") from error
        what = f"{name} is not a readable parquet file with rows ({_brief(reason)})"
        raise DataError(f"{what}: delete {path}, or {how}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no log lines of `datasets`: a table takes a moment, and an error is raised, in one line."""
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
    """A zip archive whose members are read in memory; nothing is ever unpacked to the disk."""

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


def _from_hugging_face(place: Place, name: str) -> tuple[Path, str]:
    """A file's local path and the commit it is from."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    what = f"hub dataset {place.repo}"
    get = partial(huggingface_hub.hf_hub_download, place.repo, name, repo_type="dataset", revision=place.revision)
    try:
        return _verified(place, name, Path(get(local_files_only=True)))
    except errors.LocalEntryNotFoundError:
        pass  # not cached: on to the network
    if variable := _offline():
        raise DataError(f"{what}: {name} is not in the cache and {variable} is set; unset it, or {place.how}")
    url = huggingface_hub.hf_hub_url(place.repo, name, repo_type="dataset", revision=place.revision)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=PROBE_SECONDS)
        path = get()
    except (errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError):
        raise NotOnHub(f"{what} has no {name} at revision {place.revision}; {place.how}") from None
    except errors.GatedRepoError:
        raise DataError(f"{what} is gated: ask for access, run `hf auth login`, or {place.how}") from None
    except errors.RepositoryNotFoundError:
        raise NotOnHub(f"{what} is not on {constants.ENDPOINT}, or not for you; {place.how}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        kind = NotOnHub if status == 404 else DataError
        reason = f"{constants.ENDPOINT} answered {status} for {name}"
        remedy = "log in with `hf auth login`" if status in (401, 403) else "try again later"
        raise kind(f"{what} cannot be downloaded ({reason}); {remedy}, or {place.how}") from error
    except Exception as error:
        # The HTTP library below the client, and so the class of its errors, differs between the client's versions.
        reason = f"{constants.ENDPOINT} does not answer: {_brief(error)}"
        raise DataError(
            f"{what} cannot be downloaded ({reason}); name a mirror by HF_ENDPOINT, or {place.how}"
        ) from error
    return _verified(place, name, Path(path))


def _offline() -> str:
    """The environment variable that keeps the hub's clients off the network, "" where none does."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE"
    if "HF_DATASETS_OFFLINE" in os.environ:
        from datasets import config  # knows which values mean yes

        if config.HF_HUB_OFFLINE:
            return "HF_DATASETS_OFFLINE"
    return ""


def _from_modelscope(place: Place, name: str) -> tuple[Path, str]:
    """A file's local path and its revision, which is a branch: ModelScope's mirrors have commits of their own."""
    try:
        from modelscope.hub.file_download import dataset_file_download
    except ImportError:
        install = "pip install -e '.[modelscope]'"
        raise DataError(f"--hub modelscope needs the extra: {install}, use --hub hf, or {place.how}") from None
    if not place.modelscope:
        raise DataError(f"{place.repo} has no mirror on ModelScope that we know; use --hub hf, or {place.how}")
    what = f"ModelScope dataset {place.modelscope}"
    revision = "master"
    get = partial(dataset_file_download, place.modelscope, name, revision=revision)
    try:
        path = get(local_files_only=True)
    except Exception:  # not cached; the class of the error, too, differs between the client's versions
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
        raise DataError(f"{what} cannot be downloaded ({reason}); use --hub hf, or {place.how}") from error
    return Path(path), revision  # the client has compared the content with the announced sum


def probe(url: str) -> None:
    """Raises OSError when nothing answers there within a few seconds; any HTTP status is an answer."""
    import urllib.error  # loads the mail and TLS modules, which --help need not wait for
    import urllib.request

    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()


def _verified(place: Place, name: str, path: Path) -> tuple[Path, str]:
    """The path and its commit. Raises DataError when the content is not what the hub announced."""
    # <cache>/snapshots/<commit>/<name> is a link to <cache>/blobs/<etag>; the etag of a large file is its SHA-256.
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name) and (found := _sha256(path)) != blob.name:
        sums = f"SHA-256 {found[:12]}..., expected {blob.name[:12]}..."
        what = f"hub dataset {place.repo}: {name} is damaged ({sums})"
        raise DataError(f"{what}: delete {blob} and run again, or {place.how}")
    return path, path.parents[len(Path(name).parts) - 1].name


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _brief(error: Exception) -> str:
    """An error in a few words on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
