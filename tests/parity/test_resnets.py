"""Our (SE-)ResNets against torchvision's and timm's, and against the sizes that the paper prints."""

import math

import pytest
import timm
import torch
import torchvision

from senet import SEConfig, create_model
from senet.models import count_parameters

DEPTHS = (18, 34, 50)
"""The deeper ones have the same units, only more of them: for those ``test_families.py`` maps the keys."""


@pytest.mark.parametrize("depth", DEPTHS)
def test_plain_resnet_is_torchvisions(depth, assert_parity):
    theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=10)
    assert_parity("torchvision", f"resnet{depth}", theirs)


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_se_resnet_is_timms(depth, assert_parity):
    theirs = timm.create_model(f"seresnet{depth}", num_classes=10)
    assert_parity("timm", f"seresnet{depth}", theirs)


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_authors_se_resnet_is_timms_legacy(depth, assert_parity):
    theirs = timm.create_model(f"legacy_seresnet{depth}", num_classes=10, drop_rate=0.0)
    assert_parity("timm", f"legacy_seresnet{depth}", theirs)


# Published (v4 Table 10, in millions) and exact: rounding the exact count up gives every published one.
SIZES = {
    2: (45.7, 45_699_240),
    4: (35.7, 35_635_688),
    8: (30.7, 30_603_912),
    16: (28.1, 28_088_024),
    32: (26.9, 26_830_080),
}


@pytest.mark.parametrize("reduction", SIZES)
def test_published_sizes(reduction):
    with torch.device("meta"):
        network = create_model("se_resnet50", se=SEConfig(reduction=reduction))
    published, exact = SIZES[reduction]
    assert count_parameters(network) == exact
    assert math.ceil(exact / 1e5) / 10 == published


def test_size_without_se_or_biases():
    with torch.device("meta"):
        assert count_parameters(create_model("resnet50")) == 25_557_032
        assert count_parameters(create_model("se_resnet50", se=SEConfig(bias=False))) == 28_071_976
