"""Data sets that live in memory from the start: digits, CIFAR, random images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from senet.data.config import CifarConfig, SyntheticConfig
from senet.data.datasets import MemoryDataset
from senet.data.preprocessing import Preprocessing
from senet.errors import UserError


class InMemory(NamedTuple):
    """A data set in memory, its class names, and each sample's name."""

    dataset: MemoryDataset
    classes: list[str]
    name_of: Callable[[int], str]


def fit(dataset: MemoryDataset, preprocessing: Preprocessing, name: str) -> MemoryDataset:
    """Bring the images in memory to the preprocessing's size and colour, once."""
    images = dataset.images
    if images.shape[1] != preprocessing.channels:
        if images.shape[1] != 1:
            raise UserError(f"{name} has colour images: data.preprocessing.colour must be RGB")
        images = images.expand(-1, preprocessing.channels, -1, -1)
    if images.shape[-1] != preprocessing.size or preprocessing.resize is not None:
        images = torch.stack([preprocessing.evaluate(image) for image in images])
    return MemoryDataset(images.contiguous(), dataset.labels)


def digits(train: bool) -> InMemory:
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
    return InMemory(
        MemoryDataset(pixels, labels), [str(d) for d in range(10)], lambda index: f"digits/{kept[index]}"
    )


def cifar(config: CifarConfig, train: bool) -> InMemory:
    """Return CIFAR-10 or CIFAR-100 from torchvision's files under ``root``, fetching them if allowed.

    Raises:
        UserError: if the files are absent and cannot be fetched.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    cls = {"cifar10": CIFAR10, "cifar100": CIFAR100}[config.name]
    try:
        # torchvision compares the archive's MD5 before it unpickles it.
        data = cls(config.root, train=train, download=config.download)
    except Exception as error:
        raise UserError(
            f"{config.name}: not found under data.root={config.root}, and the download failed ({error}); put the "
            "official python archive there, or an image folder with train/ and test/"
        ) from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    split = "train" if train else "test"
    return InMemory(
        MemoryDataset(images, torch.tensor(data.targets)),
        list(data.classes),
        lambda index: f"{config.name}/{split}/{index}",
    )


def synthetic(config: SyntheticConfig, preprocessing: Preprocessing, train: bool) -> InMemory:
    """Return random images whose mean brightness tells the class, so that a network can learn them."""
    images, classes = config.train_images if train else config.val_images, config.num_classes
    generator = torch.Generator().manual_seed(int(not train))
    labels = torch.arange(images) % classes
    shape = (images, preprocessing.channels, preprocessing.size, preprocessing.size)
    noise = torch.randint(0, 128, shape, generator=generator, dtype=torch.uint8)
    levels = (labels * (127 // max(1, classes - 1))).to(torch.uint8)
    data = MemoryDataset(noise + levels[:, None, None, None], labels)
    return InMemory(data, [str(c) for c in range(classes)], lambda index: f"synthetic/{index}")
