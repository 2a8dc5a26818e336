"""The Squeeze-and-Excitation block: squeeze -> excitation -> scale (paper section 3), and what takes its place."""

from collections.abc import Callable
from dataclasses import fields
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from senet.errors import UserError
from senet.kernels.gate import GateParameters, excite
from senet.kernels.tail import is_as_written
from senet.nn.attention import AttentionBlock, HighwayGate, SoftMask
from senet.nn.config import CHOICES, Placement, SEConfig
from senet.plugins import integration

Function = Callable[[Tensor], Tensor]
GATES: dict[str, Function] = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": F.relu}


def _generalised_mean(x: Tensor) -> Tensor:
    """Return ``mean(max(x, 1e-6) ** 3) ** (1 / 3)`` (Radenovic et al. 2018, arXiv 1711.02512, Eq. 3, with p = 3)."""
    powers = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(min=1e-6) ** 3
    return powers.mean((2, 3), keepdim=True).pow(1 / 3).to(x.dtype)


SQUEEZES: dict[str, Function] = {
    "avg": lambda x: x.mean((2, 3), keepdim=True),
    "max": lambda x: x.amax((2, 3), keepdim=True),
    "std": lambda x: x.std(
        (2, 3), correction=0, keepdim=True
    ),  # of the population; its gradient at a constant is 0
    "gem": _generalised_mean,
    "none": lambda x: x,
}


def register_squeeze(name: str, function: Function) -> None:
    """Make ``function`` the squeeze ``se.squeeze=NAME``: (B, C, H, W) -> (B, C, 1, 1).

    Checkpoints hold the name alone: whoever loads one registers the same function first.

    Raises:
        UserError: for a name that is taken.
    """
    _register("squeeze", SQUEEZES, name, function)


def register_gate(name: str, function: Function) -> None:
    """Make ``function``, element by element, the last non-linearity ``se.gate=NAME``; see ``register_squeeze``."""
    _register("gate", GATES, name, function)


def _register(axis: str, known: dict[str, Function], name: str, function: Function) -> None:
    if known.get(name, function) is not function:
        raise UserError(f'se.{axis} has a "{name}" already: register another name')
    known[name] = function
    if name not in CHOICES[axis]:
        CHOICES[axis].append(name)


class Excitation(nn.Module):
    """The gate ``s = f(W2 relu(W1 z + b1) + b2)`` (Eq. 3), f the sigmoid unless ablated.

    The FC layers are 1x1 convolutions, so the same module serves NoSqueeze.
    Shapes: z (B, C, 1, 1) -> gate (B, C, 1, 1); for NoSqueeze (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__()
        hidden = config.hidden_channels(channels)
        self.fc1 = nn.Conv2d(channels, hidden, kernel_size=1, bias=config.bias)
        self.fc2 = nn.Conv2d(hidden, channels, kernel_size=1, bias=config.bias)
        self.gate = config.gate
        # Fan-in: with fan-out, fc1 (C -> C/r) would start with sqrt(r) times the right scale and saturate s.
        for fc in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(fc.weight, mode="fan_in", nonlinearity="relu")
            if fc.bias is not None:
                nn.init.zeros_(fc.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Return the gate for the squeezed descriptor ``z``."""
        return GATES[self.gate](self.fc2(F.relu(self.fc1(z), inplace=True)))

    def extra_repr(self) -> str:
        """Name the gate function in ``repr``."""
        return f"gate={self.gate}"


