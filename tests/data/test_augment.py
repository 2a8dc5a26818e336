"""Batch augmentation against one image at a time; image augmentation's draws."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from senet.data import AugmentConfig, Preprocessing, stream
from senet.data.augment import BatchAugmentation, ImageAugmentation, cut_out
from senet.data.streams import seeded
from senet.errors import UserError


@pytest.mark.parametrize(("crop", "pad"), [("pad", 4), ("pad", 1), ("none", 4)])
def test_batch_equals_image_by_image(crop: str, pad: int) -> None:
    images = torch.randint(0, 256, (40, 3, 12, 10), dtype=torch.uint8)
    ids = torch.randperm(100)[:40]
    result = BatchAugmentation(AugmentConfig(crop=crop, pad=pad), 100, seed=2)(images, ids, epoch=3)
    draws = torch.rand(100, 3, generator=stream(2, "augment", 3))
    for image, index, out in zip(images, ids, result, strict=True):
        row, column, flip = draws[index].tolist()
        if crop == "pad":
            top, left = int(row * (2 * pad + 1)), int(column * (2 * pad + 1))
            image = F.pad(image, [pad] * 4)[:, top : top + 12, left : left + 10]
        assert out.equal(image.flip(-1) if flip < 0.5 else image)


def test_a_sample_is_augmented_alike_in_any_company_and_differently_elsewhen() -> None:
    augment = BatchAugmentation(AugmentConfig(crop="pad"), 50, seed=0)
    images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
    ids = torch.arange(50)
    whole = augment(images, ids, 1)
    some = torch.tensor([4, 17, 33])
    assert augment(images[some], some, 1).equal(whole[some])
    assert not augment(images, ids, 2).equal(whole)
    again = augment(images, ids, 1, draws=torch.ones(50, dtype=torch.int64))
    assert not again.equal(whole)
    assert augment(images, ids, 1, draws=torch.zeros(50, dtype=torch.int64)).equal(whole)


def test_all_shifts_and_both_directions_occur() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(4000, -1, -1, -1)
    out = BatchAugmentation(AugmentConfig(crop="pad", pad=1), 4000, 0)(image, torch.arange(4000), 0)
    kinds, counts = np.unique(out.flatten(1).numpy(), axis=0, return_counts=True)
    assert len(kinds) == 18  # 3 x 3 shifts, flipped or not
    assert counts.min() > 4000 / 18 / 2


@pytest.mark.parametrize(
    "augment", [{}, {"crop": "pad", "rand_augment": (1, 3)}, {"crop": "none", "erase": 0.2}]
)
def test_what_memory_cannot_do_is_refused(augment: dict) -> None:
    with pytest.raises(UserError, match="data set held in memory"):
        BatchAugmentation(AugmentConfig(**augment), 10, 0)


@pytest.mark.parametrize("size", [16, 24])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_image_augmentation_keeps_size_type_and_seed(size: int, magnitude: int) -> None:
    config = AugmentConfig(rand_augment=(2, magnitude), erase=1.0, colour_jitter=0.4)
    augment = ImageAugmentation(config, Preprocessing(size=24, resize=28))
    image = torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8)
    for seed in range(15):  # RandAugment has 14 operations
        before = torch.get_rng_state()
        with seeded(seed):
            one = augment(image, size)
        assert torch.get_rng_state().equal(before)
        with seeded(seed):
            other = augment(image, size)
        assert one.shape == (3, size, size)
        assert one.dtype == torch.uint8
        assert one.equal(other)


def test_erasing_fills_with_the_mean_colour() -> None:
    pre = Preprocessing(size=32, resize=None)
    augment = ImageAugmentation(AugmentConfig(crop="none", flip=0, erase=1.0), pre)
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    out = augment(image, 32)
    erased = out[:, (out > 0).all(0)]
    assert erased.shape[1] > 0
    assert (
        erased == torch.tensor([123, 116, 103], dtype=torch.uint8)[:, None]
    ).all()  # 255 x mean, truncated


def test_cutout_fills_one_square_with_the_mean_colour():
    images = torch.full((3, 3, 10, 12), 7, dtype=torch.uint8)
    centres = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.99, 0.99]])
    fill = torch.tensor([1, 2, 3], dtype=torch.uint8)
    out = cut_out(images, centres, 4, fill)
    expected = images.clone()
    for image, (rows, columns) in zip(
        expected,
        [(slice(0, 2), slice(0, 2)), (slice(3, 7), slice(4, 8)), (slice(7, 10), slice(9, 12))],
        strict=True,
    ):
        image[:, rows, columns] = fill[:, None, None]
    assert torch.equal(out, expected)


def test_cutout_of_a_batch_depends_on_the_sample_only():
    config = AugmentConfig(crop="none", flip=0.0, cutout=4)
    augment = BatchAugmentation(config, 20, seed=0, mean=(0.5, 0.5, 0.5))
    images = torch.zeros(20, 3, 16, 16, dtype=torch.uint8)
    whole = augment(images, torch.arange(20), epoch=1)
    assert torch.equal(whole[5:9], augment(images[5:9], torch.arange(5, 9), epoch=1))
    assert set(whole.unique().tolist()) == {0, 128}
    assert (whole[:, 0] == 128).sum((1, 2)).max() == 16
    assert not torch.equal(whole, augment(images, torch.arange(20), epoch=2))
