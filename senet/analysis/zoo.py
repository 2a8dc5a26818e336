"""``senet models``: the zoo beside the paper: parameters and multiply-adds, ours, printed, and the difference."""

import argparse
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import yaml
from omegaconf import OmegaConf

from senet.analysis.paper import PAPER, PaperFigure, paper_figures
from senet.errors import UserError, did_you_mean
from senet.models import Cost, complexity, create_model, is_se, model_names, without_memory
from senet.nn import SEConfig
from senet.page import render
from senet.table import Column, Table, as_csv, as_json
from senet.terminal import fitted, terminal_width

NOTES = {name: note for note, names in PAPER["costs"].items() for name in names}
"""Why a printed figure is not met to its last digit, by the row's name."""


@dataclass(frozen=True)
class ZooRow:
    """One network, counted, beside what the paper prints of it.

    Attributes:
        name: of the network, with what differs from the default SE block.
        size: side of the image in pixels.
        cost: of the whole network.
        paper_params_m: as printed, in millions; empty if the paper has no such figure.
        paper_gmacs: as printed, in G.
        note: why a printed figure is not met.
    """

    name: str
    size: int
    cost: Cost
    paper_params_m: str = ""
    paper_gmacs: str = ""
    note: str = ""

    def params_met(self) -> bool:
        """Whether the parameters give the printed digits, rounded to nearest or up (Tables 3 and 10)."""
        if not self.paper_params_m:
            return True
        tenths = self.cost.parameters / 1e5
        return round(10 * float(self.paper_params_m)) in (round(tenths), math.ceil(tenths))

    def gmacs_met(self) -> bool:
        """Whether the multiply-adds in the paper's convention give the printed digits, rounded to nearest."""
        digits = len(self.paper_gmacs.partition(".")[2])
        return not self.paper_gmacs or f"{self.cost.paper_macs / 1e9:.{digits}f}" == self.paper_gmacs

    @property
    def params_difference(self) -> float | None:
        """Ours minus print, in millions."""
        return (
            round(self.cost.parameters / 1e6 - float(self.paper_params_m), 3) if self.paper_params_m else None
        )

    @property
    def gmacs_difference(self) -> float | None:
        """Ours, in the paper's convention, minus print, in G."""
        return round(self.cost.paper_macs / 1e9 - float(self.paper_gmacs), 4) if self.paper_gmacs else None

    def record(self) -> dict[str, str | int | float | None]:
        """Return what the formats for programs hold: exact counts, printed figures, differences."""
        cost = self.cost
        return {
            "model": self.name,
            "size": self.size,
            "parameters": cost.parameters,
            "paper_params_m": float(self.paper_params_m) if self.paper_params_m else None,
            "params_difference_m": self.params_difference,
            "macs": cost.macs,
            "flops": cost.flops,
            "macs_as_paper": cost.paper_macs,
            "paper_gmacs": float(self.paper_gmacs) if self.paper_gmacs else None,
            "gmacs_difference": self.gmacs_difference,
            "activations": cost.activations,
            "se_parameters": cost.se_parameters,
            "se_macs": cost.se_macs,
            "note": self.note,
        }


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _se_share(cost: Cost) -> str:
    return f"{100 * cost.se_parameters / cost.parameters:.1f}" if cost.se_parameters else ""


ZOO_COLUMNS: list[Column[ZooRow]] = [
    Column("model", lambda row: row.name, words=True),
    Column("px", lambda row: str(row.size)),
    Column("params M", lambda row: f"{row.cost.parameters / 1e6:.3f}"),
    Column("paper", lambda row: row.paper_params_m),
    Column("diff", lambda row: _signed(row.params_difference)),
    Column("GMACs", lambda row: f"{row.cost.macs / 1e9:.3f}"),
    Column("as paper", lambda row: f"{row.cost.paper_macs / 1e9:.3f}"),
    Column("paper", lambda row: row.paper_gmacs),
    Column("diff", lambda row: _signed(row.gmacs_difference)),
    Column("GFLOPs", lambda row: f"{row.cost.flops / 1e9:.3f}"),
    Column("act. M", lambda row: f"{row.cost.activations / 1e6:.2f}"),
    Column("SE %", lambda row: _se_share(row.cost)),
]
PART_COLUMNS: list[Column[tuple[str, Cost]]] = [
    Column("part", lambda part: f"stage {part[0]}" if part[0].isdigit() else part[0], words=True),
    Column("params", lambda part: f"{part[1].parameters:,}"),
    Column("MACs", lambda part: f"{part[1].macs:,}"),
    Column("activations", lambda part: f"{part[1].activations:,}"),
    Column("SE params", lambda part: f"{part[1].se_parameters:,}"),
    Column("SE MACs", lambda part: f"{part[1].se_macs:,}"),
]
"""Of what a network costs, part by part."""


