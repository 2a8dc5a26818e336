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
    "augment",
    [
        {},
        {"crop": "pad", "rand_augment": (1, 3)},
        {"crop": "none", "erase": 0.2},
        {"crop": "pad", "rotation": 3.0},
        {"crop": "pad", "policy": "augmix"},
        {"crop": "pad", "pixel_jitter": 1},
    ],
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


@pytest.mark.parametrize("policy", ["trivial_augment", "augmix", "three_augment"])
@pytest.mark.parametrize("colour", ["RGB", "L"])
def test_policies_keep_size_type_and_seed(policy: str, colour: str) -> None:
    values = {"mean": (0.5,), "std": (0.25,)} if colour == "L" else {}
    pre = Preprocessing(size=24, resize=28, colour=colour, **values)
    augment = ImageAugmentation(AugmentConfig(policy=policy), pre)
    image = torch.randint(0, 256, (pre.channels, 40, 30), dtype=torch.uint8)
    for seed in range(10):
        with seeded(seed):
            one = augmented(augment, image, 24)
        with seeded(seed):
            other = augmented(augment, image, 24)
        assert (one.shape, one.dtype) == ((pre.channels, 24, 24), torch.uint8)
        assert one.equal(other)


def test_three_augment_is_grey_solarised_or_blurred() -> None:
    augment = ImageAugmentation(
        AugmentConfig(crop="none", flip=0, policy="three_augment"), Preprocessing(size=24, resize=None)
    )
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8)
    kinds = set()
    for seed in range(30):
        with seeded(seed):
            out = augmented(augment, image, 24)
        grey = bool((out == out[:1]).all())
        solarised = out.equal(torch.where(image < 128, image, 255 - image))
        kinds.add("grey" if grey else "solarised" if solarised else "blurred")
        if not grey and not solarised:  # neighbours of noise become alike
            assert out.float().std() <= image.float().std()
    assert kinds == {"grey", "solarised", "blurred"}


def test_pixel_jitter_moves_each_channel_by_one_number() -> None:
    pre = Preprocessing(size=8, resize=None)
    augment = ImageAugmentation(AugmentConfig(crop="none", flip=0, pixel_jitter=20), pre)
    image = torch.randint(30, 220, (3, 8, 8), dtype=torch.uint8)
    moves = []
    for seed in range(200):
        with seeded(seed):
            moved = augmented(augment, image, 8).int() - image.int()
        assert (moved == moved[:, :1, :1]).all()
        moves.append(moved[:, 0, 0])
    moves = torch.stack(moves)
    assert moves.unique().tolist() == list(range(-20, 21))
    assert (moves[:, 0] != moves[:, 1]).any()
    with seeded(0):
        white = augmented(augment, torch.full((3, 8, 8), 255, dtype=torch.uint8), 8)
    assert white.min() >= 235  # and nothing comes round to black


def test_rotation_stays_within_its_degrees_and_fills_with_the_mean_colour() -> None:
    pre = Preprocessing(size=65, resize=None)
    augment = ImageAugmentation(AugmentConfig(crop="none", flip=0, rotation=10), pre)
    image = torch.full((3, 65, 65), 255, dtype=torch.uint8)
    image[:, :, 60:63] = 0  # a vertical line, 29 pixels right of the centre
    angles = []
    for seed in range(60):
        with seeded(seed):
            out = augmented(augment, image, 65)[0].float()
        dark = (out < 60).nonzero()[:, :].float() - 32
        slope = torch.linalg.lstsq(dark[:, :1], dark[:, 1:] - dark[:, 1].mean()).solution
        angles.append(float(torch.rad2deg(torch.atan(slope))))
        if abs(angles[-1]) > 5:
            assert out[0, 0] == pytest.approx(255 * 0.485, abs=2)
    assert 7 < max(angles) <= 10.5
    assert -10.5 <= min(angles) < -7


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
