"""What can be told of a JPEG without decoding it: its segments, its orientation, whether its pixels are all there."""

import re
from collections.abc import Iterator

START, END = b"\xff\xd8\xff", b"\xff\xd9"
_EXIF, _OTHER, _SCAN = 0xE1, 0xED, 0xDA
"""Marker codes: APP1, which holds EXIF; APP13, which decoders skip; and the start of the pixels."""
_MARKER = re.compile(rb"\xff[^\x00]")  # within a scan, FF is followed by 00


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the offset and the code of every marker, up to the first scan and with it."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        yield at, code
        if code == _SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


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
