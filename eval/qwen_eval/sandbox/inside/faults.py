"""Why a checker stops: what the candidate or the test did that is no plain failure of the test."""

from __future__ import annotations


class Gone(BaseException):
    """The candidate's process has ended or closed its pipe. No Exception, so that no test can swallow it."""


class Unfit(BaseException):
    """What the candidate sent is no plain value."""


class Unsuited(BaseException):
    """The test passes what is no plain value: it would need the candidate in its own process."""


class CandidateError(Exception):
    """An exception of the candidate's own type."""
