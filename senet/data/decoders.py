"""Decoders: encoded bytes in, uint8 (C, H, W) out, with Pillow's pixels.

``reference`` is Pillow. ``fast`` is torchcodec for JPEG, bit for bit equal to Pillow; whatever is not a plain JPEG,
or fails, is Pillow's to decide. ``gpu`` decodes whole batches with nvJPEG, see ``senet.data.device``.

Pillow, and with it torchvision and timm, ignores the EXIF orientation; torchcodec always applies it, so the marker
is hidden from it.
"""

import functools
import importlib
import importlib.util
import io
from collections.abc import Callable
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from senet.data.preprocessing import decode

DecoderName = Literal["reference", "fast", "gpu"]
Decoder = Callable[[bytes], Tensor]

JPEG = b"\xff\xd8\xff"
_EXIF, _OTHER, _SCAN = 0xE1, 0xED, 0xDA
"""Marker codes: APP1, which holds EXIF; APP13, which decoders skip; and the start of the pixels."""


def decode_reference(data: bytes, colour: str) -> Tensor:
    """Decode with Pillow; raises what Pillow raises, also for truncated files."""
    with Image.open(io.BytesIO(data)) as image:
        return decode(image, colour)


def hide_orientation(data: bytes) -> bytes:
    """Return a JPEG whose EXIF segments are marked as APP13, so that no decoder rotates the image."""
    hidden: bytearray | None = None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        if data[at + 1] == _EXIF:
            hidden = hidden or bytearray(data)
            hidden[at + 1] = _OTHER
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data if hidden is None else bytes(hidden)


def decode_fast(data: bytes, colour: str) -> Tensor:
    """Decode a JPEG with torchcodec; Pillow decides on everything else and on what torchcodec refuses."""
    if data.startswith(JPEG):
        try:
            image: Tensor = torchcodec_decoder()(hide_orientation(data))
            return as_colour(image, colour)
        except Exception:
            pass  # Pillow raises too, or reads it after all
    return decode_reference(data, colour)


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
    """Return a decoder for worker processes; ``fast`` without torchcodec is Pillow, whose pixels are the same."""
    if name == "fast" and torchcodec_available():
        return functools.partial(decode_fast, colour=colour)
    return functools.partial(decode_reference, colour=colour)


def describe_decoder(name: DecoderName) -> str:
    """Return what decodes, for people."""
    if name == "gpu":
        return "nvJPEG"
    if name == "reference":
        return "Pillow"
    return (
        "torchcodec" if torchcodec_available() else "Pillow (senet[fast] brings torchcodec, which is faster)"
    )
