"""Packed data: a split as a few large files of encoded images, memory-mapped, read at random.

ROOT/pack.json                  classes, how it was packed, images per split, the pack's id
ROOT/{train,val}/00000.bin ...  shards: encoded images, one after the other
ROOT/{train,val}/index.npz      for each image: shard, offset, length, hash, label, name

ROOT is a folder, or an address from which each file is fetched when it is first read.
"""

import hashlib
import json
import mmap
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from senet.data.records import Names
from senet.data.remote import Check, RemoteFolder, is_address
from senet.errors import UserError

PACK_FILE = "pack.json"


def digest(data: bytes) -> bytes:
    """Return the 8-byte hash that a pack keeps of every image."""
    return hashlib.blake2b(data, digest_size=8).digest()


def shard_file(split: Path, number: int) -> Path:
    """Return the file of one shard."""
    return split / f"{number:05d}.bin"


class LocalFolder:
    """The files of a pack on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def file(self, name: str, check: Check) -> Path:
        """Return the path of a file; ``check`` is for files that come over a network."""
        return self.root / name


Folder = LocalFolder | RemoteFolder


def open_folder(root: str | Path, cache: str | None = None) -> Folder:
    """Return the folder of a pack: a path, or an address whose files are kept in ``cache``."""
    if isinstance(root, str) and is_address(root):
        return RemoteFolder(root, cache)
    return LocalFolder(Path(root))


def pack_info(folder: Folder) -> dict[str, Any]:
    """Return what ``pack.json`` says.

    Raises:
        UserError: if the folder is not a finished pack, or cannot be reached.
    """

    def read(file: Path) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(file.read_text())
        if "id" not in loaded:
            raise UserError(f"{folder} is a pack that was not finished: run its `senet pack` command again")
        return loaded

    try:
        return read(folder.file(PACK_FILE, read))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.root={folder} is not a pack (no {PACK_FILE}): make one with `senet pack ROOT OUT`"
        ) from error


def _check_index(file: Path) -> None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            for name in arrays:
                arrays[name]  # compares checksums
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"the index of the pack is damaged ({error}): copy it anew") from error


class PackedRecords:
    """One split of a pack, as ``Records``.

    Args:
        root: of the pack: a path, or an address (PROTOCOL://...).
        split: "train" or "val".
        cache: where files from an address are kept, see ``RemoteFolder``.

    Raises:
        UserError: if the pack lacks the split or cannot be reached, or a shard does not have the size its index says.
    """

    def __init__(self, root: str | Path, split: str, cache: str | None = None) -> None:
        self.folder, self.split = open_folder(root, cache), split
        info = pack_info(self.folder)
        if split not in info["splits"]:
            raise UserError(f"{root} is a pack of {', '.join(info['splits'])}: it has no {split} images")
        self.id: str = info["id"]
        self.classes: list[str] = info["classes"]
        with np.load(self._file("index.npz", _check_index), allow_pickle=False) as a:
            self.names = Names(a["names_buffer"], a["names_ends"])
            self.labels = torch.from_numpy(a["labels"])
            self.shards, self.offsets, self.lengths = a["shards"], a["offsets"], a["lengths"]
            self.digests = a["digests"]
        self._maps: dict[int, mmap.mmap] = {}
        if isinstance(self.folder, LocalFolder):
            for number in np.unique(self.shards).tolist():
                self._check_size(number, self._shard(number))

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Return the path the image had in its split."""
        return self.names[index]

    def read(self, index: int) -> bytes:
        """Return the encoded image."""
        number, offset = int(self.shards[index]), int(self.offsets[index])
        if number not in self._maps:
            with self._shard(number).open("rb") as file:
                self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[number][offset : offset + int(self.lengths[index])]

    def _file(self, name: str, check: Check) -> Path:
        try:
            return self.folder.file(f"{self.split}/{name}", check)
        except FileNotFoundError as error:
            raise UserError(f"{self.folder}/{self.split}/{name} is missing: the pack is damaged") from error

    def _shard(self, number: int) -> Path:
        return self._file(shard_file(Path(), number).name, partial(self._check_copy, number))

    def _check_size(self, number: int, file: Path) -> None:
        mine = self.shards == number
        wanted = int((self.offsets[mine] + self.lengths[mine]).max())
        if not file.is_file() or file.stat().st_size != wanted:
            raise UserError(
                f"{self.folder}/{self.split}/{number:05d}.bin should have {wanted} bytes: the pack is damaged, make "
                "it anew"
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
