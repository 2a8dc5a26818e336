"""Fixtures of the data tests: a private cache, a folder of small photographs, and its records."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from senet.data.files.folder import ImageTree, scan


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A smooth picture with some texture, 90 x 70 pixels."""
    generator = np.random.default_rng(1)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((90, 70), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((smooth + generator.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture
def tree(image_tree: Path) -> ImageTree:
    return scan(image_tree / "train")
