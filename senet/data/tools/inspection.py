"""One look at one image file: what it is, and everything that may be wrong with it."""

import hashlib
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from senet.data.files.decoders import MAX_PIXELS, decode, open_image

GREY_MODES = {"1", "L", "I", "F", "I;16"}
ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
ORIENTATION = 0x0112


class Finding(NamedTuple):
    """A file: size in bytes, hash of its contents, Pillow's format and mode, dimensions, and its problems."""

    path: str
    size: int = 0
    hash: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    problems: tuple[str, ...] = ("unreadable",)


def inspect(data: bytes | None, name: str) -> Finding:
    """Decode the contents of one file, reported under ``name``; None if they cannot be read.

    Problems: "zero-byte", "unreadable", "truncated", "wrong-format" (the extension says another one), "cmyk", "grey",
    "alpha", "animated", "exif-rotated", "too-large", "unknown-range".
    """
    if data is None:
        return Finding(name)
    found = Finding(name, len(data), hashlib.blake2b(data, digest_size=16).hexdigest())
    if not data:
        return found._replace(problems=("zero-byte",))
    with warnings.catch_warnings():
        # Pillow warns about oddities that are reported here, or do not matter.
        warnings.simplefilter("ignore")
        try:
            image = open_image(data)
        except Exception:
            return found
        with image:
            found = found._replace(format=image.format or "", mode=image.mode)
            found = found._replace(width=image.width, height=image.height)
            return found._replace(problems=_problems(image, data, name))


def _problems(image: Image.Image, data: bytes, name: str) -> tuple[str, ...]:
    mode = image.mode
    if image.width * image.height > MAX_PIXELS:
        return ("too-large",)
    try:
        alpha = mode in ALPHA_MODES or "transparency" in image.info
        image.load()
        decode(image, "RGB")
    except OSError as error:
        return ("truncated" if "truncated" in str(error) else "unreadable",)
    except Exception:
        return ("unknown-range" if mode in ("I", "F") else "unreadable",)
    extension = os.path.splitext(name)[1].lower()
    form = "JPEG" if image.format == "MPO" else image.format  # a photograph, and smaller ones behind it
    kinds = {
        # No end marker after the last scan: Pillow forgives the loss of the last bytes.
        "truncated": image.format == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"),
        "wrong-format": Image.registered_extensions().get(extension, form) != form,
        "animated": _answer(lambda: getattr(image, "n_frames", 1) > 1, otherwise=True),
        "cmyk": mode == "CMYK",
        "grey": mode in GREY_MODES,
        "alpha": alpha,
        "exif-rotated": _answer(lambda: image.getexif().get(ORIENTATION, 1) not in (0, 1), otherwise=False),
    }
    return tuple(kind for kind, on in kinds.items() if on)


def _answer(question: Callable[[], bool], otherwise: bool) -> bool:
    """Return what Pillow says of EXIF or of further pictures; they may be damaged where the image is sound."""
    try:
        return question()
    except Exception:
        return otherwise
