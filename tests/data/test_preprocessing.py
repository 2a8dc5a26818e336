"""The evaluation transform against torchvision's on Pillow images, and normalisation against its formula."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize

from senet.data import Preprocessing
from senet.data.files.decoders import decode
from senet.errors import UserError


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(90, 70), (70, 90), (300, 201), (64, 64), (57, 131)])
def test_resize_and_crop_are_torchvisions(
    photo: Image.Image, shape: tuple[int, int], interpolation: str
) -> None:
    image = photo.resize(shape)
    mode = InterpolationMode(interpolation)
    theirs = CenterCrop(56)(Resize(64, mode, antialias=True)(image))
    ours = Preprocessing(size=56, resize=64, interpolation=interpolation).evaluate(decode(image, "RGB"))
    difference = np.abs(np.asarray(theirs).astype(int) - ours.permute(1, 2, 0).numpy().astype(int))
    assert difference.max() <= (2 if interpolation == "bilinear" else 7)
    assert difference.mean() < 0.05


@pytest.mark.parametrize("size", [(21, 34), (50, 33)])
def test_a_crop_larger_than_the_image_is_padded_as_torchvision_pads(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    ours = Preprocessing(size=40, resize=None).evaluate(decode(image, "RGB"))
    assert np.array_equal(np.asarray(CenterCrop(40)(image)), ours.permute(1, 2, 0).numpy())


def test_normalise_is_the_formula() -> None:
    images = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    pre = Preprocessing(size=6, resize=None)
    theirs = Normalize(list(pre.mean), list(pre.std))(images.double() / 255)
    torch.testing.assert_close(pre.normalise(images), theirs.float(), atol=2e-6, rtol=1e-6)
    grey = Preprocessing(size=6, resize=None, mean=(0.5,), std=(0.25,), colour="L")
    torch.testing.assert_close(grey.normalise(images[:, :1]), (images[:, :1] / 255 - 0.5) / 0.25)


def test_another_size_keeps_the_ratio() -> None:
    assert Preprocessing().at(320).resize == round(256 * 320 / 224)
    assert Preprocessing(size=32, resize=None).at(64).resize is None


@pytest.mark.parametrize(
    "keys", [{"size": 0}, {"size": 64, "resize": 32}, {"mean": (0.5,)}, {"std": (0, 1, 1)}, {"colour": "L"}]
)
def test_impossible_settings_are_refused(keys: dict) -> None:
    with pytest.raises(UserError, match="preprocessing"):
        Preprocessing(**keys)
