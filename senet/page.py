"""Pages from the templates in ``senet/templates``; what is put into HTML is escaped there."""

import io
from base64 import b64encode
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from senet.table import with_prefix

if TYPE_CHECKING:
    from PIL import Image


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("senet"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"as_source": _as_source, "with_prefix": with_prefix}
    return environment


def render(template: str, **values: Any) -> str:
    """Return a template filled with values."""
    return _environment().get_template(template).render(values)


def part(template: str, macro: str, *values: Any) -> str:
    """Return what a macro of a template makes of values, such as the table of ``parts.html``."""
    made: str = getattr(_environment().get_template(template).module, macro)(*values)
    return made


def _as_source(data: bytes) -> str:
    """Return the bytes of a PNG or JPEG file as the address of an image."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def thumbnail(picture: "Image.Image", side: int) -> bytes:
    """Return a picture of at most ``side`` pixels as PNG, if it is tiny, or JPEG."""
    picture = picture.convert("RGB")
    picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "PNG" if max(picture.size) <= 64 else "JPEG", quality=85)
    return out.getvalue()
