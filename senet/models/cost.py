"""What a network costs: parameters, multiply-adds, activations, SE's own share, in all and by stage.

Multiply-adds (MACs) are those of convolutions and matrix products, counted by torch's FlopCounterMode; FLOPs
are twice as many. BN, ReLU, pooling, scaling and addition are not counted. "In the paper's convention" the
squeezes are, one per element that SE pools: with them every figure that the paper prints of ResNet-50, VGG-16,
MobileNet and their SE variants is met (Tables 2, 3, 13, 15, 16), without them SE-ResNet-50's 3.87 is not.
"""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from senet.models.network import Network
from senet.nn import AttentionBlock, SqueezeExcitation


@dataclass(frozen=True)
class Cost:
    """What a network, or a part of it, costs for one image.

    Attributes:
        parameters: learnable ones, frozen or not.
        macs: multiply-adds of convolutions and FC layers.
        activations: elements of the maps that convolutions and FC layers write.
        se_parameters: those of the parameters that belong to SE blocks or their rivals.
        se_macs: those of the multiply-adds.
        squeezed: elements that SE blocks pool.
    """

    parameters: int = 0
    macs: int = 0
    activations: int = 0
    se_parameters: int = 0
    se_macs: int = 0
    squeezed: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations: two per multiply-add."""
        return 2 * self.macs

    @property
    def paper_macs(self) -> int:
        """Multiply-adds in the paper's convention, where it says "FLOPs"."""
        return self.macs + self.squeezed


def count_parameters(module: nn.Module) -> int:
    """Return the number of learnable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@torch.no_grad()
def count_macs(network: nn.Module, in_channels: int, size: int) -> int:
    """Return the multiply-adds of one forward pass on one ``size`` x ``size`` image; FLOPs are twice this."""
    shadow = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        shadow(torch.empty(1, in_channels, size, size, device="meta"))
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def complexity(network: Network, size: int | None = None) -> dict[str, Cost]:
    """Return what ``network`` costs for a ``size`` x ``size`` image: "total", and every part by its name.

    What lies outside the parts, if anything, is "rest".

    Args:
        network: left as it is; a copy without storage is counted.
        size: side of the image in pixels; by default the size the network is meant for.
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    size = size or network.input_size
    channels: Any = network.record.get("in_channels", 3)
    image = torch.empty(1, channels, size, size, device="meta")
    parts = {"total": shadow, **shadow.parts()}
    tallies: dict[str, Counter[str]] = {part: Counter() for part in parts}
    with FlopCounterMode(display=False) as counter:
        for part, module in parts.items():
            _tally(module, tallies[part], counter)
        shadow(image)
    rest = Counter(tallies["total"])
    for part in shadow.parts():
        rest.subtract(tallies[part])
    if any(
        rest.values()
    ):  # ours are made of their parts; of other libraries' networks only the stages are known
        tallies["rest"] = rest
    return {part: Cost(**tally) for part, tally in tallies.items()}


def _tally(part: nn.Module, tally: Counter[str], counter: FlopCounterMode) -> None:
    """Add what ``part`` costs in the coming forward pass to ``tally``."""
    tally["parameters"] = sum(p.numel() for p in part.parameters())
    _spend(part, "macs", tally, counter)
    for module in part.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _, __, output: tally.update(activations=output.numel()))
        if isinstance(module, AttentionBlock):
            tally["se_parameters"] += sum(p.numel() for p in module.parameters())
            for child in module.children():  # of the block itself, a residual tail may call the gate alone
                _spend(child, "se_macs", tally, counter)
            if isinstance(module, SqueezeExcitation) and module.config.squeeze != "none":
                module.gate = _counted(module.gate, tally)  # type: ignore[assignment, method-assign]


def _spend(module: nn.Module, key: str, tally: Counter[str], counter: FlopCounterMode) -> None:
    """Add the multiply-adds between entering and leaving ``module``."""
    module.register_forward_pre_hook(lambda *_: tally.subtract({key: counter.get_total_flops() // 2}))
    module.register_forward_hook(lambda *_: tally.update({key: counter.get_total_flops() // 2}))


def _counted(gate: Callable[[Tensor], Tensor], tally: Counter[str]) -> Callable[[Tensor], Tensor]:
    def counted(x: Tensor) -> Tensor:
        tally["squeezed"] += x.numel()
        return gate(x)

    return counted
