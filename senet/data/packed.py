"""Packed data: a split as a few large files of encoded images, memory-mapped, read at random.

ROOT/pack.json                  classes, how it was packed, images per split, the pack's id
ROOT/{train,val}/00000.bin ...  shards: encoded images, one after the other
ROOT/{train,val}/index.npz      for each image: shard, offset, length, hash, label, name
"""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch

from senet.data.records import Names
from senet.errors import UserError

PACK_FILE = "pack.json"


def digest(data: bytes) -> bytes:
    """Return the 8-byte hash that a pack keeps of every image."""
    return hashlib.blake2b(data, digest_size=8).digest()


def shard_file(split: Path, number: int) -> Path:
    """Return the file of one shard."""
    return split / f"{number:05d}.bin"


def pack_info(root: Path) -> dict[str, Any]:
    """Return what ``pack.json`` says.

    Raises:
        UserError: if ``root`` is not a finished pack.
    """
    file = root / PACK_FILE
    if not file.is_file():
        raise UserError(
            f"data.root={root} is not a pack (no {PACK_FILE}): make one with `senet pack ROOT OUT`"
        )
    loaded: dict[str, Any] = json.loads(file.read_text())
    if "id" not in loaded:
        raise UserError(f"{root} is a pack that was not finished: run its `senet pack` command again")
    return loaded


class PackedRecords:
    """One split of a pack, as ``Records``.

    Args:
        root: of the pack.
        split: "train" or "val".

    Raises:
        UserError: if the pack lacks the split, or a shard does not have the size its index says.
    """

    def __init__(self, root: Path, split: str) -> None:
        info = pack_info(root)
        if split not in info["splits"]:
            raise UserError(f"{root} is a pack of {', '.join(info['splits'])}: it has no {split} images")
        self.root = root / split
        self.id: str = info["id"]
        self.classes: list[str] = info["classes"]
        with np.load(self.root / "index.npz", allow_pickle=False) as a:
            self.names = Names(a["names_buffer"], a["names_ends"])
            self.labels = torch.from_numpy(a["labels"])
            self.shards, self.offsets, self.lengths = a["shards"], a["offsets"], a["lengths"]
            self.digests = a["digests"]
        self._maps: dict[int, mmap.mmap] = {}
        for number in np.unique(self.shards).tolist():
            mine = self.shards == number
            wanted = int((self.offsets[mine] + self.lengths[mine]).max())
            file = shard_file(self.root, number)
            if not file.is_file() or file.stat().st_size != wanted:
                raise UserError(f"{file} should have {wanted} bytes: the pack is damaged, make it anew")

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Return the path the image had in its split."""
        return self.names[index]

    def read(self, index: int) -> bytes:
        """Return the encoded image."""
        number, offset = int(self.shards[index]), int(self.offsets[index])
        if number not in self._maps:
            with shard_file(self.root, number).open("rb") as file:
                self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[number][offset : offset + int(self.lengths[index])]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: a worker process opens its own."""
        return self.__dict__ | {"_maps": {}}

    def damaged(self) -> list[int]:
        """Return the images whose bytes are not those that were packed."""
        return [i for i in range(len(self)) if digest(self.read(i)) != self.digests[i].tobytes()]
