"""SE in a network of three dimensions: torchvision's r3d_18 learns which way a square moves.

python docs/examples/video_resnet.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.video import r3d_18

from senet import SEConfig
from senet.integrations.attach import attach_se

FRAMES, SIZE = 8, 32


def clips(count: int) -> tuple[Tensor, Tensor]:
    """Return clips (B, 3, 8, 32, 32) of a bright square in noise, and whether it moves right (B,)."""
    videos, right = 0.1 * torch.randn(count, 3, FRAMES, SIZE, SIZE), torch.arange(count) % 2
    for video, way in zip(videos, right, strict=True):
        top = int(torch.randint(SIZE - 8, ()))
        for frame in range(FRAMES):
            left = 3 * (frame if way else FRAMES - 1 - frame)
            video[:, frame, top : top + 8, left : left + 8] += 1
    return videos, right


def main() -> list[float]:
    """Train for a few steps and return their losses."""
    torch.manual_seed(0)
    network = r3d_18(num_classes=2)
    # The residual branch of each block ends with the BN of its "conv2", before the addition.
    print(attach_se(network, SEConfig(), ["layer?.?.conv2"], inputs=(1, 3, FRAMES, SIZE, SIZE)))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for step in range(5):
        optimizer.zero_grad()
        videos, right = clips(4)
        loss = F.cross_entropy(network(videos), right)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        print(f"step {step}: loss {loss.item():.3f}")
    return losses


if __name__ == "__main__":
    main()
