"""The residual tail in eager operations: the definition that every fused path is held to."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def eager_tail(x: Tensor, shortcut: Tensor | None, normalise: Map, gate: Map | None = None) -> Tensor:
    """Return ``relu(gate(u) * u + shortcut)`` with ``u = normalise(x)``.

    Any dtype, device and gate; differentiable as often as its parts are.

    Args:
        x: the residual branch (B, C, H, W), as the last convolution left it.
        shortcut: (B, C, H, W), or None for nothing to add.
        normalise: BN, followed by anything else that stands before the gate.
        gate: maps u to what scales it, broadcastable to (B, C, H, W); None for no SE.
    """
    u = normalise(x)
    if gate is None:
        return F.relu(u if shortcut is None else u + shortcut, inplace=shortcut is not None)
    # One pass for scale and addition; the authors fused the same pair ("Axpy").
    scale = gate(u)
    return F.relu(u * scale if shortcut is None else torch.addcmul(shortcut, u, scale), inplace=True)
