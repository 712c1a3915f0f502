"""Where the packages lie; all else is in pyproject.toml. An installed package carries the benchmarks, which are scripts beside
it in the checkout, the demonstration and the published figures."""

from setuptools import find_packages, setup

setup(
    package_dir={
        "": "eval",
        "qwen_eval.benchmarks": "eval",
        "qwen_eval.demonstration": "demo",
        "qwen_eval.results": "results",
    },
    include_package_data=False,  # what is listed below and nothing else
    packages=[*find_packages("eval"), "qwen_eval.benchmarks", "qwen_eval.demonstration", "qwen_eval.results"],
    package_data={
        "qwen_eval.data": ["*.json", "official/*.json"],
        "qwen_eval.report.page": ["*.js", "*.css", "*.html"],
        "qwen_eval.benchmarks": ["wmt22_shots.jsonl"],
        "qwen_eval.demonstration": ["checkpoint.sha256", "checkpoint/*", "data/*/*", "data/*/*/*"],
        "qwen_eval.results": ["published.csv", "models.csv"],
    },
)
