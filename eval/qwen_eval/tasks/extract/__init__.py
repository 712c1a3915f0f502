"""Answer extraction: letters, numbers, programs, tool calls. Pure functions of text; the rules are in docs/, one page per
benchmark.

Each module holds both recipes of its benchmark: names ending in `_2023` reproduce the scripts of 2023, quirks
included; the others are `default`. None means that the reply holds no answer: it is counted as invalid, never guessed.
Every function takes any text and ends in time linear in its length (models do write 100 kB of one letter).
"""
