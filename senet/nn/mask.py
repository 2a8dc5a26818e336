"""The soft mask branch of trunk-and-mask attention (Wang et al. 2017, arXiv 1704.06904), named in section 2."""

import torch.nn.functional as F
from torch import Tensor, nn

from senet.nn.attention import AttentionBlock
from senet.nn.config import SEConfig


class SoftMask(AttentionBlock):
    """``(1 + m(x)) * x`` (their Eq. 3), m a sigmoid per channel and position: (B, C, H, W) -> the same.

    Their mask sees a unit's input, goes down and up by pooling and interpolation around residual units, and ends in
    1x1 convolutions. Here it sees the map that it masks, goes down once, and is as wide as SE's excitation:
    ``m = sigmoid(W3 up(relu(W2 down(relu(W1 x)))))``, W1 (C -> C/r) and W3 (C/r -> C) 1x1, W2 3x3, ``down`` a 3x3 max
    pool of stride 2, ``up`` bilinear.
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__(channels, config)
        hidden = config.hidden_channels(channels)
        self.down = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=config.bias),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=config.bias),
            nn.ReLU(inplace=True),
        )
        self.up = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=config.bias), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Mask ``x``."""
        low = F.interpolate(self.down(x), size=x.shape[-2:], mode="bilinear")
        return x + x * self.up(low)
