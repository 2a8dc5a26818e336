"""The one exception that speaks to users, and the hint that names the nearest valid word."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend: its message is one line that says what is wrong and what to do.

    The command-line programs print it without a traceback and exit with status 2.
    """


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return ``'; did you mean "x"?'`` with the nearest valid word, or the whole list if none is near."""
    choices = sorted(set(valid))
    # The last part of a dotted key is what was misspelt more often than its path.
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; valid: {', '.join(choices)}" if choices else ""
