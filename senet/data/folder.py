"""Image folders: ``root/{train,val}/CLASS/*.jpg`` to lists of paths, labels and class names."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from senet.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}


@dataclass(frozen=True)
class ImageTree:
    """One split of an image folder.

    Attributes:
        root: folder of the class folders.
        files: path of every image relative to ``root``, sorted by class, then by name.
        labels: int64 (N,), the index of each image's class in ``classes``.
        classes: sorted class names.
    """

    root: Path
    files: list[str]
    labels: Tensor
    classes: list[str]


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


def scan(split: Path, classes: list[str] | None = None) -> ImageTree:
    """List the images of one split.

    Args:
        split: the folder of the class folders.
        classes: class names of the training split; by default the folders found.

    Raises:
        UserError: for a class without images, or a class the training split lacks.
    """
    found = sorted(e.name for e in os.scandir(split) if e.is_dir() and not e.name.startswith("."))
    if not found:
        raise UserError(f"{split} has no class folders: images belong in {split}/CLASS/")
    unknown = sorted(set(found) - set(classes or found))
    if unknown:
        raise UserError(f"{split}/{unknown[0]}: the training split has no class of this name")
    classes = classes or found
    files: list[str] = []
    counts = []
    for name in found:
        images = sorted(
            os.path.relpath(os.path.join(folder, file), split)
            for folder, _, members in os.walk(split / name)
            for file in members
            if os.path.splitext(file)[1].lower() in EXTENSIONS
        )
        if not images:
            raise UserError(f"{split / name} holds no image; remove the class or fill it")
        files += images
        counts.append(len(images))
    index = {name: i for i, name in enumerate(classes)}
    labels = torch.repeat_interleave(torch.tensor([index[name] for name in found]), torch.tensor(counts))
    return ImageTree(split, files, labels, classes)
