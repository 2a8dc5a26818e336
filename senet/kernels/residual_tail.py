"""The map passes of the fused tail in Triton: what ``senet.kernels.cpu`` does, one launch per pass.

Forwards the map is read twice and the shortcut once, and y is written; backwards dy, y and x are read and g
written, then g and x read and dx written: 11 transfers of a map, where separate operations need about 30.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from senet.kernels import triton_kernels as kernels
from senet.kernels.blocks import Grid, Pass, grid
from senet.kernels.layout import Moments, is_channels_last

_VECTOR = 256  # channels of a program that owns one row of an (N, C) tensor
_ROWS, _COLUMNS = 128, 8  # tile of a program that reduces (rows, C) tensors: many programs, few steps


def _device(x: Tensor) -> AbstractContextManager[object]:
    """Launch on x's device, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _blocks(n: int, size: int) -> int:
    return -(-n // size)


def _grid(name: Pass, x: Tensor) -> tuple[Grid, tuple[int, int], dict[str, object]]:
    """Return the cut, the launch grid and the keyword arguments that all map kernels share."""
    n, c, h, w = x.shape
    channels_last = is_channels_last(x)
    cut = grid(name, c, h * w, channels_last)
    keywords: dict[str, object] = {
        "channels": c,
        "pixels": h * w,
        "slices": cut.slices,
        "pixels_per_slice": cut.pixels_per_slice,
        "CHANNELS_LAST": channels_last,
        "PIXELS": cut.pixels,
        "CHANNELS": cut.channels,
        "num_warps": cut.warps,
    }
    return cut, (n * cut.slices, cut.channel_blocks), keywords


def moments(x: Tensor) -> Moments:
    """Return mean and sum of squared deviations of every slice and channel."""
    n, c, h, w = x.shape
    cut, programs, keywords = _grid("moments", x)
    mean = torch.empty(n, cut.slices, c, device=x.device)
    squares = torch.empty_like(mean)
    with _device(x):
        kernels.moments_kernel[programs](x, mean, squares, **keywords)
    return Moments(mean, squares, h * w, cut.pixels_per_slice)


def combine(m: Moments, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, biased variance, rsqrt(variance + eps) and unbiased variance (C,) over all images."""
    n, slices, c = m.mean.shape
    mean, var, inv, unbiased = (m.mean.new_empty(c) for _ in range(4))
    with _device(mean):
        kernels.combine_kernel[(_blocks(c, _COLUMNS),)](
            m.mean, m.squares, mean, var, inv, unbiased,
            rows=n * slices, channels=c, pixels=m.pixels, slices=slices, pixels_per_slice=m.pixels_per_slice,
            count=float(n * m.pixels), eps=eps, ROWS=_ROWS, CHANNELS=_COLUMNS,
        )  # fmt: skip
    return mean, var, inv, unbiased


def squeeze(m: Moments, mean: Tensor, inv: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over (h, w) of the normalised map and of BN's output, both (N, C)."""
    n, slices, c = m.mean.shape
    normalised, z = m.mean.new_empty(n, c), m.mean.new_empty(n, c)
    with _device(mean):
        kernels.squeeze_kernel[(n, _blocks(c, _VECTOR))](
            m.mean, mean, inv, weight, bias, normalised, z,
            channels=c, pixels=m.pixels, slices=slices, pixels_per_slice=m.pixels_per_slice, CHANNELS=_VECTOR,
        )  # fmt: skip
    return normalised, z


def merge(
    x: Tensor,
    shortcut: Tensor | None,
    mean: Tensor,
    inv: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor | None,
) -> Tensor:
    """Return ``relu(gate * (weight * (x - mean) * inv + bias) + shortcut)``."""
    y = torch.empty_like(x)
    _, programs, keywords = _grid("merge", x)
    with _device(x):
        kernels.merge_kernel[programs](x, shortcut, mean, inv, weight, bias, gate, y, **keywords)
    return y


def gradient_sums(
    dy: Tensor, y: Tensor, x: Tensor, mean: Tensor, inv: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return g = dy * (y > 0) and its sums over a slice with 1 and with the normalised x, (N, S, C)."""
    g = torch.empty_like(x)
    cut, programs, keywords = _grid("gradient_sums", x)
    plain = torch.empty(x.shape[0], cut.slices, x.shape[1], device=x.device)
    weighted = torch.empty_like(plain)
    with _device(x):
        kernels.gradient_sums_kernel[programs](dy, y, x, mean, inv, g, plain, weighted, **keywords)
    return g, plain, weighted


def gate_gradient(
    plain: Tensor, weighted: Tensor, gate: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return both sums as (N, C), and the gradient of the gate's logits."""
    n, slices, c = plain.shape
    outputs = tuple(torch.empty_like(gate) for _ in range(3))
    with _device(gate):
        kernels.gate_gradient_kernel[(n, _blocks(c, _VECTOR))](
            plain, weighted, gate, weight, bias, *outputs, channels=c, slices=slices, CHANNELS=_VECTOR
        )
    return outputs[0], outputs[1], outputs[2]


def parameter_gradients(
    plain: Tensor, weighted: Tensor, gate: Tensor | None, dz: Tensor | None, normalised: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of BN's weight and bias (C,) from the sums, (N, C), or without SE (N, S, C)."""
    c = plain.shape[-1]
    dweight, dbias = plain.new_empty(c), plain.new_empty(c)
    with _device(plain):
        kernels.parameter_gradients_kernel[(_blocks(c, _COLUMNS),)](
            plain, weighted, gate, dz, normalised, dweight, dbias,
            rows=plain.numel() // c, channels=c, ROWS=_ROWS, CHANNELS=_COLUMNS,
        )  # fmt: skip
    return dweight, dbias


def grad_input(
    g: Tensor,
    x: Tensor,
    mean: Tensor,
    inv: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    dz: Tensor | None,
    dweight: Tensor,
    dbias: Tensor,
    share: float,
) -> Tensor:
    """Return weight * inv * (gate * g + dz / (H W) - share * (dbias + (x - mean) * inv * dweight)).

    ``share`` is 1 / M where the statistics depend on x, and 0 where they are constants.
    """
    dx = torch.empty_like(x)
    _, programs, keywords = _grid("grad_input", x)
    with _device(x):
        kernels.grad_input_kernel[programs](
            g, x, mean, inv, weight, gate, dz, dweight, dbias, dx, share, **keywords
        )
    return dx
