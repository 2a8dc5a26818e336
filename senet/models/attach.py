"""SE for trunks that are not ours: ResNets, ResNeXts, RegNets and ConvNeXts of torchvision and timm."""

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from senet.errors import UserError
from senet.models.network import check_placement, check_stages
from senet.nn import SEConfig, SqueezeExcitation


class Slot(NamedTuple):
    """Where a foreign residual block has room: the submodules that begin and end its residual branch."""

    first: str
    last: str
    channels_last: bool = False
    """Whether the end of the branch has maps (B, H, W, C)."""


SLOTS = {
    "torchvision.models.resnet.BasicBlock": Slot("conv1", "bn2"),
    "torchvision.models.resnet.Bottleneck": Slot("conv1", "bn3"),
    "torchvision.models.regnet.ResBottleneckBlock": Slot("f", "f"),
    "torchvision.models.convnext.CNBlock": Slot("block", "block"),
    "timm.models.resnet.BasicBlock": Slot("conv1", "bn2"),
    "timm.models.resnet.Bottleneck": Slot("conv1", "bn3"),
    "timm.models.regnet.Bottleneck": Slot("conv1", "conv3"),
    "timm.models.convnext.ConvNeXtBlock": Slot("conv_dw", "mlp", channels_last=True),
}
"""The blocks we know. In ConvNeXt the branch ends before its layer scale, which only shrinks what SE squeezes."""

GATED = ("SEModule", "SqueezeExcite", "SqueezeExcitation", "EffectiveSEModule", "SEWithNorm")
"""Classes that already are SE, in whatever library."""


class AttachedSE(SqueezeExcitation):
    """An SE block that gates another module's input or output, as a hook of it.

    Hooks leave every name of the trunk's state as it is; being bound methods, they are copied with the block.
    """

    def gate_output(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        """Gate the output (B, C, H, W)."""
        scaled: Tensor = self(output)
        return scaled

    def gate_channels_last(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        """Gate the output (B, H, W, C)."""
        scaled: Tensor = self(output.permute(0, 3, 1, 2))
        return scaled.permute(0, 2, 3, 1)

    def gate_input(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """Gate the input (B, C, H, W)."""
        return (self(inputs[0]),)


@dataclass(frozen=True)
class Attached:
    """One attached SE block: its name as the paper counts, the trunk's block, and the widths."""

    name: str
    path: str
    stage: int
    channels: int
    hidden_channels: int


@dataclass(frozen=True)
class AttachReport:
    """What was attached where, in the order of the network."""

    blocks: tuple[Attached, ...]

    def __str__(self) -> str:
        """Return one line per SE block."""
        return "\n".join(
            f"{block.name:8} {block.path}: {block.channels} -> {block.hidden_channels} channels"
            for block in self.blocks
        )


def _kind(block: nn.Module) -> str:
    return f"{type(block).__module__}.{type(block).__name__}"


def find_stages(model: nn.Module) -> dict[int, dict[str, nn.Module]]:
    """Return the residual blocks by their paths, by stage as the paper counts (the first is stage 2)."""
    stages: dict[str, dict[str, nn.Module]] = {}
    for path, module in model.named_modules():
        if _kind(module) in SLOTS:
            stages.setdefault(path.rpartition(".")[0], {})[path] = module
    return dict(enumerate(stages.values(), start=2))


def _channels_first(block: nn.Module) -> bool:
    # ConvNeXt's blocks have an option for an MLP of convolutions on maps (B, C, H, W).
    return bool(getattr(block, "use_conv_mlp", False))


def _probe(model: nn.Module, paths: list[str], placement: str) -> dict[str, int]:
    """Return the channels that SE would gate in every block, from one forward pass without storage."""
    shadow = copy.deepcopy(model).to("meta").eval()
    found: dict[str, int] = {}
    for path in paths:
        block = shadow.get_submodule(path)
        slot = SLOTS[_kind(block)]
        if placement == "pre":
            _shape_of(block.get_submodule(slot.first), path, found, inputs=True)
        elif placement == "post":
            _shape_of(block, path, found)
        else:
            dim = -1 if slot.channels_last and not _channels_first(block) else 1
            _shape_of(block.get_submodule(slot.last), path, found, dim)
    first = next(module for module in shadow.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        shadow(torch.empty(1, first.in_channels, 224, 224, device="meta"))
    return found


def _shape_of(
    module: nn.Module, path: str, found: dict[str, int], dim: int = 1, inputs: bool = False
) -> None:
    def note(_: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        found[path] = (given[0] if inputs else output).shape[dim]

    module.register_forward_hook(note)


def attach_se(model: nn.Module, config: SEConfig) -> AttachReport:
    """Put an SE block into every residual block of ``model``, in place; its weights and their names stay.

    Placements as in Figure 5: "standard" at the end of the residual branch, before the addition (and before
    ConvNeXt's layer scale); "pre" at its beginning; "post" after the addition and ReLU.

    Args:
        model: a ResNet, ResNeXt, RegNet-X or ConvNeXt of torchvision or timm, with weights or without.
        config: the SE blocks; ``stages`` are numbered as in the paper, the first residual stage is 2.

    Returns:
        What was attached where.

    Raises:
        UserError: if the model has SE already, or no block we know, or the configuration means nothing in it.
    """
    name = type(model).__name__
    for path, module in model.named_modules():
        if type(module).__name__ in GATED or isinstance(module, SqueezeExcitation):
            raise UserError(f"this {name} has SE already ({path}): attach SE to the trunk without it")
    stages = find_stages(model)
    if not stages:
        raise UserError(
            f"{name} has no residual block we know: SE can be attached to ResNets, ResNeXts, RegNets and "
            "ConvNeXts of torchvision and timm"
        )
    why = "whose blocks are another library's"
    check_placement(config, ("standard", "pre", "post"), name, why)
    channels = _probe(model, [path for blocks in stages.values() for path in blocks], config.placement)
    check_stages(
        config, {stage: max(map(channels.__getitem__, blocks)) for stage, blocks in stages.items()}, name
    )
    attached = []
    for stage, blocks in stages.items():
        if config.in_stage(stage) is None:
            continue
        for index, (path, block) in enumerate(blocks.items(), start=1):
            hidden = _attach(block, channels[path], config)
            attached.append(Attached(f"SE_{stage}_{index}", path, stage, channels[path], hidden))
    return AttachReport(tuple(attached))


def _attach(block: nn.Module, channels: int, config: SEConfig) -> int:
    """Add SE to one block as ``attached_se`` and return its hidden channels."""
    like = next(block.parameters())
    se = AttachedSE(channels, config).to(device=like.device, dtype=like.dtype)
    slot = SLOTS[_kind(block)]
    if config.placement == "pre":
        block.get_submodule(slot.first).register_forward_pre_hook(se.gate_input)
    elif config.placement == "post":
        block.register_forward_hook(se.gate_output)
    elif slot.channels_last and not _channels_first(block):
        block.get_submodule(slot.last).register_forward_hook(se.gate_channels_last)
    else:
        block.get_submodule(slot.last).register_forward_hook(se.gate_output)
    block.add_module("attached_se", se)
    return se.hidden_channels
