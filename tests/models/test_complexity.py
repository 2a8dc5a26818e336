"""Costs against published counts, and a network's parts against its whole."""

import pytest
import torch
from torch import nn

from senet.models import Cost, complexity, count_macs, create_model
from senet.nn import SEConfig


def cost(name: str, size: int | None = None, **options: object) -> dict[str, Cost]:
    with torch.device("meta"):
        return complexity(create_model(name, **options), size)


# timm's benchmark table prints these activations (millions) for torchvision's variants of the networks.
ACTIVATIONS = {"resnet18": 2.48, "resnet34": 3.74, "resnet50": 11.11, "vgg16_bn": 13.56}


@pytest.mark.parametrize(("name", "millions"), ACTIVATIONS.items())
def test_activations_are_those_of_timms_table(name, millions):
    options = {"stride_on": "3x3"} if name == "resnet50" else {}
    assert cost(name, **options)["total"].activations / 1e6 == pytest.approx(millions, abs=0.006)


def test_se_resnet50_by_hand():
    total = cost("se_resnet50")["total"]
    blocks = {256: (3, 56), 512: (4, 28), 1024: (6, 14), 2048: (3, 7)}
    weights = sum(2 * n * c * (c // 16) for c, (n, _) in blocks.items())
    assert total.se_macs == weights == 2_514_944
    assert total.se_parameters == weights + sum(n * (c + c // 16) for c, (n, _) in blocks.items())
    assert total.squeezed == sum(n * c * side**2 for c, (n, side) in blocks.items())
    assert total.flops == 2 * total.macs
    plain = cost("resnet50")["total"]
    assert total.macs - plain.macs == total.se_macs
    assert total.parameters - plain.parameters == total.se_parameters


def test_no_squeeze_has_no_squeeze_and_costs_what_the_paper_prints():
    total = cost("se_resnet50", se=SEConfig(squeeze="none"))["total"]
    assert total.squeezed == 0
    assert f"{total.paper_macs / 1e9:.2f}" == "4.27"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("se_resnet20", {}),
        ("se_preact_resnet110", {}),
        ("se_resnet18", {"se": SEConfig(placement="pre", stages=(3, 5))}),
        ("se_shufflenet", {"se": SEConfig(placement="conv3x3")}),
    ],
)
def test_parts_make_the_whole(name, options):
    parts = cost(name, 64, **options)
    total = parts.pop("total")
    assert sum(part.macs for part in parts.values()) == total.macs
    assert sum(part.parameters for part in parts.values()) == total.parameters
    gated = {part for part, spent in parts.items() if spent.se_parameters}
    with torch.device("meta"):
        assert gated == {key.split("_")[1] for key in create_model(name, **options).se_blocks()}


def test_the_network_is_left_alone():
    network = create_model("se_resnet20", in_channels=1)
    parts = complexity(network, 32)
    assert all(not module._forward_hooks for module in network.modules())
    assert all("gate" not in vars(se) for se in network.se_blocks().values())
    assert network.training
    assert network(torch.randn(1, 1, 32, 32)).device.type == "cpu"
    assert count_macs(network, 1, 32) == parts["total"].macs


def test_macs_scale_with_the_area_and_parameters_do_not():
    small, large = cost("resnet20", 32), cost("resnet20", 64)
    assert large["2"].macs == 4 * small["2"].macs
    assert large["total"].parameters == small["total"].parameters
    assert small["head"].macs == large["head"].macs == 64 * 10


def test_frozen_parameters_are_counted():
    network = create_model("resnet20")
    whole = complexity(network)["total"].parameters
    nn.Module.requires_grad_(network.stem, False)
    assert complexity(network)["total"].parameters == whole
