"""CIFAR-10 and CIFAR-100, fetched and read by torchvision."""

import os
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import CIFAR10, CIFAR100

from senet.data.config import SplitName
from senet.data.datasets import MemoryDataset
from senet.errors import UserError
from senet.files import hold


def cifar(name: str, root: str, split: SplitName, download: bool) -> MemoryDataset:
    """Return a split of "cifar10" or "cifar100" under ``root``, fetched if allowed.

    Raises:
        UserError: if the files are absent and cannot be fetched.
    """
    try:
        data = _read(name, root, split == "train", download)
    except Exception as error:
        raise UserError(
            f"{name}: not found under data.root={root}, and the download failed ({error}); put the "
            "official python archive there, or an image folder with train/ and test/"
        ) from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    folder = f"{name}/{'train' if split == 'train' else 'test'}"
    return MemoryDataset(images, torch.tensor(data.targets), list(data.classes), f"{folder}/{{}}".format)


def _read(name: str, root: str, train: bool, download: bool) -> Any:
    """Return torchvision's data set, which compares the archive's MD5 before it unpickles it."""
    official = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        return official(root, train=train)
    except RuntimeError:  # it is not there
        if not download:
            raise
    folder = Path(root).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    lock = hold(folder / f".{name}.lock", wait=True)  # other ranks and runs wait for the one that fetches
    try:
        return official(root, train=train, download=True)
    finally:
        os.close(lock)
