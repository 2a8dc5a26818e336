"""Image by image: what torchvision's operations draw and keep."""

import pytest
import torch

from senet.data import AugmentConfig, Preprocessing
from senet.data.augment import ImageAugmentation
from senet.data.streams import seeded
from senet.errors import UserError


def augmented(augment: ImageAugmentation, image: torch.Tensor, size: int) -> torch.Tensor:
    return augment.finish(augment.box(*image.shape[-2:]).cut(image), size)


@pytest.mark.parametrize(
    "augment", [{}, {"crop": "pad", "rand_augment": (1, 3)}, {"crop": "none", "erase": 0.2}]
)
def test_what_memory_cannot_do_is_refused(augment: dict) -> None:
    with pytest.raises(UserError, match="data set held in memory"):
        AugmentConfig(**augment).check_in_memory()


@pytest.mark.parametrize("size", [16, 24])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_image_augmentation_keeps_size_type_and_seed(size: int, magnitude: int) -> None:
    config = AugmentConfig(rand_augment=(2, magnitude), erase=1.0, colour_jitter=0.4)
    augment = ImageAugmentation(config, Preprocessing(size=24, resize=28))
    image = torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8)
    for seed in range(15):  # RandAugment has 14 operations
        before = torch.get_rng_state()
        with seeded(seed):
            one = augmented(augment, image, size)
        assert torch.get_rng_state().equal(before)
        with seeded(seed):
            other = augmented(augment, image, size)
        assert one.shape == (3, size, size)
        assert one.dtype == torch.uint8
        assert one.equal(other)


def test_erasing_fills_with_the_mean_colour() -> None:
    pre = Preprocessing(size=32, resize=None)
    augment = ImageAugmentation(AugmentConfig(crop="none", flip=0, erase=1.0), pre)
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    out = augmented(augment, image, 32)
    erased = out[:, (out > 0).all(0)]
    assert erased.shape[1] > 0
    assert (
        erased == torch.tensor([123, 116, 103], dtype=torch.uint8)[:, None]
    ).all()  # 255 x mean, truncated
