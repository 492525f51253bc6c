"""Errors that a user can meet: one line that says what is wrong and what to do."""

from __future__ import annotations


class UserError(ValueError):
    """The input cannot be used as it is.

    The command line prints the message and exits with 2; the server answers 422 with it as `detail`.
    """
