"""What the passes of the fused tail work on: maps, BN, and moments.

Maps are (N, C, H, W), dense, in one of two layouts and of one dtype; parameters and their gradients have any strides.
Everything else is of ``accumulation_dtype``, (N, C) or (C,) if nothing else is said. Notation as in
``senet.kernels.operator``. ``aten_passes`` says what every pass does; ``triton_passes`` has the same functions.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Norm(NamedTuple):
    """BN as it acts, ``weight * (x - mean) * inv + bias``, all four (C,)."""

    mean: Tensor
    inv: Tensor
    weight: Tensor
    bias: Tensor


class Moments(NamedTuple):
    """Moments of the pixels of every (n, c), cut into S slices of at most ``pixels_per_slice`` pixels.

    Deviations are from each slice's own mean, so a mean that is large against the spread costs no digits.

    Attributes:
        mean: (N, S, C), float32 (float64 for float64 maps).
        squares: sum of squared deviations from ``mean``, same shape.
        pixels: H * W.
        pixels_per_slice: every slice has this many pixels but the last, which has the rest.
    """

    mean: Tensor
    squares: Tensor
    pixels: int
    pixels_per_slice: int


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
