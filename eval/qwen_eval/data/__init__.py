"""Benchmark data as typed rows, one module per kind of benchmark: choice, problems, tools, translation, long_texts, and tables
for benchmarks of one's own.

They are built on files (bytes to rows; errors name file and line), hub (downloads) and catalogue (subjects); official has the
checksums of the official rows, demo the embedded demonstration.
"""
