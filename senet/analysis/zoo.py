"""The whole zoo beside the paper's figures: parameters and multiply-adds, ours, printed, and the difference."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from senet.analysis.paper import PaperFigure, paper_figures
from senet.errors import UserError, did_you_mean
from senet.models import Cost, complexity, create_model, is_se, model_names
from senet.nn import SEConfig

MORE = "the paper counts a little more and does not say what (0.1 to 0.3 %)"
TRUNCATED = "the paper's size looks truncated; its multiply-adds are the ShuffleNet authors' rounded ones"
OTHER_TRUNK = "timm's trunk is that of the TensorFlow authors; the paper's own is not defined, and smaller"

NOTES: dict[str, str] = {
    **dict.fromkeys(("resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d"), MORE),
    **dict.fromkeys(("se_resnet101", "se_resnet152", "se_resnext50_32x4d", "se_resnext101_32x4d"), MORE),
    "se_bn_inception": MORE,
    **dict.fromkeys(("shufflenet", "se_shufflenet"), TRUNCATED),
    **dict.fromkeys(("inception_resnet_v2", "se_inception_resnet_v2"), OTHER_TRUNK),
}
"""Why a printed figure is not met to its last digit, by the row's name."""

LEGEND = (
    "GMACs: multiply-adds of convolutions and FC layers; GFLOPs are twice that. As paper: with SE's squeezes.",
    "Stride on the first 1x1 of a bottleneck, as in the paper; torchvision's variant is stride_on=3x3.",
    "Parameters of the SE-ResNet-50 variants meet print rounded up and with biases in the SE layers.",
)


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

    def values(self) -> dict[str, str | int | float | None]:
        """Return what the formats for programs hold: exact counts, printed figures, differences."""
        params = float(self.paper_params_m) if self.paper_params_m else None
        gmacs = float(self.paper_gmacs) if self.paper_gmacs else None
        cost = self.cost
        return {
            "model": self.name,
            "size": self.size,
            "parameters": cost.parameters,
            "paper_params_m": params,
            "params_difference_m": None if params is None else round(cost.parameters / 1e6 - params, 3),
            "macs": cost.macs,
            "flops": cost.flops,
            "macs_as_paper": cost.paper_macs,
            "paper_gmacs": gmacs,
            "gmacs_difference": None if gmacs is None else round(cost.paper_macs / 1e9 - gmacs, 4),
            "activations": cost.activations,
            "se_parameters": cost.se_parameters,
            "se_macs": cost.se_macs,
            "note": self.note,
        }

    def cells(self) -> dict[str, str]:
        """Return what people read: M, G, differences with sign."""
        cost, values = self.cost, self.values()

        def signed(key: str, digits: int) -> str:
            value = values[key]
            return f"{value:+.{digits}f}" if isinstance(value, float) else ""

        return {
            "model": self.name,
            "px": str(self.size),
            "params M": f"{cost.parameters / 1e6:.3f}",
            "paper": self.paper_params_m,
            "diff": signed("params_difference_m", 3),
            "GMACs": f"{cost.macs / 1e9:.3f}",
            "as paper": f"{cost.paper_macs / 1e9:.3f}",
            "paper ": self.paper_gmacs,
            "diff ": signed("gmacs_difference", 3),
            "GFLOPs": f"{cost.flops / 1e9:.3f}",
            "act. M": f"{cost.activations / 1e6:.2f}",
            "SE %": f"{100 * cost.se_parameters / cost.parameters:.1f}" if cost.se_parameters else "",
        }


def part_cells(parts: dict[str, Cost]) -> list[dict[str, str]]:
    """Return a network's cost by part, for people."""
    return [
        {
            "part": f"stage {part}" if part.isdigit() else part,
            "params": f"{cost.parameters:,}",
            "MACs": f"{cost.macs:,}",
            "activations": f"{cost.activations:,}",
            "SE params": f"{cost.se_parameters:,}",
            "SE MACs": f"{cost.se_macs:,}",
        }
        for part, cost in parts.items()
        if cost != Cost()
    ]


def count(name: str, se: SEConfig | None = None) -> tuple[int, dict[str, Cost]]:
    """Return the image size of the network ``name``, and its cost by part."""
    with torch.device("meta"):
        network = create_model(name, se=se)
    return network.input_size, complexity(network)


def _printed(figures: Iterable[PaperFigure], field: str) -> str:
    return next((figure.printed[field] for figure in figures if field in figure.printed), "")


def _row(label: str, figures: list[PaperFigure], name: str, se: SEConfig | None) -> ZooRow:
    size, parts = count(name, se)
    printed = _printed(figures, "params_m"), _printed(figures, "gmacs")
    row = ZooRow(label, size, parts["total"], *printed)
    met = row.params_met() and row.gmacs_met()
    return row if met else ZooRow(label, size, row.cost, *printed, NOTES.get(label, ""))


def zoo_rows(names: Iterable[str] = ()) -> list[ZooRow]:
    """Count every network of the zoo, and every variant of which the paper prints a cost.

    Args:
        names: only these networks.

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
        default = SEConfig() if is_se(name) else None
        rows.append(_row(name, [f for f in same if f.se_config() == default], name, default))
        variants: dict[str, list[PaperFigure]] = {}
        for figure in same:
            if figure.se_config() != default:
                variants.setdefault(figure.se, []).append(figure)
        rows += [
            _row(f"{name} {se}", figures, name, figures[0].se_config()) for se, figures in variants.items()
        ]
    return rows
