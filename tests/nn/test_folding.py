"""Folding BN into convolutions keeps the numbers of evaluation mode."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from senet import SEConfig, UserError, create_model
from senet.integrations.attach import attach_se
from senet.kernels.folded_tail import merge
from senet.models.network import Head, Network
from senet.nn import Bottleneck
from senet.nn.folding import FoldedTail, fold_batch_norms


def trained(model: nn.Module) -> nn.Module:
    """Return ``model`` in training mode with BN as different from identity as after training."""
    generator = torch.Generator().manual_seed(0)
    for bn in model.modules():
        if isinstance(bn, nn.BatchNorm2d):
            for tensor, low, high in ((bn.running_mean, -1, 1), (bn.running_var, 0.3, 3)):
                tensor.uniform_(low, high, generator=generator)
            nn.init.uniform_(bn.weight, 0.3, 1.5, generator=generator)
            nn.init.uniform_(bn.bias, -1, 1, generator=generator)
    return model.train()


def batch_norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "left"),
    [
        ("se_resnet50", 64, 0),
        ("se_resnet18", 64, 8),  # the squeeze reads what a 3x3 convolution leaves: its tails stay
        ("resnet20", 32, 0),
        ("se_bn_inception", 64, 0),
        ("se_mobilenet", 64, 0),
        ("se_shufflenet", 64, 0),
        ("se_inception_resnet_v2", 75, 0),  # timm's BN with ReLU
        # Pre-activation: the last BN of a unit alone reads a convolution, the others a sum.
        ("se_preact_resnet110", 32, 55),
    ],
)
def test_same_numbers_with_no_batch_norm_left(name: str, size: int, left: int):
    torch.manual_seed(0)
    model = trained(create_model(name)).double()
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norms(model)
    torch.testing.assert_close(folded(images), model.eval()(images), rtol=1e-9, atol=1e-9)
    assert type(folded) is Network
    assert not folded.training
    assert list(folded.se_blocks()) == list(model.se_blocks())
    assert len(batch_norms(folded)) == left
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(("side", "squeezes_first"), [(16, True), (4, False)])
def test_the_squeeze_on_either_side_of_the_convolution_gives_the_same_gates(side: int, squeezes_first: bool):
    torch.manual_seed(0)
    block = Bottleneck(64, 64, 256, se=SEConfig())
    model = trained(Network(nn.Identity(), {2: nn.Sequential(block)}, Head(256, 5))).eval()
    images = torch.randn(2, 64, side, side)
    folded = fold_batch_norms(model)
    (tail,) = (module for module in folded.modules() if isinstance(module, FoldedTail))
    calls: list[int] = []
    tail.conv.register_forward_hook(lambda *args: calls.append(args[-1].shape[-1]))
    gates: list[Tensor] = []
    for network in (model, folded):
        network.se_blocks()["SE_2_1"].excitation.register_forward_hook(lambda *args: gates.append(args[-1]))
    torch.testing.assert_close(folded(images), model(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gates)
    assert calls == ([1, side] if squeezes_first else [side])


@pytest.mark.parametrize("placement", ["pre", "post", "identity", "conv3x3"])
def test_other_placements(placement: str):
    torch.manual_seed(0)
    block = Bottleneck(8, 4, 8, se=SEConfig(reduction=2, placement=placement))
    model = trained(Network(nn.Identity(), {2: nn.Sequential(block)}, Head(8, 5)))
    images = torch.randn(2, 8, 6, 6)
    folded = fold_batch_norms(model)
    torch.testing.assert_close(folded(images), model.eval()(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_merging_pass_in_triton(dtype: torch.dtype):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, shortcut = (torch.randn(2, 5, 3, 4, device=device).to(dtype) for _ in range(2))
    bias, gate = torch.randn(5, device=device), torch.rand(2, 5, 1, 1, device=device)
    for b, g in ((bias, gate), (None, gate), (bias, None)):
        expected = x.double() + (0 if b is None else b[:, None, None])
        expected = (expected * (1 if g is None else g) + shortcut).relu()
        ours = merge(x, shortcut, b, g)
        torch.testing.assert_close(ours.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    torch.library.opcheck(merge, (x, shortcut, bias, gate), test_utils=("test_schema", "test_faketensor"))


class Shared(nn.Module):
    """One convolution twice, behind which stand two batch normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn1, self.bn2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv(F.relu(self.bn1(self.conv(x)))))


class TwiceRead(nn.Module):
    """A convolution that BN and an addition read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.bn(x)


class ByName(nn.Module):
    """A BN that is given its input by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(input=self.conv(x))


@pytest.mark.parametrize("kind", [Shared, TwiceRead, ByName])
def test_what_cannot_be_folded_stays(kind: type[nn.Module]):
    model = trained(kind())
    folded, images = fold_batch_norms(model), torch.randn(2, 3, 4, 4)
    assert batch_norms(folded) == batch_norms(model)
    torch.testing.assert_close(folded(images), model.eval()(images))


@pytest.mark.parametrize("placement", ["standard", "pre", "post"])
def test_se_that_is_attached_to_a_foreign_network_is_not_lost(placement: str):
    """It acts as hooks, of which a graph of modules says nothing."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        foreign = trained(torchvision.models.resnet18(num_classes=5))
        attach_se(foreign, SEConfig(placement=placement))
        ours = trained(create_model("se_timm", timm_name="resnet18", num_classes=5))
        for model in (foreign, ours):
            folded = fold_batch_norms(model)
            torch.testing.assert_close(folded(images), model.eval()(images), rtol=1e-4, atol=1e-4)
            assert len(batch_norms(folded)) < len(batch_norms(model))


def test_a_norm_without_statistics_stays():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fold_batch_norms(model)(images), model(images), rtol=0, atol=0)
    block = Bottleneck(8, 4, 8, se=SEConfig(reduction=2))
    block.tail.bn = nn.GroupNorm(2, 8)
    model, images = (
        Network(nn.Identity(), {2: nn.Sequential(block)}, Head(8, 5)).eval(),
        torch.randn(2, 8, 6, 6),
    )
    torch.testing.assert_close(fold_batch_norms(model)(images), model(images), rtol=1e-5, atol=1e-5)


class Undecided(nn.Module):
    """A forward that asks what its input holds."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_forward_that_cannot_be_traced():
    with pytest.raises(UserError, match="Undecided depends on its input's values"):
        fold_batch_norms(Undecided())
