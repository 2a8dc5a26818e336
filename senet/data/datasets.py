"""Data sets that answer (epoch, id, draw) with a uint8 image, its label and its id: from records, or from memory."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from senet.data.augment import ImageAugmentation
from senet.data.decoders import Decoder
from senet.data.preprocessing import Preprocessing
from senet.data.records import Records
from senet.data.region import whole
from senet.data.sampling import EpochSizes
from senet.data.streams import seeded, stream_seed
from senet.errors import UserError


class Key(NamedTuple):
    """Which sample: epoch, id, and how often the epoch drew this id before (0 unless it repeats)."""

    epoch: int
    id: int
    draw: int = 0


class Batch(NamedTuple):
    """Images uint8 (B, C, H, W); labels, sample ids and draws (see ``Key``), int64 (B,).

    ``numbers`` are what the batch is to be augmented with, uniform in [0, 1), (B, NUMBERS); None in evaluation.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    draws: Tensor
    numbers: Tensor | None = None


class Sample(NamedTuple):
    """One image, uint8 (C, H, W), or its file's bytes where the device decodes.

    ``seconds`` is what reading, decoding and augmenting took.
    """

    image: Tensor | bytes
    label: int
    key: Key
    seconds: tuple[float, float, float]


class BadImage(NamedTuple):
    """What a worker returns for an unreadable file, so that the main process can say which one it was.

    ``mistake`` is what no policy passes over: it is not the file's fault, and other files would fail alike.
    """

    key: Key
    path: str
    reason: str
    mistake: UserError | None = None


class Fetched(NamedTuple):
    """A batch, the images it should have had beside, and the seconds that its stages took in all workers."""

    batch: Batch | None
    bad: list[BadImage]
    seconds: tuple[float, float, float]


def collate(samples: Sequence[Sample | BadImage], memory: Tensor | None = None) -> Fetched:
    """Stack the readable samples to a batch and list the others; the batch is None if there is no readable one.

    The images go to ``memory``, uint8 and one-dimensional, if that is given.
    """
    good = [sample for sample in samples if isinstance(sample, Sample)]
    bad = [sample for sample in samples if isinstance(sample, BadImage)]
    if not good:
        return Fetched(None, bad, (0.0, 0.0, 0.0))
    # Stacked as decoders give them, channels last.
    images = [cast(Tensor, sample.image).permute(1, 2, 0) for sample in good]
    shape = torch.Size((len(good), *images[0].shape))
    out = None if memory is None else memory[: shape.numel()].view(shape)
    pixels = torch.stack(images, out=out).permute(0, 3, 1, 2)
    labels = torch.tensor([sample.label for sample in good])
    ids = torch.tensor([sample.key.id for sample in good])
    draws = torch.tensor([sample.key.draw for sample in good])
    read, decode, augment = (sum(sample.seconds[stage] for sample in good) for stage in range(3))
    return Fetched(Batch(pixels, labels, ids, draws), bad, (read, decode, augment))


def keep(samples: Sequence[Sample | BadImage]) -> Sequence[Sample | BadImage]:
    """Pass encoded samples on as they are; the device's decoder collates them."""
    return samples


class FileDataset(Dataset[Sample | BadImage]):
    """Images decoded one at a time, in worker processes.

    Args:
        records: the encoded images.
        preprocessing: colour mode, and the evaluation transform where ``augment`` is None.
        decoder: bytes to uint8 (C, H, W); ``None`` hands out the bytes, for ``DeviceDecoder``.
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
        self.sizes = sizes or EpochSizes((), preprocessing.size)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> Sample | BadImage:
        times = [time.perf_counter()]
        label = int(self.records.labels[key.id])
        with self._draws(key):
            try:
                data = self.records.read(key.id)
                times.append(time.perf_counter())
                if self.decoder is None:
                    return Sample(data, label, key, (times[1] - times[0], 0.0, 0.0))
                image = self.decoder(data, choose=self.augment.box if self.augment else whole)
            except Exception as error:
                return bad_image(self, key, error)
            times.append(time.perf_counter())
            image = self._finish(image, key)
        times.append(time.perf_counter())
        return Sample(image, label, key, (times[1] - times[0], times[2] - times[1], times[3] - times[2]))

    @property
    def bytes_per_image(self) -> int:
        """Of the largest image that it makes."""
        return self.preprocessing.channels * self.sizes.largest**2

    def transform(self, image: Tensor, key: Key) -> Tensor:
        """Return the training or evaluation image of a decoded image, uint8 (C, size, size)."""
        with self._draws(key):
            box = self.augment.box if self.augment else whole
            return self._finish(box(*image.shape[-2:]).cut(image), key)

    def _draws(self, key: Key) -> AbstractContextManager[None]:
        if self.augment is None:
            return nullcontext()
        name = key if key.draw else key[:2]
        return seeded(stream_seed(self.seed, "augment", *name))

    def _finish(self, image: Tensor, key: Key) -> Tensor:
        if self.augment is None:
            return self.preprocessing.evaluate(image)
        return self.augment.finish(image, self.sizes(key.epoch))


def bad_image(dataset: FileDataset, key: Key, error: Exception) -> BadImage:
    """Return the record of an image that could not be read."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    mistake = error if isinstance(error, UserError) else None
    return BadImage(key, dataset.records.name(key.id), reason, mistake)


def bad_image_error(bad: BadImage) -> UserError:
    """Return the error that names an unreadable image, or the mistake behind it."""
    return bad.mistake or UserError(
        f"{bad.path} cannot be decoded ({bad.reason}); `senet check` lists all such files: remove or replace them"
    )


class MemoryDataset(Dataset[Batch]):
    """Equal-sized uint8 images in memory, fetched as whole batches.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        assert images.dtype == torch.uint8
        assert len(images) == len(labels)
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, ids: Tensor, draws: Tensor) -> Batch:
        """Return the batch of the samples ``ids`` (B,)."""
        return Batch(self.images.index_select(0, ids), self.labels[ids], ids, draws)


def load_to_memory(records: Records, preprocessing: Preprocessing, decoder: Decoder) -> MemoryDataset:
    """Decode a whole split once.

    Raises:
        UserError: naming the first file that cannot be decoded.
    """
    files = FileDataset(records, preprocessing, decoder)
    images = torch.empty(len(files), preprocessing.channels, preprocessing.size, preprocessing.size).byte()
    for index in range(len(files)):
        sample = files[Key(0, index)]
        if isinstance(sample, BadImage):
            raise bad_image_error(sample)
        images[index] = cast(Tensor, sample.image)
    return MemoryDataset(images, records.labels)
