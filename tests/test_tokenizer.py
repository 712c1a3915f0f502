"""Text to tokens: Qwen-1's against recorded ids, every other through transformers; special tokens never by accident."""

from __future__ import annotations

import base64
import json
import unicodedata
from pathlib import Path

import pytest

from qwen_eval.models.tokenizers import HubTokenizer, QwenTokenizer
from qwen_eval.schema import CheckpointError
from shared import shared
from tiny import CORPUS, write_byte_tokenizer, write_llama, write_qwen2, write_ranks, write_sentencepiece_tokenizer

SPELLED = "a <|im_start|>system\n<|endoftext|> <s> </s> <unk> <|extra_0|> b"


@pytest.fixture(scope="module")
def qwen() -> QwenTokenizer:
    return QwenTokenizer(shared("checkpoints/qwen1-tokenizer/qwen.tiktoken"))


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(shared("checkpoints/golden/tokenizer_golden.json").read_text())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> QwenTokenizer:
    path = tmp_path_factory.mktemp("tiny") / "qwen.tiktoken"
    write_ranks(path)
    return QwenTokenizer(path)


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, HubTokenizer]:
    root = tmp_path_factory.mktemp("others")
    return {kind: HubTokenizer(write(root / kind)) for kind, write in (("llama", write_llama), ("qwen2", write_qwen2))}


def test_special_tokens_that_mark_reasoning_can_stay(tmp_path: Path) -> None:
    tokenizer = HubTokenizer(write_qwen2(tmp_path / "model"))
    tokenizer.tok.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|other|>"]})
    tokenizer.vocab_size = len(tokenizer.tok)
    ids = tokenizer.encode_special("[THINK]the boat[/THINK]the sea<|other|>")
    kept = tokenizer.special_named(["[THINK]", "[/THINK]", "[no such]"])
    assert len(kept) == 2
    assert tokenizer.decode(ids, skip_special=True) == "the boatthe sea"
    assert tokenizer.decode(ids, skip_special=True, kept=kept) == "[THINK]the boat[/THINK]the sea"
    assert tokenizer.decode(ids, skip_special=True, kept=[]) == "the boatthe sea"


def test_ids_and_text_equal_the_recorded_ones(qwen, golden, record_property):
    assert len(golden["strings"]) == 252
    record_property("items", len(golden["strings"]))
    for item in golden["strings"]:
        text, ids = item["text"], item["ids"]
        plain, whole, skipped = (item[key] for key in ("ids_encode_nospecial", "decode", "decode_skip"))
        assert qwen.encode_special(text) == ids
        assert qwen.encode(text) == (ids if plain == "same" else plain)
        assert qwen.decode(ids) == (text if whole == "same" else whole)
        assert qwen.decode(ids, skip_special=True) == (text if skipped == "same" else skipped)
    texts = [item["text"] for item in golden["strings"]]
    assert qwen.encode_batch(texts) == [qwen.encode(text) for text in texts]


def test_decoding_equals_the_recorded_one(qwen, golden):
    for item in golden["decode"]:
        assert qwen.decode(item["ids"]) == item["decode"]
        assert qwen.decode(item["ids"], skip_special=True) == item["decode_skip"]


def test_numbers_equal_the_recorded_ones(qwen, golden):
    facts = golden["attrs"]
    assert qwen.vocab_size == facts["vocab_size"]
    assert qwen.stop_ids == (facts["im_end_id"], facts["im_start_id"], facts["eod_id"])
    assert qwen.eos_ids == (facts["eod_id"],)


def test_chat_turns_equal_the_recorded_ones(qwen):
    """Those without an error and in ChatML; where the original left out old turns, so do we."""
    seen = 0
    for case in json.loads(shared("checkpoints/golden/chat_golden.json").read_text())["cases"]:
        args = case["args"]
        if "error" in case or args.get("chat_format") == "raw":
            continue
        kept = case["raw_text"].count("<|im_start|>assistant") - 1
        history = args.get("history") or []
        messages = []
        for question, reply in history[len(history) - kept :]:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        messages.append({"role": "user", "content": args["query"]})
        system = args.get("system", "")
        assert qwen.chat_ids(messages, system) == case["context_tokens"]
        assert qwen.decode(case["context_tokens"]) == unicodedata.normalize("NFC", case["raw_text"])
        said = [{"role": "system", "content": system}, *messages]
        assert qwen.chat_ids(said) == case["context_tokens"]
        seen += 1
    assert seen == 28


def test_the_default_system_text(tiny):
    text = tiny.decode(tiny.chat_ids([{"role": "user", "content": "Hi"}]))
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert tiny.chat_ids([{"role": "user", "content": "Hi"}]) == tiny.encode_special(text)


def test_specials_follow_the_last_rank(tiny):
    ranks = tiny.endoftext
    assert tiny.encode_special("<|endoftext|><|im_start|><|im_end|><|extra_0|><|extra_204|>") == [
        ranks, ranks + 1, ranks + 2, ranks + 3, ranks + 207,
    ]  # fmt: skip
    assert tiny.vocab_size == ranks + 208


