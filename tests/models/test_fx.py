"""``torch.fx`` traces every network: feature extraction and FX quantisation stand on it."""

import pytest
import torch
from torch import fx

from senet import SEConfig, create_model, model_names
from senet.models import is_se
from senet.nn.config import CHOICES


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "name", ["se_resnet18", "senet154_plain", "se_resnet20", "se_preact_resnet110", "se_vgg16_bn"]
)
def test_a_traced_network_computes_the_same(name, training):
    torch.manual_seed(0)
    network = create_model(name)
    size = 32 if network.input_size < 100 else 64
    traced = fx.symbolic_trace(network.train(training))
    if training:
        return  # dropout draws; that it traces is what is asked
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(traced(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [block for block in CHOICES["block"] if block != "se"])
def test_a_network_with_a_rival_of_se_is_traced(block):
    torch.manual_seed(0)
    network, images = create_model("se_resnet20", se=SEConfig(block=block)).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(fx.symbolic_trace(network)(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in model_names() if is_se(name)])
def test_every_network_is_traced(name):
    with torch.device("meta"):
        assert fx.symbolic_trace(create_model(name).eval())
