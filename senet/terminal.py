"""What is said on a terminal keeps to its width."""

import shutil
import sys
from textwrap import TextWrapper
from typing import TextIO


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Return the columns of the terminal that ``stream`` (stdout) goes to; None where that is no terminal."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def fitted(text: str, indent: int = 10, stream: TextIO | None = None) -> str:
    """Break at spaces what the terminal would break anywhere; in a file or a pipe a line stays a line.

    Args:
        text: one line or more.
        indent: places before what does not fit on the first line.
        stream: where it is printed; stdout by default.
    """
    width = terminal_width(stream)
    if width is None:
        return text
    wrap = TextWrapper(width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    # A path that does not fit on a line of its own stays where it is.
    return "\n".join(
        line if max(map(len, line.split()), default=0) > width - indent else wrap.fill(line)
        for line in text.split("\n")
    )


def complain(text: str) -> None:
    """Print what went wrong, or must be known beside the results, on stderr."""
    print(fitted(text, 2, sys.stderr), file=sys.stderr)
