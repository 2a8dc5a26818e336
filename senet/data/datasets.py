"""Data sets that answer (epoch, ids, draws) with a batch of uint8 images: from encoded files, or from memory."""

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from senet.data.augment import ImageAugmentation
from senet.data.files import Records, checksum
from senet.data.files.decoders import Choose, Decoder, build_decoder, whole
from senet.data.preprocessing import Preprocessing
from senet.data.sampling import EpochSizes
from senet.data.streams import seeded, stream_seed
from senet.data.timings import AUGMENT, DECODE, READ, Stopwatch
from senet.errors import UserError
from senet.files import no_room_for

Selection = tuple[int, Sequence[int], Sequence[int]]
"""What a batch is made of: the epoch, ids, and draws: how often the epoch drew each id before, 0 unless it repeats."""


class BadImage(NamedTuple):
    """A file that cannot be read.

    ``mistake`` is what no policy passes over: it is not the file's fault, and other files would fail alike.
    """

    epoch: int
    id: int
    path: str
    reason: str
    mistake: UserError | None = None

    def error(self) -> UserError:
        """Return the error that names the image, or the mistake behind it."""
        return self.mistake or UserError(
            f"{self.path} cannot be decoded ({self.reason}); `senet check` lists all such files: remove or replace "
            "them"
        )


class Batch(NamedTuple):
    """A batch on its way from a worker to the network.

    Attributes:
        images: uint8 (B, C, H, W).
        labels: int64 (B,).
        ids: int64 (B,), the samples' places in the data set.
        draws: int64 (B,), see ``Selection``.
        numbers: what the batch is to be augmented with, uniform in [0, 1), (B, NUMBERS); None in evaluation.
        bad: images that the batch should have had beside.
        seconds: that reading, decoding and augmenting took, in all workers.
        handed: what stands for the images on the way: the place in a ``Ring`` where they lie, or the bytes of their
            files, where the device decodes.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    draws: Tensor
    numbers: Tensor | None = None
    bad: Sequence[BadImage] = ()
    seconds: Sequence[float] = ()
    handed: Any = None


HEADER = ("epoch", "id", "image", "reason")


class BadImages:
    """The images that could not be read: which, when and why; appended to a CSV file as they happen.

    Args:
        file: ``None`` keeps them in memory only. Several ranks may append to one file.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.rows: list[BadImage] = []

    @property
    def images(self) -> set[int]:
        """Ids of the images this rank could not read."""
        return {row.id for row in self.rows}

    def add(self, bad: Sequence[BadImage]) -> None:
        self.rows += bad
        if self.file is None or not bad:
            return
        text = io.StringIO()
        csv.writer(text).writerows(row[: len(HEADER)] for row in bad)
        rows = text.getvalue().encode("utf-8", "surrogateescape")
        # One write to a file opened for appending, so that rows of several ranks do not mix; all of it, or an error.
        with no_room_for(self.file), self.file.open("ab", buffering=len(rows) + 1) as file:
            file.write(rows)


def read_bad_images(file: Path) -> dict[str, str]:
    """Return the distinct images of such a file with their reasons; empty if there is no file."""
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        return {row["image"]: row["reason"] for row in csv.DictReader(lines, fieldnames=HEADER)}


