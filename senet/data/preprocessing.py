"""What happens to an image before the network in evaluation: stored with the weights, kept by ``eval.py``.

The class is part of the configuration, which is read without torch: so torch is imported where it computes.
"""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from senet.errors import UserError
from senet.ranges import PositiveShare, Share, Side

if TYPE_CHECKING:
    from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]
MOST_PIXELS = 10**9
"""What a resized image may have: a line of 1 x 70,000 pixels would take 14 GB."""
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

    size: Side = 224
    resize: Side | None = 256
    interpolation: Interpolation = "bilinear"
    mean: tuple[Share, ...] = IMAGENET_MEAN
    std: tuple[PositiveShare, ...] = IMAGENET_STD
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

    def evaluate(self, image: "Tensor") -> "Tensor":
        """Resize and centre-crop one uint8 image (C, H, W) -> (C, size, size)."""
        if self.resize is not None:
            image = resize_short_side(image, self.resize, self.interpolation)
        return centre_crop(image, self.size)

    def scale_and_offset(self) -> tuple["Tensor", "Tensor"]:
        """Return what normalises a byte x per channel, (C,) each: (x / 255 - mean) / std = offset + scale * x."""
        import torch

        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return 1 / (255 * std), -mean / std

    def normalise(self, images: "Tensor") -> "Tensor":
        """Turn uint8 images (B, C, H, W) into normalised float32 on the same device."""
        scale, offset = self.scale_and_offset()
        return normalise(images, scale.to(images.device), offset.to(images.device))


def normalise(images: "Tensor", scale: "Tensor", offset: "Tensor") -> "Tensor":
    """Return ``offset + scale * images`` in float32 and the layout of the images; scale and offset are (C,).

    Images (B, C, H, W) in bytes are kept; what is float32 already may be overwritten.
    """
    import torch

    if not images.is_contiguous(memory_format=torch.channels_last):
        return torch.addcmul(offset[:, None, None], images.float(), scale[:, None, None])
    # All channels of a row together, for a CPU is slow along short dimensions.
    width = images.shape[-1]
    rows = images.permute(0, 2, 3, 1).flatten(2).float()
    torch.addcmul(offset.repeat(width), rows, scale.repeat(width), out=rows)
    return rows.view(*rows.shape[:2], width, -1).permute(0, 3, 1, 2)


def centre_crop(image: "Tensor", size: int) -> "Tensor":
    """Cut the central ``size`` x ``size`` of (C, H, W), zero-padded where the image is smaller."""
    from torch.nn.functional import pad

    height, width = image.shape[-2:]
    if height < size or width < size:
        down, right = max(0, size - height), max(0, size - width)
        image = pad(image, [right // 2, right - right // 2, down // 2, down - down // 2])
        height, width = image.shape[-2:]
    # Half a pixel is rounded to even, as torchvision rounds it.
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[:, top : top + size, left : left + size]


def resize_exact(image: "Tensor", height: int, width: int, interpolation: Interpolation) -> "Tensor":
    """Resize one uint8 image with antialiasing; within 2 grey levels of Pillow's bilinear filter."""
    import torch
    from torch.nn.functional import interpolate

    if image.shape[-2:] == (height, width):
        return image
    if image.device.type != "cpu":
        # Only the CPU has an integer kernel.
        resized = interpolate(image[None].float(), size=(height, width), mode=interpolation, antialias=True)
        return resized[0].round_().clamp_(0, 255).to(torch.uint8)
    # Decoders give channels_last images; torch resizes them as such only if the batch dimension's stride fits.
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return interpolate(batch, size=(height, width), mode=interpolation, antialias=True)[0]


def resize_short_side(image: "Tensor", side: int, interpolation: Interpolation) -> "Tensor":
    """Resize so that the shorter side is ``side`` pixels; the longer is truncated, as in torchvision.

    Raises:
        ValueError: if that would have more than ``MOST_PIXELS``.
    """
    height, width = image.shape[-2:]
    longer = int(side * max(height, width) / min(height, width))
    if side * longer > MOST_PIXELS:
        raise ValueError(
            f"{width:,} x {height:,} pixels are too narrow: with a shorter side of {side} they would be "
            f"{side * longer:,}"
        )
    size = (side, longer) if height <= width else (longer, side)
    return resize_exact(image, *size, interpolation)
