"""The words of the tables in Chinese. English is what the tables are written in."""

from __future__ import annotations

from collections.abc import Callable

LANGUAGES = ("en", "zh")
CHINESE = {
    "Model": "模型",
    "Source": "来源",
    "ours": "本项目",
    "README": "README",
    "tech memo": "技术备忘录",
    "README and tech memo": "README 与技术备忘录",
    "{low} to {high}": "{low} 至 {high}",
    "average": "平均",
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
    "Memory (GB)": "内存（GB）",
    "Weights (GB)": "权重（GB）",
    "Difference to BF16": "与 BF16 之差",
    "Tool selection (acc., ↑)": "工具选择（准确率，↑）",
    "Tool input (Rouge-L, ↑)": "工具参数（Rouge-L，↑）",
    "False positives (↓)": "误报率（↓）",
    "Tool selection (↑)": "工具选择（↑）",
    "Tool used (↑)": "工具使用（↑）",
    "Code (↑)": "代码（↑）",
    "MMLU (0-shot)": "MMLU（0-shot）",
    "C-Eval val (0-shot)": "C-Eval 验证集（0-shot）",
    "GSM8K (0-shot)": "GSM8K（0-shot）",
    "GSM8K (4-shot)": "GSM8K（4-shot）",
    "WMT22 (en-zh)": "WMT22（英译中）",
    "en-zh": "英译中",
    "zh-en": "中译英",
    "Bold: the best of the lines of equal protocol (the published ones; ours of recipe `qwen2023` count among them).": (
        "粗体：同一协议各行中的最佳值（已发布的各行为同一协议，本项目的 `qwen2023` 方案与之相同）。"
    ),
    "† partial: only the first items of every subject or set.": "† 部分：每个科目或数据集只测了前若干题。",
    "‡ demonstration data: not comparable with the published lines.": "‡ 演示数据：不可与已发布的各行比较。",
    "§ not comparable with the published lines: too little of their protocol is known.": (
        "§ 不可与已发布的各行比较：其协议未完整公布。"
    ),
    "WMT22: shots, prompt and BLEU signature of the published figures are not known.": (
        "WMT22：已发布数字所用的示例、提示与 BLEU 签名未公布。"
    ),
    "Perplexity by length in tokens. The documents behind the published rows are not public: compare only shapes.": (
        "各长度（token 数）下的困惑度。已发布各行所用的文档未公开：可比较走势，不可比较数值。"
    ),
    "Signatures with `hfagent-own` answer our own instructions in place of the 27 published ones; the agent's prompt is "
    "ours unless `--agent-prompt` gave another.": (
        "签名含 `hfagent-own` 者回答的是我们自己的指令，而非已发布的 27 条；"
        "除非用 `--agent-prompt` 另行指定，代理提示也是我们自己的。"
    ),
    "Memory is the peak of the run: of the process on a CPU, of the device's allocator on a GPU. Weights are all stored "
    "tensors, with the state of quantized ones. Differences are in points, paired by item, with their 95% intervals.": (
        "内存为运行中的峰值：CPU 上为进程的峰值，GPU 上为设备分配器的峰值。权重为全部存储的张量，含量化状态。"
        "差值以百分点计，按题配对，附 95% 区间。"
    ),
    "Benchmarks": "基准",
    "Precision": "精度",
    "Tool use: ReAct plugins": "工具使用：ReAct 插件",
    "Tool use: HF agent": "工具使用：HF agent",
    "Long context": "长上下文",
    "Chat": "对话",
    "WMT22, both directions": "WMT22 双向",
    "MMLU by category": "MMLU 各类别",
    "C-Eval by category": "C-Eval 各类别",
    "CMMLU by category": "CMMLU 各类别",
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
}  # fmt: skip


def speaker(language: str) -> Callable[[str], str]:
    """Gives a phrase of the tables in a language; one that has no translation (a model's name, MMLU) stays as it is."""
    return (lambda text: CHINESE.get(text, text)) if language == "zh" else (lambda text: text)
