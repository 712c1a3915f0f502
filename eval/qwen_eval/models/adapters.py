"""Adapters (PEFT): small changes of a model's weights in a folder of their own, merged into the model or applied beside it.

An adapter is of one base model. What it changes is checked tensor by tensor: an adapter whose tensors find no place, or that
has none for a layer it names, is another model's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.integrations import peft as transformers_peft
from transformers.models.auto import auto_factory

from qwen_eval.models import adapter_names, files, fingerprint, hub, versions
from qwen_eval.models.tokenizers import TextTokenizer, one_line
from qwen_eval.schema import CheckpointError, ModelSpec

_NAME = "default"  # what PEFT calls the one adapter of a model
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "qwen.tiktoken", "vocab.json", "vocab.txt", "spiece.model")
# settings of LoRA under which it is no change of the weights, or one of several models
_REFUSED = {
    "alora_invocation_tokens": "is switched on by a text (activated LoRA)",
    "layer_replication": "repeats layers of the model",
    "arrow_config": "chooses among several adapters",
    "megatron_config": "is of a model split by Megatron",
}
_ANOTHER = "the adapter is of another base model"


@dataclass(frozen=True)
class Adapter:
    """An opened adapter. name: the last part of its hub id, or its folder's name. base: the model that it says it was trained
    on, "" where it does not say. merged: whether it is merged into the weights."""

    name: str
    folder: Path
    kind: str
    base: str
    merged: bool
    _located: hub.Located

    @cached_property
    def weights(self) -> Path:
        """The file of its weights, downloaded if need be and checked to be whole. Raises CheckpointError."""
        self._located.fetch()
        (name,) = files.adapter_weight_names(self.folder, {path.name for path in self.folder.iterdir()})
        files.check(self.folder / name)
        return self.folder / name

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that name its weights and its config."""
        content = (self.folder / files.ADAPTER).read_bytes() + fingerprint.sha256(self.weights).encode()
        return hashlib.sha256(content).hexdigest()[:16]

    @property
    def suffix(self) -> str:
        """What is put after the model's name."""
        return f"+{self.name}" + ("" if self.merged else "(apply)")

    @property
    def label(self) -> str:
        """Names it in signatures."""
        return f"{self.name}@{self.fingerprint[:8]}" + ("" if self.merged else ":apply")

    @property
    def has_tokenizer(self) -> bool:
        """Whether its folder holds a tokenizer."""
        return (self.folder / "tokenizer_config.json").exists() and any(
            (self.folder / name).exists() for name in _VOCABULARIES
        )

    def notes(self, model: str) -> list[str]:
        """Sentences for the results. model: the name of the model that it is used with."""
        how = "merged into the weights" if self.merged else "applied beside the weights"
        told = [f"adapter {self.name} ({self.kind}, {self.fingerprint[:8]}) is {how} of {model}"]
        if self.base and _last(self.base) != _last(model):
            told.append(f"adapter {self.name} says that its base is {self.base}")
        return told + versions.untried(("peft",))


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def open_adapter(spec: ModelSpec) -> Adapter | None:
    """The adapter that a spec names, all but its weights; None where it names none. Raises CheckpointError: peft is missing, no
    such adapter, one that is no change of a language model's weights."""
    if spec.adapter is None:
        return None
    if importlib.util.find_spec("peft") is None:
        raise CheckpointError("--adapter needs peft; run: pip install -e '.[peft]'")
    located = hub.locate_adapter(spec)
    path = located.folder / files.ADAPTER
    if not path.exists():
        what = "a model, pass it with -c" if (located.folder / "config.json").exists() else "no adapter"
        raise CheckpointError(f"{located.folder} has no {files.ADAPTER}, it is {what}")
    raw = files.read_json(path)
    _check(path, raw)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", located.name.rpartition("/")[2]) or "adapter"
    base = raw.get("base_model_name_or_path")
    merged = spec.adapter_mode == "merge"
    return Adapter(name, located.folder, str(raw["peft_type"]), base if isinstance(base, str) else "", merged, located)


