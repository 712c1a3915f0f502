"""Where a reply ends: end tokens spelled out, new turns, and what only looks like them."""

from __future__ import annotations

import pytest
from hypothesis import given

from examples import examples
from extraction import LENGTHS, long_texts, quick, texts
from qwen_eval.tasks.extract import ending

ROLES = (
    "Human",
    "User",
    "USER",
    "user",
    "Question",
    "Q",
    "**User**",
    "### Human",
    "[User]",
    "用户",
    "问题",
    "GPT4 Correct User",
)
TOKENS = (
    "<|im_end|>", "<|endoftext|>", "</s>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|return|>", "<|user|>",
    "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<eos>", "[INST]", "[|endofturn|]", "<turn|>", "<reserved_106>",
    "<|EOT|>", "<|end_of_text|>", "<extra_id_1>", "<|im_user|>", "<|role_end|>",
)  # fmt: skip

pieces = texts(
    *TOKENS, *(f"\n{role}: " for role in ROLES), "18", "\n", "'", '"', '"""', "`", "Sure:\n", "<s>", "Question 1: "
)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("after", ["", "\n", "\n<|im_start|>user\n7 cats?", " and 7", "7"])
def test_an_end_token_ends_the_reply(token: str, after: str) -> None:
    assert ending.reply(f"The answer is 18.{token}{after}") == "The answer is 18."
    assert ending.reply(f"{token}\n18") in ("", "\n18")  # some open a turn, too


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("colon", [":", ": ", "："])
def test_a_new_turn_ends_the_reply(role: str, colon: str) -> None:
    assert ending.reply(f"The answer is 18.\n\n{role}{colon}What is 5 + 7?") == "The answer is 18.\n\n"


@pytest.mark.parametrize(
    "after",
    [
        "\nuser\nA baker has 5.", "\nassistant\nNext", "\n### Instruction\nAdd", "\nQuestion 2: 5 cats", "\nQ2. 5 cats",
        "\nProblem 2: 5 cats", "\nExercise 12. 5 cats", "assistant\n\nNext", " Human: 5?", " Question: 5 cats?",
        "\n**Question:** 5 cats", "\n> User: And 5 cats?", "\nAssistant: 5", "\nAI: It is 5",
    ],
)  # fmt: skip
def test_other_forms_of_a_new_turn(after: str) -> None:
    assert ending.reply("The answer is 18." + after).strip() == "The answer is 18."


@pytest.mark.parametrize(
    "text",
    [
        "Question: How much is 9 * 2?\nAnswer: 18",
        "Let me restate the problem:\n\n**Question:** 9 * 2?\n\n18",
        "# Solution\nQ: 9 * 2?\nA: 18",
        "Question: 9 * 2?\nAssistant: 18",
        "Question 1: How many eggs? 9\nQuestion 2: How much? 18",
        "First:\nQ1: 5\nQ2: 10\nQ3: 18",
        "They have legs.\nHuman: 2 legs\nDog: 4 legs\n",
        "The human: 2 legs. To answer the question: 18",
        "Each user: 5 GB",
        'Remove "</s>" and `<|im_end|>` from it',
        "if token == '<|endoftext|>': return 1",
        'def f():\n    """Cuts at <|im_end|>.\n\nUser: x\n"""\n    return 1',
        "She has <s>20</s> 18 eggs.",
        "User: TypeAlias = dict[str, int]\nQ: list[int] = []",
        "<|begin_of_box|>18<|end_of_box|> dollars",
        "a <|b c",
        "x < y | z > 3",
        "Questions: 5",
        "",
    ],
)
def test_what_is_no_end(text: str) -> None:
    assert ending.reply(text) == text


@pytest.mark.parametrize(
    "header",
    [
        "<|im_start|>assistant\n", "<s>", "[/INST]", "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|assistant|>\n",
        "<start_of_turn>model\n", "Assistant: ", "### Response:\n", "assistant\n", "<｜Assistant｜>", "**Assistant:** ",
        "<|begin_of_text|>",
    ],
)  # fmt: skip
def test_a_reply_may_repeat_its_own_header(header: str) -> None:
    assert ending.reply(f"{header}18</s>").strip() == "18"
    assert ending.reply("    return x</s>") == "    return x"


@examples(400)
@given(text=pieces)
def test_any_text_is_read(text: str) -> None:
    found = ending.reply(text)
    assert found in text
    assert text[: ending.end(text)].endswith(found)


@pytest.mark.parametrize("length", LENGTHS)
def test_long_texts_take_linear_time(length: int) -> None:
    for text in long_texts(length):
        quick(ending.reply, text)
