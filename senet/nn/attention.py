"""What may fill the places of a trunk: the SE block and its rivals have this in common."""

from torch import nn

from senet.nn.config import SEConfig


class AttentionBlock(nn.Module):
    """A block that scales a map, or adds to it, by what it sees in it: (B, C, H, W) -> (B, C, H, W).

    Attributes:
        channels: C.
        config: what it was built from.
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__()
        self.channels = channels
        self.config = config

    @property
    def hidden_channels(self) -> int | None:
        """Width of the bottleneck between C and C; None without one."""
        return self.config.hidden_channels(self.channels) if self.config.reads("reduction") else None

    @property
    def gating(self) -> nn.Module | None:
        """The submodule whose output is the gate, C values per image or position, for hooks; None without a gate."""
        return None
