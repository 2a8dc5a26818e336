import pytest
import torch

from senet import UserError, create_model
from senet.training.optimizers import AdamWConfig, LambConfig, SGDConfig, parameter_groups


def test_only_weights_of_convolutions_and_classifier_decay():
    network = create_model("se_resnet20")
    groups = {g["weight_decay"]: g for g in parameter_groups(network, SGDConfig(weight_decay=0.5))}
    decay, plain = groups[0.5], groups[0.0]
    assert {p.ndim for p in decay["params"]} == {2, 4}
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(decay["params"]) + len(plain["params"]) == len(list(network.parameters()))


def test_everything_decays_if_asked():
    network = create_model("resnet20")
    groups = parameter_groups(network, SGDConfig(decay_norm_and_bias=True))
    assert len(groups) == 1
    assert len(groups[0]["params"]) == len(list(network.parameters()))


def test_frozen_parameters_are_left_out():
    network = create_model("resnet20")
    network.stem.requires_grad_(False)
    count = sum(len(g["params"]) for g in parameter_groups(network, SGDConfig()))
    assert count == len(list(network.parameters())) - len(list(network.stem.parameters()))


def test_trunk_has_its_own_rate():
    network = create_model("se_resnet20")
    shares = {
        id(p): g["lr_share"] for g in parameter_groups(network, SGDConfig(trunk_lr=0.1)) for p in g["params"]
    }
    assert {shares[id(p)] for p in network.head.fc.parameters()} == {1.0}
    assert {shares[id(p)] for p in network.stages.parameters()} == {0.1}


def test_rate_follows_the_global_batch():
    assert SGDConfig(lr=0.6, lr_batch=1024).scaled_lr(256) == pytest.approx(0.15)
    assert SGDConfig(lr=0.6).scaled_lr(256) == 0.6


@pytest.mark.parametrize("config", [SGDConfig(), AdamWConfig(), LambConfig()])
def test_each_optimiser_lowers_a_quadratic(config):
    parameter = torch.nn.Parameter(torch.full((4,), 3.0))
    optimizer = config.build([{"params": [parameter], "weight_decay": 0.0}], lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
    assert parameter.abs().max() < 3.0


def test_impossible_rates():
    with pytest.raises(UserError, match=r"momentum"):
        SGDConfig(nesterov=True, momentum=0.0)
