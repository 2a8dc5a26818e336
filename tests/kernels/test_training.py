"""What the fused tail is for: the same training, with no more memory than a network without SE."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet import SEConfig, create_model
from senet.models.network import Head, Network
from senet.nn import Bottleneck, set_kernels
from senet.nn.blocks import conv

STEPS, BATCH = 20, 3


def small_network() -> Network:
    torch.manual_seed(0)
    se = SEConfig(reduction=4)
    stem = nn.Sequential(conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    network = Network(stem, {2: nn.Sequential(Bottleneck(8, 4, 8, se=se))}, Head(8, 4))
    network.initialise()
    return network


def train(
    network: Network, kernels: str, order: tuple[int, ...], layout: torch.memory_format, device: str
) -> Tensor:
    """Return the losses of all steps and the parameters after them, as one vector.

    The order within a batch and the layout change roundings only.
    """
    network = copy.deepcopy(network).to(device, memory_format=layout)
    set_kernels(network, kernels)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(STEPS):
        images = torch.randn(BATCH, 3, 8, 8, generator=generator)[list(order)].to(
            device, memory_format=layout
        )
        labels = torch.randint(4, (BATCH,), generator=generator)[list(order)].to(device)
        optimiser.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    parameters = [parameter.detach().cpu().flatten() for parameter in network.parameters()]
    return torch.cat([torch.tensor(losses), *parameters]).double()


@pytest.mark.slow
def test_twenty_steps_agree_within_the_eager_paths_own_spread(monkeypatch: pytest.MonkeyPatch, backend: str):
    monkeypatch.setattr("senet.kernels.tail._not_worthwhile_on_cpu", lambda *_: None)
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    network = small_network()
    first, *others = itertools.product(
        itertools.permutations(range(BATCH)), (torch.contiguous_format, torch.channels_last)
    )
    straight = train(network, "eager", *first, device)
    spread = max((train(network, "eager", *other, device) - straight).norm() for other in others)
    fused = train(network, "auto" if backend == "aten" else "triton", *first, device)
    assert not torch.equal(fused, straight)  # it did run something else
    assert (fused - straight).norm() <= spread


def saved_bytes(network: Network, images: Tensor) -> int:
    """Return the bytes that autograd keeps between forward and backward, parameters not counted."""
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = network(images).sum()  # alive: what it holds cannot be freed and counted twice
    total = sum(kept.values())
    loss.backward()
    return total


@pytest.mark.slow
def test_se_resnet50_keeps_no_more_memory_than_the_plain_eager_network():
    images = torch.randn(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def saved(name: str, kernels: str) -> int:
        network = create_model(name).to(memory_format=torch.channels_last)
        set_kernels(network, kernels)
        return saved_bytes(network, images)

    plain, fused, eager = (
        saved("resnet50", "eager"),
        saved("se_resnet50", "auto"),
        saved("se_resnet50", "eager"),
    )
    assert fused <= 1.03 * plain
    assert eager > 1.2 * plain  # what the fused tail saves
