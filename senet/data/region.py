"""Boxes of JPEG files, decoded without the rest: nvImageCodec on the CPU, bit for bit equal to Pillow.

Left to itself it would decode a box that lies before the place where a file is cut off or damaged, where Pillow, which
reads on, raises. So it is given files of one whole scan only.
"""

import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from senet.data.jpeg import START, is_one_whole_scan


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


@functools.cache
def region_available() -> bool:
    """Whether nvImageCodec is installed and decodes on this machine's CPU."""
    try:
        _decoder(os.getpid(), threading.get_ident())
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def open_jpeg(data: bytes) -> Any | None:
    """Return the stream of a grey or colour JPEG of one whole scan, with its ``height`` and ``width``; else None."""
    if not (data.startswith(START) and is_one_whole_scan(data)):
        return None
    try:
        stream = nvimgcodec().CodeStream(data)
        plain = stream.codec_name == "jpeg" and stream.num_channels in (1, 3)
    except Exception:
        return None
    return stream if plain else None


def decode_box(stream: Any, box: Box) -> Tensor | None:
    """Return a box of a stream as RGB uint8 (3, height, width), or None where it cannot be had exactly."""
    if box.width == 1:
        return None  # the first column of a 4:2:0 image is upsampled in another way if it comes alone
    codec = nvimgcodec()
    region = codec.Region(box.top, box.left, box.top + box.height, box.left + box.width)
    try:
        part = stream.get_sub_code_stream(region=region)
        decoder, parameters = _decoder(os.getpid(), threading.get_ident())
        # Takes the decoder's buffer as it is; None, where it could not decode, has no such buffer.
        pixels = np.asarray(decoder.decode(part, params=parameters), dtype=np.uint8)
    except Exception:
        return None
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return image if image.shape == (3, box.height, box.width) else None


@functools.cache
def nvimgcodec() -> Any:
    """Return the module; raises ImportError if it is not installed."""
    with _quiet():
        return importlib.import_module("nvidia.nvimgcodec")


@functools.cache
def _decoder(process: int, thread: int) -> tuple[Any, Any]:
    """Return a decoder and its parameters; each process and thread has its own, for a decoder survives no fork."""
    codec = nvimgcodec()
    with _quiet():
        decoder = codec.Decoder(
            device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
            max_num_cpu_threads=1,
            backends=[codec.Backend(codec.BackendKind.CPU_ONLY)],
        )
    return decoder, codec.DecodeParams(apply_exif_orientation=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what C code writes to stderr: nvImageCodec names every library that only its GPU backends need."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