def _check(path: Path, raw: Mapping[str, Any]) -> None:
    """Raises CheckpointError for an adapter that this harness, or the installed PEFT, does not have."""
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind, task = raw.get("peft_type"), raw.get("task_type")
    makers: Any = PEFT_TYPE_TO_CONFIG_MAPPING  # its keys are strings of an enumeration
    make: Any = makers.get(str(kind))
    if make is None:
        raise CheckpointError(f"{path}: peft {peft.__version__} knows no adapter of type {kind!r}; a newer one may")
    if task not in (None, "CAUSAL_LM"):
        raise CheckpointError(f"{path}: an adapter for {task}, not for a language model (CAUSAL_LM)")
    if issubclass(make, peft.PromptLearningConfig) or str(kind) in ("ADAPTION_PROMPT", "CARTRIDGE", "XLORA", "POLY"):
        raise CheckpointError(
            f"{path}: adapters of type {kind} are no change of weights (they put tokens or states before the text, or choose "
            "among several), which is not supported; LoRA and its like are"
        )
    for name, what in _REFUSED.items():
        if raw.get(name):
            raise CheckpointError(f"{path}: {name}: an adapter that {what} is not supported")
    known = {field.name for field in dataclasses.fields(make)}
    unknown = [name for name, value in raw.items() if name not in known and value]
    if unknown:
        raise CheckpointError(
            f"{path}: peft {peft.__version__} does not know its setting {unknown[0]}, and would ignore it; upgrade peft"
        )


def alike(own: TextTokenizer, other: TextTokenizer) -> bool:
    """Whether a tokenizer that lies beside an adapter is the model's own, as training tools store it with every adapter: the
    same tokens under the same ids, the same BOS, and the same chat template or none."""
    if other.chat_template not in (None, own.chat_template) or own.encode("") != other.encode(""):
        return False
    known = [getattr(getattr(one, "tok", None), "get_vocab", None) for one in (own, other)]
    if None in known:
        return own.fingerprint == other.fingerprint
    first, second = (vocabulary() for vocabulary in known if vocabulary)
    return bool(first == second)


# ----------------------------------------------------------------------------------------------------- on a loaded model
@contextmanager
def none_unasked() -> Iterator[None]:
    """Within it transformers applies no adapter that lies beside a model's weights, as it does without a word where peft is
    installed."""
    places: list[Any] = [auto_factory, transformers_peft]
    before = [place.find_adapter_config_file for place in places]
    for place in places:
        place.find_adapter_config_file = lambda *_args, **_keywords: None
    try:
        yield
    finally:
        for place, own in zip(places, before, strict=True):
            place.find_adapter_config_file = own


def attach(model: Any, adapter: Adapter, tokens: int) -> Any:
    """The model with the adapter, merged into its weights or applied beside them. tokens: how many the tokenizer has; an
    adapter that was trained with further ones brings their embeddings. Raises CheckpointError, naming tensor or module, where
    the adapter is another model's."""
    import peft

    try:
        weights = peft.load_peft_weights(str(adapter.weights.parent), device="cpu")
    except Exception as error:  # torch and safetensors raise anything
        raise CheckpointError(f"{adapter.weights}: {one_line(error)}; get the adapter again") from error
    try:
        config: Any = peft.PeftConfig.from_pretrained(str(adapter.folder))
    except Exception as error:  # settings of other types raise anything
        raise CheckpointError(f"{adapter.folder / files.ADAPTER}: {one_line(error)}; get the adapter again") from error
    config.inference_mode = True
    weights = adapter_names.translated(config, weights, model, adapter.folder)
    _resize(model, weights, tokens, adapter)
    try:
        wrapped = peft.get_peft_model(model, config, adapter_name=_NAME)
    except Exception as error:  # anything, from ValueError to AttributeError
        raise CheckpointError(f"{adapter.folder}: {one_line(error)}; {_ANOTHER}, or peft does not take it") from error
    _fill(wrapped, weights, adapter)
    for parameter in wrapped.parameters():
        parameter.requires_grad_(False)
    wrapped.train(False)
    if not adapter.merged:
        return wrapped.get_base_model()
    _untie(model)
    try:
        merged: Any = wrapped.merge_and_unload(safe_merge=True)
    except Exception as error:
        raise CheckpointError(
            f"{adapter.folder}: it cannot be merged: {one_line(error)}; use --adapter-mode apply"
        ) from error
    model.config.tie_word_embeddings = tied(merged)
    return merged


