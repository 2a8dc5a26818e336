"""One look at one image file: what it is, and everything that may be wrong with it."""

import hashlib
import io
import os
import warnings
from typing import NamedTuple

from PIL import Image

from senet.data.files.decoders import MAX_PIXELS, decode

GREY_MODES = {"1", "L", "I", "F", "I;16"}
ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
ORIENTATION = 0x0112


class Finding(NamedTuple):
    """A file: size in bytes, hash of its contents, Pillow's format and mode, dimensions, and its problems."""

    path: str
    size: int
    hash: str
    format: str
    mode: str
    width: int
    height: int
    problems: tuple[str, ...]


def inspect(data: bytes | None, name: str) -> Finding:
    """Decode the contents of one file, reported under ``name``; None if they cannot be read.

    Problems: "zero-byte", "unreadable", "truncated", "wrong-format" (the extension says another one), "cmyk", "grey",
    "alpha", "animated", "exif-rotated", "too-large", "unknown-range".
    """
    if data is None:
        return Finding(name, 0, "", "", "", 0, 0, ("unreadable",))
    content = hashlib.blake2b(data, digest_size=16).hexdigest()
    if not data:
        return Finding(name, 0, content, "", "", 0, 0, ("zero-byte",))
    with warnings.catch_warnings():
        # Pillow warns about oddities that are reported here, or do not matter.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data))
        except Exception:
            return Finding(name, len(data), content, "", "", 0, 0, ("unreadable",))
        with image:
            problems = _problems(image, data, name)
            return Finding(
                name, len(data), content, image.format or "", image.mode, image.width, image.height, problems
            )


def _problems(image: Image.Image, data: bytes, name: str) -> tuple[str, ...]:
    found = []
    mode = image.mode
    if image.width * image.height > MAX_PIXELS:
        return ("too-large",)
    try:
        rotated = image.getexif().get(ORIENTATION, 1) not in (0, 1)
        alpha = mode in ALPHA_MODES or "transparency" in image.info
        image.load()
        decode(image, "RGB")
    except OSError as error:
        return ("truncated" if "truncated" in str(error) else "unreadable",)
    except Exception:
        return ("unknown-range" if mode in ("I", "F") else "unreadable",)
    # No end marker after the last scan: Pillow forgives the loss of the last bytes.
    if image.format == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        found.append("truncated")
    extension = os.path.splitext(name)[1].lower()
    if Image.registered_extensions().get(extension, image.format) != image.format:
        found.append("wrong-format")
    moving = getattr(image, "n_frames", 1) > 1
    kinds = {
        "animated": moving,
        "cmyk": mode == "CMYK",
        "grey": mode in GREY_MODES,
        "alpha": alpha,
        "exif-rotated": rotated,
    }
    return tuple(found + [kind for kind, on in kinds.items() if on])
