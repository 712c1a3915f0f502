"""What a checkpoint is: only causal language models, and vision-language models through their text, answer here.

A config's model type says too little: masked language models, classifiers, reward and embedding models share it with models
that generate text, and with tied weights even their tensors look alike. So the class that the checkpoint was saved from
(`architectures`) is read, and what the config says of the direction of its attention.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto

from qwen_eval.schema import CheckpointError

# what a class is, by transformers' own tables or, for classes that transformers does not have, by its name
_KINDS = (
    ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", r"ForMaskedLM$", "a masked language model, which fills gaps"),
    ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", r"ForSeq2SeqLM$", "an encoder-decoder model"),
    (
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        r"Reward|ForSequenceClass|Classif",
        "a classifier or reward model",
    ),
    ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES", r"ForTokenClass", "a classifier of tokens"),
    ("MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES", r"ForQuestionAnswering$", "a model that marks answers in a text"),
    ("MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES", r"ForMultipleChoice$", "a classifier"),
    ("MODEL_MAPPING_NAMES", r"(?<!LMHead)Model$|Embedding", "a bare or embedding model without an output matrix"),
)
_GENERATES = r"(ForCausalLM|LMHeadModel|ForConditionalGeneration|ModelWithLMHead|WithLMHeadModel)$"


def _names(table: str) -> dict[str, tuple[str, ...]]:
    """A table of transformers: class names by model type."""
    found: Any = getattr(modeling_auto, table, {})
    return {kind: (names,) if isinstance(names, str) else tuple(names) for kind, names in found.items()}


def speaks_and_sees(config: PreTrainedConfig) -> bool:
    """Whether this is a vision-language model that transformers has, with a decoder for its text."""
    kind = config.model_type
    text = config.get_text_config()
    if kind not in _names("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES") or text is config:
        return False
    decodes = text.model_type in _names("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES") or text.model_type == f"{kind}_text"
    return decodes and not getattr(config, "is_encoder_decoder", False)


def check(config: PreTrainedConfig, path: Path, remote: bool) -> None:
    """Raises CheckpointError for a checkpoint that does not generate text from left to right, saying what it is. path: of what
    says so. remote: whether its own code says how it generates text."""
    what = _what_else(config, remote)
    if what:
        raise CheckpointError(f"{path}: this is {what}; pass a causal language model, one that generates text")


def _what_else(config: PreTrainedConfig, remote: bool) -> str:
    """What a checkpoint is that is no causal language model; empty for one that is."""
    kind = config.model_type
    text = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        return f"an encoder-decoder model ({kind})"
    bidirectional = getattr(text, "use_bidirectional_attention", None)
    if bidirectional is True or bidirectional == "all":
        return (
            f"a model that attends in both directions ({kind} with use_bidirectional_attention), as embedding models do"
        )
    causal = {name for names in _names("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES").values() for name in names}
    sees = {name for names in _names("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES").values() for name in names}
    names = [name for name in getattr(config, "architectures", None) or [] if isinstance(name, str)]
    if names and not remote and not any(name in causal | sees or re.search(_GENERATES, name) for name in names):
        for table, pattern, what in _KINDS:
            known = {name for found in _names(table).values() for name in found}
            if any(name in known or re.search(pattern, name) for name in names):
                return f"{what} ({names[0]})"
    if remote or speaks_and_sees(config):
        return ""
    if kind not in _names("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"):
        return f"no causal language model ({kind})"
    if kind in _names("MODEL_FOR_MASKED_LM_MAPPING_NAMES") and getattr(text, "is_decoder", None) is False:
        return f"a model that attends in both directions ({kind} without is_decoder)"
    return ""
