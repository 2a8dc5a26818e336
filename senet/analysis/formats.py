"""Tables for a terminal, for Markdown, and for programs."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

FORMATS = ("table", "json", "csv", "markdown")


def as_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return aligned columns: the first to the left, the others, numbers, to the right."""
    columns = list(rows[0])
    widths = [max(len(column.strip()), *(len(row[column]) for row in rows)) for column in columns]
    lines = [_line([column.strip() for column in columns], widths)]
    lines += [_line([row[column] for column in columns], widths) for row in rows]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if index else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()


def as_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table, aligned as ``as_table``."""
    columns = list(rows[0])
    lines = [[column.strip() for column in columns], [":--", *["--:"] * (len(columns) - 1)]]
    lines += [[row[column] for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return comma-separated values with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a JSON list of objects."""
    return json.dumps(list(rows), indent=1)
