"""Where encoded images come from: one small interface over folders, packed shards and tar archives."""

import hashlib
import os
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor


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
        """Store ``names``."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    @classmethod
    def join(cls, parts: list["Names"]) -> "Names":
        """Return the names of all parts, in order."""
        if not parts:
            return cls.of([])
        starts = np.cumsum([0] + [len(part.buffer) for part in parts[:-1]])
        ends = [part.ends + start for part, start in zip(parts, starts, strict=True)]
        return cls(np.concatenate([part.buffer for part in parts]), np.concatenate(ends).astype(np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.buffer[start : self.ends[index]].tobytes())


class Records(Protocol):
    """Encoded images with random access: what a folder, a pack or a store of shards must offer."""

    @property
    def labels(self) -> Tensor:
        """Labels, int64 (N,)."""
        ...

    @property
    def classes(self) -> list[str]:
        """The class names that the labels index."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, index: int) -> bytes:
        """Return the file contents of one image."""
        ...

    def name(self, index: int) -> str:
        """Return the path of one image, relative to its split: CLASS/FILE."""
        ...


def names_id(names: Names, labels: Tensor) -> str:
    """Return 16 hex digits that identify which images, of which classes, in which order."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (names.buffer, names.ends, labels.numpy()):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
