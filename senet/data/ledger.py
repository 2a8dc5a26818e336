"""The ledger of images that could not be read: which, when and why. Nothing ever stands in for them."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from senet.data.datasets import BadImage

HEADER = ("epoch", "id", "image", "reason")


class Ledger:
    """Rows of unreadable images, appended to a CSV file as they happen.

    Args:
        file: ``None`` keeps them in memory only. Several ranks may append to one file.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.rows: list[BadImage] = []

    @property
    def images(self) -> set[int]:
        """Ids of the images this rank could not read."""
        return {row.key.id for row in self.rows}

    def add(self, bad: Iterable[BadImage]) -> None:
        """Enter images."""
        bad = list(bad)
        self.rows += bad
        if self.file is None or not bad:
            return
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows((row.key.epoch, row.key.id, row.path, row.reason) for row in bad)
        # One write to a file opened for appending: rows of several ranks do not mix.
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, text.getvalue().encode("utf-8", "surrogateescape"))
        finally:
            os.close(descriptor)


def read_ledger(file: Path) -> dict[str, str]:
    """Return the distinct images of a ledger with their reasons; empty if there is no file."""
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        return {row["image"]: row["reason"] for row in csv.DictReader(lines, fieldnames=HEADER)}
