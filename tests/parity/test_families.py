"""The other families against torchvision and timm, whole or with fewer blocks where that shows the same."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from senet import create_model
from senet.integrations.peers import PEERS, Peer, convert_from, convert_to
from senet.models import resnet, vgg

INCEPTION_STAGES = {"3": "Mixed_5d", "4": "Mixed_6e", "5": "Mixed_7c"}


LAYERS = (1, 2, 1, 1)


@pytest.fixture
def shallow(monkeypatch) -> None:
    """Build our 50-layer ResNeXt and SENet-154 with one block to a stage, and two in stage 3."""
    monkeypatch.setattr(resnet, "BLOCKS", {50: LAYERS, 152: LAYERS})


@pytest.mark.usefixtures("shallow")
def test_resnext_is_torchvisions(assert_parity):
    theirs = ResNet(Bottleneck, list(LAYERS), num_classes=10, groups=32, width_per_group=4)
    assert_parity("torchvision", "resnext50_32x4d", theirs)


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("name", ["seresnext50_32x4d", "legacy_seresnext50_32x4d"])
def test_se_resnext_is_timms(assert_parity, name):
    theirs = timm.create_model(name, num_classes=10, layers=LAYERS, drop_rate=0.0)
    assert_parity("timm", name, theirs)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_senet154_is_timms_legacy(assert_parity):
    theirs = timm.create_model("legacy_senet154", num_classes=10, layers=LAYERS, drop_rate=0.0)
    assert_parity("timm", "legacy_senet154", theirs, dropout=0.0)


@pytest.mark.usefixtures("shallow")
def test_senet154_starts_with_the_spread_of_timms_legacy():
    """All but the excitation and the classifier, whose fan-in and 0.01 are ours."""
    ours = create_model("senet154").state_dict()
    theirs = convert_from(
        "timm", timm.create_model("legacy_senet154", layers=LAYERS).state_dict(), "legacy_senet154"
    )
    convolutions = [key for key, w in ours.items() if w.dim() == 4 and ".se." not in key]
    assert len(convolutions) == 3 + 5 * 3 + 4
    for key in convolutions:
        assert ours[key].std().item() == pytest.approx(theirs[key].std().item(), rel=0.1), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["senet154", "legacy_senet154"])
def test_senet154_learns_a_batch_at_a_rate_that_suits_its_gradient(name):
    """Ours as timm's: the norm of the gradient is in the thousands, so that at 1e-3 both go up and down."""
    network = create_model(name) if name == "senet154" else timm.create_model(name)
    images, labels = torch.randn(8, 3, 64, 64), torch.randint(1000, (8,))
    losses, norms = [], []
    for _ in range(3):
        torch.manual_seed(0)  # the same units drop out
        loss = nn.functional.cross_entropy(network.train()(images), labels)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= 1e-6 * gradient
    assert losses[0] > losses[1] > losses[2]
    assert 1000 < norms[0] < 5000


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


@pytest.mark.slow
def test_inception_v3_is_torchvisions(assert_parity):
    theirs = torchvision.models.inception_v3(
        num_classes=10, dropout=0.0, init_weights=False, aux_logits=False
    )
    assert_parity("torchvision", "inception_v3", theirs, size=107, maps=INCEPTION_STAGES, dropout=0.0)


@pytest.mark.slow
def test_inception_v3_is_timms(assert_parity):
    theirs = timm.create_model("inception_v3", num_classes=10)
    assert_parity("timm", "inception_v3", theirs, size=107, maps=INCEPTION_STAGES, dropout=0.0)


def test_auxiliary_classifier_is_dropped():
    with torch.device("meta"):
        theirs = torchvision.models.inception_v3(init_weights=False, aux_logits=True).state_dict()
        lean = torchvision.models.inception_v3(init_weights=False, aux_logits=False).state_dict()
    ours = convert_from("torchvision", theirs, "inception_v3")
    assert convert_to("torchvision", ours, "inception_v3").keys() == lean.keys() < theirs.keys()


@pytest.mark.slow
def test_inception_resnet_v2_is_timms(assert_parity):
    theirs = timm.create_model("inception_resnet_v2", num_classes=10)
    stages = {"3": "repeat", "4": "repeat_1", "5": "block8"}
    assert_parity("timm", "inception_resnet_v2", theirs, size=107, maps=stages, dropout=0.0)


DEEP = [
    ("timm", name)
    for name in (
        *("resnet101", "resnet152", "seresnet101", "seresnet152", "legacy_seresnet101", "legacy_seresnet152"),
        *("resnext101_32x4d", "seresnext101_32x4d", "legacy_seresnext101_32x4d", "legacy_senet154"),
    )
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
