"""SE for trunks that are not ours: residual networks of torchvision and timm, any other by the names of its places."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from senet.errors import UserError, did_you_mean
from senet.models.network import check_se
from senet.nn import AttentionBlock, SEConfig, build_block


class Branch(NamedTuple):
    """Where a foreign residual block has room: the submodules that begin and end its residual branch."""

    first: str
    last: str
    channels_last: bool = False
    """Whether the end of the branch has maps (B, H, W, C)."""


BRANCHES = {
    "torchvision.models.resnet.BasicBlock": Branch("conv1", "bn2"),
    "torchvision.models.resnet.Bottleneck": Branch("conv1", "bn3"),
    "torchvision.models.regnet.ResBottleneckBlock": Branch("f", "f"),
    "torchvision.models.convnext.CNBlock": Branch("block", "block"),
    "timm.models.resnet.BasicBlock": Branch("conv1", "bn2"),
    "timm.models.resnet.Bottleneck": Branch("conv1", "bn3"),
    "timm.models.regnet.Bottleneck": Branch("conv1", "conv3"),
    "timm.models.convnext.ConvNeXtBlock": Branch("conv_dw", "mlp", channels_last=True),
}
"""The blocks we know. In ConvNeXt the branch ends before its layer scale, which only shrinks what SE squeezes."""

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
GATED = ("SEModule", "SqueezeExcite", "SqueezeExcitation", "EffectiveSEModule", "SEWithNorm")
"""Classes that already are SE, in whatever library."""


class Slot(NamedTuple):
    """Where one SE block goes.

    Attributes:
        name: of the block, in the report.
        path: the module that holds it, as ``attached_se``.
        gated: the module whose output, or for the placement "pre" whose input, it gates.
        stage: as the paper counts, or None.
        channels_last: whether that is a map (B, H, W, C).
    """

    name: str
    path: str
    gated: str
    stage: int | None = None
    channels_last: bool = False


# The blocks act as hooks, which leave every name of the trunk's state as it is; a partial is copied with its block.
def _gate_output(se: AttentionBlock, _: nn.Module, __: Any, output: Tensor) -> Tensor:
    scaled: Tensor = se(output)
    return scaled


def _gate_channels_last(se: AttentionBlock, _: nn.Module, __: Any, output: Tensor) -> Tensor:
    scaled: Tensor = se(output.permute(0, 3, 1, 2))
    return scaled.permute(0, 2, 3, 1)


def _gate_input(se: AttentionBlock, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (se(inputs[0]), *inputs[1:])


@dataclass(frozen=True)
class Attached:
    """One attached SE block: its name as the paper counts, the trunk's module, stage if known, and the widths."""

    name: str
    path: str
    stage: int | None
    channels: int
    hidden_channels: int | None


@dataclass(frozen=True)
class AttachReport:
    """What was attached where, in the order of the network."""

    blocks: tuple[Attached, ...]

    def __str__(self) -> str:
        """Return one line per SE block."""
        return "\n".join(
            f"{block.name:8} {block.path}: {block.channels}"
            + (f" -> {block.hidden_channels}" if block.hidden_channels else "")
            + " channels"
            for block in self.blocks
        )


def _kind(block: nn.Module) -> str:
    return f"{type(block).__module__}.{type(block).__name__}"


def find_stages(model: nn.Module) -> dict[int, dict[str, nn.Module]]:
    """Return the residual blocks by their paths, by stage as the paper counts (the first is stage 2)."""
    stages: dict[str, dict[str, nn.Module]] = {}
    for path, module in model.named_modules():
        if _kind(module) in BRANCHES:
            stages.setdefault(path.rpartition(".")[0], {})[path] = module
    return dict(enumerate(stages.values(), start=2))


def attach_se(
    model: nn.Module,
    config: SEConfig,
    places: Sequence[str] = (),
    *,
    inputs: tuple[int, ...] | None = None,
) -> AttachReport:
    """Put an SE block, or a rival, into ``model``, in place; its weights and their names stay.

    Without ``places`` every residual block we know gets one, at the places of Figure 5: "standard" at the end of the
    residual branch, before the addition (and before ConvNeXt's layer scale); "pre" at its beginning; "post" after the
    addition and ReLU.

    Args:
        model: with weights or without. Without ``places`` a ResNet, ResNeXt, RegNet-X or ConvNeXt of torchvision or
            timm; with them any network, of whose maps SE takes those with none to three dimensions.
        config: the SE blocks; ``stages`` are numbered as in the paper, the first residual stage is 2.
        places: names of modules as in ``named_modules``, or shell patterns of them, whose ``*`` also stands for dots:
            SE gates their output, with the placement "pre" their input.
        inputs: shape of a batch that the network takes, for one try without storage; by default images of 224 pixels.

    Returns:
        What was attached where.

    Raises:
        UserError: if the model has SE already, or no such place, or the configuration means nothing in it.
    """
    name = type(model).__name__
    for path, module in model.named_modules():
        if type(module).__name__ in GATED or isinstance(module, AttentionBlock):
            raise UserError(f"this {name} has SE already ({path}): attach SE to the trunk without it")
    slots = _named_slots(model, config, places) if places else _known_slots(model, config)
    channels = _probe(model, config, slots, inputs)
    chosen = [slot for slot in slots if slot.stage is None or config.in_stage(slot.stage) is not None]
    check_se(
        config,
        name,
        stages={slot.stage for slot in slots if slot.stage is not None},
        channels=[channels[slot.name] for slot in chosen] or list(channels.values()),
        placements=("standard", "pre") if places else ("standard", "pre", "post"),
        why="whose modules are another library's",
    )
    blocks = []
    for slot in chosen:
        block = _attach(model, slot, channels[slot.name], config)
        blocks.append(Attached(slot.name, slot.path, slot.stage, channels[slot.name], block.hidden_channels))
    return AttachReport(tuple(blocks))


