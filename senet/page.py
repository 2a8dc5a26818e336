"""A page of HTML that needs nothing but itself: light or dark, phone or desktop."""

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def page(
    title: str, lead: str, facts: Mapping[str, str], sections: Mapping[str, str], warning: str = ""
) -> str:
    """Return the page.

    Args:
        title: what it is about.
        lead: one sentence under the title.
        facts: what holds for all of it, by name.
        sections: HTML by heading; an empty one is left out.
        warning: what must be known before anything is read.
    """
    style = files("senet").joinpath("page.css").read_text(encoding="utf-8")
    named = "".join(
        f"<div{' class=long' * (len(v) > 40)}><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>"
        for k, v in facts.items()
    )
    above = f"<p class='warning'>{escape(warning)}</p>" if warning else ""
    parts = [f"<h1>{escape(title)}</h1>{above}<p class='soft'>{escape(lead)}</p><dl>{named}</dl>"]
    parts += [f"<h2>{escape(name)}</h2>{content}" for name, content in sections.items() if content]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>\n{style}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def bullets(lines: Iterable[str]) -> str:
    """Return a list of sentences as HTML."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def folded(title: str, content: str) -> str:
    """Return what is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def figure(title: str, picture: str, caption: str) -> str:
    """Return a picture, an ``<svg>`` or ``<img>`` element, with what there is to know of it."""
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f"<figure>{heading}{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def image(data: bytes, words: str) -> str:
    """Return an ``<img>`` element that holds the bytes of a PNG or JPEG file; ``words`` say what it shows."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f'<img alt="{escape(words)}" src="data:image/{kind};base64,{b64encode(data).decode()}">'


def thumbnail(picture: "Image.Image", side: int) -> bytes:
    """Return a picture of at most ``side`` pixels as PNG, if it is tiny, or JPEG."""
    picture = picture.convert("RGB")
    picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "PNG" if max(picture.size) <= 64 else "JPEG", quality=85)
    return out.getvalue()


def gallery(figures: Iterable[str]) -> str:
    """Return small pictures side by side."""
    return f"<div class='gallery'>{''.join(figures)}</div>"
