"""What a set of weights is: where it comes from, which network it needs, and for which images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Any, TypedDict

CLASS_ORDER = "sorted WordNet ids"
"""The order of ImageNet's classes in torchvision, timm and any tree of folders."""


class Preprocessing(TypedDict):
    """Images before the network: the fields of ``senet.data.Preprocessing``, as plain containers.

    ``mean`` and ``std`` are those of images in 0..1 in the order of ``colour``; ``resize`` is the shorter side
    before the centre crop of ``size``, both in pixels.
    """

    size: int
    resize: int | None
    interpolation: str
    mean: list[float]
    std: list[float]
    colour: str


@dataclass(frozen=True)
class WeightRecord:
    """The record of loaded weights.

    Attributes:
        source: the specification they were loaded by, e.g. "timm:legacy_seresnet50.in1k".
        model: what rebuilds the network: ``Network.record``.
        preprocessing: the images that they expect; ``None`` where the file does not say.
        class_order: what the classifier's rows stand for; ``None`` where unknown or newly initialised.
        changes: what the conversion did to the numbers, in words.
    """

    source: str
    model: Mapping[str, Any]
    preprocessing: Preprocessing | None = None
    class_order: str | None = None
    changes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers only, as stored in checkpoints."""
        return asdict(self) | {"changes": list(self.changes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WeightRecord":
        """Return the record of ``values``, e.g. of a checkpoint, whose other keys are passed over."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**known | {"changes": tuple(known.get("changes", ()))})


def ilsvrc_class_order() -> list[int]:
    """Return for every class in sorted WordNet order its row in a classifier ordered by ILSVRC2012 ids.

    The authors' networks follow the ids of the challenge's development kit (kit fox first), everyone else the
    sorted WordNet ids (tench first).
    """
    ids = files("senet.weights").joinpath("ilsvrc2012_ids.txt").read_text().split()
    return sorted(range(len(ids)), key=ids.__getitem__)
