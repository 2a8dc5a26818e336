"""Data sets that answer (epoch, id) with a uint8 image, its label and its id: from files, or from memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from senet.data.folder import ImageTree
from senet.data.preprocessing import Preprocessing, decode
from senet.data.streams import stream_seed
from senet.errors import UserError

Key = tuple[int, int]
"""(epoch, sample id)."""


class Batch(NamedTuple):
    """Images uint8 or float (B, C, H, W), labels int64 (B,), sample ids int64 (B,), and the epoch."""

    images: Tensor
    labels: Tensor
    ids: Tensor
    epoch: int


class BadImage(NamedTuple):
    """What a worker returns for an unreadable file, so that the main process can say which one it was."""

    path: str
    reason: str


Sample = tuple[Tensor, int, Key] | BadImage


def collate(samples: Sequence[Sample]) -> Batch | BadImage:
    """Stack samples to a batch, or pass on the first bad image."""
    good: list[tuple[Tensor, int, Key]] = []
    for sample in samples:
        if isinstance(sample, BadImage):
            return sample
        good.append(sample)
    images = torch.stack([image for image, _, _ in good])
    labels = torch.tensor([label for _, label, _ in good])
    ids = torch.tensor([key[1] for _, _, key in good])
    return Batch(images, labels, ids, good[0][2][0])


class FileDataset(Dataset[Sample]):
    """Images decoded from files, one at a time, in worker processes.

    Args:
        tree: the files.
        preprocessing: colour mode, and the evaluation transform where ``augment`` is None.
        augment: maps a decoded uint8 image to the training image, drawing from torch's generator; it is
            seeded per (seed, epoch, id), so the pixels do not depend on workers, devices or resumes.
        seed: of the run.
    """

    def __init__(
        self,
        tree: ImageTree,
        preprocessing: Preprocessing,
        augment: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.tree, self.preprocessing, self.augment, self.seed = tree, preprocessing, augment, seed

    def __len__(self) -> int:
        return len(self.tree.files)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        path = self.tree.root / self.tree.files[index]
        try:
            with Image.open(path) as file:
                image = decode(file, self.preprocessing.colour)
        except Exception as error:
            return BadImage(str(path), f"{type(error).__name__}: {error}")
        if self.augment is None:
            image = self.preprocessing.evaluate(image)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream_seed(self.seed, "augment", epoch, index))
                image = self.augment(image)
        return image, int(self.tree.labels[index]), key


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

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of ``keys``; torch's DataLoader calls this with a whole batch of them."""
        ids = torch.tensor([index for _, index in keys])
        return Batch(self.images[ids], self.labels[ids], ids, keys[0][0])


def load_to_memory(tree: ImageTree, preprocessing: Preprocessing) -> MemoryDataset:
    """Decode a whole split once.

    Raises:
        UserError: naming the first file that cannot be decoded.
    """
    files = FileDataset(tree, preprocessing)
    images = torch.empty(len(files), preprocessing.channels, preprocessing.size, preprocessing.size).byte()
    for index in range(len(files)):
        sample = files[(0, index)]
        if isinstance(sample, BadImage):
            raise bad_image_error(sample)
        images[index] = sample[0]
    return MemoryDataset(images, tree.labels)


def bad_image_error(bad: BadImage) -> UserError:
    """Return the error that names an unreadable file."""
    return UserError(f"{bad.path} cannot be decoded ({bad.reason}); remove or replace the file")


class Split(NamedTuple):
    """One split: the data set, its class names, and each sample's name for the prediction files."""

    dataset: FileDataset | MemoryDataset
    classes: list[str]
    name_of: Callable[[int], str]


def digits(train: bool) -> Split:
    """Return scikit-learn's digits: 1,437 for training, 360 held out; stratified, always the same split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    ids = np.arange(len(bunch.target))
    kept = train_test_split(ids, test_size=360, stratify=bunch.target, random_state=0)[0 if train else 1]
    kept = np.sort(kept)
    # Ink is 0..16 in the data.
    pixels = torch.from_numpy(np.round(bunch.images[kept] * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target[kept].astype(np.int64))
    return Split(
        MemoryDataset(pixels, labels), [str(d) for d in range(10)], lambda index: f"digits/{kept[index]}"
    )


def cifar(name: str, root: Path, train: bool, download: bool) -> Split:
    """Return CIFAR-10 or CIFAR-100 from torchvision's files under ``root``, fetching them if allowed.

    Raises:
        UserError: if the files are absent and cannot be fetched.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    cls = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        # torchvision compares the archive's MD5 before it unpickles it.
        data = cls(str(root), train=train, download=download)
    except Exception as error:
        raise UserError(
            f"{name}: not found under data.root={root}, and the download failed ({error}); put the official "
            "python archive there, or an image folder with train/ and test/"
        ) from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    split = "train" if train else "test"
    return Split(
        MemoryDataset(images, torch.tensor(data.targets)),
        list(data.classes),
        lambda index: f"{name}/{split}/{index}",
    )


def synthetic(images: int, num_classes: int, preprocessing: Preprocessing, seed: int) -> Split:
    """Return random images whose mean brightness tells the class, so that a network can learn them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % num_classes
    shape = (images, preprocessing.channels, preprocessing.size, preprocessing.size)
    noise = torch.randint(0, 128, shape, generator=generator, dtype=torch.uint8)
    levels = (labels * (127 // max(1, num_classes - 1))).to(torch.uint8)
    data = MemoryDataset(noise + levels[:, None, None, None], labels)
    return Split(data, [str(c) for c in range(num_classes)], lambda index: f"synthetic/{index}")
