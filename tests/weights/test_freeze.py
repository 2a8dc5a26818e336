import copy

import pytest
import torch
from torch import nn

from senet import UserError, create_model
from senet.weights import freeze, trunk_and_head_parameters


def test_frozen_stages_stand_still_in_training():
    torch.manual_seed(0)
    network = create_model("se_resnet20")
    freeze(network, 3)
    network = copy.deepcopy(network).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    frozen = ("stem.", "stages.2.", "stages.3.")
    assert not [key for key in moved if key.startswith(frozen)]
    assert {key for key in before if not key.startswith(frozen)} == moved
    # In the frozen part BN normalises with its running statistics, as in evaluation.
    images = torch.randn(4, 3, 32, 32)
    trained = network.forward_stages(images)["3"]
    assert torch.equal(trained, network.eval().forward_stages(images)["3"])


def test_only_stages_that_exist_can_be_frozen():
    with pytest.raises(UserError, match="freeze=5: the network has stages 2, 3, 4"):
        freeze(create_model("se_resnet20"), 5)


def test_head_is_apart_from_the_trunk():
    network = create_model("se_resnet20")
    freeze(network, 2)
    trunk, head = trunk_and_head_parameters(network)
    assert [id(p) for p in head] == [id(p) for p in network.head.fc.parameters()]
    learnable = [p for p in network.parameters() if p.requires_grad]
    assert sorted(map(id, trunk + head)) == sorted(map(id, learnable))
    assert all(isinstance(p, nn.Parameter) for p in trunk)
