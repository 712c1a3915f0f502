"""What a tokenizer and a chat template are tried on before they are used, within limits (limited.py)."""

from __future__ import annotations

import string

from qwen_eval.models.limited import out_of_memory
from qwen_eval.models.tokenizers import TextTokenizer
from qwen_eval.schema import CheckpointError, Message

_LONG = 2000  # characters in a row: what grows with their square or faster shows
_TEXTS = (
    "The answer is A.",
    string.printable,
    "".join(map(chr, range(0xA0, 0x250))),
    "".join(map(chr, range(0x4E00, 0x4F00))) + "，。！？：「」（）",
    "".join(map(chr, range(0x1F600, 0x1F640))),
    *(character * _LONG for character in "aA0 _.(\n中"),
    "ab" * _LONG,
    "word " * _LONG,
)
_USER: Message = {"role": "user", "content": "Who are you?"}
_ASSISTANT: Message = {"role": "assistant", "content": "I am a model."}
_CONVERSATIONS = ([_USER], [_USER, _ASSISTANT, _USER], [{"role": "user", "content": "word " * _LONG}])


def try_texts(tokenizer: TextTokenizer) -> None:
    """Encodes and decodes texts of many characters."""
    for text in _TEXTS:
        ids = tokenizer.encode(text)
        tokenizer.decode(ids)
        tokenizer.decode(tokenizer.encode_special(text))
    tokenizer.token_texts(range(min(1000, tokenizer.vocab_size)))
    len(tokenizer.fingerprint)


def try_template(tokenizer: TextTokenizer) -> None:
    """Renders conversations."""
    len(tokenizer.stop_ids)
    for messages in _CONVERSATIONS:
        for system in (None, "You are a helpful assistant."):
            try:
                tokenizer.chat_ids(messages, system)
            except CheckpointError as error:  # it may refuse a system text, or any message
                if out_of_memory(error):
                    raise
