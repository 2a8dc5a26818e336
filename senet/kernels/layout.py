"""How the fused tail reads memory: dense maps in one of two layouts, and partial moments of their pixels."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
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
    """Return the layout the tail uses for ``x``: channels_last if it has it already, else contiguous."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Return the type of statistics, descriptors and gates for maps like ``x``."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