@dataclass(frozen=True)
class Settings:
    """What a user changes of the networks that are counted.

    Attributes:
        se: fields of ``SEConfig``.
        model: options of ``create_model``.
        size: side of the image in pixels; ``None`` takes the size that each network is meant for.
    """

    se: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None

    def se_of(self, name: str) -> SEConfig | None:
        """Return the SE configuration of the network ``name``.

        Raises:
            UserError: for a field that there is not, a value outside its range, or SE settings of a plain network.
        """
        for key in self.se.keys() - {f.name for f in fields(SEConfig)}:
            raise UserError(f"se.{key}: no such key{did_you_mean(key, [f.name for f in fields(SEConfig)])}")
        config = SEConfig(**self.se) if self.se or is_se(name) else None
        if config is not None:
            config.check_set(self.se)
        return config

    def __str__(self) -> str:
        values = {f"se.{k}": v for k, v in self.se.items()} | {f"model.{k}": v for k, v in self.model.items()}
        return " ".join(f"{key}={value}" for key, value in values.items())


def count(
    name: str, se: SEConfig | None = None, settings: Settings = Settings()
) -> tuple[int, dict[str, Cost]]:
    """Return the image size of the network ``name``, and its cost by part.

    Raises:
        UserError: for settings that it does not have, or a size that it cannot take.
    """
    try:
        with without_memory():
            network = create_model(name, se=se, **settings.model)
    except (TypeError, ValueError) as error:  # an option of another type: the builders expect the right one
        raise UserError(f"{name} cannot be built with {settings}: {error}") from error
    size = settings.size or network.input_size
    network.check_input(size)
    return size, complexity(network, size)


def _row(
    label: str,
    figures: Sequence[PaperFigure],
    name: str,
    se: SEConfig | None,
    settings: Settings = Settings(),
) -> ZooRow:
    def printed(field: str) -> str:
        return next((figure.printed[field] for figure in figures if field in figure.printed), "")

    size, parts = count(name, se, settings)
    row = ZooRow(label, size, parts["total"], printed("params_m"), printed("gmacs"))
    met = row.params_met() and row.gmacs_met()
    return row if met else replace(row, note=NOTES.get(label, ""))


def zoo_rows(names: Iterable[str] = (), settings: Settings = Settings()) -> list[ZooRow]:
    """Count every network of the zoo, and every variant of which the paper prints a cost.

    Args:
        names: only these networks.
        settings: count them with these, and no variants; the paper's figures stand beside what it has. Those of SE
            do not reach plain networks named beside SE networks.

    Raises:
        UserError: for a name that is not in the zoo.
    """
    chosen = list(names) or model_names()
    for name in chosen:
        if name not in model_names():
            raise UserError(f'there is no model "{name}"{did_you_mean(name, model_names())}')
    published = [f for f in paper_figures() if f.version == "v4" and f.printed.keys() & {"gmacs", "params_m"}]
    rows = []
    for name in chosen:
        same = [figure for figure in published if figure.model == name]
        if settings != Settings():
            # A plain twin beside SE networks has nothing that theirs could set.
            its = settings if is_se(name) or not any(map(is_se, chosen)) else replace(settings, se={})
            wanted = its.se_of(name)
            printed = [] if its.model or its.size else [f for f in same if f.se_config() == wanted]
            rows.append(_row(f"{name} {its}".rstrip(), printed, name, wanted, its))
            continue
        default = SEConfig() if is_se(name) else None
        rows.append(_row(name, [f for f in same if f.se_config() == default], name, default))
        for se in dict.fromkeys(figure.se for figure in same if figure.se_config() != default):
            figures = [figure for figure in same if figure.se == se]
            rows.append(_row(f"{name} {se}", figures, name, figures[0].se_config()))
    return rows


# Command --------------------------------------------------------------------------------------------------


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
    sections = OmegaConf.create({"se": {}, "model": {}})
    for word in words:
        if not re.match(r"(se|model)\.\w+=", word):
            raise UserError(f"{word}: a network is set by se.KEY=VALUE and model.KEY=VALUE")
        try:
            sections.merge_with_dotlist([word])  # numbers as in a configuration: 1e-1 is one
        except yaml.YAMLError as error:
            raise UserError(f"{word}: the value cannot be read") from error
    if size is not None and size < 1:
        raise UserError(f"--size {size} must be 1 or more")
    said: Any = OmegaConf.to_container(sections)
    return Settings(**said, size=size)


def _for_people(rows: list[ZooRow], *, markdown: bool) -> str:
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    note: Column[ZooRow] = Column("note", lambda row: f"[{notes.index(row.note) + 1}]" if row.note else "")
    table = Table([*ZOO_COLUMNS, note], rows)
    below = render("models.txt", notes=notes).rstrip("\n")
    if markdown:
        return "\n\n".join([table.markdown(), *below.split("\n")])
    return f"{table.text(width=terminal_width())}\n\n{fitted(below, indent=0)}"
