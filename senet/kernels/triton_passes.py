"""The passes of the fused tail in Triton, one launch each; what each is, ``aten_passes`` says.

Forwards the map is read twice and the shortcut once, and y is written; backwards dy, y and x are read and g
written, then g and x read and dx written: 11 transfers of a map, where separate operations need about 30.
A second summand of dy is read too; adding it beforehand is three transfers.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from senet.kernels import triton_kernels as kernels
from senet.kernels.gate import GateGradients
from senet.kernels.passes import Moments, Norm, is_channels_last
from senet.kernels.tiling import Cut, Pass, ceil_div, cut, reduction

_VECTOR = 256  # channels of a program that owns one row of an (N, C) tensor


def _launch(kernel: Any, programs: tuple[int, ...], *tensors: Tensor | None, **keywords: object) -> None:
    """Start ``programs`` of ``kernel`` on the device of the first tensor, which need not be the current one."""
    on = tensors[0]
    assert on is not None
    device: AbstractContextManager[object] = torch.cuda.device(on.device) if on.is_cuda else nullcontext()
    with device:
        kernel[programs](*tensors, enable_fp_fusion=True, **keywords)


def _launch_on_map(name: Pass, kernel: Any, x: Tensor, *tensors: Tensor | None, **keywords: object) -> None:
    """Start a map kernel, whose first map is ``x``, with the programs that ``cut`` says."""
    n, c, h, w = x.shape
    at = _cut(name, x)
    _launch(
        kernel, (n * at.slices, at.channel_blocks), x, *tensors, **keywords,
        channels=c, pixels=h * w, slices=at.slices, pixels_per_slice=at.pixels_per_slice,
        CHANNELS_LAST=is_channels_last(x), PIXELS=at.pixels, CHANNELS=at.channels, num_warps=at.warps,
    )  # fmt: skip


def _cut(name: Pass, x: Tensor) -> Cut:
    _, c, h, w = x.shape
    return cut(name, c, h * w, is_channels_last(x))


def moments(x: Tensor) -> Moments:
    n, c, h, w = x.shape
    at = _cut("moments", x)
    mean = torch.empty(n, at.slices, c, device=x.device)
    squares = torch.empty_like(mean)
    _launch_on_map("moments", kernels.moments_kernel, x, mean, squares)
    return Moments(mean, squares, h * w, at.pixels_per_slice)


def combine(m: Moments, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, slices, c = m.mean.shape
    mean, var, inv, unbiased = (m.mean.new_empty(c) for _ in range(4))
    rows, columns = reduction(c)
    _launch(
        kernels.combine_kernel, (ceil_div(c, columns),), m.mean, m.squares, mean, var, inv, unbiased,
        rows=n * slices, channels=c, pixels=m.pixels, slices=slices, pixels_per_slice=m.pixels_per_slice,
        count=float(n * m.pixels), eps=eps, ROWS=rows, CHANNELS=columns,
    )  # fmt: skip
    return mean, var, inv, unbiased


def squeeze(m: Moments, norm: Norm) -> tuple[Tensor, Tensor]:
    n, slices, c = m.mean.shape
    normalised, z = m.mean.new_empty(n, c), m.mean.new_empty(n, c)
    _launch(
        kernels.squeeze_kernel, (n, ceil_div(c, _VECTOR)), m.mean, *norm, normalised, z,
        channels=c, pixels=m.pixels, slices=slices, pixels_per_slice=m.pixels_per_slice, CHANNELS=_VECTOR,
    )  # fmt: skip
    return normalised, z


def merge(
    x: Tensor, shortcut: Tensor | None, norm: Norm, logits: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    y, gate = torch.empty_like(x), None if logits is None else torch.empty_like(logits)
    _launch_on_map("merge", kernels.merge_kernel, x, shortcut, *norm, logits, y, gate, SIGMOID=True)
    return y, gate


def merge_folded(x: Tensor, shortcut: Tensor, norm: Norm, gate: Tensor | None) -> Tensor:
    """Return ``relu(gate * norm(x) + shortcut)`` with a gate (N, C) that is known."""
    y = torch.empty_like(x)
    _launch_on_map("merge", kernels.merge_kernel, x, shortcut, *norm, gate, y, None, SIGMOID=False)
    return y


def gradient_sums(
    dy: Tensor, dy2: Tensor | None, y: Tensor, x: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.empty_like(x)
    plain = torch.empty(x.shape[0], _cut("gradient_sums", x).slices, x.shape[1], device=x.device)
    weighted = torch.empty_like(plain)
    _launch_on_map(
        "gradient_sums", kernels.gradient_sums_kernel, dy, dy2, y, x, norm.mean, norm.inv, g, plain, weighted
    )
    return g, plain, weighted


def gate_gradient(plain: Tensor, weighted: Tensor, gate: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    n, slices, c = plain.shape
    sums, weighted_sums, dlogits = (torch.empty_like(gate) for _ in range(3))
    _launch(
        kernels.gate_gradient_kernel, (n, ceil_div(c, _VECTOR)),
        plain, weighted, gate, norm.weight, norm.bias, sums, weighted_sums, dlogits,
        channels=c, slices=slices, CHANNELS=_VECTOR,
    )  # fmt: skip
    return sums, weighted_sums, dlogits


def parameter_gradients(
    plain: Tensor,
    weighted: Tensor,
    gate: Tensor | None,
    normalised: Tensor | None,
    gradients: GateGradients | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    c, hidden = plain.shape[-1], 0 if gradients is None else gradients.hidden.shape[1]
    dweight, dbias, dbias1, dbias2 = (plain.new_empty(size) for size in (c, c, hidden, c if hidden else 0))
    of_gate = (None,) * 3 if gradients is None else (gradients.z, gradients.logits, gradients.hidden)
    rows, columns = reduction(c)
    _launch(
        kernels.parameter_gradients_kernel, (ceil_div(c, columns) + ceil_div(hidden, columns),),
        plain, weighted, gate, normalised, *of_gate, dweight, dbias, dbias1, dbias2,
        rows=plain.numel() // c, channels=c, hidden_channels=hidden, ROWS=rows, CHANNELS=columns,
    )  # fmt: skip
    return dweight, dbias, dbias1, dbias2


def grad_input(
    g: Tensor,
    x: Tensor,
    norm: Norm,
    gate: Tensor | None,
    dz: Tensor | None,
    through: tuple[Tensor, Tensor],
    share: float,
) -> Tensor:
    dx = torch.empty_like(x)
    _launch_on_map(
        "grad_input", kernels.grad_input_kernel,
        g, x, norm.mean, norm.inv, norm.weight, gate, dz, *through, dx, share=share,
    )  # fmt: skip
    return dx
