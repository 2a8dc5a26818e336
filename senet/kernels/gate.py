"""The two-layer gate on squeezed descriptors, forwards and backwards, by hand: everything here is (N, C).

The fused tail needs the gate between two passes over the map and its gradient between two others, so autograd
cannot run it. Statistics, descriptors and parameters are float32 (float64 for float64 maps), autocast or not.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class GateParameters(NamedTuple):
    """W1 (C/r, C), b1, W2 (C, C/r), b2 as 1x1 convolution weights or matrices; biases may be None."""

    weight1: Tensor
    bias1: Tensor | None
    weight2: Tensor
    bias2: Tensor | None

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return W1 and W2 as matrices of ``dtype``."""
        return self.weight1.flatten(1).to(dtype), self.weight2.flatten(1).to(dtype)


class GateGradients(NamedTuple):
    """Gradients of what lies between z and the logits: (N, C) logits, (N, C/r) ``W1 z + b1``, (N, C) z, W1, W2."""

    logits: Tensor
    hidden: Tensor
    z: Tensor
    weight1: Tensor
    weight2: Tensor


def excite(z: Tensor, parameters: GateParameters) -> tuple[Tensor, Tensor]:
    """Return ``hidden = relu(W1 z + b1)``, (N, C/r), and the gate's logits ``W2 hidden + b2``, (N, C)."""
    bias1, bias2 = (None if b is None else b.to(z.dtype) for b in (parameters.bias1, parameters.bias2))
    with torch.autocast(z.device.type, enabled=False):
        weight1, weight2 = parameters.matrices(z.dtype)
        # Product, bias and ReLU in one launch on a GPU; inductor writes the same.
        hidden = (
            (z @ weight1.t()).relu_() if bias1 is None else torch._addmm_activation(bias1, z, weight1.t())
        )
        return hidden, hidden @ weight2.t() if bias2 is None else torch.addmm(bias2, hidden, weight2.t())


def excite_backward(dlogits: Tensor, z: Tensor, hidden: Tensor, parameters: GateParameters) -> GateGradients:
    """Return all gradients from those of the logits, but for the biases': sums over the rows of two of these."""
    with torch.autocast(z.device.type, enabled=False):
        weight1, weight2 = parameters.matrices(z.dtype)
        dhidden: Tensor = torch.ops.aten.threshold_backward(dlogits @ weight2, hidden, 0)
        return GateGradients(dlogits, dhidden, dhidden @ weight1, dhidden.t() @ z, dlogits.t() @ hidden)