class SqueezeExcitation(AttentionBlock):
    """``x * excitation(squeeze(x))``: (B, C, ...) -> the same, with none to three dimensions behind the channels.

    (B, C) are descriptors, (B, C, L) series, (B, C, H, W) maps, (B, C, D, H, W) volumes. ``excitation`` is a submodule
    whose output is the gate, (B, C, 1, 1), so a forward hook on it sees every gate.
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__(channels, config)
        self.excitation = Excitation(channels, config)

    @property
    def gating(self) -> nn.Module:
        """The excitation."""
        return self.excitation

    def gate(self, x: Tensor) -> Tensor:
        """Return the gate of ``x``, (B, C, 1, ...) or for NoSqueeze as large as x, without applying it.

        Raises:
            UserError: if ``x`` has another number of channels or of dimensions.
        """
        squeeze = SQUEEZES[self.config.squeeze]
        if isinstance(cast(object, x), fx.Proxy):  # which has no shape
            return self.excitation(squeeze(x))
        if not 2 <= x.ndim <= 5 or x.shape[1] != self.channels:
            raise UserError(
                f"this SE block takes (B, {self.channels}), (B, {self.channels}, L), (B, {self.channels}, H, W) or "
                f"(B, {self.channels}, D, H, W), not {tuple(x.shape)}"
            )
        # Whatever lies behind the channels is one plane to squeeze.
        plane = x if x.ndim == 4 else x.reshape(*x.shape[:2], -1, 1)
        gate: Tensor = self.excitation(squeeze(plane))
        if x.ndim == 4:
            return gate
        return gate.reshape(x.shape if gate.shape == plane.shape else x.shape[:2] + (1,) * (x.ndim - 2))

    def standard_gate(self) -> GateParameters | str:
        """Return the parameters of ``sigmoid(W2 relu(W1 mean_hw(x) + b1) + b2)``, or why that is not the gate.

        A module that somebody derived, replaced or gave another forward is not known to compute that.
        """
        for axis in fields(self.config):
            value = getattr(self.config, axis.name)
            if axis.name not in _SHAPES_AND_PLACES and value != axis.default:
                return f"se.{axis.name} is {value}"
        excitation = self.excitation
        if not (
            _GATE_IS_STANDARD
            and is_as_written(self, SqueezeExcitation, _GATE, "gate")
            and is_as_written(excitation, Excitation, _EXCITE)
            and _is_fully_connected(excitation.fc1)
            and _is_fully_connected(excitation.fc2)
        ):
            return "the excitation is not as senet wrote it"
        fc1, fc2 = excitation.fc1, excitation.fc2
        return GateParameters(fc1.weight, fc1.bias, fc2.weight, fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel of ``x`` by its gate."""
        return x * self.gate(x)

    def extra_repr(self) -> str:
        """Name the squeeze in ``repr``."""
        return f"channels={self.channels}, squeeze={self.config.squeeze}"


def build_block(channels: int, config: SEConfig) -> AttentionBlock:
    """Return the block ``config.block`` for a map of ``channels``.

    The global generator ends where SE would leave it: of one seed, the trunk around any block is the same.

    Raises:
        UserError: if its library is not installed.
    """
    se = SqueezeExcitation(channels, config)
    if config.block == "se":
        return se
    ours = {"highway": HighwayGate, "mask": SoftMask}.get(config.block)
    with torch.random.fork_rng(devices=[]):
        if ours is not None:
            return ours(channels, config)
        blocks = integration("timm_blocks", package="timm", asked=f"se.block={config.block}")
        return blocks.TimmBlock(channels, config)


def place(se: SEConfig | None, placement: Placement, channels: int) -> nn.Module:
    """Return the block of ``se`` if it belongs at ``placement``, else ``nn.Identity()``."""
    if se is not None and se.placement == placement:
        return build_block(channels, se)
    return nn.Identity()


_SHAPES_AND_PLACES = ("reduction", "round_to", "placement", "stages", "bias")
"""The axes of ``SEConfig`` that leave the formula of the gate as it is. Any other may change it."""


_GATE, _EXCITE, _CONVOLVE = SqueezeExcitation.gate, Excitation.forward, nn.Conv2d.forward


def _is_fully_connected(layer: nn.Module) -> bool:
    return bool(
        is_as_written(layer, nn.Conv2d, _CONVOLVE) and layer.kernel_size == (1, 1) and layer.groups == 1
    )


def _computes_the_standard_gate() -> bool:
    """Whether the modules above, as they stand in this file, compute what ``senet.kernels`` takes their gate for.

    Tried on one example: who edits a forward need not remember that a kernel knows the old one.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        block = SqueezeExcitation(4, SEConfig(reduction=1)).double()
        for parameter in block.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        x = torch.linspace(-2, 3, 16, dtype=torch.float64).view(1, 4, 2, 2)
        fc1, fc2 = block.excitation.fc1, block.excitation.fc2
        _, logits = excite(x.mean((2, 3)), GateParameters(fc1.weight, fc1.bias, fc2.weight, fc2.bias))
        return bool(torch.allclose(block.gate(x).flatten(1), logits.sigmoid()))


_GATE_IS_STANDARD = _computes_the_standard_gate()
