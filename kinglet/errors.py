"""The one exception for what a user can cause and mend."""

from __future__ import annotations


class KingletError(Exception):
    """Something the user can mend: one sentence that says what and where, and a hint what to do.

    Caught once at the outer edge, printed to stderr as sentence and hint, exit code 2.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def other_format(origin: str, found: object, known: int) -> KingletError:
    """Return the error for a file whose format is not the one that this version of Kinglet reads."""
    return KingletError(
        f"{origin} is of format {found!r}; this version of Kinglet reads format {known}.",
        "Use the version of Kinglet that wrote it, or a newer one.",
    )
