"""Which published row a point of a study repeats."""

from collections.abc import Mapping
from typing import Any

from senet.analysis.paper import PaperFigure, paper_figure, paper_figures
from senet.analysis.runs import Point, Study
from senet.nn import SEConfig

ABLATIONS = {
    "reduction": ("T10",),
    "squeeze": ("T11", "T16"),
    "gate": ("T12",),
    "stages": ("T13",),
    "placement": ("T14", "T15"),
}
"""SE axes to the paper's tables (v4) about them."""
NETWORKS = ("T2", "T3", "T4", "T5")
"""The paper's tables of networks and their plain twins."""


def paper_keys(study: Study) -> dict[str, str]:
    """Return the published figure's key (v4) of every point that has one.

    ``study.json`` names them; otherwise they follow from the one SE axis in which the points differ, or else
    from the names of the networks. Points that differ in more, as the trials of a search, have none.
    """
    named = {point.label: point.paper for point in study.points if point.paper}
    if named:
        return named
    if len({_besides_network(point.config) for point in study.points if point.config}) > 1:
        return {}
    known = [point.config["se"] for point in study.points if point.config.get("se")]
    varying = [axis for axis in (known[0] if known else {}) if len({str(se[axis]) for se in known}) > 1]
    if len(varying) > 1 or not set(varying) <= ABLATIONS.keys():
        return {}
    found = {p.label: _ablation(p, varying[0]) if varying else _network(p) for p in study.points if p.config}
    return {label: figure.key for label, figure in found.items() if figure is not None}


def _besides_network(config: Mapping[str, Any]) -> str:
    """Return what a configuration says of the training alone, as text to compare."""
    network = ("model", "se", "seed", "name", "runs_dir", "logger")
    return str({key: value for key, value in config.items() if key not in network})


def _ablation(point: Point, axis: str) -> PaperFigure | None:
    """Return the row of the ablation's tables whose SE block has the same value on ``axis``."""
    if not point.config.get("se"):
        return paper_figure("none")
    value = getattr(SEConfig(**point.config["se"]), axis)
    # The row of r = 16 in Table 16 has the squeeze of Table 11's "avg"; the first table found is meant.
    for figure in (row for table in ABLATIONS[axis] for row in _in_table(table)):
        se = figure.se_config()
        if se is not None and getattr(se, axis) == value:
            return figure
    return None


def _network(point: Point) -> PaperFigure | None:
    """Return the row of the network in the paper's main tables, of the same data if there is one."""
    data, name = point.config["data"]["name"], point.config["model"]["name"]
    printed = [row for table in NETWORKS for row in _in_table(table) if row.model == name]
    reproduced = [row for row in printed if not row.key.endswith("_original")]
    return min(reproduced, key=lambda row: row.dataset != data, default=None)


def _in_table(table: str) -> list[PaperFigure]:
    return [row for row in paper_figures() if (row.version, row.table) == ("v4", table)]