class FileDataset(Dataset[Batch]):
    """Images decoded one at a time, in worker processes.

    Args:
        records: the encoded images.
        preprocessing: colour mode, and the evaluation transform where ``augment`` is None.
        decoder: bytes to uint8 (C, H, W); ``None`` hands out the bytes, for the device to decode.
        augment: chooses the part of the image that is used, and makes the training image of it, drawing from
            torch's generator; it is seeded per (seed, epoch, id), so the pixels do not depend on workers, devices
            or resumes.
        seed: of the run.
        sizes: the side of the training image in each epoch; by default always the preprocessing's.
    """

    def __init__(
        self,
        records: Records,
        preprocessing: Preprocessing,
        decoder: Decoder | None,
        augment: ImageAugmentation | None = None,
        seed: int = 0,
        sizes: EpochSizes | None = None,
    ) -> None:
        self.records, self.preprocessing, self.decoder = records, preprocessing, decoder
        self.augment, self.seed = augment, seed
        self._choose: Choose = augment.box if augment else whole
        self.sizes = sizes or EpochSizes((), preprocessing.size)
        self.labels, self.classes, self.identity = records.labels, records.classes, records.identity
        self.listing = records.listing

    def __len__(self) -> int:
        return len(self.records)

    def for_evaluation(self) -> "FileDataset":
        """Return the same images without augmentation."""
        return FileDataset(self.records, self.preprocessing, self.decoder)

    def name_of(self, index: int) -> str:
        """Return what a sample is called in a run's files."""
        return f"{self.records.split}/{self.records.name(index)}"

    def __getitem__(self, selection: Selection) -> Batch:
        return self.fetch(selection)

    def fetch(self, selection: Selection, memory: Tensor | None = None) -> Batch:
        """Return the batch of a selection, without the images that cannot be read.

        The images go to ``memory``, uint8 and one-dimensional, if that is given.
        """
        epoch, ids, draws = selection
        watch = Stopwatch()
        images = [self.image(epoch, *sample, watch) for sample in zip(ids, draws, strict=True)]
        if self.decoder is None:
            nothing = torch.empty(0, dtype=torch.int64)
            return Batch(
                nothing, nothing, nothing, nothing, handed=(selection, images), seconds=watch.seconds
            )
        return self.collate(selection, images, watch.seconds, memory)

    def image(
        self, epoch: int, index: int, draw: int = 0, watch: Stopwatch | None = None
    ) -> Tensor | bytes | BadImage:
        """Return one image, uint8 (C, size, size), or its file's bytes where the device decodes."""
        watch = watch or Stopwatch()
        with self._draws(epoch, index, draw):
            try:
                data = self.records.read(index)
                watch.lap(READ)
                if self.decoder is None:
                    return data
                image = self.decoder(data, choose=self._choose)
                watch.lap(DECODE)
            except Exception as error:
                watch.lap(DECODE)
                return self.bad_image(epoch, index, error)
            finished = self._finish(image, epoch, index)
        watch.lap(AUGMENT)
        return finished

    def collate(
        self,
        selection: Selection,
        images: Sequence[Tensor | bytes | BadImage],
        seconds: Sequence[float],
        memory: Tensor | None = None,
    ) -> Batch:
        """Stack the images of a selection to a batch, and list those among them that are bad."""
        _, ids, draws = selection
        bad = [image for image in images if isinstance(image, BadImage)]
        kept = [i for i, image in enumerate(images) if not isinstance(image, BadImage)]
        # Stacked as decoders give them, channels last.
        pixels = [image.permute(1, 2, 0) for image in images if isinstance(image, Tensor)]
        if pixels:
            shape = torch.Size((len(pixels), *pixels[0].shape))
            out = None if memory is None else memory[: shape.numel()].view(shape)
            stacked = torch.stack(pixels, out=out)
        else:
            stacked = torch.empty(0, 0, 0, self.preprocessing.channels, dtype=torch.uint8)
        of, drawn = torch.tensor([ids, draws], dtype=torch.int64)[:, kept]
        return Batch(stacked.permute(0, 3, 1, 2), self.labels[of], of, drawn, None, bad, seconds)

    def bad_image(self, epoch: int, index: int, error: Exception) -> BadImage:
        """Return the record of an image that could not be read."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        mistake = error if isinstance(error, UserError) else None
        return BadImage(epoch, index, self.records.name(index), reason, mistake)

    @property
    def bytes_per_image(self) -> int:
        """Of the largest image that it makes."""
        return self.preprocessing.channels * self.sizes.largest**2

    def transform(self, image: Tensor, epoch: int, index: int, draw: int) -> Tensor | BadImage:
        """Return the training or evaluation image of a decoded image, uint8 (C, size, size)."""
        with self._draws(epoch, index, draw):
            return self._finish(self._choose(*image.shape[-2:]).cut(image), epoch, index)

    def _draws(self, epoch: int, index: int, draw: int) -> AbstractContextManager[None]:
        if self.augment is None:
            return nullcontext()
        name = (epoch, index, draw) if draw else (epoch, index)
        return seeded(stream_seed(self.seed, "augment", *name))

    def _finish(self, image: Tensor, epoch: int, index: int) -> Tensor | BadImage:
        try:
            if self.augment is None:
                return self.preprocessing.evaluate(image)
            return self.augment.finish(image, self.sizes(epoch))
        except ValueError as error:  # it is too narrow to be resized
            return self.bad_image(epoch, index, error)


class MemoryDataset(Dataset[Batch]):
    """Equal-sized images in memory.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        classes: class names.
        name_of: what a sample is called in a run's files, by its index.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, classes: list[str], name_of: Callable[[int], str]
    ) -> None:
        assert images.dtype == torch.uint8
        assert len(images) == len(labels)
        self.images, self.labels, self.classes, self.name_of = images, labels, classes, name_of

    def __len__(self) -> int:
        return len(self.images)

    def for_evaluation(self) -> "MemoryDataset":
        """Return the same images: they are augmented in batches."""
        return self

    def fetch(self, ids: Tensor, draws: Tensor) -> Batch:
        """Return the batch of the samples ``ids``, int64 (B,)."""
        return Batch(self.images.index_select(0, ids), self.labels[ids], ids, draws)

    def identity(self) -> str:
        """Return a hash of pixels and labels."""
        return f"content:{checksum(self.images, self.labels)}"

    def listing(self) -> str:
        """Return nothing beside ``identity``."""
        return ""

    def fit(self, preprocessing: Preprocessing, name: str) -> "MemoryDataset":
        """Bring the images of data set ``name`` to the preprocessing's size and colour, once."""
        images = self.images
        if images.shape[1] != preprocessing.channels:
            if images.shape[1] != 1:
                raise UserError(f"{name} has colour images: data.preprocessing.colour must be RGB")
            images = images.expand(-1, preprocessing.channels, -1, -1)
        if images.shape[-2:] != (preprocessing.size,) * 2 or preprocessing.resize is not None:
            images = torch.stack([preprocessing.evaluate(image) for image in images])
        return MemoryDataset(images.contiguous(), self.labels, self.classes, self.name_of)


def load_to_memory(records: Records, preprocessing: Preprocessing, max_pixels: int) -> MemoryDataset:
    """Decode a whole split once, none of whose images may have more than ``max_pixels``.

    Raises:
        UserError: naming the first file that cannot be decoded.
    """
    files = FileDataset(records, preprocessing, build_decoder("fast", preprocessing.colour, max_pixels))
    images = torch.empty(len(files), preprocessing.channels, preprocessing.size, preprocessing.size).byte()
    for index in range(len(files)):
        image = files.image(0, index)
        if isinstance(image, BadImage):
            raise image.error()
        images[index] = cast(Tensor, image)
    return MemoryDataset(images, files.labels, files.classes, files.name_of)
