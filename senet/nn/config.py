"""Every axis of the SE block that the paper ablates, as one frozen value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from senet.errors import UserError, did_you_mean
from senet.plugins import import_users_own
from senet.ranges import Count

Block = Literal["se", "eca", "cbam", "ge", "gc", "gca", "highway", "mask"]
Placement = Literal["standard", "pre", "post", "identity", "conv3x3"]

CHOICES: dict[str, list[str]] = {
    "block": list(get_args(Block)),
    "squeeze": ["avg", "max", "std", "gem", "none"],
    "gate": ["sigmoid", "tanh", "relu"],
    "placement": list(get_args(Placement)),
}
"""What the axes in words may be; ``senet.nn.se.register_squeeze`` and ``register_gate`` add to it."""

_READS: dict[str, tuple[str, ...]] = {
    "cbam": ("reduction", "round_to", "bias"),
    "gc": ("reduction", "round_to"),
    "gca": ("reduction", "round_to"),
    "mask": ("reduction", "round_to", "bias"),
}
"""The axes that a rival of SE reads besides ``placement`` and ``stages``."""


@dataclass(frozen=True)
class SEConfig:
    """How the SE blocks of a network, or the rivals in their places, are built.

    Attributes:
        block: what fills the places: ``se``, or of timm, under its names, ``eca`` (arXiv 1910.03151), ``cbam``
            (1807.06521), ``ge`` (GE-theta-minus of 1810.12348, the mean as the gate, without parameters),
            ``gc`` (1904.11492, scaling) and ``gca`` (the same adding, as in its paper); ``highway``
            and ``mask`` (``senet.nn.attention``). A rival refuses the axes it does not read.
        reduction: the reduction ratio r (Table 10). The excitation has ``max(1, C // r)`` hidden channels.
        round_to: round the hidden channels to a multiple of this; 1 keeps them exact, 8 gives timm's widths.
        squeeze: global ``avg`` or ``max`` pooling (Table 11), the standard deviation ``std``, the generalised
            mean ``gem``; ``none`` is NoSqueeze, whose excitation runs as 1x1 convolutions at full resolution
            (Table 16); or a registered name.
        gate: the last non-linearity of the excitation, ``sigmoid``, ``tanh`` or ``relu`` (Table 12), or a
            registered name.
        placement: where the block stands in a residual unit (Table 14, Figure 5): ``standard`` before the
            addition, ``pre`` on the input of the residual branch, ``post`` after the addition and ReLU,
            ``identity`` on the shortcut (after its projection), ``conv3x3`` after the 3x3 convolution of a
            bottleneck with its BN and ReLU (Table 15). The paper leaves open where SE stands relative to a
            projection and to that BN and ReLU; these are our choices.
        stages: the residual stages that carry SE, numbered as in the paper (conv2_x is stage 2; Table 13);
            ``None`` means all of them.
        bias: biases in both FC layers, as in the authors' released networks; the paper's ablations (v4,
            section 6) are said to have none.

    Raises:
        UserError: for a value outside the ranges above.
    """

    block: Block = "se"
    reduction: Count = 16
    round_to: Count = 1
    squeeze: str = "avg"
    gate: str = "sigmoid"
    placement: Placement = "standard"
    stages: tuple[Count, ...] | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("reduction", "round_to"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"se.{name} is {value!r}; it must be an integer of 1 or more")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                import_users_own()  # which may add it
            if value not in choices:
                raise UserError(f'se.{name} is "{value}"{did_you_mean(str(value), choices)}')
        if self.block != "se":
            self._check_rival()
        if not isinstance(self.bias, bool):
            raise UserError(f"se.bias is {self.bias!r}; it must be true or false")
        if self.stages is not None:
            if not isinstance(self.stages, Sequence) or not all(type(stage) is int for stage in self.stages):
                raise UserError(f"se.stages is {self.stages!r}; it must be a list of stages, such as [2,3]")
            object.__setattr__(self, "stages", tuple(self.stages))
            if not self.stages or len(set(self.stages)) != len(self.stages):
                raise UserError(
                    f"se.stages is {list(self.stages)}; name each stage once, or use a network without "
                    "se_ in its name for none"
                )

    def _check_rival(self) -> None:
        """Refuse what the rival cannot be."""
        self.check_set(axis.name for axis in fields(self) if getattr(self, axis.name) != axis.default)
        if self.block == "highway" and self.placement != "standard":
            raise UserError(
                f"se.placement={self.placement} means nothing to se.block=highway, which gates the addition "
                "itself: use standard"
            )

    def check_set(self, axes: Iterable[str]) -> None:
        """Refuse axes that somebody set and the block does not read.

        Raises:
            UserError: for the first, saying what to drop.
        """
        for axis in axes:
            if not self.reads(axis):
                rest = ", ".join(_READS.get(self.block, ())) or "no axis but placement and stages"
                raise UserError(
                    f"se.{axis}={getattr(self, axis)} means nothing to se.block={self.block}, which reads {rest}: "
                    f"drop se.{axis}, or the se=NAME that sets it"
                )

    def reads(self, axis: str) -> bool:
        """Whether the block depends on the axis ``axis``."""
        return self.block == "se" or axis in ("block", "placement", "stages", *_READS.get(self.block, ()))

    def hidden_channels(self, channels: int) -> int:
        """Return the excitation's hidden width for ``channels`` inputs: ``max(1, C // r)``, then rounded.

        Raises:
            UserError: if rounding makes the hidden layer wider than the map it gates.
        """
        if self.round_to == 1:
            return max(1, channels // self.reduction)
        # timm rounds the exact quotient half up to a multiple, and never below one multiple.
        rounded = int(channels / self.reduction + self.round_to / 2) // self.round_to * self.round_to
        hidden = max(self.round_to, rounded)
        if hidden > channels:
            raise UserError(
                f"se.round_to={self.round_to} makes an excitation of width {hidden} for {channels} channels; "
                "a bottleneck cannot be wider than its input: use round_to=1"
            )
        return hidden

    def in_stage(self, stage: int) -> "SEConfig | None":
        """Return this configuration if ``stage`` carries SE, else ``None``."""
        return self if self.stages is None or stage in self.stages else None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SEConfig":
        """Return the configuration of ``to_dict``, e.g. of a checkpoint; axes that it lacks have their defaults.

        Raises:
            UserError: for an axis that is not known here.
        """
        if unknown := sorted(values.keys() - {axis.name for axis in fields(cls)}):
            raise UserError(f"se.{unknown[0]} is not known here: a newer senet wrote it, which can read it")
        return cls(**values)

    def to_dict(self) -> dict[str, object]:
        """Return plain containers only, as stored in checkpoints."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"stages": None if self.stages is None else list(self.stages)}
