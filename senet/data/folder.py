"""Image folders: ``root/{train,val}/CLASS/*.jpg`` as records, listed once and then read from a cached index."""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from senet.data.cache import user_cache
from senet.data.records import Names
from senet.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
# A folder changed so shortly before it was listed could change again without a new time stamp.
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class ImageTree:
    """One split of an image folder, as ``Records``.

    Attributes:
        root: folder of the class folders.
        names: path of every image relative to ``root``, sorted by class, then by name.
        labels: int64 (N,), the index of each image's class in ``classes``.
        classes: sorted class names.
    """

    root: Path
    names: Names
    labels: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path of an image relative to ``root``."""
        return self.names[index]

    def read(self, index: int) -> bytes:
        """Return the contents of a file."""
        with open(os.path.join(self.root, self.names[index]), "rb") as file:
            return file.read()


class Listing(NamedTuple):
    """What lies in a split: class folders, images per class, paths, and the folders' time stamps."""

    folders: Names
    counts: Tensor
    names: Names
    visited: Names
    times: Tensor


def find_split(root: Path, names: tuple[str, ...]) -> Path:
    """Return the first of ``root/NAME`` that is a folder.

    Raises:
        UserError: if the root or all of the splits are missing.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root}: there is no such folder")
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"data.root={root} has no {'/ or '.join(names)}/ folder with one folder per class")


def class_folders(split: Path) -> list[str]:
    """Return the sorted names of the class folders of a split."""
    return sorted(e.name for e in os.scandir(split) if e.is_dir() and not e.name.startswith("."))


def walk_class(split: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield every folder of a class, as a path relative to the split, with its files."""
    for folder, _, files in os.walk(split / name):
        yield os.path.relpath(folder, split), files


def is_image(file: str) -> bool:
    """Whether a file is taken for an image, by its extension."""
    return os.path.splitext(file)[1].lower() in EXTENSIONS


def list_images(split: Path) -> Listing:
    """Walk a split."""
    folders, counts, visited, parts = class_folders(split), [], ["."], []
    for name in folders:
        images: list[str] = []
        for folder, files in walk_class(split, name):
            visited.append(folder)
            images += [os.path.join(folder, file) for file in files if is_image(file)]
        images.sort()
        counts.append(len(images))
        parts.append(Names.of(images))
    times = torch.tensor([os.stat(split / folder).st_mtime_ns for folder in visited])
    return Listing(
        Names.of(folders),
        torch.tensor(counts, dtype=torch.int64),
        Names.join(parts),
        Names.of(visited),
        times,
    )


def cache_file(split: Path) -> Path:
    """Return where the index of a split is kept: the user's cache, since data may be read-only."""
    key = hashlib.blake2b(os.fsencode(split.resolve()), digest_size=12).hexdigest()
    return user_cache() / "index" / f"{key}.npz"


def cached_listing(split: Path) -> Listing:
    """Return the listing of a split, from the cached index where no folder has changed since."""
    file = cache_file(split)
    listing = _load(file)
    if listing is not None and _unchanged(split, listing):
        return listing
    now = time.time_ns()
    listing = list_images(split)
    if int(listing.times.max()) < now - SETTLED_NS:
        _save(file, listing)
    return listing


def _unchanged(split: Path, listing: Listing) -> bool:
    try:
        return all(
            os.stat(split / listing.visited[i]).st_mtime_ns == then
            for i, then in enumerate(listing.times.tolist())
        )
    except OSError:
        return False


def _load(file: Path) -> Listing | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as a:
            names = [
                Names(a[f"{part}_buffer"], a[f"{part}_ends"]) for part in ("folders", "names", "visited")
            ]
            counts, times = torch.from_numpy(a["counts"]), torch.from_numpy(a["times"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None  # absent, or not whole: list anew
    return Listing(names[0], counts, names[1], names[2], times)


def _save(file: Path, listing: Listing) -> None:
    arrays = {"counts": listing.counts.numpy(), "times": listing.times.numpy()}
    for part in ("folders", "names", "visited"):
        names: Names = getattr(listing, part)
        arrays |= {f"{part}_buffer": names.buffer, f"{part}_ends": names.ends}
    temporary = file.with_name(f".{file.stem}.{os.getpid()}.npz")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)  # no room or no right to write: the next start lists anew


def scan(split: Path, classes: list[str] | None = None) -> ImageTree:
    """List the images of one split.

    Args:
        split: the folder of the class folders.
        classes: class names of the training split; by default the folders found.

    Raises:
        UserError: for a class without images, or a class the training split lacks.
    """
    listing = cached_listing(split)
    found = [listing.folders[i] for i in range(len(listing.folders))]
    if not found:
        raise UserError(f"{split} has no class folders: images belong in {split}/CLASS/")
    unknown = sorted(set(found) - set(classes or found))
    if unknown:
        raise UserError(f"{split}/{unknown[0]}: the training split has no class of this name")
    empty = [name for name, count in zip(found, listing.counts.tolist(), strict=True) if not count]
    if empty:
        raise UserError(f"{split / empty[0]} holds no image; remove the class or fill it")
    classes = classes or found
    index = {name: i for i, name in enumerate(classes)}
    labels = torch.repeat_interleave(torch.tensor([index[name] for name in found]), listing.counts)
    return ImageTree(split, listing.names, labels, classes)
