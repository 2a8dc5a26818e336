"""SE in a network of one dimension: which of four tones a second of noisy sound holds.

python docs/examples/keyword_spotter.py
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet import SEConfig
from senet.integrations.attach import attach_se

RATE = 4000  # samples a second
PITCHES = torch.tensor([220.0, 330.0, 440.0, 660.0])  # Hz


def sounds(count: int) -> tuple[Tensor, Tensor]:
    """Return sounds (B, 1, 4000), a tone of any phase in noise, and which tone it is (B,)."""
    words = torch.randint(len(PITCHES), (count,))
    phase = 2 * math.pi * (PITCHES[words, None] * torch.arange(RATE) / RATE + torch.rand(count, 1))
    return (phase.sin() + torch.randn(count, RATE))[:, None], words


def unit(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution that quarters the length, BN and ReLU."""
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, 9, stride=4, padding=4), nn.BatchNorm1d(outputs), nn.ReLU()
    )


def main() -> float:
    """Train the spotter and return its accuracy on sounds it has not heard."""
    torch.manual_seed(0)
    network = nn.Sequential(
        unit(1, 16), unit(16, 32), unit(32, 64), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 4)
    )
    print(attach_se(network, SEConfig(reduction=8), ["0", "1", "2"], inputs=(1, 1, RATE)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        inputs, words = sounds(32)
        F.cross_entropy(network(inputs), words).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        inputs, words = sounds(200)
        accuracy = (network(inputs).argmax(1) == words).float().mean().item()
    print(f"{accuracy:.1%} of 200 new sounds")
    return accuracy


if __name__ == "__main__":
    main()
