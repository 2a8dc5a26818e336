"""Decoders: encoded bytes in, uint8 (C, H, W) out, with Pillow's pixels.

``reference`` is Pillow. ``fast`` is nvImageCodec, which decodes only the part of a JPEG that is wanted, or torchcodec,
both bit for bit equal to Pillow; whatever is not a plain JPEG, or fails, is Pillow's to decide. ``gpu`` decodes whole
batches with nvJPEG, see ``senet.data.device``.

Every decoder asks which box of the image is wanted, once, and tells it nothing but the height and the width: so a
random crop is the same one, drawn from the same numbers, whatever decodes.

Pillow, and with it torchvision and timm, ignores the EXIF orientation; torchcodec always applies it, so the marker
is hidden from it.
"""

import functools
import importlib
import importlib.util
import io
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor

from senet.data.jpeg import START, hide_orientation
from senet.data.preprocessing import decode
from senet.data.region import Choose, decode_box, open_jpeg, region_available, whole

DecoderName = Literal["reference", "fast", "gpu"]


class Decoder(Protocol):
    """What ``build_decoder`` returns."""

    def __call__(self, data: bytes, *, choose: Choose = whole) -> Tensor:
        """Return the box that ``choose`` wants of an encoded image, uint8 (C, height, width)."""
        ...


def decode_reference(data: bytes, colour: str, choose: Choose = whole) -> Tensor:
    """Decode with Pillow; raises what Pillow raises, also for truncated files."""
    with Image.open(io.BytesIO(data)) as image:
        return cut(decode(image, colour), choose)


def decode_torchcodec(data: bytes, colour: str, choose: Choose = whole) -> Tensor:
    """Decode a JPEG with torchcodec; Pillow decides on everything else and on what torchcodec refuses."""
    if data.startswith(START) and torchcodec_available():
        try:
            image: Tensor = torchcodec_decoder()(hide_orientation(data))
        except Exception:
            pass  # Pillow raises too, or reads it after all
        else:
            return as_colour(cut(image, choose), colour)
    return decode_reference(data, colour, choose)


def decode_region(data: bytes, colour: str, choose: Choose = whole) -> Tensor:
    """Decode a part alone, with nvImageCodec; the whole, and what it does not decode exactly, is torchcodec's."""
    stream = None if choose is whole else open_jpeg(data)
    if stream is None:
        return decode_torchcodec(data, colour, choose)
    box = choose(stream.height, stream.width)
    image = decode_box(stream, box)
    if image is None:
        return decode_torchcodec(data, colour, lambda height, width: box)
    return as_colour(image, colour)


def cut(image: Tensor, choose: Choose) -> Tensor:
    """Return the box of a decoded image (C, H, W) that ``choose`` wants."""
    return choose(*image.shape[-2:]).cut(image)


def as_colour(image: Tensor, colour: str) -> Tensor:
    """Return an RGB image (3, H, W) in ``colour``; grey is Pillow's, ITU-R 601 in 16-bit fixed point."""
    if colour == "RGB":
        return image
    red, green, blue = image.to(torch.int32).unbind(0)
    grey: Tensor = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return grey.to(torch.uint8)[None]


@functools.cache
def torchcodec_available() -> bool:
    """Whether torchcodec is installed and fits this torch."""
    if importlib.util.find_spec("torchcodec") is None:
        return False
    try:
        torchcodec_decoder()
    except (ImportError, OSError, RuntimeError):
        return False
    return True


@functools.cache
def torchcodec_decoder() -> Callable[..., Tensor]:
    """Return torchcodec's ``decode_jpeg``; raises ImportError, OSError or RuntimeError if it cannot be had."""
    # Seconds to import, and without type information.
    decode_jpeg: Callable[..., Tensor] = importlib.import_module("torchcodec.decoders").decode_jpeg
    return decode_jpeg


def build_decoder(name: DecoderName, colour: str) -> Decoder:
    """Return a decoder for worker processes: ``fast`` is the best that is installed, and the pixels are the same."""
    if name == "fast" and region_available():
        return functools.partial(decode_region, colour=colour)
    if name == "fast" and torchcodec_available():
        return functools.partial(decode_torchcodec, colour=colour)
    return functools.partial(decode_reference, colour=colour)


def describe_decoder(name: DecoderName) -> str:
    """Return what decodes, for people."""
    if name == "gpu":
        return "nvJPEG"
    if name == "reference":
        return "Pillow"
    rest = "torchcodec" if torchcodec_available() else "Pillow"
    if region_available():
        return f"nvImageCodec (crops), {rest}"
    return rest if rest == "torchcodec" else "Pillow (senet[fast] brings decoders that are faster)"
