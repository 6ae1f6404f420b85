"""Errors that a user sees as one line: what, which value, how to mend."""


class CountermarkError(Exception):
    """Something failed that is not the caller's wording: a damaged file, a full disk (exit status 1)."""

    exit_status = 1


class UsageError(CountermarkError):
    """The request itself can't be served as worded: an unknown model, an empty folder (exit status 2)."""

    exit_status = 2
