"""Tables: columns over rows of any type, as text, Markdown, LaTeX and, by ``senet.page``, HTML; records as CSV, JSON.

    columns = [Column("point", lambda run: run.name, words=True), Column("err, %", lambda run: f"{run.error:.2f}")]
    print(Table(columns, runs).text())

Nothing ends with a newline. Whatever a cell says is escaped, and a line break in it is a space.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def _nothing(row: object) -> str:
    return ""


def _none(row: object) -> None:
    return None


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column of a table.

    Attributes:
        title: its heading.
        cell: the text of a row; "" where there is nothing to say.
        detail: what follows the cell, under it where there is room: its interval.
        words: whether it is set flush left; numbers are flush right.
        group: columns that stand together have one; the name is shown over every group after the first.
        brief: whether the table on a terminal has it.
        style: further CSS classes of a row's cell.
        share: of 0..1, which a page shows behind the cell as a bar, or as a shade in a column of the style "heat".
    """

    title: str
    cell: Callable[[T], str]
    detail: Callable[[T], str] = _nothing
    words: bool = False
    group: str = ""
    brief: bool = True
    style: Callable[[T], str] = _nothing
    share: Callable[[T], float | None] = _none

    def text(self, row: T) -> str:
        """Return cell and detail on one line."""
        return f"{self.cell(row)} {self.detail(row)}".strip().replace("\n", " ")


@dataclass(frozen=True)
class Table(Generic[T]):
    """Columns and rows; the first column names the row."""

    columns: Sequence[Column[T]]
    rows: Sequence[T]

    def text(self, *, rule: bool = False, empty: str = "", width: int | None = None) -> str:
        """Return the brief columns aligned, for a terminal; a bar separates groups.

        Args:
            rule: whether a line is drawn under the headings.
            empty: what stands for an empty cell.
            width: of the terminal; as many of the last columns are left out as do not fit.
        """
        shown = [column for column in self.columns if column.brief]
        text = self._aligned(shown, rule, empty)
        while width is not None and len(shown) > 1 and max(map(_width, text.split("\n"))) > width:
            shown.pop()
            text = self._aligned(shown, rule, empty)
        return text

    def _aligned(self, shown: Sequence[Column[T]], rule: bool, empty: str) -> str:
        lines = [[column.title for column in shown]]
        lines += [[column.text(row) or empty for column in shown] for row in self.rows]
        widths = [max(map(_width, cells)) for cells in zip(*lines, strict=True)]
        gaps = ["", *("  " if left.group == right.group else "  |  " for left, right in pairwise(shown))]
        drawn = []
        for line in lines:
            cells = map(_padded, shown, line, widths)
            drawn.append("".join(gap + cell for gap, cell in zip(gaps, cells, strict=True)).rstrip())
        if rule:
            drawn.insert(1, "-" * max(map(_width, drawn)))
        names, end = "", 0
        for column, width, gap in zip(shown, widths, gaps, strict=True):
            if "|" in gap:
                names = names.ljust(end) + gap + column.group
            end += len(gap) + width
        return "\n".join([names, *drawn] if names else drawn)

    def markdown(self) -> str:
        """Return a table of GitHub's Markdown; a group's name stands before its columns' titles."""
        first = self.columns[0].group
        titles = [c.title if c.group == first else f"{c.group}: {c.title}" for c in self.columns]
        lines = [titles, [":--" if c.words else "--:" for c in self.columns]]
        lines += [[column.text(row) for column in self.columns] for row in self.rows]
        return "\n".join(map(_markdown_line, lines))

    def latex(self) -> str:
        """Return a ``tabular`` for the booktabs package, groups under headings of their own."""
        kinds = "".join("l" if column.words else "r" for column in self.columns)
        lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
        groups, end = self.groups, 0
        if len(groups) > 1:
            rules = []
            for _, size in groups:
                rules.append(rf"\cmidrule(lr){{{end + 1}-{end + size}}}")
                end += size
            names = [rf"\multicolumn{{{size}}}{{c}}{{{_latex(name)}}}" for name, size in groups]
            lines += [" & ".join(names) + r" \\", " ".join(rules)]
        lines += [_latex_line(column.title for column in self.columns), r"\midrule"]
        lines += [_latex_line(column.text(row) for column in self.columns) for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The groups from left to right with their numbers of columns."""
        return [
            (name, len(list(members))) for name, members in groupby(self.columns, lambda column: column.group)
        ]


def with_prefix(number: int | None) -> str:
    """Return a count with its unit prefix: 277.9 k, 28.09 M, 3.86 G."""
    if number is None:
        return ""
    for size, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return str(number)


# Text -----------------------------------------------------------------------------------------------------


def _width(text: str) -> int:
    """Return how many places a terminal gives to a text: two to wide characters, none to combining ones."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _padded(column: Column[T], cell: str, width: int) -> str:
    room = " " * (width - _width(cell))
    return cell + room if column.words else room + cell


# Markdown and LaTeX ---------------------------------------------------------------------------------------

_MARKDOWN = re.compile(r"[\\|`*~]|<(?=[a-zA-Z/!?])|&(?=#?\w+;)|\b_|_\b")
"""What Markdown would not print as it stands; an underscore within a word is printed."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$",
    ">": "$>$", "|": "$|$",
}  # fmt: skip


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_MARKDOWN.sub(r"\\\g<0>", cell) for cell in cells) + " |"


def _latex_line(cells: Iterable[str]) -> str:
    line = " & ".join(map(_latex, cells)) + r" \\"
    # The line before ends with \\, which would take a bracket or a star for its own.
    return "{}" + line if line.startswith(("[", "*")) else line


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


# For programs ---------------------------------------------------------------------------------------------


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Return comma-separated values with a header; None is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().removesuffix("\n")


def as_json(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a JSON list of objects."""
    return json.dumps(list(records), indent=1)
