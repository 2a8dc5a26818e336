"""The handwritten digits of scikit-learn, and which of them are held out."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from senet.data.config import SplitName
from senet.data.datasets import MemoryDataset


def digits(split: SplitName) -> MemoryDataset:
    """Return the 1,437 digits to train on, or the 360 held out."""
    bunch = load_digits()
    parts = train_test_split(
        np.arange(len(bunch.target)), test_size=360, stratify=bunch.target, random_state=0
    )
    kept = np.sort(parts[split == "val"])
    # Ink is 0..16 in the data.
    pixels = torch.from_numpy(np.round(bunch.images[kept] * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target[kept].astype(np.int64))
    return MemoryDataset(pixels, labels, list("0123456789"), lambda index: f"digits/{kept[index]}")
