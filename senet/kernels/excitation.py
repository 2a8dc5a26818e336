"""The two-layer gate on squeezed descriptors, forwards and backwards, by hand: everything here is (N, C).

The fused tail needs the gate between two passes over the map and its gradient between two others, so autograd
cannot run it. Statistics, descriptors and parameters are float32 (float64 for float64 maps), autocast or not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GateParameters:
    """W1 (C/r, C), b1, W2 (C, C/r), b2 as 1x1 convolution weights or matrices; biases may be None."""

    weight1: Tensor
    bias1: Tensor | None
    weight2: Tensor
    bias2: Tensor | None

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return W1 and W2 as matrices of ``dtype``."""
        return self.weight1.flatten(1).to(dtype), self.weight2.flatten(1).to(dtype)


def _affine(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return z @ weight.t() if bias is None else torch.addmm(bias.to(z.dtype), z, weight.t())


def excite(z: Tensor, parameters: GateParameters) -> tuple[Tensor, Tensor]:
    """Return ``hidden = relu(W1 z + b1)``, (N, C/r), and the gate ``sigmoid(W2 hidden + b2)``, (N, C)."""
    with torch.autocast(z.device.type, enabled=False):
        weight1, weight2 = parameters.matrices(z.dtype)
        hidden = _affine(z, weight1, parameters.bias1).relu_()
        return hidden, _affine(hidden, weight2, parameters.bias2).sigmoid_()


def excite_backward(
    dlogits: Tensor, z: Tensor, hidden: Tensor, parameters: GateParameters
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return dz (N, C) and the gradients of (W1, b1, W2, b2) from those of the logits ``W2 hidden + b2``."""
    with torch.autocast(z.device.type, enabled=False):
        weight1, weight2 = parameters.matrices(z.dtype)
        dhidden = (dlogits @ weight2) * (hidden > 0)
        gradients = (dhidden.t() @ z, dhidden.sum(0), dlogits.t() @ hidden, dlogits.sum(0))
        return dhidden @ weight1, gradients
