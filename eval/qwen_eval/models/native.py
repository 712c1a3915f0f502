"""The architectures of 2023 that are run by our own classes: whose code came with their weights and no longer runs.

A checkpoint is recognised by its config.json alone. Each has a config class that translates the original keys, a model class
of which transformers renames the tensors, and a tokenizer that reads the original file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from qwen_eval.models import baichuan, chatglm2, files, internlm, qwen1
from qwen_eval.models.chat_formats import FORMATS
from qwen_eval.models.chat_formats import baichuan as baichuan_format
from qwen_eval.models.sentence_pieces import SentencePieceTokenizer
from qwen_eval.models.tokenizers import QWEN_FILE, QwenTokenizer, TextTokenizer
from qwen_eval.schema import CheckpointError


@dataclass(frozen=True)
class Native:
    """An architecture. recognises: whether a config.json is its own; raises CheckpointError for a relative that is not
    supported. config, model: our classes. register: makes them known to transformers. tokenizer: (folder, the end-of-text
    tokens of its configs) -> the tokenizer."""

    recognises: Callable[[Mapping[str, Any]], bool]
    config: Any
    model: Any
    register: Callable[[], None]
    tokenizer: Callable[[Path, Sequence[int]], TextTokenizer]


def _baichuan_tokenizer(folder: Path, eos_ids: Sequence[int]) -> TextTokenizer:
    """With Baichuan-13B-Chat's format where generation_config.json names the tokens of its turns."""
    first = ["bos"] if _put_first(folder) else []
    plain = SentencePieceTokenizer(folder, first=first, eos_ids=eos_ids)
    path = folder / "generation_config.json"
    settings = files.read_json(path) if path.exists() else {}
    turns = [settings.get(f"{side}_token_id") for side in ("user", "assistant")]
    if plain.chat_template is not None or all(turn is None for turn in turns):
        return plain
    if not all(isinstance(turn, int) and 0 <= turn < plain.vocab_size for turn in turns):
        raise CheckpointError(
            f"{path}: user_token_id and assistant_token_id are {turns[0]!r} and {turns[1]!r}, expected tokens of "
            f"{plain.path}; get both again"
        )
    plain.use(baichuan_format(*(plain.token_name(int(turn)) for turn in turns)))  # type: ignore[arg-type]
    return plain


def _chatglm2_tokenizer(folder: Path, eos_ids: Sequence[int]) -> TextTokenizer:
    extra = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
    path = folder / "tokenizer_config.json"
    if path.exists() and "<|user|>" in path.read_text(encoding="utf-8", errors="replace"):
        raise CheckpointError(f"{path}: this is ChatGLM3 (<|user|>), which is not supported; take ChatGLM2")
    return SentencePieceTokenizer(folder, extra, ("[gMASK]", "sop"), eos_ids, FORMATS["chatglm2"])


def _internlm_tokenizer(folder: Path, eos_ids: Sequence[int]) -> TextTokenizer:
    """Without a chat format: the files of InternLM and InternLM-Chat do not differ."""
    return SentencePieceTokenizer(folder, first=["bos"] if _put_first(folder) else [], eos_ids=eos_ids)


def _put_first(folder: Path) -> bool:
    """Whether the tokenizer puts BOS before a text, as its code does unless tokenizer_config.json says otherwise."""
    path = folder / "tokenizer_config.json"
    return bool((files.read_json(path) if path.exists() else {}).get("add_bos_token", True))


NATIVE = (
    Native(
        lambda raw: raw.get("model_type") == qwen1.MODEL_TYPE,
        qwen1.QWenConfig,
        qwen1.QWenLMHeadModel,
        qwen1.register,
        lambda folder, _: QwenTokenizer(folder / QWEN_FILE),
    ),
    Native(
        baichuan.recognises,
        baichuan.BaichuanConfig,
        baichuan.BaichuanForCausalLM,
        baichuan.register,
        _baichuan_tokenizer,
    ),
    Native(
        chatglm2.recognises,
        chatglm2.ChatGLM2Config,
        chatglm2.ChatGLM2ForCausalLM,
        chatglm2.register,
        _chatglm2_tokenizer,
    ),
    Native(
        internlm.recognises,
        internlm.InternLMConfig,
        internlm.InternLMForCausalLM,
        internlm.register,
        _internlm_tokenizer,
    ),
)


def find(raw: Mapping[str, Any]) -> Native | None:
    """The architecture of a config.json, None for none of these. Raises CheckpointError for a relative that is not
    supported."""
    return next((native for native in NATIVE if native.recognises(raw)), None)


def of(config: PreTrainedConfig) -> Native | None:
    """The architecture of a loaded config, None for none of these."""
    return next((native for native in NATIVE if isinstance(config, native.config)), None)
