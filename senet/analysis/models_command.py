"""``senet models``: the zoo beside the paper's figures."""

import argparse
from typing import Any

import yaml

from senet.analysis.zoo import LEGEND, PART_COLUMNS, ZOO_COLUMNS, Settings, ZooRow, count, zoo_rows
from senet.errors import UserError
from senet.models import Cost
from senet.table import Column, Table, as_csv, as_json
from senet.terminal import fitted, terminal_width


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME|KEY=VALUE",
        help="only these networks, with se.KEY= and model.KEY= set",
    )
    parser.add_argument("--size", type=int, help="side of the image in pixels; by default each network's own")
    formats = ("table", "json", "csv", "markdown")
    parser.add_argument("--format", choices=formats, default="table", help="table by default")
    parser.add_argument("--stages", action="store_true", help="the cost of each named network by stage")


def run(arguments: argparse.Namespace) -> int:
    names = [word for word in arguments.names if "=" not in word]
    settings = settings_of([word for word in arguments.names if "=" in word], arguments.size)
    if arguments.stages and (not names or arguments.format in ("json", "csv")):
        raise UserError("--stages goes with names of networks, and not with --format json or csv")
    rows = zoo_rows(names, settings)
    if arguments.format == "json":
        print(as_json([row.record() for row in rows]))
    elif arguments.format == "csv":
        print(as_csv([row.record() for row in rows]))
    else:
        print(_for_people(rows, markdown=arguments.format == "markdown"))
        for name in names if arguments.stages else ():
            counted = count(name, settings.se_of(name), settings)[1]
            parts = [(part, cost) for part, cost in counted.items() if cost != Cost()]
            print(f"\n{name}\n{Table(PART_COLUMNS, parts).text(width=terminal_width())}")
    return 0


def settings_of(words: list[str], size: int | None) -> Settings:
    """Return what ``se.KEY=VALUE`` and ``model.KEY=VALUE`` say.

    Raises:
        UserError: for another word, or a size of no pixel.
    """
    sections: dict[str, dict[str, Any]] = {"se": {}, "model": {}}
    for word in words:
        key, _, value = word.partition("=")
        section, _, name = key.partition(".")
        if section not in sections or not name:
            raise UserError(f"{word}: a network is set by se.KEY=VALUE and model.KEY=VALUE")
        try:
            sections[section][name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{word}: the value cannot be read") from error
    if size is not None and size < 1:
        raise UserError(f"--size {size} must be 1 or more")
    return Settings(**sections, size=size)


def _for_people(rows: list[ZooRow], *, markdown: bool) -> str:
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    note: Column[ZooRow] = Column("note", lambda row: f"[{notes.index(row.note) + 1}]" if row.note else "")
    table = Table([*ZOO_COLUMNS, note], rows)
    numbered = [f"[{index}] {note}" for index, note in enumerate(notes, start=1)]
    if markdown:
        return "\n\n".join([table.markdown(), *numbered, *LEGEND])
    below = fitted("\n".join([*numbered, *LEGEND]), indent=0)
    return f"{table.text(width=terminal_width())}\n\n{below}"
