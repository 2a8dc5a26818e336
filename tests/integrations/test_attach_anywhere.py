"""SE by the names of modules, in trunks that nobody told us of; and the examples of the documentation."""

import runpy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from senet import SEConfig, SqueezeExcitation, UserError
from senet.integrations.attach import attach_se

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU()),
        nn.Flatten(),
        nn.LazyLinear(10),
    )


IMAGE = (2, 3, 64, 64)
TRUNKS = {
    "mobilenet_v2": (torchvision.models.mobilenet_v2, ["features.*.conv"], IMAGE, 17, 16),
    "densenet121": (torchvision.models.densenet121, ["features.transition?.conv"], IMAGE, 3, 128),
    "r3d_18": (torchvision.models.video.r3d_18, ["layer?.?.conv2"], (2, 3, 4, 32, 32), 8, 64),
    "res2net50": (
        lambda **o: timm.create_model("res2net50_26w_4s", zero_init_last=False, **o),
        ["layer?.?.bn3"],
        IMAGE,
        16,
        256,
    ),
    "resnetv2_50": (lambda **o: timm.create_model("resnetv2_50", **o), ["stages.*.conv3"], IMAGE, 16, 256),
    "inception_v4": (
        lambda **o: timm.create_model("inception_v4", **o),
        ["features.[3-9]", "features.[12][0-9]"],
        (2, 3, 139, 139),
        19,
        160,
    ),
}  # name: builder, places, inputs, blocks, channels of the first


def test_a_block_of_a_densenet_is_a_module_dict_that_is_called():
    network = torchvision.models.densenet121(num_classes=4).eval()
    report = attach_se(network, SEConfig(), ["features.denseblock?"], inputs=IMAGE)
    assert [block.channels for block in report.blocks] == [256, 512, 1024, 1024]
    seen = []
    network.features.denseblock4.register_forward_hook(lambda *given: seen.append(given[2]))
    network.features.norm5.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert network(torch.rand(IMAGE)).shape == (2, 4)
    assert torch.equal(*seen)
    plain = torchvision.models.densenet121(num_classes=4).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "attached_se" not in k})
    plain.features.denseblock4.register_forward_hook(lambda *given: seen.append(given[2]))
    for block in report.blocks[:3]:  # in the trunk without them by hand
        gate = network.get_submodule(f"{block.path}.attached_se")
        plain.get_submodule(block.path.rpartition(".")[0]).register_forward_hook(
            lambda _, __, x, gate=gate: gate(x)
        )
    image = torch.rand(IMAGE)
    seen.clear()
    network(image), plain(image)
    torch.testing.assert_close(
        seen[1], network.get_submodule(f"{report.blocks[3].path}.attached_se")(seen[2])
    )
    with pytest.raises(UserError, match="name one of them"):
        attach_se(
            plain, SEConfig(), ["features.denseblock1", "features.denseblock1.denselayer6"], inputs=IMAGE
        )


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = TRUNKS[name][0](num_classes=4)
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.momentum = 1.0  # one step's statistics, with which the deepest stays finite in evaluation
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUNKS)
def test_each_trunk_trains_a_step_and_loads_back(name: str, tmp_path: Path):
    _, places, shape, blocks, channels = TRUNKS[name]
    network, before = built(name), built(name).state_dict()
    report = attach_se(network, SEConfig(reduction=8), places, inputs=shape)
    assert len(report.blocks) == blocks
    assert report.blocks[0].channels == channels
    assert f"{report.blocks[0].path}: {channels} -> {channels // 8} channels" in str(report)
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in before.items())
    gates = [m for m in network.modules() if isinstance(m, SqueezeExcitation)]
    assert len(gates) == blocks
    start = [gate.excitation.fc2.bias.clone() for gate in gates]
    torch.nn.functional.cross_entropy(network(torch.randn(shape)), torch.tensor([0, 3])).backward()
    torch.optim.SGD(network.parameters(), lr=1e-3).step()
    assert not any(torch.equal(a, gate.excitation.fc2.bias) for a, gate in zip(start, gates, strict=True))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    again = built(name)
    attach_se(again, SEConfig(reduction=8), places, inputs=shape)
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    images = torch.randn(shape)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), again.eval()(images))
        for gate in gates:  # open gates leave the trunk, twice its half
            nn.init.zeros_(gate.excitation.fc2.weight)
            nn.init.constant_(gate.excitation.fc2.bias, 100.0)
        trunk = built(name).eval()
        trunk.load_state_dict({key: value for key, value in network.state_dict().items() if key in before})
        torch.testing.assert_close(network(images), trunk(images), rtol=1e-4, atol=1e-5)


def test_a_sequential_is_gated_once_at_its_end():
    torch.manual_seed(0)
    network, images = plain(), torch.randn(2, 3, 8, 8)
    network(images)  # its last layer learns its width
    report = attach_se(network, SEConfig(reduction=4), ["2"], inputs=(1, 3, 8, 8))
    assert [(b.path, b.channels, b.hidden_channels) for b in report.blocks] == [("2.1", 16, 4)]
    first = network[:2](images)
    inner = network[2][0](first).relu()
    torch.testing.assert_close(network(images), network[3:](network[2][1].attached_se(inner)))


def test_a_rival_gates_the_input_of_a_place():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    attach_se(network, SEConfig(block="ge", placement="pre"), ["1"])
    images = torch.randn(2, 3, 6, 6)
    seen = network[0](images)
    torch.testing.assert_close(network(images), (seen * seen.mean((2, 3), keepdim=True).sigmoid()).relu())


@pytest.mark.parametrize(
    ("places", "se", "inputs", "sentence"),
    [
        (["7"], {}, None, 'has no module "7"'),
        (["2"], {"stages": (2,)}, None, "se.stages=.2. has no effect where places="),
        (["2"], {"placement": "post"}, None, "use standard or pre"),
        (["2"], {"reduction": 64}, None, "exceeds the widest"),
        (["2"], {"block": "highway"}, None, "gates a shortcut"),
        (["2"], {}, (1, 4, 8, 8), r"does not take inputs=\(1, 4, 8, 8\) .*: give the shape"),
        (["3"], {"block": "eca"}, None, "se.block=eca does not take the maps of 3"),
    ],
)
def test_what_cannot_be_attached_is_refused(places, se, inputs, sentence):
    network = plain()
    network(torch.randn(2, 3, 8, 8))
    keys = network.state_dict().keys()
    with pytest.raises(UserError, match=sentence):
        attach_se(network, SEConfig(**se), places, inputs=inputs or (1, 3, 8, 8))
    assert network.state_dict().keys() == keys
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_of_series_needs_the_shape_of_its_inputs():
    with pytest.raises(UserError, match="does not begin with a 2-D convolution: give the shape"):
        attach_se(nn.Sequential(nn.Conv1d(1, 8, 3)), SEConfig(), ["0"])


def test_the_keyword_spotter_hears():
    assert runpy.run_path(str(EXAMPLES / "keyword_spotter.py"))["main"]() > 0.9


@pytest.mark.slow
def test_the_video_resnet_learns():
    losses = runpy.run_path(str(EXAMPLES / "video_resnet.py"))["main"]()
    assert losses[-1] < losses[0]
