"""What every network of the zoo has in common: stem, numbered stages, head, and its SE blocks by name."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from senet.errors import UserError
from senet.nn import AttentionBlock, SEConfig
from senet.nn.config import Placement


class Head(nn.Module):
    """Global average pool, dropout, linear classifier: (B, C, H, W) -> (B, num_classes)."""

    def __init__(self, channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def descriptor(self, x: Tensor) -> Tensor:
        """Return what the classifier sees (B, its inputs) of the last map."""
        return self.dropout(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.fc(self.descriptor(x))


class Network(nn.Module):
    """A convolutional classifier: stem -> stages -> final -> head.

    Args:
        stem: everything before the first stage.
        stages: stage number, as the paper counts (conv2_x is 2), to the stage, whose children are its blocks.
        head: from the last map to the logits; has an ``fc``.
        final: what follows the last stage before pooling (BN and ReLU in pre-activation networks).
        input_size: side in pixels of the images this network is meant for.
        min_size: side in pixels of the smallest image that leaves a map of one pixel or more.

    Attributes:
        record: the arguments that rebuild this network, set by ``create_model`` and stored in checkpoints.
        frozen: parts that stay in evaluation mode, whatever ``train`` is told (``senet.weights.freeze``).
    """

    record: dict[str, Any]
    frozen: tuple[nn.Module, ...]

    def __init__(
        self,
        stem: nn.Module,
        stages: Mapping[int, nn.Module],
        head: Head,
        final: nn.Module | None = None,
        *,
        input_size: int = 224,
        min_size: int = 1,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleDict({str(number): stage for number, stage in stages.items()})
        self.final = final if final is not None else nn.Identity()
        self.head = head
        self.input_size = input_size
        self.min_size = min_size
        self.record = {}
        self.frozen = ()

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for frozen parts: their BN keeps and uses its running statistics."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def stage_numbers(self) -> tuple[int, ...]:
        """Return the numbers of the stages, in order."""
        return tuple(int(number) for number in self.stages)

    def classifier(self) -> nn.Module:
        """Return the layer whose outputs are the classes."""
        return self.head.fc

    def parts(self) -> dict[str, nn.Module]:
        """Return the network's parts in order: "stem", the stages by number, "final", "head"."""
        return {"stem": self.stem, **dict(self.stages.items()), "final": self.final, "head": self.head}

    def parts_up_to(self, stage: int) -> tuple[nn.Module, ...]:
        """Return the stem and the stages up to number ``stage``."""
        return (self.stem, *(part for number, part in self.stages.items() if int(number) <= stage))

    def check_input(self, size: int) -> None:
        """Refuse images whose shorter side has ``size`` pixels if the trunk cannot reduce them.

        Raises:
            UserError: if ``size`` is below ``min_size``.
        """
        if size < self.min_size:
            raise UserError(
                f"{self.record.get('name', 'this network')} needs images of {self.min_size} pixels or more a "
                f"side, not {size}: use a larger image size (it is meant for {self.input_size})"
            )

    def _enter(self, x: Tensor) -> Tensor:
        # Export, compile and FX see a symbolic size; a comparison would bind their graph to one size.
        if isinstance(x, Tensor) and not torch.compiler.is_compiling():
            self.check_input(min(x.shape[-2:]))
        return self.stem(x)

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the map after the stem and after every stage, by name ("stem", "2", "3", ...)."""
        maps = {"stem": self._enter(x)}
        x = maps["stem"]
        for number, stage in self.stages.items():
            x = maps[number] = stage(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map (B, C, h, w), before pooling."""
        x = self._enter(x)
        for stage in self.stages.values():
            x = stage(x)
        return self.final(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, in_channels, H, W)."""
        return self.head(self.forward_features(x))

    def se_blocks(self) -> dict[str, AttentionBlock]:
        """Return the SE blocks, or their rivals, under the paper's names ``SE_{stage}_{block}``, from block 1 on."""
        return {
            f"SE_{number}_{index}": module
            for number, stage in self.stages.items()
            for index, block in enumerate(stage.children(), start=1)
            for module in block.modules()
            if isinstance(module, AttentionBlock)
        }

    def se_widths(self) -> dict[str, tuple[int, int | None]]:
        """Return (channels, hidden channels or None) of every SE block or rival by its name."""
        return {name: (se.channels, se.hidden_channels) for name, se in self.se_blocks().items()}

    def initialise(self) -> None:
        """Initialise the trunk after He et al. 2015 (paper section 5); SE blocks initialise themselves."""
        excitations = {id(m) for se in self.se_blocks().values() for m in se.modules()}
        for module in self.modules():
            if id(module) in excitations:
                continue
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)


def build_stages(
    depths: Sequence[int],
    in_channels: int,
    make: Callable[[int, int, int], tuple[nn.Module, int]],
    first: int = 2,
) -> dict[int, nn.Module]:
    """Build stages ``first``, ... of ``depths`` blocks, all but the first with stride 2 in their first block.

    ``make(stage, in_channels, stride)`` returns a block and its output channels.
    """
    stages: dict[int, nn.Module] = {}
    for stage, depth in enumerate(depths, start=first):
        stages[stage] = blocks = nn.Sequential()
        for index in range(depth):
            block, in_channels = make(stage, in_channels, 2 if stage > first and index == 0 else 1)
            blocks.append(block)
    return stages


def check_se(
    se: SEConfig,
    name: str,
    *,
    stages: Collection[int],
    channels: Collection[int],
    placements: Sequence[Placement],
    why: str,
) -> None:
    """Refuse SE axes that mean nothing in the network ``name``.

    Args:
        se: the configuration.
        name: for messages.
        stages: that the network has.
        channels: of the maps that SE gates.
        placements: that mean something in it.
        why: what it lacks for the others.

    Raises:
        UserError: for a stage or a placement that the network lacks, or a reduction so large that every
            excitation has one hidden channel.
    """
    if not set(se.stages or ()) <= set(stages):
        raise UserError(f"se.stages={list(se.stages or ())}: {name} has stages {sorted(stages)}")
    if se.placement not in placements:
        valid = " or ".join(placements)
        raise UserError(f"se.placement={se.placement} has no place in {name}, {why}: use {valid}")
    widest = max(channels)
    if se.block == "highway" and "identity" not in placements:
        raise UserError(
            f"se.block=highway gates a shortcut and has no place in {name}, {why}: use another block"
        )
    if se.reads("reduction") and se.reduction > widest:
        raise UserError(
            f"se.reduction={se.reduction} exceeds the widest SE stage of {name} ({widest} channels): every "
            f"excitation would have width 1, the same network as reduction={widest}"
        )
