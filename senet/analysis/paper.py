"""The paper's published figures as data: every table, by version and training recipe.

``paper.csv`` holds errors in per cent of single centre crops. Versions: v1, CVPR, v4 (arXiv's last, the journal
text), repo (the authors' README), mcn (another's evaluation); and the papers of SE's rivals by their names.
``paper.yaml`` says how the networks were trained.
"""

import csv
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from senet.errors import UserError, did_you_mean
from senet.models import is_se, plain_twin
from senet.nn import SEConfig

DATA = files("senet.analysis")
PAPER: dict[str, Any] = yaml.safe_load(DATA.joinpath("paper.yaml").read_text(encoding="utf-8"))
RECIPES: dict[str, str] = PAPER["recipes"]
"""How networks were trained, by ``PaperFigure.recipe``; figures of different recipes must not be compared."""
CLASSIFICATION_TABLES = tuple(PAPER["tables"])
"""The paper's tables of classification errors."""
OTHER_TABLES: dict[str, str] = PAPER["other_tables"]
"""The others, and what they hold."""
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
    text = DATA.joinpath("paper.csv").read_text(encoding="utf-8")
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
    curves: dict[str, dict[str, list[float]]] = json.loads(DATA.joinpath("figure6.json").read_text())
    return curves


class PaperRecipe(NamedTuple):
    """How networks were trained and judged; ``None`` is what the paper does not say.

    Attributes:
        data: the images.
        batch: images of a step.
        lr: learning rate at its highest.
        schedule: what becomes of it.
        epochs: length of the training.
        size: side of the training and evaluation crop in pixels.
        resize: shorter side of which the evaluation crop is cut; None if the images have the crop's size.
        note: what else there is to know.
        smoothing: whether labels were smoothed.
        biases: whether the FC layers of SE have biases.
    """

    data: str
    batch: int | None
    lr: float
    schedule: str
    epochs: int | None
    size: int = 224
    resize: int | None = 256
    note: str = ""
    smoothing: bool = False
    biases: bool = True


def paper_recipe(table: str, model: str) -> PaperRecipe:
    """Return how the network ``model`` was trained for a table of ``CLASSIFICATION_TABLES``.

    The plain networks of Tables 4 and 5 are quoted by the paper: theirs is the recipe of the paper they come from.
    """
    return PaperRecipe(**PAPER["tables"][table] | PAPER["trunks"].get(plain_twin(model), {}))
