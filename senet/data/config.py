"""The keys of data: frozen classes, so that no key is ever ignored. Read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_type_hints

from senet.data.preprocessing import Preprocessing
from senet.errors import UserError
from senet.ranges import (
    Between,
    Count,
    Degrees,
    Folds,
    GreyLevels,
    Magnitude,
    Natural,
    NotNegative,
    Pixels,
    Positive,
    PositiveShare,
    Seed,
    Share,
    Side,
    Workers,
)

if TYPE_CHECKING:
    from senet.data.files import Records

SplitName = Literal["train", "val"]
Policy = Literal["trivial_augment", "augmix", "three_augment"]
DecoderName = Literal["reference", "fast", "gpu"]


def is_address(root: str) -> bool:
    """Whether a folder is named by protocol and address, as fsspec names it, and not by a path."""
    return "://" in root


@dataclass(frozen=True)
class AugmentConfig:
    """What happens to a training image.

    Each image is cropped and resized, then come ``rotation``, ``colour_jitter``, ``pixel_jitter``, ``rand_augment``,
    ``policy`` and ``erase``; the crop "pad", ``flip`` and ``cutout`` follow on the device, for the whole batch at once
    (``senet.data.inputs``).

    Attributes:
        crop: "random_resized" (area and aspect ratio, then resize; ImageNet), "pad" (zero-pad, random crop;
            CIFAR) or "none" (the evaluation's own crop).
        scale: range of the crop's share of the area, for "random_resized".
        ratio: range of the crop's aspect ratio, for "random_resized".
        pad: pixels on each side, for "pad".
        flip: probability of a horizontal flip.
        rand_augment: (operations, magnitude 0..30) of RandAugment, or None.
        policy: "trivial_augment" (arXiv 2103.10158), "augmix" (arXiv 1912.02781, without its second loss) or
            "three_augment" (grey, solarised or blurred; arXiv 2204.07118), or None.
        erase: probability of random erasing (filled with the mean colour).
        colour_jitter: strength of brightness, contrast and saturation jitter.
        rotation: by up to so many degrees to either side; the corners are filled with the mean colour.
        pixel_jitter: each channel is moved by one number of up to so many grey levels.
        cutout: side in pixels of the square that Cutout fills with the mean colour, 0 for none; its centre may
            lie at any pixel, so the square may reach over the border (16 on CIFAR-10, 8 on CIFAR-100).
    """

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    scale: tuple[PositiveShare, PositiveShare] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    pad: Pixels = 4
    flip: Share = 0.5
    rand_augment: tuple[Count, Magnitude] | None = None
    policy: Policy | None = None
    erase: Share = 0.0
    colour_jitter: NotNegative = 0.0
    rotation: Degrees = 0.0
    pixel_jitter: GreyLevels = 0
    cutout: Pixels = 0

    def __post_init__(self) -> None:
        if self.cutout < 0:
            raise UserError(f"augment.cutout={self.cutout} is a side in pixels: give 0 or more")
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augment.{name}={getattr(self, name)} is a probability: give 0 to 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"augment.scale={list(self.scale)} must be two rising shares of the area in (0, 1]"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"augment.ratio={list(self.ratio)} must be two rising aspect ratios above 0")

    def check_in_memory(self) -> None:
        """Refuse what is done image by image, for a data set that is held in memory and comes in batches."""
        single = ("rand_augment", "policy", "rotation", "pixel_jitter", "erase", "colour_jitter")
        used = ["crop=random_resized"] * (self.crop == "random_resized")
        used += [name for name in single if getattr(self, name)]
        if used:
            raise UserError(
                f"augment.{used[0]} works on single images, not on a data set held in memory: use "
                "recipe=cifar or quick, or data.in_memory=false for image files"
            )


@dataclass(frozen=True)
class SamplingConfig:
    """What an epoch is made of. By default every training image once.

    Attributes:
        draw: "shuffle" (every image once), "class_balanced" (every class equally often; within a class every
            image once before any comes again) or "weighted" (with replacement, in proportion to ``weights``).
            An epoch has as many draws as images whichever is chosen.
        weights: for "weighted": a CSV file of rows NAME,WEIGHT, where NAME is a class or an image
            (CLASS/FILE); an image's own row counts before its class's, and what has neither weighs 1.
        repeats: repeated augmentation: each drawn image comes this many times in a row with different augmentation
            (on different devices where there are several), and an epoch sees so many times fewer images.
        fraction: train on this share of each class.
        per_class: train on this many images of each class.
        folds: k-fold cross-validation: split the training images in so many equal parts within each class;
            the validation split is not used.
        fold: the part, from 0, that is held out for validation; the others are trained on.
        subset_seed: chooses ``fraction``, ``per_class`` and ``folds``, so that runs with different seeds train on the
            same images.
        sizes: progressive resizing: pairs (epoch, side in pixels); each side holds from its epoch on, before the
            first the preprocessing's.
    """

    draw: Literal["shuffle", "class_balanced", "weighted"] = "shuffle"
    weights: str | None = None
    repeats: Count = 1
    fraction: PositiveShare | None = None
    per_class: Count | None = None
    folds: Folds | None = None
    fold: Natural = 0
    subset_seed: Seed = 0
    sizes: tuple[tuple[Natural, Side], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple((int(epoch), int(side)) for epoch, side in self.sizes))
        if (self.draw == "weighted") != (self.weights is not None):
            raise UserError("data.sampling: draw=weighted and weights=FILE belong together")
        if self.repeats < 1:
            raise UserError(f"data.sampling.repeats={self.repeats} must be 1 or more")
        if self.fraction is not None and self.per_class is not None:
            raise UserError("data.sampling: give fraction or per_class, not both")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise UserError(f"data.sampling.fraction={self.fraction} must lie in (0, 1]")
        if self.per_class is not None and self.per_class < 1:
            raise UserError(f"data.sampling.per_class={self.per_class} must be 1 or more")
        if self.folds is not None and not (self.folds >= 2 and 0 <= self.fold < self.folds):
            raise UserError(
                f"data.sampling: folds={self.folds} fold={self.fold}: give 2 or more folds and a fold from 0 on"
            )
        if any(epoch < 0 or side < 1 for epoch, side in self.sizes) or list(self.sizes) != sorted(self.sizes):
            raise UserError(
                f"data.sampling.sizes={list(self.sizes)} must be rising epochs with sides in pixels"
            )


@dataclass(frozen=True)
class DataConfig:
    """What every data set has. A data set is a class derived from this one, and a YAML file of its keys.

    The class names itself, ``name: Literal["toy"] = "toy"``, and opens its splits.

    Attributes:
        name: which data set.
        batch_size: images per device and step.
        eval_batch_size: images per device and step in evaluation; ``None`` takes ``batch_size``.
        workers: processes that decode images; ``None`` takes the cores this job may use, shared by its
            devices. Data held in memory needs none.
        preprocessing: resize, crop and normalisation.
        sampling: what an epoch is made of.
        val_fraction: hold this share of each class's training images out for validation, chosen by
            ``sampling.subset_seed``; the validation split is not used, and need not be there.
    """

    name: str = ""
    batch_size: Count = 128
    eval_batch_size: Count | None = None
    workers: Workers | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    val_fraction: Between | None = None

    @property
    def holds_out(self) -> bool:
        """Whether training images are held out for validation."""
        return self.val_fraction is not None or self.sampling.folds is not None

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __init_subclass__(cls) -> None:
        for name in get_args(get_type_hints(cls)["name"]):
            DATA_SETS[name] = cls

    def open(self, split: SplitName, preprocessing: Preprocessing, classes: list[str] | None) -> object:
        """Return one split: ``Records`` of encoded images, or a ``MemoryDataset`` of any equal size.

        Args:
            split: "train" or "val".
            preprocessing: of the images; an evaluation's may be another than the configured.
            classes: of the training split or of a checkpoint, for a data set that can bring its labels in this order.
        """
        raise NotImplementedError

    def moved(self, root: str, asked: str) -> "DataConfig":
        """Return the same data set in another folder.

        Raises:
            UserError: if it has none, which ``asked`` for.
        """
        if not hasattr(self, "root"):
            raise UserError(f"{asked}: {self.name} has no folder")
        changes: dict[str, Any] = {"root": root}
        return replace(self, **changes)


DATA_SETS: dict[str, type[DataConfig]] = {}
"""Every data set that was declared, by its name."""


@dataclass(frozen=True)
class FilesConfig(DataConfig):
    """Images that are decoded as they are needed.

    Attributes:
        root: the folder that holds ``train/`` and ``val/``.
        decoder: "reference" (Pillow), "fast" (nvImageCodec for the crops of training and torchcodec, as far as they
            are installed, with Pillow's pixels) or "gpu" (nvJPEG, whose pixels differ a little).
        on_bad_image: what training does with an image that cannot be read: "fail" at once, or "skip" it and
            list it in the run directory. Nothing ever stands in for it.
        eval_on_bad_image: what evaluation does with one: "fail" at once, or "count" it as wrong.
        max_pixels: an image of more is not decoded and counts as unreadable: small files can ask for gigabytes.
    """

    root: str = ""
    decoder: DecoderName = "fast"
    on_bad_image: Literal["fail", "skip"] = "fail"
    eval_on_bad_image: Literal["fail", "count"] = "fail"
    max_pixels: Count = 100_000_000

    @property
    def keeps_in_memory(self) -> bool:
        """Whether the images are decoded once and kept."""
        return False

    def open(self, split: SplitName, preprocessing: Preprocessing, classes: list[str] | None) -> object:
        if not self.root:
            raise UserError("data.root is not set: name the folder that holds train/ and val/")
        return self.records(split, classes)

    def records(self, split: SplitName, classes: list[str] | None) -> "Records":
        """Return the encoded images of a split under ``root``, see ``open``."""
        raise NotImplementedError
