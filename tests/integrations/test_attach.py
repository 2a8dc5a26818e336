"""SE attached to foreign trunks: against timm's own SE nets, our own variants, and gates of 0 and 1."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from senet import SEConfig, UserError, create_model
from senet.integrations.attach import attach_se
from senet.integrations.peers import from_torchvision
from senet.models import complexity, count_macs, without_memory
from senet.weights import freeze, load_weights, trunk_and_head_parameters

TRUNKS = [
    ("torchvision", "resnet18", 8),
    ("torchvision", "resnext50_32x4d", 16),
    ("torchvision", "regnet_x_400mf", 22),
    ("torchvision", "convnext_tiny", 18),
    ("timm", "resnet18", 8),
    ("timm", "resnext50_32x4d", 16),
    ("timm", "regnetx_002", 13),
    ("timm", "convnext_atto", 12),
]


def trunk(source: str, name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    if source == "timm":
        return timm.create_model(name, num_classes=10, **options).eval()
    return torchvision.models.get_model(name, num_classes=10, **options).eval()


def set_gates(model: nn.Module, logit: float) -> None:
    for key, parameter in model.named_parameters():
        if "attached_se" in key:
            nn.init.constant_(parameter, logit if key.endswith("fc2.bias") else 0.0)


@pytest.mark.parametrize(("source", "name", "blocks"), TRUNKS)
def test_open_gates_leave_the_trunk_and_closed_ones_its_shortcuts(source, name, blocks):
    plain = trunk(source, name)
    gated = copy.deepcopy(plain)
    report = attach_se(gated, SEConfig(stages=None, reduction=8))
    assert len(report.blocks) == blocks
    state = gated.state_dict()
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        set_gates(gated, 100.0)
        torch.testing.assert_close(gated(images), plain(images), rtol=1e-4, atol=1e-5)
        set_gates(gated, -1000.0)
        closed = gated(images)
        last = gated.get_submodule(report.blocks[-1].path)
        for key, parameter in last.named_parameters():
            if not key.startswith(("attached", "downsample", "proj", "shortcut")):
                nn.init.normal_(parameter)
        # A closed gate hides whatever the branch computes, and nothing of the shortcut.
        assert not torch.allclose(closed[0], closed[1])
        torch.testing.assert_close(gated(images), closed, rtol=1e-5, atol=1e-6)


def test_attached_to_timms_resnet_it_is_timms_se_resnet():
    theirs = trunk("timm", "seresnet18")
    ours = trunk("timm", "resnet18")
    attach_se(ours, SEConfig(round_to=8))
    state = {key.replace(".se.", ".attached_se.excitation."): v for key, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
    ours(images).square().sum().backward()
    theirs(images).square().sum().backward()
    torch.testing.assert_close(ours.conv1.weight.grad, theirs.conv1.weight.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("placement", ["standard", "pre", "post"])
def test_attached_to_torchvisions_resnet_it_is_ours(placement):
    config = SEConfig(placement=placement, stages=(3, 5), reduction=4)
    theirs = trunk("torchvision", "resnet18")
    state = from_torchvision(theirs.state_dict(), "resnet18")
    report = attach_se(theirs, config)
    ours = create_model("se_resnet18", se=config, stem_pool="pad", num_classes=10).eval()
    for name, block in ours.se_blocks().items():
        path = {attached.name: attached.path for attached in report.blocks}[name]
        theirs.get_submodule(path).attached_se.load_state_dict(block.state_dict())
    assert not ours.load_state_dict(state, strict=False).unexpected_keys
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_a_copy_has_gates_of_its_own():
    model = trunk("torchvision", "resnet18")
    attach_se(model, SEConfig())
    twin = copy.deepcopy(model)
    images = torch.randn(1, 3, 64, 64)
    before = twin(images)
    set_gates(model, -100.0)
    assert torch.equal(twin(images), before)
    set_gates(twin, -100.0)
    assert not torch.allclose(twin(images), before)


def test_the_report_names_stage_block_and_widths():
    report = attach_se(trunk("torchvision", "resnext50_32x4d"), SEConfig(stages=(3, 4)))
    assert [block.name for block in report.blocks] == [
        *(f"SE_3_{index}" for index in range(1, 5)),
        *(f"SE_4_{index}" for index in range(1, 7)),
    ]
    assert str(report).splitlines()[0] == "SE_3_1   layer2.0: 512 -> 32 channels"


REFUSED = [
    ("timm", "seresnet18", {}, r"has SE already \(layer1\.0\.se\)"),
    ("timm", "regnety_002", {}, "has SE already"),
    ("torchvision", "regnet_y_400mf", {}, "has SE already"),
    ("timm", "mobilenetv1_100", {}, "has no residual block we know"),
    ("torchvision", "resnet18", {"stages": (1,)}, r"ResNet has stages \[2, 3, 4, 5\]"),
    ("torchvision", "resnet18", {"placement": "identity"}, "use standard or pre or post"),
    ("torchvision", "resnet18", {"reduction": 1024}, "exceeds the widest SE stage"),
]


@pytest.mark.parametrize(("source", "name", "se", "sentence"), REFUSED)
def test_what_cannot_be_attached_is_refused_and_leaves_the_trunk_alone(source, name, se, sentence):
    model = trunk(source, name)
    keys = model.state_dict().keys()
    with pytest.raises(UserError, match=sentence):
        attach_se(model, SEConfig(**se))
    assert model.state_dict().keys() == keys
    assert not any(module._forward_hooks for module in model.modules())


def test_se_is_not_attached_twice():
    model = trunk("torchvision", "resnet18")
    attach_se(model, SEConfig())
    with pytest.raises(UserError, match=r"has SE already \(layer1\.0\.attached_se\)"):
        attach_se(model, SEConfig())


def test_timm_networks_by_name_keep_the_contract_of_ours(tmp_path):
    network = create_model("se_timm", timm_name="resnet18", num_classes=7, se=SEConfig(reduction=8))
    assert network.se_widths()["SE_4_2"] == (256, 32)
    assert network.input_size == 224
    images = torch.randn(2, 3, 64, 64)
    maps = network.forward_stages(images)
    assert [tuple(maps[key].shape[1:]) for key in maps] == [
        (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)
    ]  # fmt: skip
    record = dict(network.record)
    rebuilt = create_model(
        record["name"],
        se=SEConfig(**record["se"]),
        num_classes=record["num_classes"],
        in_channels=record["in_channels"],
        **record["options"],
    )
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    load_weights(str(path), rebuilt)
    assert torch.equal(rebuilt.eval()(images), network.eval()(images))
    costs = complexity(network, 64)
    assert costs["total"].macs == count_macs(network, 3, 64)
    assert costs["total"].se_macs == sum(2 * c * h for c, h in network.se_widths().values())
    assert (
        sum(cost.parameters for part, cost in costs.items() if part != "total") == costs["total"].parameters
    )


def test_timm_networks_freeze_by_stage():
    network = create_model("timm", timm_name="convnext_atto", num_classes=3)
    freeze(network, 3)
    fixed = {key for key, p in network.named_parameters() if not p.requires_grad}
    assert {key.split(".")[1] for key in fixed} == {"stem", "stages"}
    assert {key.split(".")[2] for key in fixed if "stages" in key} == {"0", "1"}
    _, head = trunk_and_head_parameters(network)
    assert [p.shape for p in head] == [(3, 320), (3,)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, r"model\.timm_name is missing"),
        ({"timm_name": "resnet5"}, 'timm has no network "resnet5"; did you mean "resnet'),
        ({"timm_name": "vit_tiny_patch16_224"}, "has no residual block we know"),
        ({"timm_name": "resnet18", "stride_on": "1x1"}, 'has no option "stride_on"'),
        ({"timm_name": "resnet18.nobody"}, r"Invalid pretrained tag \(nobody\)"),
        ({"timm_name": "resnet50t", "pretrained": True}, "No pretrained weights exist for resnet50t"),
    ],
)
def test_mistakes_with_timm_networks(options, sentence):
    with pytest.raises(UserError, match=sentence):
        create_model("se_timm", **options)


def test_a_transformer_is_refused_at_a_size_it_does_not_take():
    with without_memory():
        network = create_model("timm", timm_name="vit_tiny_patch16_224")
        convolutions = create_model("timm", timm_name="resnet18")
    network.check_input(224)
    convolutions.check_input(32)
    assert network.trunk.training
    with pytest.raises(UserError, match=r"does not take images of 32 pixels .*size=224"):
        network.check_input(32)


def test_pretrained_trunks_download_once(monkeypatch):
    asked: list[bool] = []
    create = timm.create_model

    def download(name: str, pretrained: bool, **options: object) -> nn.Module:
        asked.append(pretrained)
        if name == "resnet34":
            raise FileNotFoundError("no route")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", download)
    network = create_model("se_timm", timm_name="resnet18", pretrained=True)
    assert "pretrained" not in network.record["options"]
    with torch.device("meta"):
        create_model("se_timm", timm_name="resnet18", pretrained=True)
    assert asked == [True, False]
    with pytest.raises(UserError, match=r"offline; set model\.pretrained=false"):
        create_model("se_timm", timm_name="resnet34", pretrained=True)
