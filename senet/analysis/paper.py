"""The paper's published figures as data: every table, by version and training recipe.

``paper.csv`` holds errors in per cent of single centre crops. Versions: v1, CVPR, v4 (arXiv's last, the journal
text), repo (the authors' README), mcn (another's evaluation); and the papers of SE's rivals by their names.
"""

import csv
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from senet.errors import UserError, did_you_mean
from senet.models import is_se
from senet.nn import SEConfig

RECIPES = {
    "cited": "quoted by the paper from elsewhere",
    # Section 5.1.
    "main": "SGD, batch 1024, lr 0.6 divided by 10 every 30 of 100 epochs",
    # Section 6 of v4, and its footnote 2.
    "ablation": "lr 0.1, divided by 10 on plateaus, about 300 epochs, label smoothing, no SE biases, SE-ResNet-50",
    "fixed270": "as the ablations, on a fixed schedule of 270 epochs",
    # Table 3.
    "mobile": "batch 256, lr 0.1, divided by 10 on plateaus, about 400 epochs",
    # The appendix.
    "senet154": "batch 2048, lr 1.0, label smoothing, dropout, BN frozen at the end",
    "cifar": "the recipes of the trunks' own papers",
    # Table 6.
    "places": "Places365-Challenge, from scratch",
    # Table 7 of v4 and Table 6 of CVPR: two different experiments, in AP per cent.
    "coco": "Faster R-CNN",
    "rival": "the recipe of the rival block's own paper, each another",
    "released": "the authors' released weights, trained longer and with more augmentation",
}
"""How networks were trained, by ``PaperFigure.recipe``; figures of different recipes must not be compared."""
_NUMBERS = ("top1_err", "top5_err", "gmacs", "params_m", "ap50", "ap")


@dataclass(frozen=True)
class PaperFigure:
    """One published row.

    Attributes:
        key: names the row; unique within a version.
        version: the version that it is taken from.
        also_in: further versions that print the same figures.
        table: its table in ``version``, e.g. "T10".
        recipe: how the network was trained, of ``RECIPES``.
        dataset: imagenet, cifar10, cifar100, places365 or coco.
        label: the row's name in print.
        model: our network of it; empty where there is none.
        se: what differs from the default SE block, as ``field=value``.
        crop: side of the evaluated crop in pixels.
        top1_err: in %.
        top5_err: in %.
        gmacs: multiply-adds in G; the paper calls them FLOPs.
        params_m: parameters in millions.
        ap50: COCO AP at IoU 0.5, in %.
        ap: COCO AP, in %.
        printed: the figures as printed, digit by digit, by field.
        note: what to know before comparing.
    """

    key: str
    version: str
    also_in: tuple[str, ...]
    table: str
    recipe: str
    dataset: str
    label: str
    model: str
    se: str
    crop: int | None
    top1_err: float | None
    top5_err: float | None
    gmacs: float | None
    params_m: float | None
    ap50: float | None
    ap: float | None
    note: str
    printed: dict[str, str]

    @property
    def source(self) -> str:
        """Version and table: "v4 T10"."""
        return f"{self.version} {self.table}"

    def se_config(self) -> SEConfig | None:
        """Return the SE configuration that the row's network has, or ``None`` if it is plain."""
        if not is_se(self.model):
            return None
        name, _, value = self.se.partition("=")
        if name == "stages":
            return SEConfig(stages=tuple(json.loads(value)))
        values: dict[str, Any] = {name: int(value) if value.isdigit() else value} if name else {}
        return SEConfig(**values)


def _figure(row: dict[str, str]) -> PaperFigure:
    printed = {name: row[name] for name in _NUMBERS if row[name]}
    values: dict[str, Any] = {**row, **{name: float(row[name]) if row[name] else None for name in _NUMBERS}}
    values["also_in"] = tuple(filter(None, row["also_in"].split(";")))
    values["crop"] = int(row["crop"]) if row["crop"] else None
    return PaperFigure(**values, printed=printed)


@cache
def paper_figures() -> tuple[PaperFigure, ...]:
    """Return every published row."""
    text = files("senet.analysis").joinpath("paper.csv").read_text()
    return tuple(map(_figure, csv.DictReader(text.splitlines())))


def paper_figure(key: str, version: str = "v4") -> PaperFigure:
    """Return one row, e.g. ``paper_figure("r16")``.

    Raises:
        UserError: if neither ``version`` nor a rival's paper has such a row.
    """
    rows = {
        row.key: row
        for row in paper_figures()
        if version in (row.version, *row.also_in) or row.recipe == "rival"
    }
    if key not in rows:
        raise UserError(f'the paper ({version}) has no row "{key}"{did_you_mean(key, rows)}')
    return rows[key]


@cache
def figure6() -> dict[str, dict[str, list[float]]]:
    """Return the curves of v4's Figure 6: panel (``SE_4_6``) -> "index" (from 1) and gates by class.

    Read off the vector graphics, within 0.005. The classes are goldfish, pug, plane, cliff, and "all".
    """
    curves: dict[str, dict[str, list[float]]] = json.loads(
        files("senet.analysis").joinpath("figure6.json").read_text()
    )
    return curves
