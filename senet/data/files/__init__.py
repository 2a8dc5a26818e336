"""Where images come from: encoded, with random access, from folders, packs and archives, and their decoders."""

import hashlib
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from torch import Tensor

NOT_ARRAYS = (ValueError, TypeError, KeyError, EOFError, OverflowError, BadZipFile)
"""What numpy raises for a file that does not hold the arrays it should."""


class Names:
    """Many short strings in one buffer: a million paths take 40 MB, and forked workers share them unchanged.

    Args:
        buffer: uint8 (total,), the strings as the file system encodes them, one after the other.
        ends: int64 (N,), where each of them ends.
    """

    def __init__(self, buffer: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> None:
        self.buffer, self.ends = buffer, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """Store ``names``, one after the other."""
        buffer, ends = bytearray(), array("q")
        for name in names:
            buffer += os.fsencode(name)
            ends.append(len(buffer))
        return cls(np.frombuffer(buffer, dtype=np.uint8), np.frombuffer(ends, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.buffer[start : self.ends[index]].tobytes())


class Records(ABC):
    """Encoded images with random access: a folder, a pack, an archive.

    Attributes:
        split: what its folder is called, for the images' names in a run: "train", "val" or "test".
        names: the path of every image relative to its split, CLASS/FILE.
        labels: int64 (N,), the index of each image's class in ``classes``.
        classes: class names.
        left_out: how many files beside them are no images, by kind.
    """

    left_out: Mapping[str, int] = MappingProxyType({})
    split: str
    names: Names
    labels: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path of one image, relative to its split: CLASS/FILE."""
        return self.names[index]

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Return the file contents of one image."""

    def identity(self) -> str:
        """Return what identifies these images: "content:..." or "names:..."."""
        return f"names:{names_id(self.names, self.labels)}"

    def listing(self) -> str:
        """Return what identifies these images as far as it is seen without reading them."""
        return names_id(self.names, self.labels)


def names_id(names: Names, labels: Tensor, *more: npt.NDArray[np.int64]) -> str:
    """Return 16 hex digits that identify which images, of which classes, in which order; and what ``more`` says."""
    return checksum(names.buffer, names.ends, labels, *more)


def checksum(*parts: Any) -> str:
    """Return 16 hex digits that identify bytes, or what lies in arrays."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
    return digest.hexdigest()