def _known_slots(model: nn.Module, config: SEConfig) -> list[Slot]:
    """Return a slot in every residual block that we know."""
    stages = find_stages(model)
    if not stages:
        raise UserError(
            f"{type(model).__name__} has no residual block we know: SE can be attached to ResNets, ResNeXts, "
            "RegNets and ConvNeXts of torchvision and timm, or where places= names its modules"
        )
    slots = []
    for stage, blocks in stages.items():
        for index, (path, block) in enumerate(blocks.items(), start=1):
            branch = BRANCHES[_kind(block)]
            gated = {"pre": f"{path}.{branch.first}", "post": path}.get(
                config.placement, f"{path}.{branch.last}"
            )
            # ConvNeXt's blocks have an option for an MLP of convolutions on maps (B, C, H, W).
            last = branch.channels_last and not getattr(block, "use_conv_mlp", False)
            slots.append(
                Slot(f"SE_{stage}_{index}", path, gated, stage, last and config.placement == "standard")
            )
    return slots


def _named_slots(model: nn.Module, config: SEConfig, places: Sequence[str]) -> list[Slot]:
    """Return a slot at every module that ``places`` names, in the order of the network."""
    names = [name for name, _ in model.named_modules() if name]
    for place in places:
        if not any(fnmatchcase(name, place) for name in names):
            raise UserError(
                f'places: {type(model).__name__} has no module "{place}"{did_you_mean(place, names)}'
            )
    if config.stages is not None:
        raise UserError(f"se.stages={list(config.stages)} has no effect where places= names the modules")
    slots: dict[str, Slot] = {}
    for name in (name for name in names if any(fnmatchcase(name, place) for place in places)):
        path, gated, module = name, name, model.get_submodule(name)
        if type(module) in (nn.ModuleList, nn.ModuleDict):
            raise UserError(f"places: {name} is a container of modules: name one inside it")
        while isinstance(module, CONTAINERS) and len(module):
            # A child of it would run as a part of it, so that its first or last module holds the block. That one's
            # output is also the output of a Sequential; a ModuleDict that can be called, as in DenseNet, has its own.
            keys = [key for key, _ in module.named_children()]
            inside = f"{path}.{keys[0 if config.placement == 'pre' else -1]}"
            gated = inside if gated == path and isinstance(module, nn.Sequential) else gated
            path, module = inside, model.get_submodule(inside)
        if any(slot.path == path and slot.gated != gated for slot in slots.values()):
            raise UserError(f"places: {name} ends where a module inside it is named too: name one of them")
        slots.setdefault(gated, Slot(f"SE_{len(slots) + 1}", path, gated))
    return list(slots.values())


def _probe(
    model: nn.Module, config: SEConfig, slots: list[Slot], inputs: tuple[int, ...] | None
) -> dict[str, int]:
    """Return the channels that SE would gate in every slot, from one forward pass without storage."""
    shadow = copy.deepcopy(model).to("meta").eval()
    found: dict[str, set[tuple[int, int]]] = {slot.name: set() for slot in slots}

    def note(slot: Slot, _: nn.Module, given: Any, output: Any) -> None:
        seen = given[0] if config.placement == "pre" else output
        if not isinstance(seen, Tensor):
            raise UserError(
                f"{slot.path} has no map to gate but a {type(seen).__name__}: name another module"
            )
        found[slot.name].add((seen.shape[-1 if slot.channels_last else 1], seen.ndim))

    for slot in slots:
        shadow.get_submodule(slot.gated).register_forward_hook(partial(note, slot))
    try:
        with torch.no_grad():
            shadow(torch.empty(inputs or _images(model), device="meta"))
    except UserError:
        raise
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        given = f"inputs={inputs}" if inputs else "images of 224 pixels"
        raise UserError(
            f"{type(model).__name__} does not take {given} ({str(error).splitlines()[0]}): give the shape of a "
            "batch that it takes as inputs="
        ) from error
    dimensions = {4} if config.block != "se" else {2, 3, 4, 5}
    for slot in slots:
        if len(found[slot.name]) != 1:
            seen = "sees maps of several kinds" if found[slot.name] else "is not called"
            raise UserError(f"{slot.path} {seen} in a forward pass: name another module")
        if {ndim for _, ndim in found[slot.name]} - dimensions:
            raise UserError(
                f"se.block={config.block} does not take the maps of {slot.path}: name another module"
            )
    return {name: channels for name, seen in found.items() for channels, _ in seen}


def _images(model: nn.Module) -> tuple[int, ...]:
    """Return the shape of one image for the first convolution."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    if not isinstance(first, nn.Conv2d):
        raise UserError(
            f"{type(model).__name__} does not begin with a 2-D convolution: give the shape of a batch that it takes as "
            "inputs=, for example inputs=(1, 1, 16000)"
        )
    return (1, first.in_channels, 224, 224)


def _attach(model: nn.Module, slot: Slot, channels: int, config: SEConfig) -> AttentionBlock:
    """Add SE to one slot as ``attached_se``."""
    holder, gated = model.get_submodule(slot.path), model.get_submodule(slot.gated)
    like = next(holder.parameters(), next(model.parameters()))
    se = build_block(channels, config).to(device=like.device, dtype=like.dtype)
    if config.placement == "pre":
        gated.register_forward_pre_hook(partial(_gate_input, se))
    else:
        gated.register_forward_hook(partial(_gate_channels_last if slot.channels_last else _gate_output, se))
    holder.add_module("attached_se", se)
    return se
