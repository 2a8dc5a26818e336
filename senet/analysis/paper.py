"""The paper's published figures as data: every table, by version and training recipe.

``paper.csv`` holds errors in per cent of single centre crops. Rows of different recipes must not be compared:

========== ==========================================================================================
cited      quoted by the paper from elsewhere
main       section 5.1: SGD, batch 1024, rate 0.6 divided by 10 every 30 of 100 epochs
ablation   section 6 (v4): rate 0.1 divided by 10 at three plateaus, label smoothing, no SE biases
fixed270   its footnote 2: the same on a fixed schedule of 270 epochs
mobile     Table 3: batch 256, rate 0.1 divided by 10 at plateaus, some 400 epochs
senet154   appendix: batch 2048, rate 1.0, label smoothing, dropout, frozen BN at the end
cifar      section 5.1, after the recipes of the trunks' own papers
places     Table 6: Places365-Challenge
coco       Table 7 (v4) and Table 6 (CVPR): two different experiments, in AP per cent
released   the authors' weights, trained longer and with more augmentation than the paper's networks
========== ==========================================================================================

Versions: v1, CVPR, v4 (arXiv's last, the journal text), repo (the authors' README), mcn (another's evaluation).
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

_NUMBERS = ("top1_err", "top5_err", "gmacs", "params_m", "ap50", "ap")


@dataclass(frozen=True)
class PaperFigure:
    """One published row.

    Attributes:
        key: names the row; unique within a version.
        version: the version that it is taken from.
        also_in: further versions that print the same figures.
        table: its table in ``version``, e.g. "T10".
        recipe: how the network was trained, see above.
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
        UserError: if ``version`` has no such row.
    """
    rows = {row.key: row for row in paper_figures() if version in (row.version, *row.also_in)}
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
