"""Models of a checkpoint's own Python code, loaded by transformers 5, which such code mostly was not written for.

transformers makes a model without any memory, gives its parameters the file's values, and lets a model's `_init_weights` write
whatever is in no file: rotary tables, masks, slopes. Code of before 2026 writes those once, where a module is made, and they
would be left as whatever lay in memory: not a number, or, of larger tables, zeros, which give plausible wrong figures. So the
model is made a second time, with parameters that take no memory and everything else computed, and what no file holds is taken
from there.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module, get_imports

from qwen_eval.models.files import read_json
from qwen_eval.schema import CheckpointError

_PACKAGE = "transformers_modules."  # where transformers puts a checkpoint's code
_TIED = "_harness_tied"  # what a class says of its tied tensors in the older form, a list of names
# packages by the name of the module that code imports, where they differ
_PACKAGES = {"flash_attn": "flash-attn", "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}


def is_remote(model: object) -> bool:
    """Whether an object's class is of a checkpoint's own code."""
    return type(model).__module__.startswith(_PACKAGE)


# ------------------------------------------------------------------------------------------------ before it is trusted
def not_trusted(folder: Path, reference: str) -> CheckpointError:
    """The error for a checkpoint that only its own code runs, where that is not trusted: with the advice to trust it where it
    can work. reference: where the config says the class is, `modeling_own.OwnModel`, or in another repository `repository--`
    before it."""
    repository, _, inner = reference.rpartition("--")
    file = folder / f"{inner.split('.')[0]}.py"
    if repository:
        return CheckpointError(f"{folder} needs Python code of {repository}; pass --trust-remote-code if you trust it")
    known = any(folder.glob("*.py")) or not _on_a_hub(folder)
    if known and not file.exists():
        return CheckpointError(
            f"{folder} needs Python code that it does not hold ({file.name}); get that file from the checkpoint's page, or "
            "take a copy of the model in a format that transformers has"
        )
    missing = missing_packages(file)
    if missing:
        return CheckpointError(
            f"{folder} needs the Python code it carries, which imports {', '.join(missing)}; if you trust it, run: pip "
            f"install {' '.join(missing)}, and pass --trust-remote-code"
        )
    return CheckpointError(f"{folder} needs the Python code it carries; pass --trust-remote-code if you trust it")


def _on_a_hub(folder: Path) -> bool:
    """Whether a folder is a hub's cache, which has Python files only where they are trusted."""
    return folder.parent.name == "snapshots" or (folder / ".msc").exists()


def missing_packages(file: Path, seen: frozenset[Path] = frozenset()) -> list[str]:
    """The packages that a Python file and those it imports from its folder need and that are not installed. Nothing is
    executed; a file that is not there or cannot be read needs none."""
    if file in seen or not file.exists():
        return []
    try:
        names = get_imports(file)
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    found = [_PACKAGES.get(name, name) for name in names if importlib.util.find_spec(name) is None]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            inner = [node.module] if node.module else [alias.name for alias in node.names]
            for name in inner:
                found += missing_packages(file.parent / f"{name.split('.')[0]}.py", seen | {file})
    return sorted(set(found))


def failure(error: Exception, folder: Path) -> str:
    """What became of code that raised: what it was written for, and what that leaves."""
    written = (
        read_json(folder / "config.json").get("transformers_version") if (folder / "config.json").exists() else None
    )
    when = (
        f"was written for transformers {written}" if isinstance(written, str) else "may be written for another version"
    )
    return (
        f"the checkpoint's own code fails ({type(error).__name__}: {' '.join(str(error).split())[:200]}); it {when}, and this "
        f"is {transformers.__version__}: take a copy of the model in a format that transformers has"
    )


# ------------------------------------------------------------------------------------------------------- what is loaded
def prepare(reference: str, folder: Path) -> list[Any]:
    """The classes of models in a checkpoint's own code, made to say of all tensors whether a file holds them; the older form of
    tied tensors is taken for `_tie`. reference: the model's class, as the config has it. Raises whatever the code raises."""
    kind: Any = get_class_from_dynamic_module(reference, folder, local_files_only=True)
    listed = kind._tied_weights_keys
    if isinstance(listed, list | tuple):
        setattr(kind, _TIED, tuple(listed))
        kind._tied_weights_keys = None
    if not issubclass(kind, GenerationMixin) and hasattr(kind, "prepare_inputs_for_generation"):
        kind.__bases__ = (*kind.__bases__, GenerationMixin)  # which models inherited until transformers 4.50
    near = [part for part in vars(sys.modules[kind.__module__]).values() if isinstance(part, type)]
    kinds = [part for part in near if issubclass(part, PreTrainedModel) and part.__module__.startswith(_PACKAGE)]
    for part in dict.fromkeys([kind, *kinds]):
        part._keys_to_ignore_on_load_missing = None
    return list(dict.fromkeys([kind, *kinds]))


