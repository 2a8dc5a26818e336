"""Files that other programs wrote: recognised by what is in them, or refused with what to change."""

import json
from argparse import Namespace

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn
from weight_fakes import same, small

from senet import SEConfig, UserError, create_model
from senet.data import Preprocessing
from senet.weights import load_weights

TIMM = {
    "se_resnet18": ("legacy_seresnet18", {"branch_relu": True}),
    "resnet18": ("resnet18", {"stem_pool": "pad"}),
}
WRAPPERS = {
    "": lambda state: state,
    "module.": lambda state: {f"module.{key}": value for key, value in state.items()},
    "state_dict.": lambda state: {"epoch": 3, "state_dict": state, "args": Namespace(lr=0.1), "best": 1.0},
    "model.": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "state_dict.net._orig_mod.": lambda state: {
        "pytorch-lightning_version": "2.6",
        "state_dict": {
            **{f"net._orig_mod.{key}": value for key, value in state.items()},
            "loss.w": torch.ones(3),
        },
    },
    "state_dict_ema.": lambda state: {
        "state_dict": {key: torch.zeros_like(value) for key, value in state.items()},
        "state_dict_ema": state,
    },
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", TIMM)
def test_a_file_is_recognised_by_what_is_in_it(tmp_path, name, wrapper):
    theirs_name, options = TIMM[name]
    theirs, path = timm.create_model(theirs_name, num_classes=5).eval(), tmp_path / "weights.pth"
    torch.save(WRAPPERS[wrapper](theirs.state_dict()), path)
    ours = create_model(name, num_classes=5, **options).eval()
    record = load_weights(str(path), ours)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
    assert theirs_name in record.recognised
    assert not wrapper or f'under "{wrapper.removesuffix("_orig_mod.")}"' in record.recognised
    assert ("dropped 1 (state_dict.loss.w)" in record.recognised) == ("net" in wrapper)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_our_own_names_in_the_same_wrappers(tmp_path, wrapper):
    source, path, network = small(), tmp_path / "weights.pth", small()
    torch.save(WRAPPERS[wrapper](source.state_dict()), path)
    load_weights(str(path), network)
    assert same(source, network)


def test_raw_or_averaged_weights_of_a_foreign_file(tmp_path):
    raw, averaged, path, network = small(), small(), tmp_path / "w.pth", small()
    torch.save({"state_dict": raw.state_dict(), "state_dict_ema": averaged.state_dict()}, path)
    for which, source in (("raw", raw), ("ema", averaged), ("auto", averaged)):
        load_weights(str(path), network, which)
        assert same(source, network)
    torch.save(torch.optim.swa_utils.AveragedModel(averaged).state_dict(), path)
    for which in ("raw", "ema", "auto"):
        load_weights(str(path), network, which)
        assert same(averaged, network)
    torch.save({"student": raw.state_dict(), "teacher": averaged.state_dict()}, path)
    with pytest.raises(UserError, match=r'holds 2 networks, under "student\." and "teacher\."'):
        load_weights(str(path), network)
    torch.save({"state_dict": raw.state_dict()}, path)
    with pytest.raises(UserError, match="has no averaged weights"):
        load_weights(str(path), network, "ema")


@pytest.mark.slow
def test_torchvisions_and_timms_other_networks(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torchvision.models.resnet50(num_classes=3).state_dict(), path)
    network = create_model("resnet50", stem_pool="pad", stride_on="3x3", num_classes=3)
    assert "resnet50 of torchvision and timm" in load_weights(str(path), network).recognised
    with pytest.raises(UserError, match=r"set model\.stride_on=3x3"):
        load_weights(str(path), create_model("resnet50"))
    with pytest.raises(UserError, match="needs the network resnet50, not resnet101: set model=resnet50"):
        load_weights(str(path), create_model("resnet101"))
    torch.save({"model": timm.create_model("resnet50d").state_dict()}, path)
    with pytest.raises(
        UserError, match=r'its stem has three convolutions .*"model\.conv1\.0\.weight"'
    ) as caught:
        load_weights(str(path), network)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_names_the_key_the_shapes_and_the_nearest_network(tmp_path):
    path, whole = tmp_path / "weights.pth", torchvision.models.resnet18(num_classes=3).state_dict()
    stem, counter = torch.ones(64, 3, 5, 5), "layer3.1.bn2.running_var"
    for state, sentence in (
        ({"state_dict": whole | {"conv1.weight": stem}},
         r'is resnet18 of .*"state_dict\.conv1\.weight" is \(64, 3, 5, 5\) where that has \(64, 3, 7, 7\)$'),
        ({key: value for key, value in whole.items() if key != counter}, rf'resnet18 of .* lack "{counter}"$'),
        (whole | {"layer9.weight": stem}, r'resnet18 of .* have "layer9\.weight" besides$'),
        (timm.create_model("resnet50_gn").state_dict(), r'resnet50 of .* lack "bn1\.running_mean", and 105 more'),
        (timm.create_model("convnext_atto").state_dict(), "are named as in no network that is known"),
        (timm.create_model("resnetaa50d").state_dict(), "its stem has three convolutions"),
        (timm.create_model("vit_tiny_patch16_224").state_dict(), "it is a transformer"),
        # More than half of a deep network is one stage, which is no wrapper.
        ({"model": timm.create_model("resnet101d").state_dict()}, r'three convolutions .*"model\.conv1\.0\.weight"'),
    ):  # fmt: skip
        torch.save(state, path)
        for name in ("resnet18", "resnet101"):
            with pytest.raises(UserError, match=sentence):
                load_weights(str(path), create_model(name, num_classes=3))


def test_timms_folder_with_a_config(tmp_path):
    theirs = timm.create_model("resnet18", num_classes=4)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    images = {
        "input_size": [3, 64, 64],
        "crop_pct": 0.8,
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
    }
    config = {
        "architecture": "resnet18",
        "num_classes": 4,
        "pretrained_cfg": {**images, "label_names": list("abcd")},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    network = create_model("resnet18", stem_pool="pad", num_classes=4)
    record = load_weights(str(tmp_path), network)
    assert torch.equal(network.head.fc.weight, theirs.fc.weight)
    assert record.preprocessing == Preprocessing(64, 80, "bicubic", (0.5,) * 3, (0.2,) * 3)
    assert record.classes == tuple("abcd")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"architecture": "resnet18", ', r"config\.json cannot be read \(JSONDecodeError"),
        (
            '{"architecture": "resnet34"}',
            'its config.json says "resnet34", but these are weights of resnet18',
        ),
        (
            '{"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}',
            "config.json is not what timm or senet write: KeyError: 'std'",
        ),
        (
            '{"architecture": "resnet18", "mean": [0, 0, 0], "std": [1, 1, 1], "crop_mode": "squash"}',
            "the weights want images squashed",
        ),
    ],
)
def test_a_config_that_says_something_else_is_not_passed_over(tmp_path, config, words):
    state = torchvision.models.resnet18(num_classes=4).state_dict()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=words):
        load_weights(str(tmp_path), create_model("resnet18", stem_pool="pad", num_classes=4))


