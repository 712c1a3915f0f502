"""Benchmark data as typed rows: `data.mmlu(...)` and its fellows, the subjects, and the hash that names a data set.

A module for each kind (choice, problems, tools, translation, long_texts) on top of files (bytes to rows, errors with file
and line) and subjects.
"""

from __future__ import annotations

from qwen_eval.data.catalogue import SubjectInfo as SubjectInfo
from qwen_eval.data.catalogue import choose_subjects as choose_subjects
from qwen_eval.data.catalogue import subjects as subjects
from qwen_eval.data.choice import LETTERS as LETTERS
from qwen_eval.data.choice import ChoiceRow as ChoiceRow
from qwen_eval.data.choice import ChoiceSet as ChoiceSet
from qwen_eval.data.choice import ceval as ceval
from qwen_eval.data.choice import cmmlu as cmmlu
from qwen_eval.data.choice import mmlu as mmlu
from qwen_eval.data.files import Source as Source
from qwen_eval.data.files import content_hash as content_hash
from qwen_eval.data.files import text_lines as text_lines
from qwen_eval.data.long_texts import Documents as Documents
from qwen_eval.data.long_texts import documents as documents
from qwen_eval.data.official import changed as changed
from qwen_eval.data.official import official as official
from qwen_eval.data.problems import CodeTask as CodeTask
from qwen_eval.data.problems import Gsm8k as Gsm8k
from qwen_eval.data.problems import HumanEval as HumanEval
from qwen_eval.data.problems import MathProblem as MathProblem
from qwen_eval.data.problems import completions as completions
from qwen_eval.data.problems import gsm8k as gsm8k
from qwen_eval.data.problems import humaneval as humaneval
from qwen_eval.data.tools import AgentSet as AgentSet
from qwen_eval.data.tools import AgentTask as AgentTask
from qwen_eval.data.tools import FakeTool as FakeTool
from qwen_eval.data.tools import ReactItem as ReactItem
from qwen_eval.data.tools import agent_set as agent_set
from qwen_eval.data.tools import option as option
from qwen_eval.data.tools import react_items as react_items
from qwen_eval.data.tools import tool_files as tool_files
from qwen_eval.data.translation import Segment as Segment
from qwen_eval.data.translation import TranslationShot as TranslationShot
from qwen_eval.data.translation import Wmt22 as Wmt22
from qwen_eval.data.translation import translation_shots as translation_shots
from qwen_eval.data.translation import wmt22 as wmt22
