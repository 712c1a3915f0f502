"""The Chinese translations of the tables' texts, which are written in English."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

LANGUAGES = ("en", "zh")
CHINESE = {
    "Model": "模型",
    "Source": "来源",
    "Signatures": "签名",
    "ours": "本项目",
    "README": "README",
    "tech memo": "技术备忘录",
    "README and tech memo": "README 与技术备忘录",
    "{low} to {high}": "{low} 至 {high}",
    "Average": "平均",
    "Macro": "宏平均",
    "Micro": "微平均",
    "STEM": "STEM",
    "Social Sciences": "社会科学",
    "Social Science": "社会科学",
    "Humanities": "人文科学",
    "Others": "其他",
    "Other": "其他",
    "Hard": "Hard",
    "China specific": "中国特定主题",
    "Bold: the best of the lines of equal protocol (the published ones; ours of recipe `qwen2023` count among them).": (
        "粗体：同一协议各行中的最佳值（已发布的各行为同一协议，本项目的 `qwen2023` 方案与之相同）。"
    ),
    "† partial: only the first items of every subject or set.": "† 部分：每个学科或数据集只测了前若干题。",
    "‡ demonstration data: not comparable with the published lines.": "‡ 演示数据：不可与已发布的各行比较。",
    "¶ no official checksums of the data are known: its rows were taken as they are.": (
        "¶ 该数据没有已知的官方校验和：按原样采用。"
    ),
    "§ not comparable with the published lines: too little of their protocol is known.": (
        "§ 不可与已发布的各行比较：其协议未完整公布。"
    ),
    "What was checked": "检查内容",
    "Result": "结果",
    "Command": "命令",
    "Checked on {date} at commit {commit} by `make verify`.": "由 `make verify` 于 {date} 在提交 {commit} 上检查。",
    "Not checked yet; run `make verify`.": "尚未检查；请运行 `make verify`。",
    "Qwen-1 logits: largest difference from the released code": "Qwen-1 logits：与发布代码的最大差异",
    "Qwen-1 token ids of the original tokenizer": "Qwen-1 原始分词器的 token id",
    "MMLU predictions of the 2023 script": "2023 年脚本的 MMLU 预测",
    "CMMLU predictions of the 2023 script": "2023 年脚本的 CMMLU 预测",
    "GSM8K greedy texts of the 2023 script": "2023 年脚本的 GSM8K 贪心文本",
    "Perplexity: largest relative difference from the 2023 code": "困惑度：与 2023 年代码的最大相对差异",
    "Chat replies to MMLU and C-Eval read as in 2023": "MMLU 与 C-Eval 对话回复的读取与 2023 年一致",
    "GSM8K replies read as in 2023": "GSM8K 回复的读取与 2023 年一致",
    "HumanEval replies read as in 2023": "HumanEval 回复的读取与 2023 年一致",
    "Tool calls read as in 2023": "工具调用的读取与 2023 年一致",
    "HumanEval reference solutions that pass in the sandbox": "在沙箱中通过的 HumanEval 参考解答",
    "BLEU and chrF equal to sacrebleu's command line": "与 sacrebleu 命令行相同的 BLEU 与 chrF",
    "Hostile programs contained": "被隔离的恶意程序",
    "Kept answers of the real model, some asked again": "真实模型留存的回答，抽取部分重新提问",
}  # fmt: skip


def translator(language: str, chinese: Mapping[str, str] = MappingProxyType({})) -> Callable[[str], str]:
    """A function that translates a text of the tables; one without a translation (a model's name, MMLU) stays as it is.
    chinese: translations that a table defines."""
    words = {**CHINESE, **chinese}
    return (lambda text: words.get(text, text)) if language == "zh" else (lambda text: text)
