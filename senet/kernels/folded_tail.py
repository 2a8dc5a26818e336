"""The end of a residual unit in inference: convolution, then gate, shortcut and ReLU in one pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.kernels.passes import Norm, accumulation_dtype, memory_format
from senet.kernels.tail import is_exporting, unsupported_by_triton


def folded_tail(h: Tensor, conv: nn.Conv2d, shortcut: Tensor, gate: Tensor | None) -> Tensor:
    """Return ``relu(gate * conv(h) + shortcut)``.

    Args:
        h: (B, C', H', W').
        conv: C' -> C, with bias.
        shortcut: (B, C, H, W).
        gate: (B, C, 1, 1), or None for 1.
    """
    standard = torch.compiler.is_compiling() or is_exporting() or torch.is_grad_enabled()
    if h.is_cuda and not standard and unsupported_by_triton("cuda", shortcut.dtype) is None:
        # cuDNN would add the bias in a pass of its own.
        unbiased = F.conv2d(h, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        return merge(unbiased, shortcut, conv.bias, gate)
    x: Tensor = conv(h)
    if gate is None:
        return x.add_(shortcut).relu_()
    return torch.addcmul(shortcut, x, gate).relu_()


@torch.library.custom_op("senet::merge", mutates_args=())
def merge(x: Tensor, shortcut: Tensor, bias: Tensor | None, gate: Tensor | None) -> Tensor:
    """Return ``relu(gate * (x + bias) + shortcut)`` in one pass of Triton, x and shortcut of one dtype.

    Shapes: maps (N, C, H, W), bias (C,), gate (N, C, 1, 1). There is no backward.
    """
    from senet.kernels import triton_passes

    layout, dtype = memory_format(x), accumulation_dtype(x)
    x, shortcut = (m.contiguous(memory_format=layout) for m in (x, shortcut))
    one = torch.ones(x.shape[1], dtype=dtype, device=x.device)
    nothing = torch.zeros_like(one)
    norm = Norm(nothing if bias is None else -bias.to(dtype), one, one, nothing)
    return triton_passes.merge_folded(x, shortcut, norm, None if gate is None else gate.flatten(1).to(dtype))


@merge.register_fake
def _(x: Tensor, shortcut: Tensor, bias: Tensor | None, gate: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))
