"""Training augmentation: per image (torchvision) for files on disk, per batch for images in memory."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from senet.data.preprocessing import Preprocessing, resize_exact
from senet.data.region import Box, whole
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


def cut_out(images: Tensor, centres: Tensor, side: int, fill: Tensor) -> Tensor:
    """Fill one square of each image (Cutout, arXiv 1708.04552).

    Args:
        images: uint8 (B, C, H, W).
        centres: (B, 2), row and column of the centre as shares of height and width, in [0, 1).
        side: of the square, in pixels.
        fill: uint8 (C,).
    """
    inside = []
    for axis, length in enumerate(images.shape[-2:]):
        start = (centres[:, axis] * length).long() - side // 2
        position = torch.arange(length, device=images.device) - start[:, None]
        inside.append((position >= 0) & (position < side))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(square, fill.to(images.device)[:, None, None], images)


def mean_colour(mean: tuple[float, ...]) -> Tensor:
    """Return a mean in units of 0..1 as uint8 (C,)."""
    return torch.tensor([round(255 * m) for m in mean], dtype=torch.uint8)


class ImageAugmentation:
    """Augment one decoded image: uint8 (C, H, W) -> uint8 (C, size, size), on the device it lies on.

    Draws from torch's CPU generator, wherever the image lies.
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

    def __call__(self, image: Tensor, size: int) -> Tensor:
        """Return the augmented image of side ``size``, the preprocessing's or that of progressive resizing."""
        return self.finish(self.box(*image.shape[-2:]).cut(image), size)

    def box(self, height: int, width: int) -> Box:
        """Draw the part that is used of an image of this height and width."""
        if self.config.crop != "random_resized":
            return whole(height, width)
        blank = torch.empty(()).expand(
            3, height, width
        )  # torchvision asks an image for its size, here of no memory
        return Box(*self.random_box(blank, list(self.config.scale), list(self.config.ratio)))

    def finish(self, image: Tensor, size: int) -> Tensor:
        """Return the augmented image of the part that ``box`` drew."""
        image = self._resize(image, size)
        if torch.rand(()) < self.config.flip:
            image = image.flip(-1)
        for operation in self.colour:
            image = operation(image)
        if self.config.cutout:
            fill = mean_colour(self.preprocessing.mean)
            image = cut_out(image[None], torch.rand(1, 2).to(image.device), self.config.cutout, fill)[0]
        return image

    def _resize(self, image: Tensor, size: int) -> Tensor:
        config = self.config
        if config.crop == "random_resized":
            return resize_exact(image, size, size, self.preprocessing.interpolation)
        image = self.preprocessing.at(size).evaluate(image)
        if config.crop == "pad":
            image = F.pad(image, [config.pad] * 4)
            top, left = torch.randint(0, 2 * config.pad + 1, (2,)).tolist()
            image = image[:, top : top + size, left : left + size]
        return image


class BatchAugmentation:
    """Pad-crop and flip a whole batch of equal images at once, on whatever device it is.

    The numbers of one epoch are drawn for all samples from the stream ("augment", epoch) and looked up by id,
    so a sample's augmentation depends on (seed, epoch, id) only; a sample's k-th repetition within the epoch looks
    into a table of its own, ("augment", epoch, k).
    """

    def __init__(
        self, config: AugmentConfig, samples: int, seed: int, mean: tuple[float, ...] = (0.0,)
    ) -> None:
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
        self._fill = mean_colour(mean)
        self._epoch: int | None = None
        self._tables: dict[tuple[str, int], Tensor] = {}

    def __call__(self, images: Tensor, ids: Tensor, epoch: int, draws: Tensor | None = None) -> Tensor:
        """Augment uint8 images (B, C, H, W) of the samples ``ids`` (B,), drawn ``draws`` (B,) times before."""
        numbers = self._numbers("augment", 3, ids.cpu(), epoch, draws).to(images.device, non_blocking=True)
        flipped = numbers[:, 2] < self.config.flip
        count, channels, height, width = images.shape
        pad = self.config.pad if self.config.crop == "pad" else 0
        padded = F.pad(images, [pad] * 4) if pad else images
        offsets = (numbers[:, :2] * (2 * pad + 1)).long()
        columns = torch.arange(width, device=images.device)
        columns = offsets[:, 1:] + torch.where(flipped[:, None], width - 1 - columns, columns)
        rows = offsets[:, :1] + torch.arange(height, device=images.device)
        # Shift and flip in one gather: where each pixel comes from, (B, 1, H * W), in each padded channel.
        source = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).view(count, 1, -1)
        images = padded.flatten(2).gather(2, source.expand(-1, channels, -1)).view(images.shape)
        if self.config.cutout:
            centres = self._numbers("cutout", 2, ids.cpu(), epoch, draws).to(images.device)
            images = cut_out(images, centres, self.config.cutout, self._fill)
        return images

    def _numbers(self, name: str, width: int, ids: Tensor, epoch: int, draws: Tensor | None) -> Tensor:
        if epoch != self._epoch:
            self._epoch, self._tables = epoch, {}
        if draws is None or not draws.any():
            return self._table(name, width, epoch, 0)[ids]
        pairs = zip(draws.tolist(), ids.tolist(), strict=True)
        return torch.stack([self._table(name, width, epoch, draw)[index] for draw, index in pairs])

    def _table(self, name: str, width: int, epoch: int, draw: int) -> Tensor:
        if (name, draw) not in self._tables:
            path = (name, epoch, draw) if draw else (name, epoch)
            self._tables[name, draw] = torch.rand(self.samples, width, generator=stream(self.seed, *path))
        return self._tables[name, draw]
