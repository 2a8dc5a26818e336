"""Training augmentation: what there is of it, and what is done image by image, in the workers (torchvision)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from senet.data.preprocessing import Preprocessing, resize_exact
from senet.data.region import Box, whole
from senet.errors import UserError


@dataclass(frozen=True)
class AugmentConfig:
    """What happens to a training image.

    Each image is cropped and resized, then come ``colour_jitter``, ``rand_augment`` and ``erase``; the crop "pad",
    ``flip`` and ``cutout`` follow on the device, for the whole batch at once (``senet.data.inputs``).

    Attributes:
        crop: "random_resized" (area and aspect ratio, then resize; ImageNet), "pad" (zero-pad, random crop;
            CIFAR) or "none" (the evaluation's own crop).
        scale: range of the crop's share of the area, for "random_resized".
        ratio: range of the crop's aspect ratio, for "random_resized".
        pad: pixels on each side, for "pad".
        flip: probability of a horizontal flip.
        rand_augment: (operations, magnitude 0..30) of RandAugment, or None.
        erase: probability of random erasing (filled with the mean colour).
        colour_jitter: strength of brightness, contrast and saturation jitter.
        cutout: side in pixels of the square that Cutout fills with the mean colour, 0 for none; its centre may
            lie at any pixel, so the square may reach over the border (16 on CIFAR-10, 8 on CIFAR-100).
    """

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    pad: int = 4
    flip: float = 0.5
    rand_augment: tuple[int, int] | None = None
    erase: float = 0.0
    colour_jitter: float = 0.0
    cutout: int = 0

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
        single = {
            "crop=random_resized": self.crop == "random_resized",
            "rand_augment": self.rand_augment is not None,
            "erase": bool(self.erase),
            "colour_jitter": bool(self.colour_jitter),
        }
        used = [name for name, on in single.items() if on]
        if used:
            raise UserError(
                f"augment.{used[0]} works on single images, not on a data set held in memory: use "
                "recipe=cifar or quick, or data.in_memory=false for image files"
            )


class ImageAugmentation:
    """Augment one decoded image: uint8 (C, H, W) -> uint8 (C, size, size), on the device it lies on.

    Draws from torch's CPU generator, wherever the image lies. What batches are augmented with is left to
    ``InputStep``.
    """

    def __init__(self, config: AugmentConfig, preprocessing: Preprocessing) -> None:
        from torchvision.transforms import RandomResizedCrop, v2  # seconds to import

        self.config = config
        self.preprocessing = preprocessing
        self.random_box = RandomResizedCrop.get_params
        colour: list[torch.nn.Module] = []
        if config.colour_jitter:
            strength = config.colour_jitter
            colour.append(v2.ColorJitter(strength, strength, strength))
        if config.rand_augment is not None:
            operations, magnitude = config.rand_augment
            colour.append(v2.RandAugment(operations, magnitude))
        if config.erase:
            mean = [255 * m for m in preprocessing.mean]
            colour.append(v2.RandomErasing(config.erase, value=mean))
        self.colour = colour

    def box(self, height: int, width: int) -> Box:
        """Draw the part that is used of an image of this height and width."""
        if self.config.crop != "random_resized":
            return whole(height, width)
        blank = torch.empty(()).expand(
            3, height, width
        )  # torchvision asks an image for its size, here of no memory
        return Box(*self.random_box(blank, list(self.config.scale), list(self.config.ratio)))

    def finish(self, image: Tensor, size: int) -> Tensor:
        """Return the augmented image of side ``size`` of the part that ``box`` drew."""
        if self.config.crop == "random_resized":
            image = resize_exact(image, size, size, self.preprocessing.interpolation)
        else:
            image = self.preprocessing.at(size).evaluate(image)
        for operation in self.colour:
            image = operation(image)
        return image