class CifarResNet(nn.Module):
    """The usual CIFAR ResNet-20, written from its description: zeros on both sides of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for stage, width in enumerate((16, 32, 64), 1):
            blocks = [(width // 2 if index == 0 and stage > 1 else width, width) for index in range(3)]
            layer = nn.Sequential(*(self.block(a, b) for a, b in blocks))
            self.add_module(f"layer{stage}", layer)
        self.linear = nn.Linear(64, 10)

    def block(self, a: int, b: int) -> nn.Module:
        parts = {"conv1": nn.Conv2d(a, b, 3, b // a, 1, bias=False), "bn1": nn.BatchNorm2d(b)}
        parts |= {"conv2": nn.Conv2d(b, b, 3, 1, 1, bias=False), "bn2": nn.BatchNorm2d(b)}
        return nn.ModuleDict(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for layer in (self.layer1, self.layer2, self.layer3):
            for block in layer:
                y = block["bn2"](block["conv2"](block["bn1"](block["conv1"](x)).relu()))
                if y.shape != x.shape:
                    zeros = torch.zeros(len(x), x.shape[1] // 2, *y.shape[2:])
                    x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
                x = (x + y).relu()
        return self.linear(x.mean((2, 3)))


def test_published_cifar_resnets_pad_both_sides(tmp_path):
    theirs, path = CifarResNet().eval(), tmp_path / "resnet20.th"
    state = {
        f"module.{k}": v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    torch.save({"state_dict": state, "best_prec1": 91.7}, path)
    with pytest.raises(UserError, match=r"set model\.zero_channels=both"):
        load_weights(str(path), create_model("resnet20"))
    ours = create_model("resnet20", zero_channels="both").eval()
    load_weights(str(path), ours)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r'zero_channels="sides"'):
        create_model("resnet20", zero_channels="sides")


def test_what_does_not_fit_names_the_setting(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": create_model("resnet20").state_dict()}, path)
    with pytest.raises(UserError, match="set model=resnet20"):
        load_weights(str(path), small())
    torch.save(small(se=SEConfig(reduction=4)).state_dict(), path)
    with pytest.raises(UserError, match="set model=se_resnet20"):
        load_weights(str(path), create_model("resnet20"))
    with pytest.raises(
        UserError, match=r"is \(4, 16, 1, 1\) and the network needs \(1, 16, 1, 1\): set se\.reduction=4"
    ):
        load_weights(str(path), small())
    broken = small().state_dict()
    broken["head.fc.bias"][0] = torch.nan
    torch.save(broken, path)
    with pytest.raises(UserError, match=r'"head\.fc\.bias" holds numbers that are not finite'):
        load_weights(str(path), small())
    torch.save(small(), path)
    with pytest.raises(UserError, match=r"it holds senet\.models\.network\.Network.*state_dict\(\)"):
        load_weights(str(path), small())
