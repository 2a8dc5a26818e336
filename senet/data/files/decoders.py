"""Decoders: encoded bytes in, uint8 (C, H, W) out, with Pillow's pixels.

``reference`` is Pillow. ``fast`` (``senet.integrations.fast_jpeg``) and ``gpu`` (``senet.integrations.nvjpeg``) are
other libraries, where they are installed.

Every decoder asks which box of the image is wanted, once, and tells it nothing but the height and the width: so a
random crop is the same one, drawn from the same numbers, whatever decodes. Pillow, and with it torchvision and timm,
ignores the EXIF orientation but in TIFF files, and so does every decoder here.
"""

import functools
import io
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from senet.data.config import DecoderName
from senet.plugins import integration

MAX_PIXELS = 100_000_000
"""An image of more is refused before it is decoded: a file of 20 kB can ask for gigabytes."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Tensor) -> Tensor:
        """Return the box of an image (C, H, W)."""
        return image[:, self.top : self.top + self.height, self.left : self.left + self.width]


Choose = Callable[[int, int], Box]
"""From the height and width of an image, before it is decoded, to the box of it that is wanted."""


def whole(height: int, width: int) -> Box:
    """Choose all of the image."""
    return Box(0, 0, height, width)


class Decoder(Protocol):
    """What ``build_decoder`` returns."""

    def __call__(self, data: bytes, *, choose: Choose = whole) -> Tensor:
        """Return the box that ``choose`` wants of an encoded image, uint8 (C, height, width)."""
        ...


def open_image(data: bytes) -> Image.Image:
    """Open an encoded image as Pillow does; its words for what it does not know would show an address in memory."""
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit: ours is data.max_pixels, see check_size
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise UnidentifiedImageError("it is no image that Pillow knows") from None


def decode_reference(
    data: bytes, colour: str, choose: Choose = whole, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Decode with Pillow; raises what Pillow raises, also for truncated files."""
    with open_image(data) as image:
        check_size(image.width, image.height, max_pixels)
        return cut(decode(image, colour), choose)


def decode(image: Image.Image, colour: str) -> Tensor:
    """Return a PIL image as uint8 (C, H, W) in the given colour mode, by the rules of ``docs/images.md``.

    Raises:
        ValueError: for 32-bit grey, whose range no file says.
        OSError: for what Pillow cannot read.
    """
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        # 16 bits scaled to 8, rounded; Pillow itself would clip them.
        wide = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"32-bit grey (Pillow's mode {image.mode}) has no range that is known: convert it to 8 or 16 bits"
        )
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the colours beneath, as of every transparent image
    pixels = torch.from_numpy(np.array(image.convert(colour)))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image that would take too much memory.

    Raises:
        ValueError: if it has more pixels than ``max_pixels``.
    """
    if width * height > max_pixels:
        raise ValueError(
            f"{width:,} x {height:,} pixels are more than data.max_pixels={max_pixels:,}: too large to be decoded"
        )


def cut(image: Tensor, choose: Choose) -> Tensor:
    """Return the box of a decoded image (C, H, W) that ``choose`` wants."""
    return choose(*image.shape[-2:]).cut(image)


def build_decoder(name: DecoderName, colour: str, max_pixels: int = MAX_PIXELS) -> Decoder:
    """Return a decoder for worker processes: ``fast`` is the best that is installed, and the pixels are the same."""
    decoder: Callable[..., Tensor] = integration("fast_jpeg").best() if name == "fast" else decode_reference
    return functools.partial(decoder, colour=colour, max_pixels=max_pixels)


def describe_decoder(name: DecoderName) -> str:
    """Return what decodes, for people."""
    described: str = integration("fast_jpeg").describe() if name == "fast" else ""
    return described or {"gpu": "nvJPEG", "reference": "Pillow"}[name]
