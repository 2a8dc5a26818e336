"""Training augmentation: per image (torchvision) for files on disk, per batch for images in memory."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from senet.data.preprocessing import Preprocessing, resize_exact
from senet.data.streams import stream
from senet.errors import UserError


@dataclass(frozen=True)
class AugmentConfig:
    """What happens to a training image.

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
    """

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    pad: int = 4
    flip: float = 0.5
    rand_augment: tuple[int, int] | None = None
    erase: float = 0.0
    colour_jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augment.{name}={getattr(self, name)} is a probability: give 0 to 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"augment.scale={list(self.scale)} must be two rising shares of the area in (0, 1]"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"augment.ratio={list(self.ratio)} must be two rising aspect ratios above 0")


class ImageAugmentation:
    """Augment one decoded image: uint8 (C, H, W) -> uint8 (C, size, size). Draws from torch's generator."""

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

    def __call__(self, image: Tensor) -> Tensor:
        """Return the augmented image."""
        image = self._crop(image)
        if torch.rand(()) < self.config.flip:
            image = image.flip(-1)
        for operation in self.colour:
            image = operation(image)
        return image

    def _crop(self, image: Tensor) -> Tensor:
        size, config = self.preprocessing.size, self.config
        if config.crop == "random_resized":
            top, left, height, width = self.random_box(image, list(config.scale), list(config.ratio))
            crop = image[:, top : top + height, left : left + width]
            return resize_exact(crop, size, size, self.preprocessing.interpolation)
        image = self.preprocessing.evaluate(image)
        if config.crop == "pad":
            image = F.pad(image, [config.pad] * 4)
            top, left = torch.randint(0, 2 * config.pad + 1, (2,)).tolist()
            image = image[:, top : top + size, left : left + size]
        return image


class BatchAugmentation:
    """Pad-crop and flip a whole batch of equal images at once, on whatever device it is.

    The numbers of one epoch are drawn for all samples from the stream ("augment", epoch) and looked up by id,
    so a sample's augmentation depends on (seed, epoch, id) only.
    """

    def __init__(self, config: AugmentConfig, samples: int, seed: int) -> None:
        unsupported = {
            "crop=random_resized": config.crop == "random_resized",
            "rand_augment": config.rand_augment is not None,
            "erase": bool(config.erase),
            "colour_jitter": bool(config.colour_jitter),
        }
        used = [name for name, on in unsupported.items() if on]
        if used:
            raise UserError(
                f"augment.{used[0]} works on single images, not on a data set held in memory: use "
                "recipe=cifar or quick, or data.in_memory=false for image files"
            )
        self.config, self.samples, self.seed = config, samples, seed
        self._epoch: int | None = None
        self._table = torch.empty(0)

    def __call__(self, images: Tensor, ids: Tensor, epoch: int) -> Tensor:
        """Augment uint8 images (B, C, H, W) of the samples ``ids`` (B,) in ``epoch``."""
        if epoch != self._epoch:
            self._table = torch.rand(self.samples, 3, generator=stream(self.seed, "augment", epoch))
            self._epoch = epoch
        draws = self._table[ids.cpu()].to(images.device)
        if self.config.crop == "pad" and self.config.pad:
            images = self._pad_crop(images, draws[:, :2])
        flipped = draws[:, 2] < self.config.flip
        return torch.where(flipped[:, None, None, None], images.flip(-1), images)

    def _pad_crop(self, images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        offsets = (draws * (2 * self.config.pad + 1)).long()
        windows = F.pad(images, [self.config.pad] * 4).unfold(2, height, 1).unfold(3, width, 1)
        # One gather over a view of all shifts: (B, C, 2p+1, 2p+1, H, W) -> (B, C, H, W).
        return windows[torch.arange(len(images), device=images.device), :, offsets[:, 0], offsets[:, 1]]
