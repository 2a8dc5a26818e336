"""Converters are strict: a key too many, too few or of another shape is named."""

import pytest
import torch
import torchvision

from senet import UserError, create_model
from senet.integrations.peers import from_torchvision, to_torchvision


@pytest.fixture
def theirs() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return torchvision.models.resnet18().state_dict()


def test_unknown_key_is_named(theirs):
    theirs["layer1.0.conv9.weight"] = torch.empty(1, device="meta")
    with pytest.raises(UserError, match=r"no place for the key \"layer1\.0\.conv9\.weight\""):
        from_torchvision(theirs, "resnet18")


def test_unknown_block_is_named(theirs):
    theirs["layer1.7.conv1.weight"] = torch.empty(64, 64, 3, 3, device="meta")
    with pytest.raises(UserError, match=r"stages\.2\.7\.conv1\.weight"):
        from_torchvision(theirs, "resnet18")


def test_missing_key_is_named(theirs):
    del theirs["layer3.1.bn2.running_var"]
    with pytest.raises(UserError, match=r'lack "stages\.4\.1\.tail\.bn\.running_var"'):
        from_torchvision(theirs, "resnet18")


def test_wrong_shape_is_named(theirs):
    with pytest.raises(UserError, match=r"stages\.2\.0\.conv1\.weight"):
        from_torchvision(theirs, "resnet50")
    theirs["conv1.weight"] = torch.empty(64, 3, 5, 5, device="meta")
    with pytest.raises(UserError, match=r'"stem\.0\.weight" is \(64, 3, 5, 5\) and .* \(64, 3, 7, 7\)'):
        from_torchvision(theirs, "resnet18")


def test_other_direction_refuses_se_weights_for_a_plain_network():
    with torch.device("meta"):
        ours = create_model("se_resnet18").state_dict()
    with pytest.raises(UserError, match=r"tail\.se\.excitation\.fc1\.weight"):
        to_torchvision(ours, "resnet18")


def test_unknown_network_gets_a_hint(theirs):
    with pytest.raises(UserError, match='did you mean "resnet18"'):
        from_torchvision(theirs, "resnet19")
