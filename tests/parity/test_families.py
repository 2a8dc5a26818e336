"""The other families against torchvision and timm, whole or with fewer blocks where that shows the same."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from senet.models import resnext, senet154, vgg
from senet.weights import convert_from, convert_to
from senet.weights.peers import PEERS, Peer

INCEPTION_STAGES = {"3": "Mixed_5d", "4": "Mixed_6e", "5": "Mixed_7c"}


LAYERS = (1, 2, 1, 1)


@pytest.fixture
def shallow(monkeypatch) -> None:
    """Build our 50-layer ResNeXt and SENet-154 with one block to a stage, and two in stage 3."""
    monkeypatch.setattr(resnext, "BLOCKS", {50: LAYERS})
    monkeypatch.setattr(senet154, "BLOCKS", LAYERS)


@pytest.mark.usefixtures("shallow")
def test_resnext_is_torchvisions(assert_parity):
    theirs = ResNet(Bottleneck, list(LAYERS), num_classes=10, groups=32, width_per_group=4)
    assert_parity("torchvision", "resnext50_32x4d", theirs)


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("name", ["seresnext50_32x4d", "legacy_seresnext50_32x4d"])
def test_se_resnext_is_timms(assert_parity, name):
    theirs = timm.create_model(name, num_classes=10, layers=LAYERS, drop_rate=0.0)
    assert_parity("timm", name, theirs)


@pytest.mark.usefixtures("shallow")
def test_senet154_is_timms_legacy(assert_parity):
    theirs = timm.create_model("legacy_senet154", num_classes=10, layers=LAYERS, drop_rate=0.0)
    assert_parity("timm", "legacy_senet154", theirs, dropout=0.0)


class NarrowHead(vgg.VGGHead):
    """16 units instead of 4096: the same three layers, a thousandth of the time."""

    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__(1, num_classes, dropout)
        self.fc6, self.fc7 = nn.Linear(channels * 7 * 7, 16), nn.Linear(16, 16)
        self.fc = nn.Linear(16, num_classes)


def test_vgg_is_torchvisions(assert_parity, monkeypatch):
    monkeypatch.setattr(vgg, "VGGHead", NarrowHead)
    theirs = torchvision.models.vgg16_bn(num_classes=10, dropout=0.0, init_weights=False)
    theirs.classifier[0], theirs.classifier[3] = nn.Linear(25088, 16), nn.Linear(16, 16)
    theirs.classifier[6] = nn.Linear(16, 10)
    stages = {
        "1": "features.6",
        "2": "features.13",
        "3": "features.23",
        "4": "features.33",
        "5": "features.43",
    }
    assert_parity("torchvision", "vgg16_bn", theirs, size=32, maps=stages, dropout=0.0)


def test_inception_v3_is_torchvisions(assert_parity):
    theirs = torchvision.models.inception_v3(
        num_classes=10, dropout=0.0, init_weights=False, aux_logits=False
    )
    assert_parity("torchvision", "inception_v3", theirs, size=107, maps=INCEPTION_STAGES, dropout=0.0)


def test_inception_v3_is_timms(assert_parity):
    theirs = timm.create_model("inception_v3", num_classes=10)
    assert_parity("timm", "inception_v3", theirs, size=107, maps=INCEPTION_STAGES, dropout=0.0)


def test_auxiliary_classifier_is_dropped():
    with torch.device("meta"):
        theirs = torchvision.models.inception_v3(init_weights=False, aux_logits=True).state_dict()
        lean = torchvision.models.inception_v3(init_weights=False, aux_logits=False).state_dict()
    ours = convert_from("torchvision", theirs, "inception_v3")
    assert convert_to("torchvision", ours, "inception_v3").keys() == lean.keys() < theirs.keys()


def test_inception_resnet_v2_is_timms(assert_parity):
    theirs = timm.create_model("inception_resnet_v2", num_classes=10)
    stages = {"3": "repeat", "4": "repeat_1", "5": "block8"}
    assert_parity("timm", "inception_resnet_v2", theirs, size=107, maps=stages, dropout=0.0)


DEEP = [
    ("timm", name)
    for name in ("resnext101_32x4d", "seresnext101_32x4d", "legacy_seresnext101_32x4d", "legacy_senet154")
]


@pytest.mark.parametrize(("source", "name"), DEEP)
def test_deep_ones_map_every_key_both_ways(source, name):
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
    back = convert_to(source, convert_from(source, theirs, name), name)
    assert {key: tensor.shape for key, tensor in back.items()} == {k: t.shape for k, t in theirs.items()}


# timm's MobileNet has ReLU6 where the paper's has ReLU, so that its released weights are not for ours; with
# ReLU asked for, it is the same network.
MOBILENET = [("conv_stem", "stem.conv"), ("bn1", "stem.bn"), ("classifier", "head.fc")] + [
    (f"blocks.{stage - 1}.#.{theirs}", f"stages.{stage}.#.{ours}")
    for stage in range(1, 6)
    for theirs, ours in {
        "conv_dw": "depthwise.conv",
        "bn1": "depthwise.bn",
        "conv_pw": "pointwise.conv",
        "bn2": "pointwise.bn",
    }.items()
]


def test_mobilenet_is_timms_with_relu(assert_parity, monkeypatch):
    monkeypatch.setitem(PEERS["timm"], "mobilenetv1_100", Peer("mobilenet", tuple(MOBILENET)))
    theirs = timm.create_model("mobilenetv1_100", num_classes=10, act_layer="relu")
    stages = {str(stage): f"blocks.{stage - 1}" for stage in range(1, 6)}
    assert_parity("timm", "mobilenetv1_100", theirs, size=64, maps=stages)