def tied(model: Any) -> bool:
    """Whether the model's output matrix is its embedding."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and embedding is not None and head.weight is embedding.weight


def _fill(wrapped: Any, weights: dict[str, Tensor], adapter: Adapter) -> None:
    """Gives the adapter's layers their values. Raises CheckpointError where a tensor has no place, or a layer no tensor."""
    import peft

    result: Any
    try:  # of a copy, as PEFT takes tensors out of it
        result = peft.set_peft_model_state_dict(wrapped, dict(weights), adapter_name=_NAME)
    except KeyError as error:
        raise CheckpointError(
            f"{adapter.folder}: it lacks {_plain(str(error.args[0]))}, which its config names; {_ANOTHER}"
        ) from error
    except Exception as error:  # of torch a text of many lines, of PEFT anything
        found = re.search(r"size mismatch for (\S+): .*?Size\((.*?)\).*?Size\((.*?)\)", str(error), re.DOTALL)
        text = f"{_plain(found[1])} is {found[2]} in it and {found[3]} in the model" if found else one_line(error)
        raise CheckpointError(f"{adapter.folder}: {text}; {_ANOTHER}") from error
    # of a layer that it keeps whole PEFT stores embeddings a second time, under the names of its own copy
    again = r"\.(modules_to_save|original_module)(\.default)?(?=\.[^.]+$)"
    extra = sorted(name for name in result.unexpected_keys if re.sub(again, "", name) not in weights.keys() - {name})
    if extra:
        raise CheckpointError(
            f"{adapter.folder}: the model has no place for {_plain(extra[0])} ({len(extra)} tensors); {_ANOTHER}"
        )
    saved = peft.get_peft_model_state_dict(wrapped, adapter_name=_NAME, save_embedding_layers=False)
    missing = sorted(saved.keys() - weights.keys())
    if missing:
        raise CheckpointError(
            f"{adapter.folder}: it lacks {_plain(missing[0])} ({len(missing)} tensors), which its config names; {_ANOTHER}"
        )


def _plain(name: str) -> str:
    """A tensor's name without what PEFT puts before and into it."""
    return name.removeprefix("base_model.model.").replace(f".{_NAME}", "")


def _resize(model: Any, weights: Mapping[str, Tensor], tokens: int, adapter: Adapter) -> None:
    """Gives the model as many rows as the adapter's embeddings have. Raises CheckpointError where tokens have no embedding."""
    rows = model.get_input_embeddings().weight.shape[0]
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    names = [name for name, module in model.named_modules() if id(module) in ends]
    stored = {
        weights[key].shape[0]
        for name in names
        for key in (f"base_model.model.{name}.weight", f"base_model.model.{name}.base_layer.weight")
        if key in weights
    }
    wanted = max(stored, default=rows)
    if tokens > wanted and (stored or adapter.has_tokenizer):
        raise CheckpointError(
            f"{adapter.folder}: the tokenizer has {tokens} tokens, and the model with this adapter embeddings for {wanted}; "
            f"{_ANOTHER}, or was saved without its embeddings"
        )
    if wanted != rows:
        model.resize_token_embeddings(wanted, mean_resizing=False)


def _untie(model: Any) -> None:
    """Makes a tied output matrix a matrix of its own where the adapter changes it or the embedding: merged into one tensor, the
    change would be in both."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if not any(isinstance(end, BaseTunerLayer) for end in ends):
        return
    embedding, head = (getattr(end, "base_layer", end) for end in ends)
    if head is not None and head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