@contextmanager
def loading(reference: str, folder: Path) -> Iterator[None]:
    """Within it the code's own initialization writes nothing: transformers calls it for modules that lack a tensor, and there
    it would overwrite what came from a file. Nothing where there is no reference."""
    kinds = prepare(reference, folder) if reference else []
    before = [part.__dict__.get("_init_weights") for part in kinds]
    for part in kinds:
        part._init_weights = _nothing
    try:
        yield
    finally:
        for part, own in zip(kinds, before, strict=True):
            if own is None:
                del part._init_weights
            else:
                part._init_weights = own


def _nothing(model: Any, module: nn.Module) -> None:
    """In the place of a model's initialization."""


def complete(model: Any, report: dict[str, Any], build: Callable[[], Any], where: Path) -> None:
    """Gives a loaded model what no file holds: the values of `build()`, which makes a model whose parameters have no memory and
    whose other tensors have their values. Takes those tensors out of the report's missing ones. Raises CheckpointError, naming
    the tensor, for one that cannot be computed or is made of random numbers."""
    missing = report["missing_keys"] = set(report.get("missing_keys", ()))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        first = {name: _digest(value) for name, value in _unstored(build(), missing)}
        torch.default_generator.manual_seed(1)
        made = build()
    values = dict(_unstored(made, missing))
    for name, value in values.items():
        if value.is_meta or first.get(name) != _digest(value):
            why = (
                "depends on its weights" if value.is_meta else "is made of random numbers, or left as it was in memory"
            )
            raise CheckpointError(
                f"{where}: no file holds {name}, which the checkpoint's own code needs and which {why}; take a copy of the "
                "model in a format that transformers has"
            )
    modules = dict(model.named_modules())
    for name, module in made.named_modules():
        own = modules.get(name)
        if own is None:
            raise CheckpointError(
                f"{where}: the checkpoint's own code makes {name} in one case only; it cannot be checked"
            )
        for key, value in module._buffers.items():
            full = f"{name}.{key}" if name else key
            if value is not None and full in values:
                own._buffers[key] = value.to(_device(own, model))
        for key, value in vars(module).items():
            if key not in _INNER and _holds_tensor(value):
                setattr(own, key, _moved(value, _device(own, model)))
    missing.difference_update(values)
    _tie(model, missing)


def _tie(model: Any, missing: set[str]) -> None:
    """Ties the output matrix to the embedding where the class says so in the older form and no file holds it."""
    listed = getattr(type(model), _TIED, ())
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not getattr(model.config, "tie_word_embeddings", False) or head is None or embedding is None:
        return
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if parameter is head.weight and name in missing and name in listed:
            head.weight = embedding.weight
            missing.discard(name)


_INNER = frozenset(vars(nn.Module()))  # the attributes that torch itself keeps


def _unstored(model: Any, missing: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model that are neither parameters nor in a file, by name."""
    for name, module in model.named_modules():
        for key, value in module._buffers.items():
            full = f"{name}.{key}" if name else key
            if value is not None and (key in module._non_persistent_buffers_set or full in missing):
                yield full, value
        for key, value in vars(module).items():
            if key not in _INNER:
                for place, tensor in _tensors(value):
                    yield f"{name}.{key}{place}" if name else f"{key}{place}", tensor


def _tensors(value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an attribute, one or a collection of them, with their place in it."""
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        yield "", value
    elif isinstance(value, list | tuple | Mapping):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from ((f"[{key}]{place}", tensor) for place, tensor in _tensors(item))


def _holds_tensor(value: Any) -> bool:
    return next(_tensors(value), None) is not None


def _moved(value: Any, device: torch.device) -> Any:
    """An attribute with its tensors on a device."""
    if isinstance(value, Tensor):
        return value if isinstance(value, nn.Parameter) else value.to(device)
    if isinstance(value, Mapping):
        return type(value)((key, _moved(item, device)) for key, item in value.items())  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        items = [_moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _device(module: nn.Module, model: Any) -> torch.device:
    """Where a module computes."""
    tensors = (value for value in (*module.parameters(), *module.buffers()) if not value.is_meta)
    first = next(tensors, None)
    return first.device if first is not None else torch.device(model.device)


def _digest(value: Tensor) -> tuple[Any, ...]:
    """What tells two tensors apart."""
    if value.is_meta:
        return (value.shape, value.dtype)
    content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return value.shape, value.dtype, hashlib.sha256(content.data).digest()