def test_rows_beyond_the_tokens_decode_to_nothing(tiny):
    """Models have more output rows than there are tokens."""
    ids = [*tiny.encode("ab"), tiny.vocab_size, tiny.vocab_size + 40]
    assert tiny.decode(ids) == tiny.decode(ids, skip_special=True) == "ab"
    assert tiny.token_bytes(ids) == b"ab"


def test_token_texts(tiny):
    ids = tiny.encode(" the 水")
    assert tiny.token_bytes(ids) == " the 水".encode()
    assert tiny.token_texts(ids) == [" the", " ", "�", "�", "�"]


# ----------------------------------------------------------------------------------------------------------- damaged files
@pytest.mark.parametrize(
    ("line", "text", "says"),
    [
        (300, "!!! 299", ":300: not a base64 token and its rank"),
        (5, "YQ==", ":5: not a base64 token and its rank"),
        (5, "YQ== x", ":5: not a base64 token and its rank"),
        (260, "YQ== 259", ":260: a token that an earlier line has"),
        (260, f"{base64.b64encode(b'zzzz').decode()} 7", ": one rank is given to two tokens"),
        (98, f"{base64.b64encode(b'zzzz').decode()} 97", ": 1 of the 256 single bytes are missing"),
    ],
)
def test_a_damaged_rank_file_is_named_with_its_line(tmp_path, line, text, says):
    path = tmp_path / "qwen.tiktoken"
    write_ranks(path)
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(CheckpointError) as caught:
        QwenTokenizer(path)
    assert f"{path}{says}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_rank_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"qwen\.tiktoken is missing; get it from"):
        QwenTokenizer(tmp_path / "qwen.tiktoken")


def test_fingerprints_tell_tokenizers_apart(tmp_path, tiny):
    write_ranks(tmp_path / "same")
    write_ranks(tmp_path / "other", words=(" the",))
    assert QwenTokenizer(tmp_path / "same").fingerprint == tiny.fingerprint
    assert QwenTokenizer(tmp_path / "other").fingerprint != tiny.fingerprint
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_byte_tokenizer(tmp_path / name)
    file = tmp_path / "b/tokenizer.json"
    file.write_text(file.read_text().replace('"NFC"', '"NFKC"').replace("<|im_end|>", "<|im_done|>"))
    left, right = (HubTokenizer(tmp_path / name) for name in ("a", "b"))
    assert left.fingerprint != right.fingerprint
    assert left.fingerprint == HubTokenizer(tmp_path / "a").fingerprint


# ---------------------------------------------------------------------------------------------------- any other checkpoint
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_spelled_out_special_tokens_stay_text(others, kind):
    tok = others[kind]
    ids = tok.encode(SPELLED)[len(tok._bos) :]
    assert not set(ids) & tok.special_ids
    assert SPELLED in tok.decode(ids)
    assert len(set(tok.encode_special(SPELLED)) & tok.special_ids) >= 2


def test_bos_where_the_tokenizer_adds_one(others):
    llama, qwen2 = others["llama"], others["qwen2"]
    assert [llama.encode("the lamp")[0], llama.encode("")] == [1, [1]]
    assert llama.encode("<s>")[:1] == [1] != llama.encode("<s>")[1:2]
    assert qwen2.encode("") == []
    assert llama.decode(llama.encode("the lamp"), skip_special=True) == "the lamp"


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_batches_and_single_texts_agree(others, kind):
    tok = others[kind]
    texts = ["", "the lamp", "two\n\nlines  ", "问题：水", "\ud83d lone", *CORPUS]
    assert tok.encode_batch(texts) == [tok.encode(text) for text in texts]
    assert tok.encode_batch([]) == []
    for text in CORPUS:
        assert tok.decode(tok.encode(text), skip_special=True) == text
    assert tok.decode([*tok.encode(CORPUS[0]), tok.vocab_size + 3], skip_special=True) == CORPUS[0]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_tokens_have_the_bytes_of_their_text_wherever_it_is_cut(others, kind):
    """Characters that lie in several tokens, too, where decoding a part gives U+FFFD."""
    tok = others[kind]
    text = "Seven lamps é 水灯\n  <0x41> 🙂 �"
    ids = tok.encode(text)[len(tok._bos) :]
    parts = [tok.token_bytes([index]) for index in ids]
    # SentencePiece puts a space before a text
    assert b"".join(parts) == tok.token_bytes(ids) == (" " * (kind == "llama") + text).encode()
    assert any(part.decode("utf-8", "replace") != part.decode("utf-8", "ignore") for part in parts)
    assert tok.token_bytes([tok.vocab_size + 3]) == b""


def test_the_tokenizer_never_appends_an_end(tmp_path):
    """Some tokenizers put </s> after every text; a prompt must stay open."""
    write_sentencepiece_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"add_eos_token": True}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    tok = HubTokenizer(tmp_path)
    assert tok.encode("the lamp") == HubTokenizer(tmp_path).encode("the lamp")
    assert (tok.encode("the lamp")[0], tok.encode("the lamp")[-1] != 2) == (1, True)


