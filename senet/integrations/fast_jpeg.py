"""``data.decoder=fast``: the quickest decoder of JPEGs that is installed, bit for bit equal to Pillow.

nvImageCodec decodes only the part that is wanted, torchcodec the whole; whatever is not a plain JPEG, or fails, is
Pillow's to decide. torchcodec always applies the EXIF orientation, so the marker is hidden from it.
"""

import functools
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from senet.data.files.decoders import MAX_PIXELS, Choose, check_size, cut, decode_reference, whole
from senet.errors import UserError
from senet.plugins import integration

START, END = b"\xff\xd8\xff", b"\xff\xd9"
_EXIF, _OTHER, _SCAN = 0xE1, 0xED, 0xDA
"""Marker codes: APP1, which holds EXIF; APP13, which decoders skip; and the start of the pixels."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Marker codes of the frame header, which says height and width."""
_MARKER = re.compile(rb"\xff[^\x00]")  # within a scan, FF is followed by 00


def best() -> Callable[..., Tensor]:
    """Return the decoder."""
    if region_available():
        return decode_region
    return decode_torchcodec if torchcodec_available() else decode_reference


def describe() -> str:
    """Return what decodes, for people."""
    rest = "torchcodec" if torchcodec_available() else "Pillow"
    if region_available():
        return f"nvImageCodec (crops), {rest}"
    return rest if rest == "torchcodec" else "Pillow (senet[fast] brings decoders that are faster)"


def decode_torchcodec(
    data: bytes, colour: str, choose: Choose = whole, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Decode a grey or colour JPEG with torchcodec; Pillow decides on all else and on what torchcodec refuses."""
    width, height, colours = jpeg_frame(data)
    check_size(width, height, max_pixels)
    if colours in (1, 3) and torchcodec_available():  # CMYK is converted in more than one way
        try:
            image: Tensor = torchcodec_decoder()(hide_orientation(data))
        except Exception:
            pass  # Pillow raises too, or reads it after all
        else:
            return as_colour(cut(image, choose), colour)
    return decode_reference(data, colour, choose, max_pixels)


def decode_region(data: bytes, colour: str, choose: Choose = whole, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a part alone, with nvImageCodec; the whole, and what it does not decode exactly, is torchcodec's."""
    width, height, _ = jpeg_frame(data)
    check_size(width, height, max_pixels)
    codec = None if choose is whole else region_codec()
    stream = codec.open_jpeg(data) if codec and is_one_whole_scan(data) else None
    if codec is None or stream is None:
        return decode_torchcodec(data, colour, choose, max_pixels)
    box = choose(stream.height, stream.width)
    image: Tensor | None = codec.decode_box(stream, box)
    if image is None:
        return decode_torchcodec(data, colour, lambda height, width: box, max_pixels)
    return as_colour(image, colour)


def as_colour(image: Tensor, colour: str) -> Tensor:
    """Return an RGB image (3, H, W) in ``colour``; grey is Pillow's, ITU-R 601 in 16-bit fixed point."""
    if colour == "RGB":
        return image
    red, green, blue = image.to(torch.int32).unbind(0)
    grey: Tensor = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return grey.to(torch.uint8)[None]


@functools.cache
def region_codec() -> Any | None:
    """Return ``senet.integrations.nvimgcodec`` if it decodes on this machine's CPU."""
    try:
        codec = integration("nvimgcodec", package="nvidia", asked="data.decoder=fast", extra="fast")
        codec.decoder()
    except (UserError, ImportError, OSError, RuntimeError):
        return None
    return codec


def region_available() -> bool:
    """Whether nvImageCodec is installed and decodes on this machine's CPU."""
    return region_codec() is not None


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


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the offset and the code of every marker, up to the first scan and with it."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if code == 0xFF:  # a fill byte: any number of them may stand before a marker (T.81, B.1.1.2)
            at += 1
            continue
        yield at, code
        if code == _SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Return width, height and number of colours as a JPEG's header says them; zeros for what is none."""
    if data.startswith(START):
        for at, code in segments(data):
            if code in _FRAMES and len(data) > at + 9:
                height, width = (int.from_bytes(data[at + k : at + k + 2], "big") for k in (5, 7))
                return width, height, data[at + 9]
    return 0, 0, 0


def hide_orientation(data: bytes) -> bytes:
    """Return a JPEG whose EXIF segments are marked as APP13, so that no decoder rotates the image."""
    found = [at for at, code in segments(data) if code == _EXIF]
    if not found:
        return data
    hidden = bytearray(data)
    for at in found:
        hidden[at + 1] = _OTHER
    return bytes(hidden)


def is_one_whole_scan(data: bytes) -> bool:
    """Whether the pixels are one scan that ends with the file and holds no other marker.

    A truncated file is none, nor is one with a stray marker, at which Pillow stops. Progressive files, those with
    restart markers and those with something behind the image are none either, though they may be sound.
    """
    start = next((at for at, code in segments(data) if code == _SCAN), len(data))
    found = _MARKER.search(data, start + 2)
    return found is not None and data[found.start() :] == END
