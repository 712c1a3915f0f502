// All texts of the page in both languages; say("key", values) returns one.
const WORDS = {
  en: {
    skip: "To the content", parts: "Parts of this page", samples: "Samples", runs: "Runs", tables: "Tables", figures: "Figures",
    language: "Language", filters: "Filters", benchmark: "Benchmark", run: "Run", beside: "Compare with", subject: "Subject",
    status: "Answered", search: "Search", searchHint: "question, reply, answer ( / )", items: "Items", item: "Item",
    none: "no other run", all: "all", right: "right", wrong: "wrong", invalid: "invalid", unjudged: "scored, not judged",
    flipped: "flipped", lost: "no longer right", won: "newly right", changed: "different answer", same: "same answer",
    count: "{shown} of {all} items", tally: "{right} right, {wrong} wrong, {invalid} invalid",
    flips: "{lost} no longer right; {won} newly right", empty: "No item matches these filters.", noRuns: "There are no samples.",
    pick: "Choose an item from the list.", shared: "Shared prefix of the prompts: {n} characters, {items} items",
    prompt: "Prompt", reply: "Reply", reasoning: "Reasoning", extraction: "Extracted answer", target: "Target", nothing: "nothing",
    options: "Probability of each option", ended: "ended by {why}", sampleNumber: "Reply {n} of {all}", measured: "Measured",
    statistics: "Statistics", gold: "correct answer", chosen: "chosen", figure: "Headline figure", model: "Model",
    precision: "Precision", when: "Finished", seconds: "Seconds", signature: "Signature", answered: "Items",
    first: "First prompt as the model read it", show: "show",
    old: "This browser lacks DecompressionStream, which unpacks the page's data; please use a newer one.", perplexity: "perplexity",
    missing: "This run does not have this item.", prompts: "The prompts of the two runs differ.", program: "program", verdict: "verdict",
  },
  zh: {
    skip: "跳到内容", parts: "本页各部分", samples: "样本", runs: "运行", tables: "表格", figures: "图", language: "语言",
    filters: "筛选", benchmark: "基准", run: "运行", beside: "对比", subject: "学科", status: "作答", search: "搜索",
    searchHint: "题目、回复、读取结果（ / ）", items: "样本列表", item: "样本", none: "不对比", all: "全部", right: "正确", wrong: "错误",
    invalid: "无效", unjudged: "只计分，不判对错", flipped: "对错翻转", lost: "由对变错", won: "由错变对", changed: "答案不同",
    same: "答案相同", count: "{all} 条中的 {shown} 条", tally: "正确 {right}，错误 {wrong}，无效 {invalid}",
    flips: "由对变错 {lost}，由错变对 {won}", empty: "没有符合条件的样本。", noRuns: "没有样本。", pick: "请在列表中选择一条。",
    shared: "提示的共同开头：{n} 个字符，{items} 条共用", prompt: "提示", reply: "回复", reasoning: "推理", extraction: "读取结果",
    target: "目标", nothing: "无", options: "各选项的概率", ended: "结束原因：{why}", sampleNumber: "第 {n} 个回复，共 {all} 个",
    measured: "测量值", statistics: "统计量", gold: "正确答案", chosen: "所选", figure: "主要指标", model: "模型", precision: "精度",
    when: "完成时间", seconds: "秒", signature: "签名", answered: "条数", first: "模型实际读到的首条提示", show: "显示", perplexity: "困惑度",
    old: "此浏览器无法解压本页数据（DecompressionStream），请使用较新的浏览器。", missing: "该运行没有此样本。",
    prompts: "两次运行的提示不同。", program: "程序", verdict: "判定",
  },
};
let language = (navigator.language || "").startsWith("zh") ? "zh" : "en";

function say(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Fills in all texts of the page in the selected language.
function speak() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", say(node.dataset.label));
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = say(node.dataset.placeholder);
}
