"""Every figure that a table shows, at the sizes that tables have."""

from __future__ import annotations

from qwen_eval.stats import one_run
from simulate_intervals.accuracy import DESIGNS, MIXED, items, macro, macro_passages, of_design, of_mixed, passages
from simulate_intervals.corpora import IN_DOCUMENTS, OPEN, corpus_cells, directions
from simulate_intervals.paired import (
    clustered_scores,
    paired_items,
    paired_macro,
    paired_macro_passages,
    paired_passages,
    paired_scores,
)
from simulate_intervals.perplexity import perplexity, perplexity_ratio
from simulate_intervals.scores import AGENT, PASS_1, PASS_K, ROUGE, means, pass_1, pass_k
from simulate_intervals.setting import Figure

CLUSTERS = (5, 10, 20, 50, 100, 300)
TASKS = (5, 17, 50, 164, 500)
SCORED = (5, 10, 20, 50, 164, 500)
PAIRED_DESIGNS = ("3 x 5", "11 x 5", "52 x 1", "52 x 5", "C-Eval 52 x 12-55", "MMLU 57 x 100-1534")
FIGURES = {
    "items": Figure("accuracy, a share of items", "Wald", "Wilson", "items", (5, 10, 26, 50, 164, 1319, 14042), items),
    "macro": Figure(
        "macro accuracy", "stratified normal", "Wilson, all items", "subjects x items", list(DESIGNS), macro, of_design
    ),
    "passages": Figure(
        "accuracy, questions of passages", "Wald, all items", "Wilson, all items", "passages", CLUSTERS, passages
    ),
    "macro-passages": Figure(
        "macro accuracy with passages",
        "stratified normal",
        "none",
        "subjects x passages",
        list(MIXED),
        macro_passages,
        of_mixed,
    ),
    "pass1": Figure(
        "pass@1, several samples a task", "normal", "Wilson, tasks", "tasks", TASKS, means(PASS_1, pass_1, "wilson")
    ),
    "passk": Figure("pass@k, k > 1", "normal", "logit-t", "tasks", TASKS, means(PASS_K, pass_k, "logit")),
    "rouge": Figure("Rouge-L", "normal", "logit-t", "items", SCORED, means(ROUGE, one_run.bounded, "logit")),
    "agent": Figure("agent scores", "normal", "logit-t", "items", SCORED, means(AGENT, one_run.bounded, "logit")),
    "agent-problems": Figure(
        "agent scores, several instructions a problem",
        "normal, all items",
        "none",
        "problems",
        (5, 11, 20, 50, 100),
        clustered_scores,
    ),
    "ppl": Figure(
        "perplexity", "percentile bootstrap", "t, unweighted", "documents", (3, 5, 8, 10, 20, 50, 100), perplexity
    ),
    "bleu": Figure(
        "BLEU, chrF over segments",
        "percentile bootstrap",
        "none",
        "segments",
        (20, 80, 200, 1000, 2037),
        corpus_cells(OPEN, False, False),
        scale=1.0,
    ),
    "bleu-documents": Figure(
        "BLEU, chrF over documents",
        "percentile bootstrap over segments",
        "none",
        "segments",
        (80, 200, 1000, 2037),
        corpus_cells(IN_DOCUMENTS, True, False),
        scale=1.0,
    ),
    "bleu-mean": Figure(
        "mean of two directions' BLEU", "none", "none", "segments each", (200, 2037), directions, scale=1.0
    ),
    "paired-items": Figure(
        "paired: accuracy", "Wald", "Bonett-Price", "items", (5, 20, 50, 164, 1319, 14042), paired_items
    ),
    "paired-macro": Figure(
        "paired: macro accuracy",
        "stratified normal",
        "Bonett-Price, all items",
        "subjects x items",
        PAIRED_DESIGNS,
        paired_macro,
        of_design,
    ),
    "paired-passages": Figure(
        "paired: questions of passages",
        "Wald, all items",
        "clustered score (5 each)",
        "passages",
        CLUSTERS,
        paired_passages,
    ),
    "paired-macro-passages": Figure(
        "paired: macro accuracy with passages",
        "stratified normal",
        "none",
        "subjects x passages",
        list(MIXED),
        paired_macro_passages,
        of_mixed,
    ),
    "paired-scores": Figure(
        "paired: pass@1, Rouge-L, agent scores", "normal", "logit-t", "items", SCORED, paired_scores
    ),
    "paired-ppl": Figure(
        "paired: perplexity",
        "percentile bootstrap",
        "t, unweighted",
        "documents",
        (3, 5, 10, 20, 50, 100),
        perplexity_ratio,
    ),
    "paired-bleu": Figure(
        "paired: BLEU over segments",
        "percentile bootstrap",
        "none",
        "segments",
        (20, 80, 200, 1000, 2037),
        corpus_cells(OPEN[:3], False, True),
        scale=1.0,
    ),
    "paired-bleu-documents": Figure(
        "paired: BLEU over documents",
        "percentile bootstrap over segments",
        "none",
        "segments",
        (80, 200, 1000, 2037),
        corpus_cells(IN_DOCUMENTS[:4], True, True),
        scale=1.0,
    ),
}
