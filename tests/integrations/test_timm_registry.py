"""The zoo in timm's registry, held to the conventions that timm tests its own networks by."""

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import get_notrace_modules
from timm.optim import create_optimizer_v2
from torchvision.models.feature_extraction import create_feature_extractor

import senet.integrations.timm
from senet import SEConfig, UserError, create_model, model_names
from senet.models import se_twin
from senet.models.families import FAMILIES

TRUNKS = [next(iter(family.names)) for family in FAMILIES]
"""One of every family."""


def test_the_whole_zoo_is_registered():
    assert sorted(timm.list_models("senet_*")) == sorted(f"senet_{name}" for name in model_names())
    assert all(timm.is_model(f"senet_{name}") for name in model_names())
    assert set(senet.integrations.timm.__all__) <= set(vars(senet.integrations.timm))


@pytest.mark.slow
@pytest.mark.parametrize("trunk", TRUNKS)
def test_timms_conventions(trunk):
    with torch.device("meta"):
        model = timm.create_model(f"senet_{se_twin(trunk)}", num_classes=11).eval()
        cfg = model.default_cfg
        images = torch.empty(1, *cfg["input_size"])
        assert model(images).shape == (1, model.num_classes) == (1, 11)
        features = model.forward_features(images)
        assert features.shape == (1, model.num_features, *cfg["pool_size"])
        assert model.forward_head(features).shape == (1, 11)
        assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
        keys = model.state_dict().keys()
        assert f"{cfg['first_conv']}.weight" in keys
        assert f"{cfg['classifier']}.weight" in keys
        assert model.get_submodule(model.get_classifier(name_only=True)) is model.get_classifier()
        model.reset_classifier(3)
        assert model(images).shape == (1, 3)
        model.reset_classifier(0)
        assert model(images).shape == (1, model.head_hidden_size)
        model.reset_classifier(0, "")
        assert model(images).shape == features.shape


@pytest.mark.parametrize("trunk", TRUNKS)
def test_features_have_the_channels_and_sizes_that_they_announce(trunk):
    with torch.device("meta"):
        model = timm.create_model(f"senet_{se_twin(trunk)}", features_only=True).eval()
        images = torch.empty(1, *model.default_cfg["input_size"])
        maps = model(images)
    assert [value.shape[1] for value in maps] == model.feature_info.channels()
    for value, factor in zip(maps, model.feature_info.reduction(), strict=True):
        # Within what the unpadded convolutions of the Inceptions cut off.
        assert images.shape[-1] / value.shape[-1] == pytest.approx(factor, rel=0.2)
    with torch.device("meta"):
        stages = create_model(trunk).stage_numbers()
    assert [name.rpartition(".")[2] for name in model.feature_info.module_name()[-len(stages) :]] == [
        str(number) for number in stages
    ]


def test_it_is_our_network_under_our_names(tmp_path):
    ours = create_model("se_resnet20").eval()
    path = tmp_path / "weights.pth"
    torch.save(ours.state_dict(), path)
    model = timm.create_model("senet_se_resnet20", checkpoint_path=str(path)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), ours(images))
        last, maps = model.forward_intermediates(images, indices=2)
        assert torch.equal(last, ours.forward_features(images))
        expected = ours.forward_stages(images)
        assert torch.equal(maps[0], expected["3"])
        assert torch.equal(maps[1], expected["4"])
        early = model.forward_intermediates(images, [1], stop_early=True, intermediates_only=True)
        assert torch.equal(early[0], expected["2"])
    assert model.se_widths() == ours.se_widths()


def test_pruned_features_are_those_of_the_whole_network():
    whole = timm.create_model("senet_se_resnet18").eval()
    model = timm.create_model("senet_se_resnet18", features_only=True, out_indices=(1, 3)).eval()
    state = {f"model.{key}": value for key, value in whole.state_dict().items()}
    kept = model.state_dict().keys()
    assert not [key for key in kept if key.startswith(("model.stages.5", "model.head"))]
    model.load_state_dict({key: state[key] for key in kept})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, expected = model(images), whole.forward_stages(images)
    assert model.feature_info.reduction() == [4, 16]
    assert torch.equal(maps[0], expected["2"])
    assert torch.equal(maps[1], expected["4"])


@pytest.mark.parametrize("name", ["senet_se_resnet18", "senet_se_mobilenet"])
def test_a_network_traced_as_timm_traces_gives_the_same_bits(name):
    model = timm.create_model(name, num_classes=10).eval()
    images = torch.randn(1, 3, 128, 128)  # large enough for fused tails
    leaves = {"leaf_modules": list(get_notrace_modules())}
    traced = create_feature_extractor(model, ["head.fc"], tracer_kwargs=leaves)
    with torch.no_grad():
        assert torch.equal(traced(images)["head.fc"], model(images))
    traced.train()(images.repeat(2, 1, 1, 1))["head.fc"].mean().backward()
    assert all(parameter.grad is not None for parameter in traced.parameters())


def test_our_options_pass_through():
    model = timm.create_model(
        "senet_se_resnet50",
        in_chans=1,
        num_classes=0,
        drop_rate=0.3,
        stride_on="3x3",
        se=SEConfig(reduction=4),
    )
    assert model.se_widths()["SE_5_3"] == (2048, 512)
    assert model.head.dropout.p == 0.3
    assert model.stages["3"][0].conv2.stride == (2, 2)
    assert model.eval()(torch.randn(1, 1, 64, 64)).shape == (1, 2048)


def test_timms_optimiser_groups_and_data_configuration():
    model = timm.create_model("senet_se_resnet20")
    optimizer = create_optimizer_v2(model, "sgd", lr=1.0, layer_decay=0.5)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert len(scales) == 5  # the stem, three stages, the head
    assert resolve_model_data_config(model)["input_size"] == (3, 32, 32)


def test_what_we_do_not_have_is_refused():
    model = timm.create_model("senet_se_resnet20")
    with pytest.raises(UserError, match="no weights to download: use checkpoint_path"):
        timm.create_model("senet_se_resnet20", pretrained=True)
    with pytest.raises(UserError, match='no option "drop_path_rate"'):
        timm.create_model("senet_se_resnet20", drop_path_rate=0.1)
    with pytest.raises(UserError, match='"avg", or "" for none'):
        model.reset_classifier(5, "max")
    with pytest.raises(UserError, match="has 4 maps, 0 to 3"):
        model.forward_intermediates(torch.randn(1, 3, 32, 32), [4])
    with pytest.raises(UserError, match="norm=False"):
        model.forward_intermediates(torch.randn(1, 3, 32, 32), norm=True)