def test_chat_by_the_checkpoints_own_template_has_one_bos(others):
    llama = others["llama"]
    messages = [{"role": "user", "content": "how many lamps"}]
    ids = llama.chat_ids(messages)
    assert (ids[0], ids.count(1)) == (1, 1)
    assert ids == llama.encode_special("<s>[INST] how many lamps [/INST]")


def test_a_system_text_goes_first_where_there_is_none(others):
    qwen2 = others["qwen2"]
    messages = [{"role": "user", "content": "Hi"}]
    start = "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi"
    assert qwen2.decode(qwen2.chat_ids(messages, "Be brief")).startswith(start)
    assert qwen2.decode(qwen2.chat_ids(messages)).startswith("<|im_start|>user\nHi")
    said = [{"role": "system", "content": "Be brief"}, *messages]
    assert qwen2.chat_ids(said, "Another") == qwen2.chat_ids(messages, "Be brief")


def test_a_message_cannot_end_its_turn(others):
    """One turn end from the template for the message, whatever the message spells (transformers 5.23 and later)."""
    qwen2 = others["qwen2"]
    if not qwen2._safe_chat:
        pytest.skip("this transformers cannot tell a message's tokens from the template's; such messages are refused")
    (end,) = qwen2.encode_special("<|im_end|>")
    ids = qwen2.chat_ids([{"role": "user", "content": "a<|im_end|>b"}])
    assert ids.count(end) == 1
    assert "a<|im_end|>b" in qwen2.decode(ids)


def test_an_older_transformers_refuses_a_message_that_would_end_its_turn(others, monkeypatch):
    qwen2 = others["qwen2"]
    monkeypatch.setattr(qwen2, "_safe_chat", False)
    for messages in ([{"role": "user", "content": "a<|im_end|>b"}], [{"role": "system", "content": "<|im_start|>"}]):
        with pytest.raises(CheckpointError, match=r"a message contains '<\|im_.*install transformers 5.23 or later"):
            qwen2.chat_ids(messages)
    with pytest.raises(CheckpointError, match="a message contains"):
        qwen2.chat_ids([{"role": "user", "content": "a"}], "be <|im_end|>")
    assert qwen2.chat_ids([{"role": "user", "content": "a < b | c"}])


def test_a_reply_ends_where_the_template_ends_a_turn(others):
    (end,) = others["qwen2"].encode_special("<|im_end|>")
    assert others["qwen2"].eos_ids == (0,)
    assert others["qwen2"].stop_ids == (0, end)
    assert others["llama"].stop_ids == others["llama"].eos_ids == (2,)


def test_ends_named_by_the_configs_count(tmp_path):
    write_byte_tokenizer(tmp_path, chat=False)
    assert HubTokenizer(tmp_path, [5, 0, 6]).eos_ids == (0, 5, 6)


def test_a_checkpoint_without_template_says_so(tmp_path):
    write_byte_tokenizer(tmp_path, chat=False)
    tok = HubTokenizer(tmp_path)
    assert tok.chat_template is None
    with pytest.raises(
        CheckpointError, match=r"has no chat template; name .* --template .baichuan, .*leave --chat out"
    ):
        tok.chat_ids([{"role": "user", "content": "Hi"}])


def test_a_template_that_refuses_is_a_one_line_error(tmp_path):
    write_byte_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    template = "{{ raise_exception('roles must alternate\nalways') }}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    with pytest.raises(CheckpointError, match=r"its chat template failed: roles must alternate$"):
        HubTokenizer(tmp_path).chat_ids([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize("unknown", ["</s>", "<unk>"])
def test_a_bos_that_is_the_unknown_token_too(tmp_path, unknown):
    """As OPT's: BOS, EOS and the unknown token are one, and GPT-2's byte-level vocabulary knows every text."""
    write_byte_tokenizer(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    words = [
        word for word, _ in sorted(model["vocab"].items(), key=lambda entry: entry[1]) if not word.startswith("<|")
    ]
    folder = tmp_path / "opt"
    folder.mkdir()
    names = ["<s>", "<pad>", "</s>", "<unk>", *words]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "unk_token": unknown, "pad_token": "<pad>"}))
    tokenizer = HubTokenizer(folder)
    ids = tokenizer.encode("The red boat")
    assert ids[0] == 2 == tokenizer.eos_ids[0] and 2 not in ids[1:]
    assert tokenizer.decode(ids[1:]) == "The red boat"


def test_a_tokenizer_that_knows_no_english_was_misread(tmp_path):
    """transformers 5.0 reads a bare tokenizer.model so: every piece is unknown."""
    write_byte_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    good = HubTokenizer(tmp_path)
    some = good.tok.convert_ids_to_tokens(good.encode("The answer is A."))[2]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unk_token": some}))
    with pytest.raises(CheckpointError, match="misreads its tokenizer"):
        HubTokenizer(tmp_path)


def test_a_broken_tokenizer_is_a_one_line_error(tmp_path):
    write_byte_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="its tokenizer cannot be loaded") as caught:
        HubTokenizer(tmp_path)
    assert "\n" not in str(caught.value)
