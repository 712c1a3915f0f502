"""Texts cut at blank lines have the ids of whole texts, and tokenizers of other kinds are given whole texts."""

from __future__ import annotations

import csv
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from qwen_eval.models.cutting import QWEN_PATTERN
from qwen_eval.models.tokenizers import HubTokenizer, QwenTokenizer
from shared import shared
from tiny import write_byte_tokenizer, write_ranks


@pytest.fixture(scope="module")
def qwen() -> QwenTokenizer:
    return QwenTokenizer(shared("checkpoints/qwen1-tokenizer/qwen.tiktoken"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> QwenTokenizer:
    path = tmp_path_factory.mktemp("tiny") / "qwen.tiktoken"
    write_ranks(path)
    return QwenTokenizer(path)


PIECES = st.sampled_from(
    ["\n\n", "\n", "\r\n", "\r", " ", "  ", "\t", "\u3000", "\x85", "\x1c", "\u2028", "A", "x", "7", ".", "'s", "'", "。",
     "\u0301", "e", "问", "\u00a0", "\ud83d", "\ude42", "🙂", "\u200b", ".\n\n", "Answer:", " \n\n", "\n \n"]
)  # fmt: skip


@examples(400)
@given(texts=st.lists(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join)), max_size=6))
def test_a_batch_cut_at_blank_lines_equals_whole_texts(tiny, texts):
    whole = [tiny._encoding.encode_ordinary(unicodedata.normalize("NFC", text)) for text in texts]
    assert tiny.encode_batch(texts) == whole


def mmlu_prompts() -> list[str]:
    """5-shot prompts of four subjects, as the benchmark asks them."""
    out = []
    for subject in ("anatomy", "formal_logic", "high_school_us_history", "college_computer_science"):
        parts = []
        for split in ("dev", "test"):
            with shared(f"data/mmlu/{split}/{subject}_{split}.csv").open(newline="") as file:
                parts.append(list(csv.reader(file)))
        ask = "Question: {0}\nA. {1}\nB. {2}\nC. {3}\nD. {4}\nAnswer:"
        head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        head += "".join((ask + " {5}\n\n").format(*row) for row in parts[0][:5])
        out += [head + ask.format(*row) for row in parts[1][:60]]
    return out


def test_real_prompts_cut_at_blank_lines_equal_whole_texts(qwen):
    texts = mmlu_prompts()
    whole = qwen._encoding.encode_ordinary_batch([unicodedata.normalize("NFC", text) for text in texts], num_threads=2)
    assert qwen.encode_batch(texts) == whole


def words_of(pattern: str, use_regex: bool = False, prefix: bool = False) -> dict:
    """A tokenizer.json's pre-tokenizer: a pattern, and the bytes of what it finds."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": False, "use_regex": use_regex}
    return {"type": "Sequence", "pretokenizers": [split, level]}


def changed(folder, **parts) -> HubTokenizer:
    """The byte-level tokenizer of the tests with parts of its tokenizer.json replaced."""
    folder.mkdir()
    write_byte_tokenizer(folder)
    file = folder / "tokenizer.json"
    made = json.loads(file.read_text())
    made["model"] |= parts.pop("model", {})
    file.write_text(json.dumps(made | parts))
    return HubTokenizer(folder)


THREE_DIGITS = QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


@pytest.fixture(scope="module", params=[QWEN_PATTERN, THREE_DIGITS], ids=["qwen", "llama3"])
def cut(tmp_path_factory, request) -> HubTokenizer:
    folder = tmp_path_factory.mktemp("cut") / "it"
    return changed(folder, pre_tokenizer=words_of(request.param), normalizer={"type": "NFC"})


@examples(400)
@given(texts=st.lists(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join)), max_size=6))
def test_another_checkpoints_texts_cut_at_blank_lines_equal_whole_texts(cut, texts):
    assert cut._may_be_cut
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    assert cut.encode_batch(texts) == [
        cut.tok.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in texts
    ]


def test_real_prompts_cut_for_another_checkpoint_equal_whole_texts(cut):
    texts = mmlu_prompts()
    assert cut.encode_batch(texts) == [
        item.ids for item in cut.tok.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    ]


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GLUED = {"id": 400, "content": "<t>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False,
         "special": False}  # fmt: skip


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"pre_tokenizer": words_of(GPT2)},
        {"pre_tokenizer": words_of(QWEN_PATTERN, use_regex=True)},
        {"pre_tokenizer": words_of(QWEN_PATTERN, prefix=True)},
        {"pre_tokenizer": words_of(QWEN_PATTERN), "normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": words_of(QWEN_PATTERN), "model": {"dropout": 0.1}},
        {"pre_tokenizer": words_of(QWEN_PATTERN), "added_tokens": [GLUED]},
    ],
    ids=["byte level", "gpt2", "twice", "prefix", "nfkc", "dropout", "added"],
)
def test_a_tokenizer_whose_pieces_may_not_be_its_text_is_given_whole_texts(tmp_path, parts):
    tok = changed(tmp_path / "it", **parts)
    assert not tok._may_be_cut
    if "model" not in parts:
        texts = ["a\n\nb", "the lamp\n\n<t> x\n\n"]
        assert tok.encode_batch(texts) == [
            tok.tok.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in texts
        ]
