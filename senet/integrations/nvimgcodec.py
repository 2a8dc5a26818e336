"""Boxes of JPEG files, decoded without the rest: nvImageCodec on the CPU, bit for bit equal to Pillow.

Left to itself it would decode a box that lies before the place where a file is cut off or damaged, where Pillow, which
reads on, raises. So the core gives it files of one whole scan only.
"""

import functools
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from senet.data.files.decoders import Box
from senet.integrations.fast_jpeg import START


def open_jpeg(data: bytes) -> Any | None:
    """Return the stream of a grey or colour JPEG, with its ``height`` and ``width``; else None."""
    if not data.startswith(START):
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
        mine, parameters = decoder()
        # Takes the decoder's buffer as it is; None, where it could not decode, has no such buffer.
        pixels = np.asarray(mine.decode(part, params=parameters), dtype=np.uint8)
    except Exception:
        return None
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return image if image.shape == (3, box.height, box.width) else None


@functools.cache
def nvimgcodec() -> Any:
    """Return the module; raises ImportError if it is not installed."""
    with _quiet():
        return importlib.import_module("nvidia.nvimgcodec")


def decoder() -> tuple[Any, Any]:
    """Return this process's and thread's decoder and its parameters; a decoder survives no fork."""
    return _decoder(os.getpid(), threading.get_ident())


@functools.cache
def _decoder(process: int, thread: int) -> tuple[Any, Any]:
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
