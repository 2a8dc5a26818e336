"""What happens to an image before the network in evaluation: stored with the weights, kept by ``eval.py``."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor

from senet.errors import UserError

Interpolation = Literal["bilinear", "bicubic"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, normalise.

    Attributes:
        size: side of the square the network sees, in pixels.
        resize: shorter side before the centre crop, in pixels; ``None`` crops or pads without resizing.
        interpolation: of the resize; always antialiased.
        mean: per channel, in units of 0..1.
        std: per channel, in units of 0..1.
        colour: "RGB" (3 channels) or "L" (1 channel, grey).
    """

    size: int = 224
    resize: int | None = 256
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    colour: Literal["RGB", "L"] = "RGB"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.size < 1 or (self.resize is not None and self.resize < self.size):
            raise UserError(
                f"preprocessing: resize={self.resize} must be at least size={self.size}, the centre crop, "
                "which must be 1 or more"
            )
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            raise UserError(
                f"preprocessing: {self.colour} images need {self.channels} mean(s) and positive std(s), not "
                f"mean={list(self.mean)} std={list(self.std)}"
            )

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return 3 if self.colour == "RGB" else 1

    def at(self, size: int) -> "Preprocessing":
        """Return the same preprocessing for another crop size; the resize keeps its ratio to the crop."""
        resize = None if self.resize is None else round(self.resize * size / self.size)
        return replace(self, size=size, resize=resize)

    def to_dict(self) -> dict[str, object]:
        """Return plain containers only, as stored in checkpoints."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    def evaluate(self, image: Tensor) -> Tensor:
        """Resize and centre-crop one uint8 image (C, H, W) -> (C, size, size)."""
        if self.resize is not None:
            image = resize_short_side(image, self.resize, self.interpolation)
        cropped: Tensor = center_crop(image, [self.size, self.size])
        return cropped

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 images (B, C, H, W) into normalised float32 on the same device."""
        shape = (1, self.channels, 1, 1)
        # One multiply-add: (x / 255 - mean) / std = x * a + b.
        scale = torch.tensor([1 / (255 * s) for s in self.std], device=images.device).view(shape)
        offset = torch.tensor(
            [-m / s for m, s in zip(self.mean, self.std, strict=True)], device=images.device
        ).view(shape)
        return torch.addcmul(offset, images.float(), scale)


def decode(image: Image.Image, colour: str) -> Tensor:
    """Return a PIL image as uint8 (C, H, W) in the given colour mode."""
    pixels: Tensor = pil_to_tensor(image.convert(colour))
    return pixels


def resize_exact(image: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """Resize one uint8 image with antialiasing; within 2 grey levels of Pillow's bilinear filter."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image[None], size=(height, width), mode=interpolation, antialias=True)[0]


def resize_short_side(image: Tensor, side: int, interpolation: Interpolation) -> Tensor:
    """Resize so that the shorter side is ``side`` pixels; the longer is truncated, as in torchvision."""
    height, width = image.shape[-2:]
    if height <= width:
        return resize_exact(image, side, int(side * width / height), interpolation)
    return resize_exact(image, int(side * height / width), side, interpolation)
