"""How the rows of the paper's classification tables (v4) were trained, as data; ``None`` is what it does not say."""

from typing import NamedTuple

from senet.models import plain_twin


class PaperRecipe(NamedTuple):
    """How networks were trained and judged.

    Attributes:
        data: the images.
        batch: images of a step.
        lr: learning rate at its highest.
        schedule: what becomes of it.
        epochs: length of the training, where it is stated.
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


_MAIN = PaperRecipe("ImageNet-1k", 1024, 0.6, "divided by 10 every 30 epochs", 100)
_299 = _MAIN._replace(size=299, resize=352)
_PLATEAUS = "divided by 10 on plateaus, 3 times"
_ABLATION = PaperRecipe(
    *("ImageNet-1k", None, 0.1, _PLATEAUS, 300), note="about 300 epochs", smoothing=True, biases=False
)
_MOBILE = PaperRecipe("ImageNet-1k", 256, 0.1, "divided by 10 on plateaus", 400, note="about 400 epochs")
_PLACES = _MAIN._replace(
    data="Places365-Challenge", note="validation images resized to 256 x 256, not to a shorter side of 256"
)
_SENET154 = PaperRecipe(
    *("ImageNet-1k", 2048, 1.0, "steps not stated", None),
    note="judged at 320 px too: eval.py run=RUN_DIR size=320",
    smoothing=True,
)
_PREACT = PaperRecipe("CIFAR", 128, 0.1, "0.01 for 400 steps, divided by 10 at 1/2 and 3/4", 164, 32, None)
_WRN = PaperRecipe("CIFAR", 128, 0.1, "times 0.2 at epochs 60, 120 and 160", 200, 32, None)
_SHAKE = PaperRecipe("CIFAR", 128, 0.2, "cosine", 1800, 32, None, "Cutout of 16 pixels")
_EVEN = PaperRecipe("CIFAR", 32, 0.025, "cosine", 1800, 32, None, "Cutout of 8 pixels")

_BY_TABLE = {
    "T2": _MAIN,
    "T3": _MOBILE,
    "T4": _PREACT,
    "T5": _PREACT,
    "T6": _PLACES,
    "T8": _SENET154,
    "T9": _SENET154._replace(size=320, resize=None, note=""),
    **{f"T{number}": _ABLATION for number in range(10, 17)},
}
_BY_TRUNK = {
    "inception_resnet_v2": _299,
    "wrn16_8": _WRN,
    "shake_shake26_2x96d": _SHAKE,
    "shake_even29_2x4x64d": _EVEN,
}
_CIFAR = {"T4": "CIFAR-10", "T5": "CIFAR-100"}

CLASSIFICATION_TABLES = tuple(_BY_TABLE)
"""The paper's tables of classification errors."""
OTHER_TABLES = {
    "T1": "describes three networks and has no results: senet models --stages se_resnet50 counts them",
    "T7": "is object detection on COCO (Faster R-CNN) and no classification, which is all that senet trains; "
    "its trunks are resnet50 and resnet101 with their SE twins",
}


def paper_recipe(table: str, model: str) -> PaperRecipe:
    """Return how the network ``model`` was trained for a table of ``CLASSIFICATION_TABLES``.

    The plain networks of Tables 4 and 5 are quoted by the paper: theirs is the recipe of the paper they come from.
    """
    found = _BY_TRUNK.get(plain_twin(model), _BY_TABLE[table])
    return found._replace(data=_CIFAR[table]) if table in _CIFAR else found
