"""Image folders: ``root/{train,val}/CLASS/*.jpg`` as records, listed once and then read from a cached index.

One rule says which files are images: those with an extension that Pillow reads, at any depth below a class folder.
Hidden files and folders (whose names begin with a dot) and macOS's ``__MACOSX`` are none, nor is what is no regular
file. Links to files and to folders are followed; a folder that a class holds twice, a loop too, is read once.
Whatever is left out is counted.
"""

import functools
import json
import os
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from senet.data.files import NOT_ARRAYS, Names, Records, checksum, names_id
from senet.errors import UserError
from senet.files import atomically, read_regular, user_cache

NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats whose files Pillow knows and reads only with another program, or not at all."""
# A folder changed so shortly before it was listed could change again without a new time stamp.
SETTLED_NS = 2_000_000_000
SIZED = 20_000
"""Files whose sizes a run looks at when it starts: a million would take minutes over a network."""


@dataclass(eq=False)
class ImageTree(Records):
    """One split of an image folder.

    Attributes:
        root: folder of the class folders.
        names: path of every image relative to ``root``, sorted by class, then by name.
        labels: int64 (N,), the index of each image's class in ``classes``.
        classes: class names.
        left_out: see ``Listing``.
    """

    root: Path
    names: Names
    labels: Tensor
    classes: list[str]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.split = self.root.name

    def read(self, index: int) -> bytes:
        return read_regular(os.path.join(self.root, self.names[index]))

    def identity(self) -> str:
        """Return the id of the last ``senet check`` of these very files, or else one of their names only."""
        return checked_id(self, self.root.parent, self.root)

    def listing(self) -> str:
        """Return what identifies the names of the files, and the sizes of up to ``SIZED`` of them, evenly spread."""
        sizes = [_size(self.root, self.names[i]) for i in range(0, len(self), len(self) // SIZED + 1)]
        return names_id(self.names, self.labels, np.array(sizes, np.int64))


def checked_id(records: Records, *sources: Path) -> str:
    """Return the id that ``senet check`` of a source gave these very files, or else one of their names only."""
    names = names_id(records.names, records.labels)
    for source in sources:
        with suppress(OSError, ValueError, KeyError):
            checked = json.loads((report_folder(source) / "check.json").read_text())["splits"][records.split]
            # Without a listing it is of a version that did not compare sizes.
            if checked["names"] == names and checked.get("listing") in (None, records.listing()):
                return f"content:{checked['id']}"
    return f"names:{names}"


def report_folder(source: Path) -> Path:
    """Return where ``senet check`` leaves its report of a folder, or of a file of labels."""
    return source.parent / ".senet" / source.name if source.is_file() else source / ".senet"


def _size(root: Path, name: str) -> int:
    with suppress(OSError):  # it is missed when it is read
        return os.stat(os.path.join(root, name)).st_size
    return -1


class Listing(NamedTuple):
    """What lies in a split.

    Attributes:
        names: path of every image, relative to the split.
        counts: images of each class folder, sorted by its name.
        states: what ``folder_state`` says of every folder that was read, by its path, relative likewise.
        left_out: how many files of each kind are no images: "hidden", "no regular file", or an extension.
    """

    names: Names
    counts: dict[str, int]
    states: dict[str, list[int]]
    left_out: dict[str, int]

    @property
    def labels(self) -> Tensor:
        """The place of each image's class among the class folders, int64 (N,)."""
        return torch.repeat_interleave(torch.tensor(list(self.counts.values())))


IRREGULAR = "no regular file"
"""A pipe, a device, a link to nothing, among ``ClassFolder.others``."""


class ClassFolder(NamedTuple):
    """A folder of a class: its path relative to the split, its images, and the other files by kind."""

    path: str
    images: list[str]
    others: dict[str, list[str]]


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
    raise UserError(
        f"data.root={root} has no {'/ or '.join(names)}/ folder with one folder per class; to validate on a part of "
        "the training images, train with data.val_fraction=0.2 or data.sampling.folds=5: train/, or the classes alone, "
        "are then enough; eval.py takes a folder with the classes alone"
    )


