"""How the fused tail reads memory: dense maps in one of two layouts, parameters and their gradients in any."""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether C is the fastest axis of ``x``; where both layouts are the same (H W = 1), yes."""
    return x.is_contiguous(memory_format=torch.channels_last)


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the layout the tail uses for ``x``: channels_last where C is the fastest axis, else contiguous."""
    # The second case is a slice of a channels_last map: not dense, but of its layout.
    channels_last = is_channels_last(x) or (x.stride(1) == 1 and not x.is_contiguous())
    return torch.channels_last if channels_last else torch.contiguous_format


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Return the type of statistics, descriptors and gates for maps like ``x``."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def as_gradient_of(parameter: Tensor, values: Tensor) -> Tensor:
    """Return the contiguous ``values`` in shape, type and strides of ``parameter``.

    A weight (C, C', 1, 1) may be channels_last, with other strides in its last two axes than those of a reshaped
    matrix: the data-parallel wrapper would copy every gradient whose strides are not its parameter's.
    """
    values = values.to(parameter.dtype).view(parameter.shape)
    wanted = torch.empty_like(parameter, device="meta").stride()
    axes = zip(parameter.shape, values.stride(), wanted, strict=True)
    if all(ours == theirs for size, ours, theirs in axes if size > 1):
        return values.as_strided(values.shape, wanted)
    return torch.empty_like(parameter).copy_(values)
