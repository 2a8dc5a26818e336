"""``senet models``: the zoo beside the paper's figures."""

import argparse

from senet.analysis import formats
from senet.analysis.zoo import LEGEND, ZooRow, count, part_cells, zoo_rows


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these networks; all by default")
    parser.add_argument("--format", choices=formats.FORMATS, default="table", help="table by default")
    parser.add_argument("--stages", action="store_true", help="the cost of each named network by stage")


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    rows = zoo_rows(arguments.names)
    if arguments.format == "json":
        print(formats.as_json([row.values() for row in rows]))
    elif arguments.format == "csv":
        print(formats.as_csv([row.values() for row in rows]))
    else:
        print(_for_people(rows, arguments.format == "markdown"))
        if arguments.stages:
            for name in arguments.names:
                print(f"\n{name}\n{formats.as_table(part_cells(count(name)[1]))}")
    return 0


def _for_people(rows: list[ZooRow], markdown: bool) -> str:
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    cells = [{**row.cells(), "note": f"[{notes.index(row.note) + 1}]" if row.note else ""} for row in rows]
    table = formats.as_markdown(cells) if markdown else formats.as_table(cells)
    numbered = [f"[{index}] {note}" for index, note in enumerate(notes, start=1)]
    gap = "\n\n" if markdown else "\n"
    return table + "\n\n" + gap.join([*numbered, *LEGEND])
