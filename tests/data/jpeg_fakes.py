"""Files and boxes for the tests of the decoders."""

import io

import numpy as np
from PIL import Image

from senet.data.files.decoders import Box


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def random_box(generator: np.random.Generator, height: int, width: int) -> Box:
    """A box of at least one pixel."""
    top, bottom = sorted(generator.choice(height + 1, 2, replace=False).tolist())
    left, right = sorted(generator.choice(width + 1, 2, replace=False).tolist())
    return Box(top, left, bottom - top, right - left)
