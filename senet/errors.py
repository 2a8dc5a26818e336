"""The one exception that speaks to users, and the hint that names the nearest valid word."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend: its message is one line that says what is wrong and what to do.

    The command-line programs print it without a traceback and exit with status 2.
    """


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return ``'; did you mean "x"?'`` with the nearest valid word, or a list if none is near and it is short.

    Of dotted keys the last part counts too: ``data.size`` finds ``data.preprocessing.size``.
    """
    choices = sorted(set(valid))
    last = word.rpartition(".")[2]
    same = (
        [choice for choice in choices if choice.rpartition(".")[2] == last] if "." in "".join(choices) else []
    )
    near = difflib.get_close_matches(word, same or choices, n=1, cutoff=0.0 if same else 0.5)
    if not near:
        parts = {choice.rpartition(".")[2]: choice for choice in choices}
        near = [parts[part] for part in difflib.get_close_matches(last, parts, n=1, cutoff=0.7)]
    if near:
        return f'; did you mean "{near[0]}"?'
    listed = ", ".join(choices)
    return f"; valid: {listed}" if 0 < len(listed) <= 200 else ""


def in_a_line(error: Exception) -> str:
    """Return what an error says, on one line."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    reason = str(error).strip().splitlines()
    return f"{type(error).__name__}: {reason[0] if reason else 'no message'}"
