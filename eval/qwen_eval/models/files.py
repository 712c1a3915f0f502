"""The files of a checkpoint folder: which hold its weights, and whether they are complete."""

from __future__ import annotations

import errno
import json
import stat
import struct
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from qwen_eval.schema import CheckpointError

# safetensors first; an index (several shards) before a single file
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_AGAIN = "get it again, or the whole checkpoint"
# what is read whole, and how large it may be: a hundred times what is known
_READ_WHOLE, _WHOLE_BYTES = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"), 1 << 30
_WEIGHTS = (".safetensors", ".bin", ".gguf")
_HEADER_BYTES = 100_000_000  # as the safetensors library has it


def check_folder(folder: Path) -> None:
    """Raises CheckpointError for an entry of a checkpoint's folder that is no plain file though its name says so, and whose
    reading might never end: a pipe, a device, links in a circle, more bytes than any such file has."""
    for path in [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]:
        if path.suffix in (*_READ_WHOLE, *_WEIGHTS):
            check_file(path)


def check_file(path: Path) -> None:
    """`check_folder` for one file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        why = "its links lead in a circle" if error.errno == errno.ELOOP else error.strerror
        raise CheckpointError(f"{path} cannot be read ({why}); {_AGAIN}") from None
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is no file but a folder, a device or a pipe; {_AGAIN}")
    if path.suffix in _READ_WHOLE and found.st_size > _WHOLE_BYTES:
        raise CheckpointError(f"{path} has {found.st_size} bytes, more than such a file can need; {_AGAIN}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError where it is missing or no JSON object."""
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; {_AGAIN}") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); {_AGAIN}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {_AGAIN}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: not valid JSON (a number or a nesting without end); {_AGAIN}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object; {_AGAIN}")
    return content


def weight_names(folder: Path, listing: Collection[str]) -> list[str]:
    """The names of the files that hold the weights. listing: the names that exist (in the folder or on the hub); of
    these an index must lie in the folder.

    Raises CheckpointError where there are no weights or an index names a file that does not exist.
    """
    for index, single in zip(INDEXES, SINGLES, strict=True):
        if index in listing:
            return _indexed(folder / index, listing)
        if single in listing:
            return [single]
    if ADAPTER in listing:
        raise CheckpointError(adapter_alone(folder))
    raise CheckpointError(f"{folder} holds no weights ({' or '.join(SINGLES)}, or their shards and index); {_AGAIN}")


def adapter_alone(folder: Path) -> str:
    """What to say of a folder that holds an adapter where a model is needed."""
    base = read_json(folder / ADAPTER).get("base_model_name_or_path") if (folder / ADAPTER).exists() else None
    named = base if isinstance(base, str) and base else "BASE"
    return f"{folder} holds an adapter, not a model; pass its base model and the adapter: -c {named} --adapter {folder}"


def adapter_weight_names(folder: Path, listing: Collection[str]) -> list[str]:
    """The name of the file that holds an adapter's weights; listing: as for `weight_names`. Raises CheckpointError."""
    for name in ADAPTER_WEIGHTS:
        if name in listing:
            return [name]
    raise CheckpointError(f"{folder} holds no weights of an adapter ({' or '.join(ADAPTER_WEIGHTS)}); {_AGAIN}")


def _indexed(index: Path, listing: Collection[str]) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no weight_map in it; {_AGAIN}")
    names = sorted({str(name) for name in weight_map.values()})
    missing = [name for name in names if name not in listing]
    if missing:
        raise CheckpointError(
            f"{index} names {missing[0]}, which is missing ({len(missing)} of {len(names)}); {_AGAIN}"
        )
    return names


def local_weights(folder: Path) -> list[Path]:
    """The weight files of a folder, each checked to be complete as far as its header tells. Raises CheckpointError."""
    paths = [folder / name for name in weight_names(folder, {path.name for path in folder.iterdir()})]
    for path in paths:
        check(path)
    return paths


def check(path: Path) -> None:
    """Raises CheckpointError for a truncated shard, before minutes go into loading the others."""
    with path.open("rb") as stream:
        start = stream.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not weights; run: git lfs pull")
    if path.suffix == ".safetensors":
        _check_safetensors(path)
    elif start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated (its end is missing); {_AGAIN}")
    elif not start.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"{path} is no torch file; {_AGAIN}")


def _check_safetensors(path: Path) -> None:
    """Compare a file's size with what its header says: 8 bytes of header length, the header (JSON with the offsets of
    every tensor), the tensors."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise CheckpointError(f"{path} is truncated ({size} bytes, not even its header); {_AGAIN}")
        if length > _HEADER_BYTES:
            raise CheckpointError(f"{path} claims a header of {length} bytes, more than the format allows; {_AGAIN}")
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            need = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError):
            raise CheckpointError(f"{path} has a damaged header; {_AGAIN}") from None
    if size != need:
        what = "truncated" if size < need else "longer than its header says"
        raise CheckpointError(f"{path} is {what} ({size} of {need} bytes); {_AGAIN}")
