"""What a set of weights is: where it comes from, which network it needs and fits, and for which images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from torch import Tensor

from senet.data.preprocessing import Preprocessing
from senet.errors import UserError, did_you_mean
from senet.weights.checkpoint import Checkpoint

CLASS_ORDER = "sorted WordNet ids"
"""The order of ImageNet's classes in torchvision, timm and any tree of folders."""
NEW_CLASSIFIER = "new classifier"
"""The change of weights whose classifier does not fit and starts anew."""


@dataclass(frozen=True)
class WeightRecord:
    """The record of loaded weights.

    Attributes:
        source: the specification they were loaded by, e.g. "timm:legacy_seresnet50.in1k".
        model: what rebuilds the network: ``Network.record``.
        preprocessing: the images that they expect; ``None`` where the file does not say.
        class_order: what the classifier's rows stand for; ``None`` where unknown or newly initialised.
        changes: what the conversion did to the numbers, in words.
        classes: the names of the classes, where the file has them.
        recognised: what the file was taken for, what was kept and what dropped, in words.
        assumed: whether ``preprocessing`` is that of such networks in general, since the file does not say its own.
    """

    source: str
    model: Mapping[str, Any]
    preprocessing: Preprocessing | None = None
    class_order: str | None = None
    changes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    recognised: str = field(default="", compare=False)
    assumed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers only, as stored in checkpoints."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        images = self.preprocessing.to_dict() if self.preprocessing else None
        lists = {"changes": list(self.changes), "classes": list(self.classes) if self.classes else None}
        return values | {"model": dict(self.model), "preprocessing": images, **lists}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WeightRecord":
        """Return the record of ``values``, e.g. of a checkpoint, whose other keys are passed over.

        Raises:
            UserError: if that is not enough to build the network.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        if lost := {"name", "se", "num_classes", "in_channels", "options"} - known["model"].keys():
            raise UserError(f"its network has no {', '.join(sorted(lost))}")
        images = known.get("preprocessing")
        known["preprocessing"] = Preprocessing(**images) if images else None
        classes = known.get("classes")
        lists = {"changes": tuple(known.get("changes", ())), "classes": tuple(classes) if classes else None}
        return cls(**known | lists)


class Weights(NamedTuple):
    """A state dict under our names, its record, and what it was taken from if that is a checkpoint of ours."""

    state: dict[str, Tensor]
    record: WeightRecord
    checkpoint: Checkpoint | None = None


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Demand that ``state`` has exactly the keys and shapes of ``expected``.

    Raises:
        UserError: naming the first key that is missing, unknown or of another shape.
    """
    for key, tensor in expected.items():
        if key not in state:
            raise UserError(f'{source} lack "{key}"{_near(key, state.keys() - expected.keys())}')
        if state[key].shape != tensor.shape:
            have, want = tuple(state[key].shape), tuple(tensor.shape)
            raise UserError(f'{source}: "{key}" is {have} and the network needs {want}')
    for key in state:
        if key not in expected:
            raise UserError(
                f'{source} have "{key}", unknown to the network{_near(key, expected.keys() - state.keys())}'
            )


def _near(key: str, others: Iterable[str]) -> str:
    others = set(others)
    return did_you_mean(key, others) if 0 < len(others) <= 20 else ""
