"""Packed data: a split as a few large files of encoded images, memory-mapped, read at random.

ROOT/pack.json                  classes, how it was packed, images per split, the pack's id
ROOT/{train,val}/00000.bin ...  shards: encoded images, one after the other
ROOT/{train,val}/index.npz      for each image: shard, offset, length, hash, label, name

ROOT is a folder, or an address from which each file is fetched when it is first read.
"""

import hashlib
import json
import mmap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch

from senet.data.config import is_address
from senet.data.files import NOT_ARRAYS, Names, Records
from senet.errors import UserError
from senet.plugins import integration

PACK_FILE = "pack.json"
Check = Callable[[Path], object]
"""Raises UserError for a file that is not what it should be."""
LIST_BYTES, INDEX_BYTES = 2**26, 2**32
"""Most that ``pack.json`` and an index may have: enough for a million classes, and for thirty million images."""


def digest(data: bytes) -> bytes:
    """Return the 8-byte hash that a pack keeps of every image."""
    return hashlib.blake2b(data, digest_size=8).digest()


def shard_file(split: Path, number: int) -> Path:
    """Return the file of one shard."""
    return split / f"{number:05d}.bin"


class Folder:
    """The files of a pack on this machine; its text is where it lies."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def file(self, name: str, check: Check, size: int) -> Path:
        """Return the path of a file; what comes over a network has ``size`` bytes at most and must pass ``check``."""
        return self.root / name


def open_folder(root: str | Path, cache: str | None = None) -> Folder:
    """Return the folder of a pack: a path, or an address whose files are kept in ``cache``."""
    if isinstance(root, str) and is_address(root):
        storage = integration("object_storage", package="fsspec", asked=f"data.root={root}")
        folder: Folder = storage.RemoteFolder(root, cache and Path(cache).expanduser())
        return folder
    return Folder(Path(root).expanduser())


def pack_info(folder: Folder) -> dict[str, Any]:
    """Return what ``pack.json`` says.

    Raises:
        UserError: if the folder is not a finished pack, or cannot be reached.
    """

    def read(file: Path) -> dict[str, Any]:
        with open(file, "rb") as stream:
            loaded = json.loads(stream.read(LIST_BYTES))
        if not isinstance(loaded, dict) or "id" not in loaded:
            raise UserError(f"{folder} is a pack that was not finished: run its `senet pack` command again")
        classes, splits = loaded.get("classes"), loaded.get("splits")
        if not (
            isinstance(classes, list) and isinstance(splits, dict) and all(type(c) is str for c in classes)
        ):
            raise ValueError("no classes and splits")
        return loaded

    try:
        return read(folder.file(PACK_FILE, read, LIST_BYTES))
    except UserError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError) as error:
        raise UserError(
            f"data.root={folder} is not a pack (no {PACK_FILE}): make one with `senet pack ROOT OUT`"
        ) from error


def read_index(file: Path, classes: int) -> dict[str, Any]:
    """Return the arrays of an index, of which every image lies behind the one before, from the shard's beginning on.

    Raises:
        UserError: if the file is damaged, or anything in it points to where no image can be.
    """
    try:
        with ZipFile(file) as members:  # an index is stored as it is: what is packed could become anything
            if sum(member.file_size for member in members.infolist()) > file.stat().st_size:
                raise ValueError("it is compressed")
        with np.load(file, allow_pickle=False) as arrays:
            index = {name: arrays[name] for name in arrays}  # compares checksums
        _check_arrays(index, classes)
    except (MemoryError, OSError, *NOT_ARRAYS) as error:
        raise UserError(f"the index of the pack is damaged ({error}): copy it anew") from error
    return index


def _check_arrays(index: dict[str, Any], classes: int) -> None:
    """Raise ValueError for arrays that do not belong together."""
    buffer, ends, labels = index["names_buffer"], index["names_ends"], index["labels"]
    shards, offsets, lengths, digests = (index[k] for k in ("shards", "offsets", "lengths", "digests"))
    count = ends.size
    for array in (ends, labels, shards, offsets, lengths):
        if array.shape != (count,) or array.dtype.kind != "i" or (count and int(array.min()) < 0):
            raise ValueError("an array of another size or kind")
    if not count or buffer.dtype != np.uint8 or digests.shape != (count, 8) or digests.dtype != np.uint8:
        raise ValueError("an array of another size or kind")
    if (np.diff(ends) < 0).any() or buffer.shape != (int(ends[-1]),):
        raise ValueError("names without an end")
    if int(labels.max()) >= classes:
        raise ValueError("a label of no class")
    first = np.diff(shards, prepend=-1) != 0
    if (np.diff(shards) < 0).any() or int(lengths.max()) > 2**40:
        raise ValueError("shards out of order")
    behind = np.where(first, 0, np.roll(offsets + lengths, 1))
    if not (offsets == behind).all():
        raise ValueError("images that overlap, or a gap between them")


class PackedRecords(Records):
    """One split of a pack.

    Args:
        root: of the pack: a path, or an address (PROTOCOL://...).
        split: "train" or "val".
        cache: where files from an address are kept, see ``RemoteFolder``.

    Raises:
        UserError: if the pack lacks the split, is damaged or cannot be reached, or a shard does not have the size its
            index says.
    """

    def __init__(self, root: str | Path, split: str, cache: str | None = None) -> None:
        self.folder, self.split = open_folder(root, cache), split
        info = pack_info(self.folder)
        if split not in info["splits"]:
            raise UserError(f"{root} is a pack of {', '.join(info['splits'])}: it has no {split} images")
        self._id: str = info["id"]
        self.classes = info["classes"]
        check = partial(read_index, classes=len(self.classes))
        index = check(self._file("index.npz", check, INDEX_BYTES))
        self.names = Names(index["names_buffer"], index["names_ends"])
        self.labels = torch.from_numpy(index["labels"])
        self.shards, self.offsets, self.lengths = index["shards"], index["offsets"], index["lengths"]
        self.digests = index["digests"]
        numbers, first = np.unique(self.shards, return_index=True)
        self.sizes = dict(zip(numbers.tolist(), np.add.reduceat(self.lengths, first).tolist(), strict=True))
        """Bytes of each shard, in which image lies behind image."""
        self._maps: dict[int, mmap.mmap] = {}
        if not is_address(str(self.folder)):
            for number in self.sizes:
                self._check_size(number, self._shard(number))

    def read(self, index: int) -> bytes:
        number, offset = int(self.shards[index]), int(self.offsets[index])
        if number not in self._maps:
            with self._shard(number).open("rb") as file:
                self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[number][offset : offset + int(self.lengths[index])]

    def identity(self) -> str:
        return self._id

    def _file(self, name: str, check: Check, size: int) -> Path:
        try:
            return self.folder.file(f"{self.split}/{name}", check, size)
        except FileNotFoundError as error:
            raise UserError(f"{self.folder}/{self.split}/{name} is missing: the pack is damaged") from error

    def _shard(self, number: int) -> Path:
        check = partial(self._check_copy, number)
        return self._file(shard_file(Path(), number).name, check, self.sizes[number])

    def _check_size(self, number: int, file: Path) -> None:
        if not file.is_file() or file.stat().st_size != self.sizes[number]:
            raise UserError(
                f"{self.folder}/{self.split}/{number:05d}.bin should have {self.sizes[number]} bytes: the pack is "
                "damaged, make it anew"
            )

    def _check_copy(self, number: int, file: Path) -> None:
        """Compare every image of a fetched shard with its hash."""
        self._check_size(number, file)
        with file.open("rb") as stored:
            for index in np.flatnonzero(self.shards == number):
                if digest(stored.read(int(self.lengths[index]))) != self.digests[index].tobytes():
                    raise UserError(
                        f"{self.folder}/{self.split}/{number:05d}.bin is not the shard that its index was written "
                        "for: the pack is damaged, or another now lies there (then set another data.cache)"
                    )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: a worker process opens its own."""
        return self.__dict__ | {"_maps": {}}

    def damaged(self) -> list[int]:
        """Return the images whose bytes are not those that were packed."""
        return [i for i in range(len(self)) if digest(self.read(i)) != self.digests[i].tobytes()]
