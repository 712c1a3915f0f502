"""Reasons to abort a test: neither a pass nor an ordinary failure of an assertion."""

from __future__ import annotations


class Gone(BaseException):
    """The candidate's process has ended or closed its pipe. No Exception, so that no test can swallow it."""


class Unfit(BaseException):
    """The candidate sent something other than a plain value."""


class Unsuited(BaseException):
    """The test does something that would need the candidate in its own process, such as passing a value that cannot cross."""


class CandidateError(Exception):
    """An exception of the candidate's own type."""