def refuse_splits(root: Path) -> None:
    """Refuse folders that would be taken for classes and are named as splits are.

    Raises:
        UserError: naming them.
    """
    found = [
        name
        for name in class_folders(root)
        if name.lower() in ("train", "training", "val", "valid", "validation")
    ]
    if found:
        raise UserError(
            f"data.root={root} has {'/ and '.join(found)}/, which are no classes but splits: call them train/ and val/"
        )


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over for its name."""
    return name.startswith(".") or name == "__MACOSX"


def class_folders(split: Path) -> list[str]:
    """Return the sorted names of the class folders of a split."""
    return sorted(entry.name for entry in os.scandir(split) if not is_hidden(entry.name) and entry.is_dir())


def walk_class(split: Path, name: str) -> Iterator[ClassFolder]:
    """Yield every folder of a class once."""
    seen, left = set(), [name]
    while left:
        path = left.pop()
        state = os.stat(split / path)
        if (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        images: list[str] = []
        others: dict[str, list[str]] = defaultdict(list)
        for entry in os.scandir(split / path):
            if is_hidden(entry.name):
                others["hidden"].append(entry.name)
            elif entry.is_dir():
                left.append(f"{path}/{entry.name}")
            elif not entry.is_file():
                others[IRREGULAR].append(entry.name)
            elif is_image(entry.name):
                images.append(entry.name)
            else:
                others[os.path.splitext(entry.name)[1].lower() or "no extension"].append(entry.name)
        yield ClassFolder(path, images, others)


@functools.cache
def extensions() -> frozenset[str]:
    """Return the extensions of all pictures that Pillow reads."""
    known = Image.registered_extensions()
    return frozenset(ext for ext, form in known.items() if form in Image.OPEN and form not in NO_PICTURES)


def is_image(file: str) -> bool:
    """Whether a file is taken for an image, by its extension."""
    return os.path.splitext(file)[1].lower() in extensions()


def list_images(split: Path) -> Listing:
    """Walk a split."""
    counts = dict.fromkeys(class_folders(split), 0)
    states = {".": folder_state(split)}
    left_out: Counter[str] = Counter()

    def images() -> Iterator[str]:
        for name in counts:
            found: list[str] = []
            for folder in walk_class(split, name):
                states[folder.path] = folder_state(split / folder.path)
                found += [f"{folder.path}/{file}" for file in folder.images]
                left_out.update({kind: len(files) for kind, files in folder.others.items()})
            counts[name] = len(found)
            yield from sorted(found)

    return Listing(Names.of(images()), counts, states, dict(left_out))


def folder_state(folder: Path) -> list[int]:
    """Return what changes with a folder's entries; the time of change alone may be pinned, as in container layers."""
    state = os.stat(folder)
    return [state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_size, state.st_nlink]


def cache_file(split: Path) -> Path:
    """Return where the index of a split is kept: the user's cache, since data may be read-only.

    What another version of Pillow takes for images is another index.
    """
    key = checksum(os.fsencode(split.resolve()), " ".join(sorted(extensions())).encode())
    return user_cache() / "index" / f"{key}.npz"


def cached_listing(split: Path) -> Listing:
    """Return the listing of a split, from the cached index where no folder has changed since."""
    file = cache_file(split)
    with suppress(OSError, *NOT_ARRAYS):  # none, damaged, or a folder is gone
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            known = Listing(Names(stored["names"], stored["ends"]), *json.loads(str(stored["others"])))
        if all(folder_state(split / folder) == state for folder, state in known.states.items()):
            return known
    now = time.time_ns()
    names, *others = listing = list_images(split)
    if max(changed for changed, *_ in listing.states.values()) < now - SETTLED_NS:
        with suppress(OSError, RuntimeError):  # no room or no right to write: the next start lists anew
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomically(file) as temporary, temporary.open("wb") as index:
                np.savez(index, names=names.buffer, ends=names.ends, others=np.array(json.dumps(others)))
    return listing


def scan(split: Path, classes: list[str] | None = None) -> ImageTree:
    """List the images of one split.

    Args:
        split: the folder of the class folders.
        classes: class names of the training split; by default the folders found.

    Raises:
        UserError: for a class without images, or a class the training split lacks.
    """
    listing = cached_listing(split)
    found = list(listing.counts)
    if not found:
        raise UserError(f"{split} has no class folders: images belong in {split}/CLASS/")
    unknown = sorted(set(found) - set(classes or found))
    if unknown:
        raise UserError(
            f"{split} has other classes than the training split or the checkpoint: {unknown[0]} is none of "
            f"{_few(classes or [])}{_same(unknown, classes)}"
        )
    empty = [name for name, count in listing.counts.items() if not count]
    if empty:
        raise UserError(f"{split / empty[0]} holds no image; remove the class or fill it")
    classes = classes or found
    index = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([index[name] for name in found])[listing.labels]
    return ImageTree(split, listing.names, labels, classes, listing.left_out)


def _few(names: list[str]) -> str:
    """Return the first names of a list, for a message."""
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")


def _same(unknown: list[str], classes: list[str] | None) -> str:
    """Say so where two names look the same and are written with other code points, as on macOS."""
    looks = unicodedata.normalize("NFC", unknown[0])
    if any(unicodedata.normalize("NFC", name) == looks for name in classes or ()):
        return (
            ", but one that looks the same in another Unicode form (composed, NFC, against decomposed, NFD): give both "
            "folders one name"
        )
    return ""
